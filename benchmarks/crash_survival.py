"""Runs that are killed by SIGKILL at random instants, again and again, while their endpoint shows faults.

Each must end with the data set of a run that nothing disturbed, byte for byte, and no request may be answered twice but
those that were in flight at a kill. What was answered and billed is read from the endpoint's log.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import cycle
from math import inf, isfinite
from pathlib import Path
from random import Random
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from benchmarks.teacher import machine
from tests.generating import data, start, summary
from tests.server import Behaviour, RunningServer, running_server

CONCURRENCY = 4
USD_PER_MTOK = {"prompt": 1000.0, "completion": 2000.0}
FLAGS = {
    "num_instructions": 40, "tasks_per_request": 4, "window": 4, "concurrency": CONCURRENCY, "outage_s": 60,
    "max_cost_usd": 1000, "input_usd_per_mtok": USD_PER_MTOK["prompt"],
    "output_usd_per_mtok": USD_PER_MTOK["completion"],
}  # fmt: skip
LATENCY_S, BATCH_S, POLL_S, RETRY_AFTER_S = (0.03, 0.1), 0.1, 0.05, 0.05
# Shares of requests, and of calls to the batch API. The data set must be the same after all of them.
FAULTS = {
    "429_retry_after": 0.05, "500": 0.002, "overloaded": 0.002, "529": 0.002, "reset": 0.004, "truncated": 0.004,
    "malformed": 0.004, "empty_choices": 0.004, "no_usage": 0.05,
}  # fmt: skip
CALL_FAULTS = {"429_retry_after": 0.05, "500": 0.02, "reset": 0.02, "malformed": 0.02}
SPOILT = ("reset", "truncated", "malformed", "empty_choices")  # billed, and no answer all the same
# Most of a short process's life is its start, and its end takes a moment only: these shares of kills wait for so many
# writes to the ledger at most, or for the results to be written, and then for a moment.
WORKING, MAX_WRITES = 0.5, 30
LATE, MOMENT_S = 0.12, 0.03
LIMIT_S = 120  # of a process that nobody kills
START_UP_S = 0.3  # no process sends its first request sooner
STORED_WITHIN_S = 0.2  # from the time when an answer is due to its being in the ledger; generous, for a busy machine

START = "before the first request"
FLIGHT = "requests in flight"
VERDICT = "a slot's replies stored, its verdicts not"
BETWEEN = "between requests"
RESULTS = "results being written"
END = "results written"
MOMENTS = (START, FLIGHT, VERDICT, BETWEEN, RESULTS, END)


@dataclass(frozen=True, slots=True)
class Kind:
    """What distinguishes runs."""

    strategy: str
    batch: bool = False

    def __str__(self) -> str:
        return f"{self.strategy}{', batch' if self.batch else ''}"

    def start(self, run: Path, server: RunningServer) -> Popen[str]:
        """Start `selfinstruct generate`."""
        batch = {"batch": True, "batch_poll_s": POLL_S} if self.batch else {}
        return start(run, server.base_url, strategy=self.strategy, **FLAGS, **batch)


DIRECT = (Kind("self-instruct"), Kind("alpaca"))
KINDS = (*DIRECT, *(replace(kind, batch=True) for kind in DIRECT))
ORDER = (*DIRECT, *DIRECT, *KINDS)  # of runs, over and over


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill.

    Attributes:
        began_s, at_s: When the process began and when it was killed, on the monotonic clock.
        moment: One of `MOMENTS`; where several hold, verdicts come before requests in flight.
        n_open: Requests that this process had begun and whose outcome is not in the ledger.
    """

    began_s: float
    at_s: float
    moment: str
    n_open: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run, from its first process to the one that was left alone.

    Attributes:
        kind: `Kind` as text.
        kills: In order.
        answered: Requests with a good answer.
        spoilt: Requests with an answer that a fault spoilt; they are asked again by design.
        twice: Good answers in excess of one a prompt.
        twice_in_flight: Those that were in flight when the process that asked was killed.
        latest_s: The most that a kill came after the time when such an answer was due.
        asked_again: Attempts at prompts whose reply was in the ledger.
        billed_usd, charged_usd: By the endpoint's log and by summary.json.
        identical: Whether data set and rejected rows are those of an undisturbed run.
        strays: Unfinished files left behind.
        problems: What must not be; empty if all is well.
    """

    kind: str
    kills: tuple[Kill, ...]
    answered: int
    spoilt: int
    twice: int
    twice_in_flight: int
    latest_s: float
    asked_again: int
    billed_usd: float
    charged_usd: float
    identical: bool
    strays: int
    problems: tuple[str, ...]


# -- one run -----------------------------------------------------------------------------------------------------------


def _server(**behaviour: Any) -> AbstractContextManager[RunningServer]:
    return running_server(latency_s=LATENCY_S, batch_s=BATCH_S, retry_after_s=RETRY_AFTER_S, **behaviour)


@cache
def _undisturbed(kind: Kind) -> tuple[list[bytes], float]:
    with TemporaryDirectory() as folder, _server() as server:
        began_s = time.monotonic()
        with kind.start(Path(folder), server) as process:
            _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"an undisturbed run failed:\n{errors}")
        return data(Path(folder)), time.monotonic() - began_s


_one_at_a_time = Lock()


def undisturbed(kind: Kind) -> tuple[list[bytes], float]:
    """(Bytes of the data set and of the rejected rows, seconds) of a run without faults and kills."""
    with _one_at_a_time:
        return _undisturbed(kind)


def killed_run(kind: Kind, rng: Random, done: list[Kill], n_kills: int) -> Run:
    """One run, killed until it closes or there were kills enough.

    Args:
        kind: What to run.
        rng: Decides the instants.
        done: The kills of all runs; those of this one are appended.
        n_kills: How many are wanted in all.
    """
    expected, _ = undisturbed(replace(kind, batch=False))
    _, life_s = undisturbed(kind)
    kills: list[Kill] = []
    known: set[int] = set()  # attempts that earlier kills left open
    with TemporaryDirectory() as folder, _server(faults=FAULTS, batch_api_faults=CALL_FAULTS) as server:
        run, n_before = Path(folder), 0
        while True:
            began_s, began_ns = time.monotonic(), time.time_ns()
            with kind.start(run, server) as process:
                if len(done) < n_kills:
                    _wait_for_instant(process, run, rng, life_s)
                    at_s = time.monotonic()
                    process.kill()
                errors = _end(process)
            if process.returncode != -signal.SIGKILL:
                problems = [f"exit code {process.returncode}: {errors[-500:]}"] if process.returncode else []
                return _judged(kind, run, server, [*(k.began_s for k in kills), began_s], kills, expected, problems)
            n_sent = len(server.log()) + len(server.calls())
            is_open, unjudged = _left_behind(run)
            moment = _moment(run, began_ns, n_sent - n_before, unjudged, bool(is_open - known))
            kills.append(Kill(began_s, at_s, moment, len(is_open - known)))
            done.append(kills[-1])
            known |= is_open
            n_before = n_sent


def _wait_for_instant(process: Popen[str], run: Path, rng: Random, life_s: float) -> None:
    """Wait for an instant of a process's life: of all of it, of its work, or of its end."""
    share = rng.random()
    if share < LATE:
        _wait_for_change(process, lambda: [name for name in os.listdir(run) if name.startswith(".dataset")])
        time.sleep(rng.uniform(0, MOMENT_S))
    elif share < LATE + WORKING:
        log = run / "ledger.sqlite-wal"
        for _ in range(rng.randint(1, MAX_WRITES)):
            _wait_for_change(process, lambda: log.stat().st_mtime_ns if log.exists() else 0)
        time.sleep(rng.uniform(0, MOMENT_S))
    else:
        time.sleep(rng.uniform(0, life_s))


