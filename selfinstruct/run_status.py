"""`selfinstruct status`: how far a run is, what it yielded and what it cost; also while it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter

from selfinstruct.command import Config
from selfinstruct.errors import InputError
from selfinstruct.files import read_toml, validate
from selfinstruct.results import figures_of_its_end


class StatusConfig(Config):
    """Options of `selfinstruct status`."""

    run: Path = Field(description="Run directory of generate.")


@dataclass(frozen=True, slots=True)
class Status:
    """A run as its ledger shows it.

    Attributes:
        state: Why the run ended ("target", "saturated", "cap", "outage", "interrupted", "error"), or "unfinished".
        accepted, target: Tasks.
        rejected: Candidates by rule.
        requests: Sent, completed, retried, failed, lost.
        tokens: Prompt and completion tokens.
        cost_usd: None when a price is unknown.
        throughput: Replies and tokens a second over the last minute.
        strategies: Slots, judged, accepted and rejected candidates (by rule) of each strategy.
        diversity: Figures of the data set beside those of the seeds, once the run has ended; see `diversity.Diversity`.
    """

    run: str
    state: str
    accepted: int
    target: int
    rejected: dict[str, int]
    requests: dict[str, int]
    tokens: dict[str, int]
    cost_usd: float | None
    throughput: dict[str, float]
    strategies: dict[str, dict[str, Any]]
    diversity: dict[str, Any]


class _Options(BaseModel):
    num_instructions: int


class _Record(BaseModel):
    """run.toml, as far as it matters here."""

    generate: _Options


def status(config: StatusConfig) -> Status:
    """Show progress, yield and cost of a run.

    Raises:
        InputError: When the folder is no run, or a file in it is broken.
    """
    from selfinstruct.ledger import Ledger

    if (config.run / "generate" / "ledger.sqlite").is_file():  # the folder of a recipe
        config = StatusConfig(run=config.run / "generate")
    path = config.run / "ledger.sqlite"
    if not path.is_file():
        raise InputError(
            "no ledger.sqlite here, so this is no run", path=config.run, remedy="give the --out of generate"
        )
    record = config.run / "run.toml"
    target = validate(_Record, read_toml(record), path=record).generate.num_instructions
    ledger = Ledger(path)
    try:
        requests, accepted = ledger.requests(), ledger.n_accepted()
        ended = figures_of_its_end(config.run, accepted, requests.sent)
        return Status(
            run=str(config.run),
            state=ended.closed_by if ended else "unfinished",
            accepted=accepted,
            target=target,
            rejected=ledger.rules(),
            requests={
                "sent": requests.sent, "completed": requests.completed, "retried": requests.retried,
                "failed": requests.failed, "lost": requests.lost,
            },
            tokens={"prompt": requests.prompt_tokens, "completion": requests.completion_tokens},
            cost_usd=requests.cost_usd,
            throughput=asdict(ledger.throughput()),
            strategies={name: asdict(figures) for name, figures in ledger.strategies().items()},
            diversity=ended.diversity if ended else {},
        )  # fmt: skip
    finally:
        ledger.close()


def describe(status: Status) -> str:
    """The status in words."""
    judged = status.accepted + sum(status.rejected.values())
    share = f" ({status.accepted / judged:.0%} of {judged} judged)" if judged else ""
    cost = "unknown" if status.cost_usd is None else f"{status.cost_usd:.4f} USD"
    lines = [
        f"{status.run}: {status.state}",
        f"  accepted  {status.accepted} of {status.target} wanted{share}",
        *(f"  rejected  {n:>6}  {rule}" for rule, n in status.rejected.items()),
        "  requests  " + ", ".join(f"{n} {name}" for name, n in status.requests.items()),
        f"  tokens    {status.tokens['prompt']} prompt, {status.tokens['completion']} completion",
        f"  cost      {cost}",
    ]
    if len(status.strategies) > 1:
        lines += [
            f"  {name}: {s['accepted']} of {s['judged']} accepted in {s['slots']} slots"
            for name, s in status.strategies.items()
        ]
    if rate := status.throughput["requests_per_s"]:
        lines.append(f"  now       {rate:.1f} requests/s, {status.throughput['tokens_per_s']:.0f} tokens/s")
    if status.diversity:
        from selfinstruct.diversity import Diversity, describe_diversity

        lines += ["", describe_diversity(TypeAdapter(Diversity).validate_python(status.diversity))]
    return "\n".join(lines)
