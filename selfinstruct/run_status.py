"""`selfinstruct status`: how far a run is, what it yielded and what it cost; also while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from selfinstruct.command import Config
from selfinstruct.errors import InputError
from selfinstruct.files import read_json, read_toml


class StatusConfig(Config):
    """Options of `selfinstruct status`."""

    run: Path = Field(description="Run directory of generate.")


@dataclass(frozen=True, slots=True)
class Status:
    """A run as its ledger shows it.

    Attributes:
        state: Why the run ended ("target", "saturated", "cap", "outage", "interrupted"), or "unfinished".
        accepted, target: Tasks.
        rejected: Candidates by rule.
        requests: Sent, completed, retried, failed, lost.
        tokens: Prompt and completion tokens.
        cost_usd: None when a price is unknown.
    """

    run: str
    state: str
    accepted: int
    target: int
    rejected: dict[str, int]
    requests: dict[str, int]
    tokens: dict[str, int]
    cost_usd: float | None


def status(config: StatusConfig) -> Status:
    """Show progress, yield and cost of a run.

    Raises:
        InputError: When the folder is no run.
    """
    from selfinstruct.ledger import Ledger

    path = config.run / "ledger.sqlite"
    if not path.is_file():
        raise InputError(
            "no ledger.sqlite here, so this is no run", path=config.run, remedy="give the --out of generate"
        )
    recorded = read_toml(config.run / "run.toml")["generate"]
    summary = config.run / "summary.json"
    ledger = Ledger(path)
    try:
        requests = ledger.requests()
        return Status(
            run=str(config.run),
            state=str(read_json(summary)["closed_by"]) if summary.exists() else "unfinished",
            accepted=ledger.n_accepted(),
            target=int(recorded["num_instructions"]),
            rejected=ledger.rules(),
            requests={
                "sent": requests.sent, "completed": requests.completed, "retried": requests.retried,
                "failed": requests.failed, "lost": requests.lost,
            },
            tokens={"prompt": requests.prompt_tokens, "completion": requests.completion_tokens},
            cost_usd=requests.cost_usd,
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
    return "\n".join(lines)