def _wait_for_change(process: Popen[str], look: Callable[[], object]) -> None:
    before = look()
    while process.poll() is None and look() == before:
        time.sleep(0.002)


def _end(process: Popen[str]) -> str:
    """Wait for a process to end, and give what it said on standard error."""
    try:
        return process.communicate(timeout=LIMIT_S)[1]
    except TimeoutExpired:
        process.terminate()
        return f"did not end within {LIMIT_S} s: {process.communicate()[1]}"


def _left_behind(run: Path) -> tuple[set[int], bool]:
    """(Open attempts, whether the replies of the next slot to be judged are all there) in a killed process's ledger.

    A copy is read: reading would mend the ledger before the next process has to.
    """
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "ledger.sqlite"
        for name in ("ledger.sqlite", "ledger.sqlite-wal"):
            if (run / name).exists():
                shutil.copy(run / name, folder)
        with closing(sqlite3.connect(copy)) as ledger:
            if not ledger.execute("PRAGMA user_version").fetchone()[0]:
                return set(), False
            is_open = {id for (id,) in ledger.execute("SELECT id FROM attempts WHERE outcome IS NULL")}
            (slot,) = ledger.execute("SELECT coalesce(max(number) + 1, 0) FROM slots").fetchone()
            asked = "SELECT count(*) FROM attempts WHERE slot = ? AND prompt_key"
            n_answered, n_unanswered = (
                ledger.execute(f"{asked} {which} (SELECT prompt_key FROM completions)", (slot,)).fetchone()[0]
                for which in ("IN", "NOT IN")
            )
    return is_open, bool(n_answered) and not n_unanswered


