"""Asks an OpenAI-compatible endpoint a list of prompts, each once: through the ledger, the budget and its caps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from selfinstruct.address import OPENAI_URL, check_base_url, key_of
from selfinstruct.command import Config
from selfinstruct.errors import Error, Interrupted, UsageError
from selfinstruct.files import digest
from selfinstruct.records import Completion, Endpoint, Prompt


class EndpointConfig(Config):
    """Where requests go, and what they may cost."""

    base_url: str | None = Field(None, description="OpenAI-compatible endpoint, up to /v1.")
    api_key_env: str = Field("OPENAI_API_KEY", description="Environment variable that holds the key; '' for none.")
    concurrency: int = Field(32, gt=0, description="Most requests in flight.")
    thinking_tokens: int | None = Field(
        None,
        ge=0,
        description="Tokens for thinking on top, with reasoning models; 2048 when the endpoint proves to have one.",
    )
    max_cost_usd: float | None = Field(None, gt=0, description="Never spend more; the same command goes on.")
    max_requests: int | None = Field(None, gt=0, description="Never send more; the same command goes on.")
    requests_per_minute: int | None = Field(None, gt=0, description="Never send more; the endpoint's limit, say.")
    input_usd_per_mtok: float | None = Field(
        None, ge=0, description="Price of a million prompt tokens, instead of the table's."
    )
    output_usd_per_mtok: float | None = Field(
        None, ge=0, description="Price of a million completion tokens, instead of the table's."
    )
    timeout_s: float = Field(180.0, gt=0, description="Longest wait for one reply.")
    outage_s: float = Field(600.0, gt=0, description="How long to ask again before the endpoint counts as lost.")

    @model_validator(mode="after")
    def _prices_in_pairs(self) -> EndpointConfig:
        if (self.input_usd_per_mtok is None) != (self.output_usd_per_mtok is None):
            raise ValueError("--input-usd-per-mtok and --output-usd-per-mtok go together")
        return self

    @property
    def url(self) -> str:
        """The endpoint's address; OpenAI's own by default.

        Raises:
            UsageError: When it cannot be used.
        """
        check_base_url(self.base_url or OPENAI_URL)
        return self.base_url or OPENAI_URL


@dataclass(frozen=True, slots=True)
class Spent:
    """What all requests of a ledger took so far.

    Attributes:
        cost_usd: None when the price is unknown.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


def ask_all(
    config: EndpointConfig, model: str, endpoint: Endpoint, ledger: Path, identity: Any, prompts: Mapping[int, Prompt],
    keep: Callable[[int, Completion], None],
) -> Spent:  # fmt: skip
    """Ask each prompt once; what the ledger has is not asked again.

    Args:
        config: Where, at what price, under which caps.
        model: The model's name there.
        endpoint: Which API.
        ledger: Of all requests and replies; made when missing.
        identity: A JSON value; with another one, everything is asked anew.
        prompts: What is asked, by numbers; the same prompt under the same number is asked once for all calls.
        keep: Is given the reply to each prompt by its number, as it comes; finish_reason "error" where the
            endpoint refuses this one for good.

    Raises:
        AuthenticationError: The key is missing or refused.
        CapReached: A cap could be passed; what came is kept, and so it is with the next two.
        StoppedEarly: The endpoint stayed away.
        Interrupted: On Ctrl-C.
        UsageError: The endpoint refuses every request, or a cap cannot be kept.
    """
    import anyio

    key = key_of(config.url, config.api_key_env, named="api_key_env" in config.model_fields_set)
    ledger.parent.mkdir(parents=True, exist_ok=True)
    try:
        return anyio.run(partial(_ask_all, config, model, endpoint, key, ledger, digest(identity), prompts, keep))
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; the same command goes on with what {ledger} has") from error


async def _ask_all(
    config: EndpointConfig, model: str, endpoint: Endpoint, key: str | None, path: Path, config_key: str,
    prompts: Mapping[int, Prompt], keep: Callable[[int, Completion], None],
) -> Spent:  # fmt: skip
    import anyio

    from selfinstruct.endpoint import Server
    from selfinstruct.ledger import Ledger
    from selfinstruct.pacing import Stopped
    from selfinstruct.teacher import DirectTeacher

    server = Server(
        model=model, base_url=config.url, api_key=key, key_name=config.api_key_env or "--api-key-env",
        endpoint=endpoint, timeout_s=config.timeout_s, outage_s=config.outage_s,
        thinking_tokens=config.thinking_tokens,
    )  # fmt: skip
    errors: list[Error] = []
    ledger = Ledger(path)
    try:
        await ledger.lose_open_attempts()
        budget = _budget(config, model, ledger)
        async with DirectTeacher(
            server, ledger, budget, config_key, config.concurrency, config.requests_per_minute
        ) as teacher:

            async def ask(number: int, prompt: Prompt) -> None:
                try:
                    completion, *_ = await teacher.ask(number, "answer", prompt)
                except Stopped:
                    return
                except Error as error:
                    errors.append(error)
                    teacher.stop()
                    return
                keep(number, completion)

            async with anyio.create_task_group() as tasks:
                for number, prompt in prompts.items():
                    tasks.start_soon(ask, number, prompt)
        if errors:
            raise errors[0]
        total = ledger.requests()
        return Spent(total.sent, total.prompt_tokens, total.completion_tokens, total.cost_usd)
    finally:
        ledger.close()


def _budget(config: EndpointConfig, model: str, ledger: Any) -> Any:
    """The budget as earlier processes left it."""
    from selfinstruct.budget import Budget, price_of

    price = price_of(model, config.url, config.input_usd_per_mtok, config.output_usd_per_mtok)
    past = ledger.requests()
    if config.max_cost_usd is not None and (price is None or past.cost_usd is None):
        raise UsageError(
            f"the price of '{model}' is or was unknown, so --max-cost-usd cannot be kept; give --input-usd-per-mtok and"
            " --output-usd-per-mtok from the start, or cap with --max-requests"
        )
    return Budget(price, config.max_cost_usd, config.max_requests, past.cost_usd or 0.0, past.sent)
