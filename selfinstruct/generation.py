"""`selfinstruct generate`: an instruction data set from seed tasks, through an LLM API."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfinstruct.address import OPENAI_URL, check_base_url, key_of
from selfinstruct.errors import StoppedEarly, UsageError
from selfinstruct.files import digest, first_problem, sha256_file, shipped
from selfinstruct.filters.judge import Judge
from selfinstruct.filters.selection import selected
from selfinstruct.forecast import Forecast, describe_forecast
from selfinstruct.run_config import GenerateConfig as GenerateConfig
from selfinstruct.run_folder import RunSummary
from selfinstruct.strategies.union import AnyStrategy

logger = logging.getLogger(__name__)

MAX_PARALLEL = 8  # of the embedded model: more at once are no faster, and each takes memory
_TICK_S, _RATE_WINDOW_S = 1.0, 15.0  # of the progress line


@dataclass(frozen=True, slots=True)
class Pilot:
    """What a pilot measured, and what it says about the rest of the run."""

    summary: RunSummary
    forecast: Forecast


def generate(config: GenerateConfig) -> RunSummary | Forecast | Pilot:
    """Generate an instruction data set from seed tasks through an LLM API, filtered for novelty.

    Returns:
        The summary of the closed run; with `dry_run` a forecast, with `pilot` both.

    Raises:
        UsageError: For a configuration that cannot work or differs from the run's.
        AuthenticationError: The key is missing or refused.
        CapReached: A cap is reached; resumable.
        StoppedEarly: The pool is saturated or the endpoint lost; kept.
        Interrupted: By a signal; resumable.
    """
    import anyio

    from selfinstruct.forecast import forecast
    from selfinstruct.ledger import only_process
    from selfinstruct.run_folder import begin
    from selfinstruct.seeds import read_seeds

    config = _resolved(config)
    assert config.seeds
    seeds = read_seeds(config.seeds)
    if config.dry_run:
        return forecast(config, _plan(config), seeds, _price(config))
    api_key = _api_key(config)
    if config.out.exists() and not config.out.is_dir():
        raise UsageError(f"--out {config.out} is a file; give a folder")
    config.out.mkdir(parents=True, exist_ok=True, mode=0o700)
    with only_process(config.out):
        config = begin(config, sha256_file(config.seeds), _default_window(config))
        return anyio.run(partial(_generate, config, seeds, api_key), backend_options={"use_uvloop": True})


async def _generate(config: GenerateConfig, seeds: list[Any], api_key: str | None) -> RunSummary | Pilot:
    from selfinstruct.bootstrap import restore
    from selfinstruct.forecast import forecast
    from selfinstruct.ledger import Ledger
    from selfinstruct.run_folder import write_results

    plan, price = _plan(config), _price(config)
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
        state = await restore(plan, seeds, ledger)
        elapsed_before = ledger.fact("elapsed_s") or 0.0
        if state.closed_by is None:
            try:
                await _run(config, plan, state, ledger, price, api_key)
            finally:
                await ledger.record_fact("elapsed_s", elapsed_before + time.monotonic() - started)
        summary = write_results(config.out, plan, ledger, state, ledger.fact("elapsed_s") or 0.0)
    finally:
        ledger.close()
    if state.error and state.closed_by is None:
        raise state.error
    if state.closed_by == "saturated":
        raise StoppedEarly(
            f"{summary.reason}; {summary.accepted} of {plan.target} are in {config.out / 'dataset.jsonl'}. See"
            f" {config.out / 'rejected.jsonl'}, and try another model, more strategies or more varied seed tasks"
        )
    if config.pilot is None or state.closed_by == "target":
        return summary
    return Pilot(summary, forecast(config, plan, seeds, price))


async def _run(config: GenerateConfig, plan: Any, state: Any, ledger: Any, price: Any, api_key: str | None) -> None:
    """Go on with a run until it closes, rests or cannot go on."""
    import asyncio
    from contextlib import AsyncExitStack

    from selfinstruct.bootstrap import Bootstrap, identity
    from selfinstruct.budget import Budget
    from selfinstruct.endpoint import Server
    from selfinstruct.progress import Progress

    past = ledger.requests()
    if config.max_cost_usd is not None and past.cost_usd is None:
        raise UsageError(
            "this run sent requests while their price was unknown, so --max-cost-usd cannot be kept; cap with"
            " --max-requests"
        )
    reserved = ledger.reserved_usd()
    budget = Budget(
        price, config.max_cost_usd, config.max_requests, (past.cost_usd or 0.0) - reserved, past.sent, reserved
    )
    config_key = digest(identity(plan, _key_parts(config)))
    with _endpoint(config) as base_url, Progress("accepted", plan.target, len(state.pool.accepted)) as progress:
        server = Server(
            model=plan.model, base_url=base_url, api_key=api_key, key_name=config.api_key_env or "--api-key-env",
            endpoint=plan.endpoint, timeout_s=config.timeout_s, outage_s=config.outage_s,
            thinking_tokens=config.thinking_tokens,
        )  # fmt: skip
        async with AsyncExitStack() as teachers:
            teacher = await teachers.enter_async_context(_teacher(config, server, ledger, budget, config_key))
            judge = None
            if judging := _judging(config):
                judge_server, judge_price = _judge_server(config, judging, server)
                shared = budget.at(judge_price)
                judge_key = digest([config_key, "judge"])
                judge = await teachers.enter_async_context(_teacher(config, judge_server, ledger, shared, judge_key))
            describe_progress = _progress_line(config, teacher, budget, price is not None)

            async def tick() -> None:
                while True:
                    progress.update(len(state.pool.accepted), describe_progress(state))
                    await asyncio.sleep(_TICK_S)

            ticking = asyncio.create_task(tick())
            try:
                await Bootstrap(plan, state, teacher, ledger, judge).run()
            finally:
                ticking.cancel()
                progress.update(len(state.pool.accepted), describe_progress(state), last=True)


def _judging(config: GenerateConfig) -> Judge | None:
    """The judge of a run, if it asks somebody else than the teacher."""
    judges = (f for f in config.filter if isinstance(f, Judge))
    return next((f for f in judges if f.model or f.base_url), None)


def _judge_server(config: GenerateConfig, judge: Judge, teacher: Any) -> tuple[Any, Any]:
    """Where grades are asked for, and their price."""
    from selfinstruct.budget import halved, price_of

    base_url = judge.base_url or teacher.base_url
    key_name = judge.api_key_env if judge.api_key_env is not None else config.api_key_env
    if judge.base_url and judge.api_key_env is None and judge.base_url != config.base_url:
        key_name = ""  # the teacher's key is for the teacher's endpoint
    api_key = key_of(base_url, key_name, named=judge.api_key_env is not None)
    price = price_of(judge.model or config.model, base_url, judge.input_usd_per_mtok, judge.output_usd_per_mtok)
    if config.embedded and not judge.base_url:
        price = _price(config)
    if config.max_cost_usd is not None and price is None:
        raise UsageError(
            f"the price of the judge '{judge.model}' is unknown, so --max-cost-usd cannot be kept; give it as in"
            " judge:input_usd_per_mtok=0.15,output_usd_per_mtok=0.6"
        )
    server = replace(
        teacher, model=judge.model or teacher.model, base_url=base_url, api_key=api_key, key_name=key_name,
        endpoint="chat" if judge.model else teacher.endpoint,
    )  # fmt: skip
    return server, halved(price) if price and config.batch else price


def _teacher(config: GenerateConfig, server: Any, ledger: Any, budget: Any, config_key: str) -> Any:
    from selfinstruct.teacher import DirectTeacher

    if config.batch:
        from selfinstruct.batches import BatchTeacher

        return BatchTeacher(server, ledger, budget, config_key, config.batch_poll_s)
    if ledger.open_batches():
        raise UsageError(
            "a batch of this run is under way at the endpoint, and its requests would be paid for twice; give --batch"
            " to collect it"
        )
    assert config.concurrency
    return DirectTeacher(
        server, ledger, budget, config_key, config.concurrency, config.requests_per_minute, config.tokens_per_minute
    )


def _progress_line(config: GenerateConfig, teacher: Any, budget: Any, priced: bool) -> Callable[[Any], str]:
    """What the progress line says besides the count: yield, throughput, cost and what is in flight."""
    samples: deque[tuple[float, int, int]] = deque()

    def line(state: Any) -> str:
        now = time.monotonic()
        samples.append((now, teacher.n_replies, teacher.n_tokens))
        while now - samples[0][0] > _RATE_WINDOW_S:
            samples.popleft()
        then, replies, tokens = samples[0]
        seconds = max(now - then, _TICK_S)
        parts = [
            f"of {state.n_judged} judged",
            f"{budget.n_requests} requests",
            f"{(teacher.n_replies - replies) / seconds:.1f}/s",
            f"{(teacher.n_tokens - tokens) / seconds:.0f} tokens/s",
        ]
        if not config.embedded:
            cap = "" if config.max_cost_usd is None else f" of {config.max_cost_usd:g}"
            parts.append(f"{budget.spent_usd:.4f}{cap} USD" if priced else "cost unknown")
        parts.append(f"{teacher.in_flight}{'' if teacher.limit is None else f' of {teacher.limit}'} in flight")
        return ", ".join(parts)

    return line


def describe(result: RunSummary | Forecast | Pilot) -> str:
    """The result in words."""
    if isinstance(result, Forecast):
        return f"nothing was sent. {describe_forecast(result)}"
    if isinstance(result, Pilot):
        return f"{_describe_summary(result.summary)}\nthe pilot is done; the same command without --pilot goes on. " + (
            describe_forecast(result.forecast)
        )
    return _describe_summary(result)


def _describe_summary(summary: RunSummary) -> str:
    rejected = sum(summary.rejected.values())
    rules = ", ".join(f"{rule} {n}" for rule, n in summary.rejected.items())
    cost = "cost unknown" if summary.cost_usd is None else f"{summary.cost_usd:.4f} USD"
    lines = [
        f"{summary.accepted} accepted, {rejected} rejected{f' ({rules})' if rules else ''}",
        f"{summary.requests['sent']} requests, {summary.tokens['prompt']} prompt and {summary.tokens['completion']}"
        f" completion tokens, {cost}, {summary.elapsed_s:.0f} s",
        f"data set: {Path(summary.run) / 'dataset.jsonl'}",
    ]
    return "\n".join(lines)


# -- configuration ---------------------------------------------------------------------------------------------------


def _resolved(config: GenerateConfig) -> GenerateConfig:
    """Fill in the defaults that depend on other options."""
    from selfinstruct.teacher import default_endpoint

    concurrency = config.concurrency or (8 if config.embedded else 32)
    values = {
        "seeds": config.seeds or _shipped_seeds(config.language),
        "base_url": None if config.embedded else config.base_url or OPENAI_URL,
        "endpoint": config.endpoint or default_endpoint(config.model),
        "concurrency": concurrency,
        "novelty_tokenizer": config.novelty_tokenizer or ("rouge" if config.language == "en" else "unicode"),
        "strategy": _with_common_options(config),
    }
    if config.embedded and config.batch:
        raise UsageError("--batch: the embedded model has no batch API; it costs nothing anyway")
    if config.embedded and config.base_url:
        raise UsageError("--base-url: the embedded model is local; name the endpoint's model with --model")
    if config.base_url:
        check_base_url(config.base_url)
    if config.api_key_env and not config.api_key_env.isidentifier():
        raise UsageError("--api-key-env: must be the name of an environment variable, never a key itself")
    return config.model_copy(update=values)


def _shipped_seeds(language: str) -> Path:
    """The shipped seed tasks of a language, or the English ones."""
    if language == "en":
        return shipped("seed_tasks.jsonl")
    try:
        return shipped(f"seed_tasks.{language}.jsonl")
    except UsageError:
        logger.warning(
            "no seed tasks in '%s' are shipped; the teacher is shown the English ones. Better give your own: --seeds",
            language,
        )
        return shipped("seed_tasks.jsonl")


def _with_common_options(config: GenerateConfig) -> list[AnyStrategy]:
    """The strategies with the options that are given for all of them."""
    common = {name: getattr(config, name) for name in ("tasks_per_request", "replies_per_request")}
    given = {name: value for name, value in common.items() if value is not None}
    if config.faithful:
        given["faithful"] = True
    try:
        strategies = [type(s).model_validate(s.model_dump() | given) for s in config.strategy]
    except ValidationError as error:
        field, problem = first_problem(error)
        if field == "faithful":
            raise UsageError("--faithful: only self-instruct and alpaca have an original to follow") from error
        raise UsageError(f"--strategy: {f'{field} ' if field else ''}{problem}") from error
    faithful = [s for s in strategies if getattr(s, "faithful", False)]
    if faithful and len(strategies) > 1:
        raise UsageError("--strategy: a faithful one goes alone, since it has filters of its own")
    if faithful and config.language != "en":
        raise UsageError("--faithful: the originals know English only")
    return strategies


def _api_key(config: GenerateConfig) -> str | None:
    """The teacher's key from the environment; None where none is needed."""
    if config.embedded or not config.api_key_env:
        return None
    assert config.base_url
    return key_of(config.base_url, config.api_key_env, named="api_key_env" in config.model_fields_set)