def _moment(run: Path, began_ns: int, n_sent: int, unjudged: bool, in_flight: bool) -> str:
    written = [p.name.lstrip(".") for p in run.glob("*.json*") if p.stat().st_mtime_ns >= began_ns]
    if "summary.json" in written:
        return END
    if written:
        return RESULTS
    return START if not n_sent else VERDICT if unjudged else FLIGHT if in_flight else BETWEEN


def _judged(
    kind: Kind, run: Path, server: RunningServer, begins_s: Sequence[float], kills: Sequence[Kill],
    expected: list[bytes], problems: list[str],
) -> Run:  # fmt: skip
    """What a run that has ended shows."""
    log = server.log()
    answered = [entry for entry in log if entry["status"] == 200 and entry["fault"] not in SPOILT]
    with closing(sqlite3.connect(run / "ledger.sqlite")) as ledger:
        requests = ledger.execute("SELECT request FROM completions WHERE choice = 0").fetchall()
        (asked_again,) = ledger.execute(
            "SELECT count(*) FROM attempts a JOIN attempts b USING (prompt_key)"
            " WHERE b.outcome = 'completed' AND a.id > b.id"
        ).fetchone()
    prompts = Counter(_question(json.loads(request)) for (request,) in requests)
    twice = list(_twice(answered, prompts, begins_s, [kill.at_s for kill in kills]))
    # A batch goes on at the endpoint, whoever is killed: nothing excuses asking again.
    excused = [lag_s for _, lag_s in twice if lag_s <= STORED_WITHIN_S and not kind.batch]
    price = (0.5 if kind.batch else 1.0) / 1e6
    billed = sum(entry[f"{name}_tokens"] * usd * price for entry in log for name, usd in USD_PER_MTOK.items())
    charged = 0.0 if problems else summary(run)["cost_usd"]
    at_kill = Counter(process for process, _ in twice)
    identical = not problems and data(run) == expected
    wrong = {
        "another data set": not identical,
        "answered twice without having been in flight at a kill": len(excused) < len(twice),
        "more answered twice than were open at a kill": any(
            at_kill[process] > kill.n_open for process, kill in enumerate(kills)
        ),
        "more open than may be in flight": not kind.batch and any(kill.n_open > CONCURRENCY for kill in kills),
        "asked again for what was stored": asked_again > 0,
        "charged less than was billed": charged < billed * (1 - 1e-9),
    }
    return Run(
        kind=str(kind),
        kills=tuple(kills),
        answered=len(answered),
        spoilt=sum(entry["status"] == 200 for entry in log) - len(answered),
        twice=len(twice),
        twice_in_flight=len(excused),
        latest_s=max((lag_s for _, lag_s in twice if isfinite(lag_s)), default=0.0),
        asked_again=asked_again,
        billed_usd=billed,
        charged_usd=charged,
        identical=identical,
        strays=len(list(run.glob(".*.json*"))),
        problems=tuple(problems or (name for name, holds in wrong.items() if holds)),
    )


def _question(body: Mapping[str, Any]) -> str:
    """What is asked, alike in a request's body and in the ledger."""
    return json.dumps(body["messages"])


