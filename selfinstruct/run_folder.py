"""The folder of a run: its settled configuration, run.toml, and its results, written from the ledger."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from selfinstruct.errors import UsageError
from selfinstruct.files import (
    read_json,
    read_toml,
    sha256_file,
    to_toml,
    validate,
    write_json,
    write_jsonl,
    write_text,
)
from selfinstruct.records import Candidate, Verdict
from selfinstruct.run_config import GenerateConfig

if TYPE_CHECKING:
    from selfinstruct.bootstrap import Plan, State
    from selfinstruct.ledger import Ledger

logger = logging.getLogger(__name__)

# On resume these may differ: they do not shape the data. (The target may only grow.)
FREE = (
    "out", "base_url", "api_key_env", "concurrency", "max_cost_usd", "max_requests", "timeout_s", "outage_s", "threads",
    "requests_per_minute", "tokens_per_minute", "input_usd_per_mtok", "output_usd_per_mtok", "dry_run", "pilot",
    "batch", "batch_poll_s", "num_instructions", "seeds", "port",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What summary.json holds, plus where the run is.

    Attributes:
        closed_by: "target", "saturated", "pilot", "refiltered", "cap", "outage", "interrupted" or "error".
        reason: The same in words.
        strategies: Slots, judged, accepted and rejected candidates (by rule) of each strategy, in order of use.
        diversity: Figures of the data set beside those of the seeds; see `diversity.Diversity`.
    """

    run: str
    accepted: int
    rejected: dict[str, int]
    requests: dict[str, int]
    tokens: dict[str, int]
    cost_usd: float | None
    elapsed_s: float
    dataset_sha256: str
    closed_by: str
    reason: str
    strategies: dict[str, dict[str, Any]]
    diversity: dict[str, Any] = field(default_factory=dict)


class _RunFile(BaseModel):
    """What run.toml holds; the options are checked when they are compared."""

    generate: dict[str, Any]
    seeds_sha256: str
    versions: dict[str, str]


def begin(config: GenerateConfig, seeds_sha256: str, window: int) -> GenerateConfig:
    """Settle the run's configuration in run.toml, or check that a resumed run's is the same.

    Args:
        config: As given, with all defaults but the window's.
        seeds_sha256: Of the seeds file.
        window: The default of a new run.

    Raises:
        UsageError: With a diff, when an option that shapes the data differs.
    """
    from selfinstruct.ledger import was_answered

    path, ledger = config.out / "run.toml", config.out / "ledger.sqlite"
    # Until something was answered, as after a misspelt --model, there is nothing that other options could spoil.
    before = validate(_RunFile, read_toml(path), path=path) if path.exists() and was_answered(ledger) else None
    old = validate(type(config), before.generate, path=path) if before else None
    config = config.model_copy(update={"window": config.window or (old and old.window) or window})
    options = config.model_dump(mode="json", exclude={"dry_run"})
    if before and old:
        differences = _differences(dict(old), dict(config))
        if before.seeds_sha256 != seeds_sha256:
            differences.append("seeds: the file's content has changed")
        if config.num_instructions < old.num_instructions:
            differences.append(f"num_instructions: {old.num_instructions} in the run; it may only grow")
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


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in now if name not in FREE and before[name] != now[name]]
    return [f"{name}: {_shown(before[name])} in the run, {_shown(now[name])} now" for name in names]


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _versions() -> dict[str, str]:
    names = ("selfinstruct", "openai", "rapidfuzz")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def _warn_of_versions(before: Mapping[str, str]) -> None:
    changed = [f"{n} {v} -> {_versions().get(n)}" for n, v in before.items() if _versions().get(n) != v]
    if changed:
        logger.warning("versions have changed since the run began: %s", ", ".join(changed))


def write_results(run: Path, plan: Plan, ledger: Ledger, state: State, elapsed_s: float) -> RunSummary:
    """Write dataset.jsonl, rejected.jsonl and summary.json from the ledger, unless they are there and whole."""
    from selfinstruct.dataset import dataset_rows
    from selfinstruct.diversity import diversity

    dataset, rejected, path = run / "dataset.jsonl", run / "rejected.jsonl", run / "summary.json"
    requests = ledger.requests()
    summary = RunSummary(
        run=str(run),
        accepted=len(state.pool.accepted),
        rejected=ledger.rules(),
        requests={
            "sent": requests.sent, "completed": requests.completed, "retried": requests.retried,
            "failed": requests.failed, "lost": requests.lost, "unused": ledger.unused_completions(state.n_slots - 1),
        },
        tokens={"prompt": requests.prompt_tokens, "completion": requests.completion_tokens},
        cost_usd=requests.cost_usd,
        elapsed_s=round(elapsed_s, 1),
        dataset_sha256=sha256_file(dataset) if dataset.is_file() else "",
        closed_by=state.closed_by or _cause(state.error),
        reason=_reason(plan, state),
        strategies={name: asdict(figures) for name, figures in ledger.strategies().items()},
    )  # fmt: skip
    before = read_json(path) if rejected.is_file() and path.is_file() else {}
    values = asdict(summary) | {"diversity": before.get("diversity", {})}
    del values["run"]
    if before == values:
        return replace(summary, diversity=values["diversity"])
    accepted = list(ledger.accepted())
    write_jsonl(dataset, (row for example in accepted for row in dataset_rows(example)))
    write_jsonl(rejected, (_rejected_row(*judged) for judged in ledger.rejected()))
    values["dataset_sha256"] = sha256_file(dataset)
    values["diversity"] = rounded(asdict(diversity(accepted, state.pool.seeds, plan.novelty_tokenizer)))
    write_json(path, values)
    return RunSummary(run=str(run), **values)


def rounded(value: Any) -> Any:
    """Figures with four digits after the point, at any depth."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


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
        "source": candidate.source.as_row(),
    }


def _cause(error: BaseException | None) -> str:
    return {"CapReached": "cap", "StoppedEarly": "outage", "Interrupted": "interrupted"}.get(
        type(error).__name__, "error"
    )


def _reason(plan: Plan, state: State) -> str:
    """Why the run ended, and why strategies were given up before."""
    few = f"fewer than {plan.min_yield:.0%} of the last {plan.saturation_window} candidates of"
    saturated = [s.kind for n, s in enumerate(plan.strategies) if state.saturated >> n & 1]
    given_up = [f"{few} {name} were accepted" for name in saturated]
    end = {
        "target": f"{plan.target} tasks are accepted",
        "pilot": f"the pilot's {plan.pause_at} tasks are accepted",
        "saturated": "the pool is saturated",
        "refiltered": "all candidates of another run are judged again",
    }.get(state.closed_by or "", str(state.error))
    return "; ".join([end, *given_up])
