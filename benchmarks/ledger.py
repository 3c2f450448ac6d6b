"""What opening, looking at, resuming and repeating a long run costs: seconds and memory.

Makes the folders of two closed runs with the same number of accepted tasks, one with ten times the requests of the
other, and measures both, each time in a new process.
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.teacher import machine
from selfinstruct.files import to_json_line
from selfinstruct.records import Instance, Neighbour, Prompt, Source
from tests.corpus import SIZE, instruction
from tests.generating import ROOT, arguments
from tests.server import RunningServer, running_server

TEXT_CHARACTERS = 600  # of a prompt, and of a reply
CANDIDATES_PER_ACCEPTED, CANDIDATES_PER_SLOT = 1.5, 8
FAILED_EVERY = 50  # prompts, the first attempt failed
N_NEAREST, N_DEMONSTRATIONS = 10, 8
MORE = 1000  # tasks that the resumed run wants on top
GOAL_S = 5.0

OPENING = """\
import sys
from pathlib import Path
from selfinstruct.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]) / "ledger.sqlite")
ledger.requests(), ledger.reserved_usd(), ledger.n_accepted(), ledger.rules()
ledger.close()
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one thing took.

    Attributes:
        rows: Completions in the ledger.
        what: What was done.
        seconds: From the start of the process to its end, or to its first request.
        peak_mib: Most memory of the process until then.
    """

    rows: int
    what: str
    seconds: float
    peak_mib: float


# -- a run as if generated ---------------------------------------------------------------------------------------------


def generate(run: Path, server: RunningServer, target: int, **flags: Any) -> list[str]:
    """The command line of a run, with the defaults of a user's."""
    defaults = {"concurrency": None, "window": None, "outage_s": None}
    return [
        sys.executable, "-m", "selfinstruct",
        *arguments(run, server.base_url, num_instructions=target, **{**defaults, **flags}),
    ]  # fmt: skip


def make_run(run: Path, server: RunningServer, rows: int, accepted: int) -> None:
    """Make the folder of a closed run, without its results.

    Configuration and schema are those of a run that a cap ended after its first request.

    Args:
        run: The folder.
        server: Answers that request.
        rows: Completions.
        accepted: Accepted tasks.
    """
    capped = subprocess.run(generate(run, server, accepted, max_requests=1), cwd=ROOT, capture_output=True, text=True)
    if capped.returncode != 4:
        raise RuntimeError(f"exit code {capped.returncode} instead of 4:\n{capped.stderr}")
    with closing(sqlite3.connect(run / "ledger.sqlite", isolation_level=None)) as ledger:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -400000"):
            ledger.execute(f"PRAGMA {pragma}")
        ledger.execute("BEGIN")
        for table in ("attempts", "completions", "facts"):
            ledger.execute(f"DELETE FROM {table}")
        _fill(ledger, rows, accepted)
        ledger.execute("COMMIT")