def _twice(
    answered: Sequence[Mapping[str, Any]], prompts: Mapping[str, int], begins_s: Sequence[float],
    kills_s: Sequence[float],
) -> Iterator[tuple[int, float]]:  # fmt: skip
    """Answers in excess of one a prompt: (process that asked, seconds from the answer's being due to its kill).

    Of several answers to one question those are taken that the kills came soonest after.

    Args:
        answered: Log entries of good answers.
        prompts: How many prompts of the run ask a question; two slots may ask the same one.
        begins_s: When each process began.
        kills_s: When each of them but the last was killed.
    """
    latency = Behaviour(latency_s=LATENCY_S).latency
    sent_from_s = [began_s + START_UP_S for began_s in begins_s]
    answers: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for entry in answered:
        process = max(bisect(sent_from_s, entry["received_s"]) - 1, 0)
        killed_s = kills_s[process] if process < len(kills_s) else inf
        answers[_question(entry["body"])].append((killed_s - entry["received_s"] - latency(entry["number"]), process))
    for question, lags in answers.items():
        for lag_s, process in sorted(lags)[: len(lags) - max(prompts.get(question, 0), 1)]:
            yield process, lag_s


# -- many runs ---------------------------------------------------------------------------------------------------------


def killed_runs(n_kills: int, seed: int, workers: int) -> list[Run]:
    """Runs until there were so many kills, or one or two more."""
    kinds, done, runs = enumerate(cycle(ORDER)), list[Kill](), list[Run]()

    def work() -> None:
        while len(done) < n_kills:
            number, kind = next(kinds)
            runs.append(killed_run(kind, Random(f"{seed}/{number}"), done, n_kills))
            print(f"run {number} ({kind}): {len(runs[-1].kills)} kills", *runs[-1].problems, file=sys.stderr)

    with ThreadPoolExecutor(workers) as pool:
        for worker in [pool.submit(work) for _ in range(workers)]:
            worker.result()
    return runs


def table(runs: Sequence[Run]) -> str:
    """Figures by kind of run."""
    names = [str(kind) for kind in KINDS if any(run.kind == str(kind) for run in runs)]
    columns = [*([run for run in runs if run.kind == name] for name in names), runs]
    figures: dict[str, Callable[[Sequence[Run]], object]] = {"runs": len, "kills": lambda part: len(_kills(part))}
    for moment in MOMENTS:
        figures[f"- {moment}"] = partial(_n_kills_at, moment)
    figures |= {
        "requests answered": lambda part: sum(run.answered for run in part),
        "answers spoilt by a fault": lambda part: sum(run.spoilt for run in part),
        "requests open at kills": lambda part: sum(kill.n_open for kill in _kills(part)),
        "answered twice": lambda part: sum(run.twice for run in part),
        "- of them in flight at a kill": lambda part: sum(run.twice_in_flight for run in part),
        "asked again although stored": lambda part: sum(run.asked_again for run in part),
        "latest kill after an answer was due": lambda part: f"{1000 * max(run.latest_s for run in part):.0f} ms",
        "billed, USD": lambda part: f"{sum(run.billed_usd for run in part):.2f}",
        "charged, USD": lambda part: f"{sum(run.charged_usd for run in part):.2f}",
        "unfinished files left": lambda part: sum(run.strays for run in part),
        "data sets identical": lambda part: sum(run.identical for run in part),
        "runs with a problem": lambda part: sum(bool(run.problems) for run in part),
    }
    rows = [["", *names, "all"], ["--", *("--:" for _ in columns)]]
    rows += [[name, *(str(figure(part)) for part in columns)] for name, figure in figures.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _n_kills_at(moment: str, runs: Sequence[Run]) -> int:
    return sum(kill.moment == moment for kill in _kills(runs))


def _kills(runs: Sequence[Run]) -> list[Kill]:
    return [kill for run in runs for kill in run.kills]


def main() -> None:
    """Kill runs, print the table, and fail when anything is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many in all")
    parser.add_argument("--seed", type=int, default=42, help="of the instants")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--out", type=Path, help="JSON file for all raw figures")
    args = parser.parse_args()
    began_s = time.monotonic()
    runs = killed_runs(args.kills, args.seed, args.workers)
    elapsed_s = time.monotonic() - began_s
    if args.out:
        facts = {"machine": machine(), "seed": args.seed, "elapsed_s": elapsed_s, "runs": [asdict(run) for run in runs]}
        args.out.write_text(json.dumps(facts, indent=1))
    print(f"{machine()['cpu']}, {args.workers} runs at a time, {elapsed_s:.0f} s\n")
    print(table(runs))
    for run in runs:
        for problem in run.problems:
            print(f"\n{run.kind}: {problem}")
    sys.exit(any(run.problems for run in runs))


if __name__ == "__main__":
    main()
