"""What every strategy yields, and which rules reject the rest: on the embedded model, and on the tests' endpoint.

The endpoint spoils a known share of its tasks, so its yields show what the filters do; those of the embedded model show
what a real but very small teacher does.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.teacher import machine
from tests.generating import ROOT, arguments, summary
from tests.server import running_server

# What follows --strategy on each run's command line, and the most requests a wanted task: a run that yields too little
# ends there. A list request of the original Alpaca takes the embedded model minutes.
STRATEGIES = {
    "self-instruct": 8,
    "alpaca": 2,
    "alpaca:structured=true --endpoint chat": 2,
    "evol-instruct": 16,
    "attributed": 2,
    "alpaca:share=0.5 --strategy attributed:share=0.5": 2,
    "self-instruct --faithful": 8,
    "alpaca --faithful": 1,
    "self-instruct --language zh": 8,
}
N_INSTRUCTIONS = {"embedded": 10, "scripted": 100}
EMBEDDED = {
    "model": "embedded", "base_url": None, "api_key_env": None, "concurrency": 6, "window": 6, "timeout_s": 600,
    # As in the demo, shorter than usual: the model gets lost in long lists and answers, which take minutes each.
    "tasks_per_request": 3, "max_output_tokens": 160,
}  # fmt: skip
UNNEEDED = "target_reached"  # the rule of what passed all filters after the last task that was wanted
ENDED = (0, 4, 5)  # exit codes of runs with results: target, cap, saturated


@dataclass(frozen=True, slots=True)
class Yield:
    """What one run gave.

    Attributes:
        strategy: One of `STRATEGIES`.
        requests: Requests that were answered.
        accepted: Tasks in the data set.
        unneeded: Candidates that passed all filters when no more were wanted.
        rejected: The other candidates, by rule, the most frequent first.
        prompt_tokens, completion_tokens: As the endpoint counts them.
        elapsed_s: That it took.
        closed_by: What ended it: "target", "cap" or "saturated".
    """

    strategy: str
    requests: int
    accepted: int
    unneeded: int
    rejected: Mapping[str, int]
    prompt_tokens: int
    completion_tokens: int
    elapsed_s: float
    closed_by: str

    @property
    def candidates(self) -> int:
        """All that were judged."""
        return self.accepted + self.unneeded + sum(self.rejected.values())

    @property
    def share(self) -> float:
        """Of the candidates, those that passed all filters."""
        return (self.accepted + self.unneeded) / self.candidates if self.candidates else 0.0


@contextmanager
def flags_of(teacher: str) -> Iterator[dict[str, Any]]:
    """What tells `selfinstruct generate` whom to ask; the tests' endpoint lives as long as the context."""
    if teacher == "embedded":
        yield EMBEDDED
        return
    with running_server() as server:
        yield {"base_url": server.base_url}


def run(strategy: str, folder: Path, n_instructions: int, flags: Mapping[str, Any]) -> Yield:
    """Run one strategy to its end, or go on with it if the folder holds a part of it.

    Args:
        strategy: One of `STRATEGIES`.
        folder: Of the run.
        n_instructions: Accepted tasks wanted.
        flags: As of `flags_of`.

    Raises:
        RuntimeError: When it leaves no results.
    """
    fixed = {"tasks_per_request": None} if "--faithful" in strategy else {}
    wanted = {"num_instructions": n_instructions, "max_requests": STRATEGIES[strategy] * n_instructions}
    options = arguments(folder, **{**flags, **fixed, **wanted})
    command = [sys.executable, "-m", "selfinstruct", *options, "--strategy", *strategy.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in ENDED:
        raise RuntimeError(f"{command} ended with exit code {done.returncode}:\n{done.stderr}")
    return read_yield(strategy, summary(folder))


def read_yield(strategy: str, figures: Mapping[str, Any]) -> Yield:
    """What a run's summary.json says."""
    rejected = dict(figures["rejected"])
    return Yield(
        strategy=strategy,
        requests=figures["requests"]["completed"],
        accepted=figures["accepted"],
        unneeded=rejected.pop(UNNEEDED, 0),
        rejected=rejected,
        prompt_tokens=figures["tokens"]["prompt"],
        completion_tokens=figures["tokens"]["completion"],
        elapsed_s=figures["elapsed_s"],
        closed_by=figures["closed_by"],
    )


def table(yields: Sequence[Yield]) -> str:
    """A row for each strategy."""
    head = ["strategy", "requests", "candidates", "accepted", "not needed", "yield", "rejected by rule"]
    head += ["tokens in + out", "ended by"]
    rows = [head, ["--", "--:", "--:", "--:", "--:", "--:", "--", "--:", "--"]]
    for one in yields:
        rules = ", ".join(f"{rule} {n}" for rule, n in one.rejected.items())
        counts = [one.requests, one.candidates, one.accepted, one.unneeded]
        tokens = f"{one.prompt_tokens:,} + {one.completion_tokens:,}"
        rows.append([f"`{one.strategy}`", *map(str, counts), f"{one.share:.0%}", rules, tokens, one.closed_by])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measured(teacher: str, strategies: Sequence[str], n_instructions: int, folder: Path) -> Iterator[Yield]:
    """Run strategies with one teacher, each in a folder of its own."""
    with flags_of(teacher) as flags:
        for strategy in strategies:
            one = run(strategy, folder / teacher / re.sub(r"\W+", "-", strategy), n_instructions, flags)
            print(f"{teacher}, {strategy}: {one.elapsed_s:.0f} s", file=sys.stderr)
            yield one


def main() -> None:
    """Run every strategy with each teacher and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", choices=N_INSTRUCTIONS, default=list(N_INSTRUCTIONS), help="the teachers")
    parser.add_argument(
        "--strategy", nargs="+", choices=STRATEGIES, default=[*STRATEGIES], metavar="TEXT", help="; ".join(STRATEGIES)
    )
    parser.add_argument("--num-instructions", type=int, help="accepted tasks wanted of each run; 10 embedded, 100 else")
    parser.add_argument("--folder", type=Path, help="where runs are kept and gone on with; else a temporary one")
    parser.add_argument("--out", type=Path, help="JSON file for all raw figures")
    args = parser.parse_args()
    print(machine()["cpu"])
    yields: dict[str, list[Yield]] = {}
    with TemporaryDirectory() as temporary:
        for teacher in args.model:
            n_instructions = args.num_instructions or N_INSTRUCTIONS[teacher]
            folder = (args.folder or Path(temporary)).absolute()
            yields[teacher] = list(measured(teacher, args.strategy, n_instructions, folder))
            print(f"\n{teacher}, {n_instructions} tasks wanted of each run\n\n{table(yields[teacher])}")
    if args.out:
        figures = {teacher: [asdict(one) for one in ones] for teacher, ones in yields.items()}
        args.out.write_text(json.dumps({"machine": machine(), "yields": figures}, indent=1))


if __name__ == "__main__":
    main()