def _fill(ledger: sqlite3.Connection, rows: int, accepted: int) -> None:
    n_candidates = round(accepted * CANDIDATES_PER_ACCEPTED)
    n_slots = -(-n_candidates // CANDIDATES_PER_SLOT)
    slots = [number * n_slots // rows for number in range(rows)]
    keys = [f"{Random(number).getrandbits(96):024x}" for number in range(rows)]
    ledger.executemany(
        "INSERT INTO attempts (prompt_key, slot, reserved_usd, outcome, error, cost_usd, prompt_tokens,"
        " completion_tokens, seconds) VALUES (?, ?, 0.0006, ?, ?, ?, ?, ?, 1.234)",
        _attempts(keys, slots),
    )
    ledger.executemany("INSERT INTO completions VALUES (?, 0, ?, ?, ?, ?, ?, 'stop', NULL)", _completions(keys, slots))
    for slot in range(n_slots):
        positions = range(slot * CANDIDATES_PER_SLOT, min((slot + 1) * CANDIDATES_PER_SLOT, n_candidates))
        n_accepted = sum(_is_accepted(position, n_candidates, accepted) for position in positions)
        ledger.execute(
            "INSERT INTO slots VALUES (?, 'self-instruct', ?, ?, '{}', 0)", (slot, len(positions), n_accepted)
        )
    for candidate, verdict in _judged(n_candidates, accepted):
        ledger.execute("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?, NULL, 0, '{}')", candidate)
        ledger.execute("INSERT INTO verdicts VALUES (?, ?, ?, ?)", verdict)
    closed = {"slot": n_slots - 1, "target": accepted, "by": "target"}
    ledger.execute("INSERT INTO facts VALUES ('closing', ?), ('elapsed_s', '3600.0')", (json.dumps(closed),))


def _is_accepted(position: int, n_candidates: int, accepted: int) -> bool:
    """Evenly spread, the last one among them."""
    return (position + 1) * accepted // n_candidates > position * accepted // n_candidates


def _attempts(keys: Sequence[str], slots: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    for number, (key, slot) in enumerate(zip(keys, slots, strict=True)):
        if number % FAILED_EVERY == 0:
            yield key, slot, "failed", "429: Rate limit reached for requests.", 0.0, 0, 0
        yield key, slot, "completed", None, 0.0004, 150 + number % 50, 120 + number % 80


def _completions(keys: Sequence[str], slots: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    for number, (key, slot) in enumerate(zip(keys, slots, strict=True)):
        text = f"{number}: {_text(number)}"
        prompt = Prompt(({"role": "user", "content": text},), 350, 0.0, presence_penalty=0.5, stop=("\nTask:",))
        yield key, f"{number:024x}", slot, f"instance/{number}", to_json_line(prompt.as_request()), text


def _text(number: int) -> str:
    return _texts()[number % len(_texts())]


@cache
def _texts() -> list[str]:
    rng = Random("texts")
    return [" ".join(instruction(rng.randrange(SIZE)) for _ in range(9))[:TEXT_CHARACTERS] for _ in range(997)]


def _judged(n_candidates: int, accepted: int) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Rows of candidates and their verdicts."""
    rng = Random("candidates")
    pool = [f"seed-{number}" for number in range(N_NEAREST)]
    for position in range(n_candidates):
        name, slot = f"self-instruct-{position:016x}", position // CANDIDATES_PER_SLOT
        task = f"{instruction(rng.randrange(SIZE))[:-1]}, as in case {position}."
        instances = [asdict(Instance(_text(position)[:150], _text(position)[-150:]))]
        source = Source(
            "self-instruct", "m", slot, f"{slot:024x}", name[-8:] * 3, tuple(rng.sample(pool, N_DEMONSTRATIONS))
        )
        nearest = [asdict(Neighbour(other, 0.65 - rank / 50)) for rank, other in enumerate(rng.sample(pool, N_NEAREST))]
        is_accepted = _is_accepted(position, n_candidates, accepted)
        rule, detail = (None, "") if is_accepted else ("novelty", f"ROUGE-L 0.712 to {nearest[0]['id']}")
        values = to_json_line(instances), int(position % 3 == 0), to_json_line(asdict(source))
        yield (position, name, task, *values), (position, rule, detail, to_json_line(nearest))
        if is_accepted:
            pool.append(name)


# -- what it costs -----------------------------------------------------------------------------------------------------


def measured(server: RunningServer, run: Path, rows: int, accepted: int) -> Iterator[Cost]:
    """Do one thing after another with a closed run."""
    again = generate(run, server, accepted)
    n_sent = len(server.log())
    for what, command in {
        "open, count": [sys.executable, "-c", OPENING, str(run)],
        "`status`": [sys.executable, "-m", "selfinstruct", "status", str(run)],
        "`generate` again, results lost": again,
        "`generate` again": again,
    }.items():
        yield Cost(rows, what, *_to_its_end(command))
    if len(server.log()) > n_sent:
        raise RuntimeError("a closed run was not repeated from its ledger")
    more = generate(run, server, accepted + MORE)
    yield Cost(rows, f"`generate`, {MORE:,} tasks more, until its first request", *_to_first_request(more, server))


def _to_its_end(command: Sequence[str]) -> tuple[float, float]:
    """(Seconds, peak memory in MiB) of a process."""
    began_s, peak_mib = time.monotonic(), 0.0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak_mib = max(peak_mib, _peak_mib(process.pid))
            time.sleep(0.005)
        ended_s = time.monotonic()
        if process.returncode:
            _, errors = process.communicate()
            raise RuntimeError(f"{command} ended with exit code {process.returncode}:\n{errors}")
    return ended_s - began_s, peak_mib


def _to_first_request(command: Sequence[str], server: RunningServer) -> tuple[float, float]:
    """The same of a process until it sends a request, when it is killed."""
    n_sent, began_s = len(server.log()), time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while len(log := server.log()) == n_sent:
            if process.poll() is not None:
                raise RuntimeError(f"{command} ended without a request:\n{process.communicate()[1]}")
            time.sleep(0.005)
        peak_mib = _peak_mib(process.pid)
        process.kill()
    return log[n_sent]["received_s"] - began_s, peak_mib


def _peak_mib(pid: int) -> float:
    """Most memory of a living process so far: VmHWM of proc(5). getrusage(2) would count its parent's before exec."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def table(costs: Sequence[Cost]) -> str:
    """A row for each thing that was done, a column for each length of the ledger."""
    lengths = list(dict.fromkeys(cost.rows for cost in costs))
    rows = [["", *(f"{length:,} replies" for length in lengths)], ["--", *("--:" for _ in lengths)]]
    for what in dict.fromkeys(cost.what for cost in costs):
        found = {cost.rows: f"{cost.seconds:.2f} s, {cost.peak_mib:.0f} MiB" for cost in costs if cost.what == what}
        rows.append([what, *(found[length] for length in lengths)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Make and measure both runs, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="replies in the longer ledger, 2 kB each on disk")
    parser.add_argument("--accepted", type=int, default=50_000, help="accepted tasks")
    parser.add_argument("--folder", type=Path, help="where runs are made for the time being")
    parser.add_argument("--out", type=Path, help="JSON file for all raw figures")
    args = parser.parse_args()
    costs: list[Cost] = []
    with running_server() as server, TemporaryDirectory(dir=args.folder) as folder:
        for rows in (max(args.rows // 10, 1), args.rows):
            run, began_s = Path(folder) / str(rows), time.monotonic()
            make_run(run, server, rows, args.accepted)
            size, seconds = (run / "ledger.sqlite").stat().st_size, time.monotonic() - began_s
            print(f"made {rows:,} replies, {size / 1e6:,.0f} MB, in {seconds:.0f} s", file=sys.stderr)
            costs += measured(server, run, rows, args.accepted)
    if args.out:
        facts = {"machine": machine(), "accepted": args.accepted, "costs": [asdict(cost) for cost in costs]}
        args.out.write_text(json.dumps(facts, indent=1))
    print(f"{machine()['cpu']}, {args.accepted:,} accepted tasks; time and peak memory, goal {GOAL_S:g} s\n")
    print(table(costs))


if __name__ == "__main__":
    main()
