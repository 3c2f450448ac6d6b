"""`selfinstruct generate`: an instruction data set from seed tasks, through an LLM API."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, model_validator

from selfinstruct.command import Config
from selfinstruct.errors import AuthenticationError, StoppedEarly, UsageError
from selfinstruct.files import (
    digest,
    read_json,
    read_toml,
    sha256_file,
    shipped,
    to_toml,
    validate,
    write_json,
    write_jsonl,
    write_text,
)
from selfinstruct.records import Candidate, Verdict

logger = logging.getLogger(__name__)

MAX_PARALLEL = 8  # of the embedded model: more at once are no faster, and each takes memory
OPENAI_URL = "https://api.openai.com/v1"
StrategyName = Literal["self-instruct", "alpaca"]
# On resume these may differ: they do not shape the data. (The target may only grow.)
FREE = (
    "out", "base_url", "api_key_env", "concurrency", "max_cost_usd", "max_requests", "timeout_s", "outage_s", "threads",
    "input_usd_per_mtok", "output_usd_per_mtok", "dry_run", "num_instructions", "seeds", "port",
)  # fmt: skip


class GenerateConfig(Config):
    """Options of `selfinstruct generate`."""

    out: Path = Field(description="Run directory; the same one again resumes.", json_schema_extra={"metavar": "RUN"})
    seeds: Path | None = Field(None, description="Seed tasks (JSONL); the shipped 175 by default.")
    strategy: StrategyName = Field("self-instruct", description="How tasks come to be.")
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
        None, gt=0, le=50, description="Tasks asked for at once; 8, but 17 for alpaca."
    )
    max_output_tokens: int = Field(350, gt=0, description="Most tokens of one task's input and output (self-instruct).")
    thinking_tokens: int | None = Field(
        None,
        ge=0,
        description="Tokens for thinking on top, with reasoning models; 2048 when the endpoint proves to have one.",
    )
    max_cost_usd: float | None = Field(None, gt=0, description="Never spend more; the run is kept and can be resumed.")
    max_requests: int | None = Field(None, gt=0, description="Never send more; the run is kept and can be resumed.")
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
    threads: int | None = Field(None, gt=0, description="Threads of the embedded model; all cores by default.")
    port: int = Field(
        0, ge=0, le=65535, description="Loopback port of the embedded model's server; 0 for any free one."
    )
    dry_run: bool = Field(False, description="Say what would be sent and what it would cost, and end.")

    @model_validator(mode="after")
    def _prices_in_pairs(self) -> GenerateConfig:
        if (self.input_usd_per_mtok is None) != (self.output_usd_per_mtok is None):
            raise ValueError("--input-usd-per-mtok and --output-usd-per-mtok go together")
        return self

    @property
    def embedded(self) -> bool:
        """Whether the local model answers."""
        return self.model == "embedded"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What summary.json holds, plus where the run is."""

    run: str
    accepted: int
    rejected: dict[str, int]
    requests: dict[str, int]
    tokens: dict[str, int]
    cost_usd: float | None
    elapsed_s: float
    dataset_sha256: str
    closed_by: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would take, before anything is sent. Ranges are for 90% and 40% of the tasks accepted."""

    endpoint: str
    requests: tuple[int, int]
    prompt_tokens: tuple[int, int]
    completion_tokens: tuple[int, int]
    cost_usd: tuple[float, float] | None


def generate(config: GenerateConfig) -> RunSummary | Forecast:
    """Generate an instruction data set from seed tasks through an LLM API, filtered for novelty.

    Returns:
        The summary of the closed run; with `dry_run` a forecast.

    Raises:
        UsageError: For a configuration that cannot work or differs from the run's.
        AuthenticationError: The key is missing or refused.
        CapReached: A cap is reached; resumable.
        StoppedEarly: The pool is saturated or the endpoint lost; kept.
        Interrupted: By a signal; resumable.
    """
    import anyio

    from selfinstruct.ledger import only_process
    from selfinstruct.seeds import read_seeds

    config = _resolved(config)
    assert config.seeds
    seeds = read_seeds(config.seeds)
    if config.dry_run:
        return forecast(config, seeds)
    api_key = _api_key(config)
    if config.out.exists() and not config.out.is_dir():
        raise UsageError(f"--out {config.out} is a file; give a folder")
    config.out.mkdir(parents=True, exist_ok=True, mode=0o700)
    with only_process(config.out):
        config = _begun(config, sha256_file(config.seeds))
        return anyio.run(partial(_generate, config, seeds, api_key))


async def _generate(config: GenerateConfig, seeds: list[Any], api_key: str | None) -> RunSummary:
    from selfinstruct.bootstrap import Bootstrap, Pool, State, identity
    from selfinstruct.budget import Budget
    from selfinstruct.ledger import Ledger
    from selfinstruct.progress import Progress
    from selfinstruct.teacher import Server, Teacher

    plan = _plan(config)
    price = _price(config)
    if config.max_cost_usd is not None and price is None:
        raise UsageError(
            f"the price of '{config.model}' is unknown, so --max-cost-usd cannot be kept; give --input-usd-per-mtok and"
            " --output-usd-per-mtok, or cap with --max-requests"
        )
    started = time.monotonic()
    ledger = Ledger(config.out / "ledger.sqlite")
    try:
        if lost := await ledger.lose_open_attempts():
            logger.warning(
                "%d request(s) were in flight when the run last ended; they may have been billed and are asked again",
                lost,
            )
        past = ledger.requests()
        if config.max_cost_usd is not None and past.cost_usd is None:
            raise UsageError(
                "this run sent requests while their price was unknown, so --max-cost-usd cannot be kept; cap with"
                " --max-requests"
            )
        budget = Budget(price, config.max_cost_usd, config.max_requests, past.cost_usd or 0.0, past.sent)
        await ledger.forget_judgement()
        elapsed_before = ledger.fact("elapsed_s") or 0.0
        state = State(Pool(seeds, plan.novelty_tokenizer, plan.novelty_threshold))
        config_key = digest(identity(plan, _key_parts(config)))
        with _endpoint(config) as base_url:
            server = Server(
                model=plan.model, base_url=base_url, api_key=api_key, key_name=config.api_key_env or "--api-key-env",
                endpoint=plan.endpoint, timeout_s=config.timeout_s, outage_s=config.outage_s,
                thinking_tokens=config.thinking_tokens, seed=config.seed if config.embedded else None,
            )  # fmt: skip
            assert config.concurrency
            teacher = Teacher(server, ledger, budget, config.concurrency, config_key)
            with Progress("accepted", plan.target) as progress:

                def report(state: State) -> None:
                    accepted, judged = len(state.pool.accepted), state.n_judged
                    cost = "" if config.embedded else _cost_text(None if price is None else budget.spent_usd)
                    detail = f"of {judged} judged, {budget.n_requests} requests{cost and f', {cost}'}"
                    progress.update(accepted, detail)

                try:
                    await Bootstrap(plan, state, teacher, ledger, report).run()
                finally:
                    await teacher.close()
                    await ledger.record_fact("elapsed_s", elapsed_before + time.monotonic() - started)
        summary = _write_results(config, ledger, state, elapsed_before + time.monotonic() - started)
    finally:
        ledger.close()
    if state.error and state.closed_by is None:
        raise state.error
    if state.closed_by == "saturated":
        raise StoppedEarly(
            f"saturated: fewer than {plan.min_yield:.0%} of the last {plan.saturation_window} candidates were accepted;"
            f" {summary.accepted} of {plan.target} are in {config.out / 'dataset.jsonl'}. Most were rejected as"
            f" '{next(iter(summary.rejected))}': see {config.out / 'rejected.jsonl'}, and try another model or more"
            " varied seed tasks"
        )
    return summary


def describe(result: RunSummary | Forecast) -> str:
    """The result in words."""
    if isinstance(result, Forecast):
        return _describe_forecast(result)
    rejected = sum(result.rejected.values())
    rules = ", ".join(f"{rule} {n}" for rule, n in result.rejected.items())
    lines = [
        f"{result.accepted} accepted, {rejected} rejected{f' ({rules})' if rules else ''}",
        f"{result.requests['sent']} requests, {result.tokens['prompt']} prompt and {result.tokens['completion']}"
        f" completion tokens, {_cost_text(result.cost_usd)}, {result.elapsed_s:.0f} s",
        f"data set: {Path(result.run) / 'dataset.jsonl'}",
    ]
    return "\n".join(lines)


def _cost_text(cost_usd: float | None) -> str:
    return "cost unknown" if cost_usd is None else f"{cost_usd:.4f} USD"


# -- configuration ---------------------------------------------------------------------------------------------------


def _resolved(config: GenerateConfig) -> GenerateConfig:
    """Fill in the defaults that depend on other options."""
    from selfinstruct.teacher import default_endpoint

    concurrency = config.concurrency or (8 if config.embedded else 32)
    values = {
        "seeds": config.seeds or shipped("seed_tasks.jsonl"),
        "base_url": None if config.embedded else config.base_url or OPENAI_URL,
        "endpoint": config.endpoint or default_endpoint(config.model),
        "concurrency": concurrency,
        "novelty_tokenizer": config.novelty_tokenizer or ("rouge" if config.language == "en" else "unicode"),
        "tasks_per_request": config.tasks_per_request or (17 if config.strategy == "alpaca" else 8),
    }
    if config.embedded and config.base_url:
        raise UsageError("--base-url: the embedded model is local; name the endpoint's model with --model")
    if config.base_url and urlsplit(config.base_url).scheme not in ("http", "https"):
        raise UsageError(f"--base-url: must start with https:// or http://, not '{config.base_url}'")
    if config.base_url and (urlsplit(config.base_url).password or urlsplit(config.base_url).query):
        raise UsageError(
            "--base-url: holds a password or a query, which would be written to run.toml; use --api-key-env"
        )
    if config.api_key_env and not config.api_key_env.isidentifier():
        raise UsageError("--api-key-env: must be the name of an environment variable, never a key itself")
    return config.model_copy(update=values)


def _api_key(config: GenerateConfig) -> str | None:
    """The key from the environment; None where none is needed.

    Raises:
        AuthenticationError: When the key is not set and the endpoint certainly needs one.
        UsageError: When the key would travel unencrypted to another machine.
    """
    from selfinstruct.teacher import is_loopback

    if config.embedded or not config.api_key_env:
        return None
    assert config.base_url
    key = os.environ.get(config.api_key_env, "").strip()
    url = urlsplit(config.base_url)
    named = "api_key_env" in config.model_fields_set
    if not key:
        if config.base_url == OPENAI_URL or named:
            raise AuthenticationError(
                f"no key: set the environment variable {config.api_key_env}, or run the local model: --model embedded"
            )
        return None
    if url.scheme == "http" and not is_loopback(config.base_url):
        raise UsageError(
            f"--base-url: a key must not travel unencrypted to {url.hostname}; use https, or --api-key-env '' for a"
            " server that needs no key"
        )
    logger.warning("endpoint %s, key from %s", url.hostname, config.api_key_env)
    return key


def _plan(config: GenerateConfig) -> Any:
    from selfinstruct.bootstrap import Plan
    from selfinstruct.strategies import Strategy, alpaca, self_instruct

    strategies: dict[str, Strategy] = {"self-instruct": self_instruct.propose, "alpaca": alpaca.propose}
    assert config.endpoint and config.window and config.novelty_tokenizer and config.tasks_per_request
    return Plan(
        strategy_name=config.strategy,
        strategy=strategies[config.strategy],
        model=config.model,
        endpoint=config.endpoint,
        language=config.language,
        seed=config.seed,
        target=config.num_instructions,
        window=config.window,
        novelty_threshold=config.novelty_threshold,
        novelty_tokenizer=config.novelty_tokenizer,
        tasks_per_request=config.tasks_per_request,
        max_output_tokens=config.max_output_tokens,
        saturation_window=config.saturation_window,
        min_yield=config.min_yield,
    )


def _key_parts(config: GenerateConfig) -> dict[str, Any]:
    assert config.seeds
    return {"seeds_sha256": sha256_file(config.seeds), "thinking_tokens": config.thinking_tokens}


class _RunFile(BaseModel):
    """What run.toml holds."""

    generate: GenerateConfig
    seeds_sha256: str
    versions: dict[str, str]


def _begun(config: GenerateConfig, seeds_sha256: str) -> GenerateConfig:
    """Settle the run's configuration in run.toml, or check that a resumed run's is the same.

    Raises:
        UsageError: With a diff, when an option that shapes the data differs.
    """
    from selfinstruct.ledger import was_answered

    path = config.out / "run.toml"
    ledger = config.out / "ledger.sqlite"
    # Until something was answered, as after a misspelt --model, there is nothing that other options could spoil.
    before = validate(_RunFile, read_toml(path), path=path) if path.exists() and was_answered(ledger) else None
    assert config.concurrency
    window = config.window or (before and before.generate.window) or 2 * config.concurrency
    config = config.model_copy(update={"window": window})
    options = config.model_dump(mode="json", exclude={"dry_run"})
    if before:
        differences = _differences(before.generate.model_dump(mode="json"), options)
        if before.seeds_sha256 != seeds_sha256:
            differences.append("seeds: the file's content has changed")
        if config.num_instructions < before.generate.num_instructions:
            differences.append(f"num_instructions: {before.generate.num_instructions} in the run; it may only grow")
        if differences:
            raise UsageError(
                f"{config.out} was begun with other options; give those again, or choose another --out:\n  "
                + "\n  ".join(differences)
            )
        _warn_of_versions(before.versions)
    elif ledger.exists() and not path.exists():
        raise UsageError(f"{config.out} has a ledger but no run.toml; restore it or choose another --out")
    write_text(path, to_toml({"generate": options, "seeds_sha256": seeds_sha256, "versions": _versions()}))
    return config


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    names = [name for name in now if name not in FREE and before[name] != now[name]]
    return [f"{name}: {before[name]} in the run, {now[name]} now" for name in names]


def _versions() -> dict[str, str]:
    names = ("selfinstruct", "openai", "rapidfuzz")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def _warn_of_versions(before: dict[str, str]) -> None:
    changed = [f"{n} {v} -> {_versions().get(n)}" for n, v in before.items() if _versions().get(n) != v]
    if changed:
        logger.warning("versions have changed since the run began: %s", ", ".join(changed))


def _price(config: GenerateConfig) -> Any:
    from selfinstruct.budget import price_of

    if config.embedded:
        return lambda n_in, n_out: 0.0
    assert config.base_url
    return price_of(config.model, config.base_url, config.input_usd_per_mtok, config.output_usd_per_mtok)


@contextmanager
def _endpoint(config: GenerateConfig) -> Iterator[str]:
    """The base URL to use; the embedded model's server lives as long as the context."""
    if not config.embedded:
        assert config.base_url
        yield config.base_url
        return
    from selfinstruct.embedded import embedded_server

    assert config.concurrency
    log = config.out / "server.log"
    n_parallel = min(config.concurrency, MAX_PARALLEL)  # further requests wait inside the server
    with embedded_server(threads=config.threads, n_parallel=n_parallel, port=config.port, log=log) as server:
        yield server.base_url