def _default_window(config: GenerateConfig) -> int:
    """Enough slots to keep all requests busy; with batches, half of what the target takes, since rounds are long."""
    assert config.concurrency
    if not config.batch:
        return 2 * config.concurrency
    first = config.strategy[0]
    slots = config.num_instructions / (first.tasks_per_request * first.replies_per_request)
    return max(2 * config.concurrency, round(slots / 2))


def _plan(config: GenerateConfig) -> Any:
    from selfinstruct.bootstrap import Plan

    assert config.endpoint and config.novelty_tokenizer
    return Plan(
        strategies=tuple(config.strategy),
        filters=selected(config.filter, config.without, config.novelty_threshold, config.original),
        model=config.model,
        endpoint=config.endpoint,
        language=config.language,
        seed=config.seed,
        request_seed=config.seed if config.embedded or config.send_seed else None,
        target=config.num_instructions,
        pause_at=config.pilot,
        window=config.window or _default_window(config),
        novelty_tokenizer=config.novelty_tokenizer,
        max_output_tokens=config.max_output_tokens,
        saturation_window=config.saturation_window,
        min_yield=config.min_yield,
    )


def _key_parts(config: GenerateConfig) -> dict[str, Any]:
    assert config.seeds
    return {"seeds_sha256": sha256_file(config.seeds), "thinking_tokens": config.thinking_tokens}


def _price(config: GenerateConfig) -> Any:
    from selfinstruct.budget import halved, price_of

    if config.embedded:
        return lambda n_in, n_out: 0.0
    assert config.base_url
    price = price_of(config.model, config.base_url, config.input_usd_per_mtok, config.output_usd_per_mtok)
    return halved(price) if price and config.batch else price


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
