"""`selfinstruct refilter`: a run's candidates judged again, with other filters, from its ledger. No request is made."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from selfinstruct.command import Config
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import read_toml, sha256_file, to_toml, validate, write_text
from selfinstruct.filters.judge import Judge
from selfinstruct.filters.selection import selected
from selfinstruct.filters.union import AnyFilter
from selfinstruct.run_config import GenerateConfig
from selfinstruct.run_folder import RunSummary


class RefilterConfig(Config):
    """Options of `selfinstruct refilter`; filters that are not named stay as the run had them."""

    run: Path = Field(description="Run directory of generate.")
    out: Path = Field(description="New run directory.", json_schema_extra={"metavar": "RUN2"})
    novelty_threshold: float | None = Field(
        None, ge=0, le=1, description="Reject a task whose ROUGE-L F with any other is above this; else the run's."
    )
    novelty_tokenizer: Literal["rouge", "unicode"] | None = Field(
        None, description="Tokens to compare; the run's by default."
    )
    filter: list[AnyFilter] = Field(
        [],
        description="Further filters, or those of the run with other options, as in length:max_words=80.",
        json_schema_extra={"metavar": "NAME[:OPTION=VALUE,...]"},
    )
    without: list[str] = Field([], description="Filters to leave out.", json_schema_extra={"metavar": "NAME"})


def refilter(config: RefilterConfig) -> RunSummary:
    """Judge a run's candidates again with other filters, from its ledger; no request is made.

    All candidates are judged in their order, those beyond the run's target as well. A task that was not completed,
    since a filter was certain to reject it, stays rejected ("not_completed") where the new filters would let it pass.

    Raises:
        InputError: When the folder is no run, or its seed tasks are gone.
        UsageError: For a used --out, or a judge without grades in the ledger.
    """
    import anyio

    from selfinstruct.seeds import read_seeds

    path = config.run / "run.toml"
    if not (config.run / "ledger.sqlite").is_file():
        raise InputError(
            "holds no ledger.sqlite, so it is no run", path=config.run, remedy="give the --out of generate"
        )
    record = read_toml(path)
    if not isinstance(record.get("generate"), dict):
        raise InputError("is missing", path=path, field="generate", remedy="give the --out of generate")
    before = validate(GenerateConfig, record["generate"], path=path)
    if (config.out / "ledger.sqlite").exists():
        raise UsageError(f"--out {config.out}: holds a run already; choose another")
    assert before.seeds
    if not before.seeds.is_file() or sha256_file(before.seeds) != record.get("seeds_sha256"):
        raise InputError("has changed since the run, or is gone", path=before.seeds, remedy="restore it")
    threshold = before.novelty_threshold if config.novelty_threshold is None else config.novelty_threshold
    given = {f.kind: f for f in before.filter} | {f.kind: f for f in config.filter}
    if config.novelty_threshold is not None and "novelty" not in {f.kind for f in config.filter}:
        given.pop("novelty", None)
    settings = before.model_copy(
        update={
            "out": config.out,
            "novelty_threshold": threshold,
            "novelty_tokenizer": config.novelty_tokenizer or before.novelty_tokenizer,
            "filter": [f for kind, f in given.items() if kind not in config.without],
            "without": sorted({*before.without, *config.without} - {f.kind for f in config.filter}),
        }
    )
    filters = selected(settings.filter, settings.without, threshold, settings.original)
    if any(isinstance(f, Judge) for f in filters) and not any(isinstance(f, Judge) for f in before.filter):
        raise UsageError("--filter judge: the run has no grades; generate --filter judge asks for them")
    config.out.mkdir(parents=True, exist_ok=True, mode=0o700)
    record = {**record, "generate": settings.model_dump(mode="json"), "refiltered_from": str(config.run)}
    write_text(config.out / "run.toml", to_toml(record))
    return anyio.run(_refilter, config, settings, filters, read_seeds(before.seeds))


async def _refilter(config: RefilterConfig, settings: GenerateConfig, filters: Any, seeds: Any) -> RunSummary:
    from selfinstruct.bootstrap import Plan, judge, restore, rules
    from selfinstruct.ledger import JudgedSlot, Ledger
    from selfinstruct.records import Example
    from selfinstruct.run_folder import write_results

    started = time.monotonic()
    assert settings.endpoint and settings.novelty_tokenizer and settings.window
    with closing(Ledger(config.run / "ledger.sqlite")) as old, closing(Ledger(config.out / "ledger.sqlite")) as new:
        plan = Plan(
            strategies=tuple(settings.strategy), filters=filters, model=settings.model, endpoint=settings.endpoint,
            language=settings.language, seed=settings.seed, request_seed=None, target=old.n_judged() + 1,
            pause_at=None, window=settings.window, novelty_tokenizer=settings.novelty_tokenizer,
            max_output_tokens=settings.max_output_tokens, saturation_window=settings.saturation_window,
            min_yield=settings.min_yield,
        )  # fmt: skip
        state = await restore(plan, seeds, new)
        for (number, strategy), group in groupby(old.candidates(), lambda c: (c.source.slot, c.source.strategy)):
            judged = []
            n_before = len(state.pool.accepted)
            for candidate in group:
                verdict = judge(candidate, plan, state.pool)
                judged.append((candidate, verdict))
                if verdict.rule is None:
                    c = candidate
                    state.pool.add(Example(c.id, c.instruction, c.instances, c.is_classification))
            slot = JudgedSlot(number, strategy, len(judged), len(state.pool.accepted) - n_before, rules(judged), 0)
            await new.record_slot(slot, state.n_judged, judged, None)
            state.n_judged, state.n_slots = state.n_judged + len(judged), number + 1
        state.closed_by = "refiltered"
        return write_results(config.out, plan, new, state, time.monotonic() - started)


def describe(summary: RunSummary) -> str:
    """The result in words."""
    rules = ", ".join(f"{rule} {n}" for rule, n in summary.rejected.items())
    return (
        f"{summary.accepted} accepted, {sum(summary.rejected.values())} rejected{f' ({rules})' if rules else ''}\n"
        f"data set: {Path(summary.run) / 'dataset.jsonl'}"
    )