# -- results ---------------------------------------------------------------------------------------------------------


def _write_results(config: GenerateConfig, ledger: Any, state: Any, elapsed_s: float) -> RunSummary:
    """Write dataset.jsonl, rejected.jsonl and summary.json from the ledger."""
    from selfinstruct.dataset import dataset_rows

    dataset, summary_path = config.out / "dataset.jsonl", config.out / "summary.json"
    before = read_json(summary_path) if summary_path.exists() else {}
    write_jsonl(dataset, (row for example in ledger.accepted() for row in dataset_rows(example)))
    write_jsonl(config.out / "rejected.jsonl", (_rejected_row(*rejected) for rejected in ledger.rejected()))
    requests = ledger.requests()
    summary = RunSummary(
        run=str(config.out),
        accepted=len(state.pool.accepted),
        rejected=ledger.rules(),
        requests={
            "sent": requests.sent, "completed": requests.completed, "retried": requests.retried,
            "failed": requests.failed, "lost": requests.lost, "unused": ledger.unused_completions(state.n_slots - 1),
        },
        tokens={"prompt": requests.prompt_tokens, "completion": requests.completion_tokens},
        cost_usd=requests.cost_usd,
        elapsed_s=round(elapsed_s, 1),
        dataset_sha256=sha256_file(dataset),
        closed_by=state.closed_by or _reason(state.error),
    )  # fmt: skip
    values = asdict(summary)
    del values["run"]
    same_end = before.get("closed_by") == summary.closed_by == "target" and before["accepted"] == summary.accepted
    if same_end and before["dataset_sha256"] != summary.dataset_sha256:
        logger.warning("this version judges the stored replies otherwise: %s has changed", dataset)
    write_json(summary_path, values)
    return summary


