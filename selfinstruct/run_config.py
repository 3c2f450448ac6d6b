"""The options of `selfinstruct generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from selfinstruct.command import Config
from selfinstruct.filters.union import AnyFilter
from selfinstruct.strategies.self_instruct import SelfInstruct
from selfinstruct.strategies.union import AnyStrategy


class GenerateConfig(Config):
    """Options of `selfinstruct generate`."""

    out: Path = Field(description="Run directory; the same one again resumes.", json_schema_extra={"metavar": "RUN"})
    seeds: Path | None = Field(None, description="Seed tasks (JSONL); the shipped 175 by default.")
    strategy: list[AnyStrategy] = Field(
        [SelfInstruct()],
        min_length=1,
        description="How tasks come to be: self-instruct, alpaca, evol-instruct, attributed; options as in"
        " alpaca:share=0.3. Of several, each has its share, or without shares the next one takes over when one yields"
        " nothing new.",
        json_schema_extra={"metavar": "NAME[:OPTION=VALUE,...]"},
    )
    faithful: bool = Field(
        False, description="Prompts, sampling, parsing and filters of the paper's own code, flaws included."
    )
    filter: list[AnyFilter] = Field(
        [],
        description="Further filters, or the usual ones with other options, as in contamination:tasks=FILE,"
        " judge:model=NAME, length:max_words=80. novelty:over=task and duplicate:over=task, both, let an instruction"
        " come again with another input.",
        json_schema_extra={"metavar": "NAME[:OPTION=VALUE,...]"},
    )
    without: list[str] = Field([], description="Usual filters to leave out.", json_schema_extra={"metavar": "NAME"})
    num_instructions: int = Field(100, gt=0, description="Accepted tasks wanted.")
    model: str = Field(
        "embedded", min_length=1, description="'embedded' runs the local model; else the endpoint's name of a model."
    )
    base_url: str | None = Field(None, description="OpenAI-compatible endpoint, up to /v1; OpenAI's own by default.")
    api_key_env: str = Field("OPENAI_API_KEY", description="Environment variable that holds the key; '' for none.")
    endpoint: Literal["chat", "completions"] | None = Field(
        None, description="Which API; chat, but completions for the embedded model."
    )
    concurrency: int | None = Field(
        None, gt=0, description="Most requests in flight; 32, but 8 for the embedded model."
    )
    window: int | None = Field(
        None, gt=0, description="Slots begun before the oldest is judged; set once, at a run's start."
    )
    seed: int = Field(42, description="Seed of every random choice.")
    novelty_threshold: float = Field(
        0.7, ge=0, le=1, description="Reject a task whose ROUGE-L F with any other is above this."
    )
    novelty_tokenizer: Literal["rouge", "unicode"] | None = Field(
        None, description="Tokens to compare; rouge for English, else unicode."
    )
    language: str = Field("en", min_length=2, description="Language of the data set.")
    tasks_per_request: int | None = Field(
        None, gt=0, le=50, description="Tasks asked for at once, whatever the strategy; 8, but 17 for alpaca."
    )
    replies_per_request: int | None = Field(
        None, gt=0, le=16, description="Lists asked for in one request (the API's n), whose prompt is paid for once."
    )
    max_output_tokens: int = Field(350, gt=0, description="Most tokens of one task's input and output (self-instruct).")
    thinking_tokens: int | None = Field(
        None,
        ge=0,
        description="Tokens for thinking on top, with reasoning models; 2048 when the endpoint proves to have one.",
    )
    max_cost_usd: float | None = Field(None, gt=0, description="Never spend more; the run is kept and can be resumed.")
    max_requests: int | None = Field(None, gt=0, description="Never send more; the run is kept and can be resumed.")
    requests_per_minute: int | None = Field(None, gt=0, description="Never send more; the endpoint's limit, say.")
    tokens_per_minute: int | None = Field(None, gt=0, description="Never take more, prompts and replies together.")
    input_usd_per_mtok: float | None = Field(
        None, ge=0, description="Price of a million prompt tokens, instead of the table's."
    )
    output_usd_per_mtok: float | None = Field(
        None, ge=0, description="Price of a million completion tokens, instead of the table's."
    )
    timeout_s: float = Field(180.0, gt=0, description="Longest wait for one reply.")
    outage_s: float = Field(600.0, gt=0, description="How long to ask again before the endpoint counts as lost.")
    saturation_window: int = Field(200, gt=0, description="Candidates over which the yield is watched.")
    min_yield: float = Field(0.02, ge=0, lt=1, description="Stop when a smaller share of those is accepted.")
    send_seed: bool = Field(False, description="Send --seed along with every request, for endpoints that sample by it.")
    batch: bool = Field(
        False, description="Use the endpoint's batch API: half the price, replies within a day, resumable meanwhile."
    )
    batch_poll_s: float = Field(30.0, gt=0, description="How often to ask for the state of a batch.")
    pilot: int | None = Field(
        None, gt=0, description="Rest when so many tasks are accepted, and forecast the rest from what they took."
    )
    threads: int | None = Field(None, gt=0, description="Threads of the embedded model; all cores by default.")
    port: int = Field(
        0, ge=0, le=65535, description="Loopback port of the embedded model's server; 0 for any free one."
    )
    dry_run: bool = Field(False, description="Say what would be sent and what it would cost, and end.")

    @field_validator("strategy", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]

    @model_validator(mode="after")
    def _shares(self) -> GenerateConfig:
        kinds = [strategy.kind for strategy in self.strategy]
        if len(set(kinds)) < len(kinds):
            raise ValueError("--strategy: each one at most once")
        if len({strategy.share is None for strategy in self.strategy}) > 1:
            raise ValueError("--strategy: give all of them a share, or none")
        return self

    @model_validator(mode="after")
    def _prices_in_pairs(self) -> GenerateConfig:
        if (self.input_usd_per_mtok is None) != (self.output_usd_per_mtok is None):
            raise ValueError("--input-usd-per-mtok and --output-usd-per-mtok go together")
        return self

    @property
    def original(self) -> str | None:
        """The strategy that goes as its original, if there is one."""
        return next((s.kind for s in self.strategy if getattr(s, "faithful", False)), None)

    @property
    def embedded(self) -> bool:
        """Whether the local model answers."""
        return self.model == "embedded"