def _rejected_row(candidate: Candidate, verdict: Verdict) -> dict[str, Any]:
    instances = candidate.instances
    return {
        "candidate": {
            "id": candidate.id,
            "instruction": candidate.instruction,
            "input": instances[0].input if instances else "",
            "output": instances[0].output if instances else "",
        },
        "rule": verdict.rule,
        "detail": verdict.detail,
        "nearest": [asdict(neighbour) for neighbour in verdict.nearest],
        "source": asdict(candidate.source),
    }


def _reason(error: BaseException | None) -> str:
    return {"CapReached": "cap", "StoppedEarly": "outage", "Interrupted": "interrupted"}.get(
        type(error).__name__, "error"
    )


# -- forecast --------------------------------------------------------------------------------------------------------


def forecast(config: GenerateConfig, seeds: list[Any]) -> Forecast:
    """What a run would take, from the length of its own prompts and shares of 90% and 40% accepted."""
    from selfinstruct.bootstrap import slot_of
    from selfinstruct.forecast import totals

    async def nothing(*_: Any) -> Any:
        raise AssertionError("a forecast sends nothing")

    plan = _plan(config.model_copy(update={"window": 1}))  # a forecast needs none
    slot = slot_of(plan, 0, seeds, (), nothing, lambda instruction: None)
    low, high = (totals(slot, plan.target, share) for share in (0.9, 0.4))
    price = _price(config)
    cost = None if price is None else tuple(_cost(price, t) for t in (low, high))
    return Forecast(
        endpoint=config.base_url or "the embedded model",
        requests=(low.requests, high.requests),
        prompt_tokens=(low.prompt_tokens, high.prompt_tokens),
        completion_tokens=(low.completion_tokens, high.completion_tokens),
        cost_usd=cost,  # type: ignore[arg-type]
    )


def _cost(price: Any, totals: Any) -> float:
    """Priced request by request, since prices may depend on a prompt's length."""
    per_request = price(totals.prompt_tokens // totals.requests, totals.completion_tokens // totals.requests)
    return float(per_request) * int(totals.requests)


def _describe_forecast(f: Forecast) -> str:
    cost = "unknown (give --input-usd-per-mtok and --output-usd-per-mtok)"
    if f.cost_usd is not None:
        cost = f"{f.cost_usd[0]:.2f} to {f.cost_usd[1]:.2f} USD"
    return (
        f"nothing was sent. For the target, at {f.endpoint}, if 90% or 40% of the tasks are accepted:\n"
        f"  requests           {f.requests[0]} to {f.requests[1]}\n"
        f"  prompt tokens      about {f.prompt_tokens[0]} to {f.prompt_tokens[1]}\n"
        f"  completion tokens  about {f.completion_tokens[0]} to {f.completion_tokens[1]}\n"
        f"  cost               {cost}"
    )
