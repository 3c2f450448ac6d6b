"""What the report of a long run costs: seconds and memory to write it, its size, and how quick it is in a browser.

Makes the folder of a closed run of generated-looking rows of all lengths, through the ledger's own writing and
`selfinstruct generate`, writes its report in a process of its own, and opens that in Chromium from disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.ledger import generate
from benchmarks.teacher import machine
from selfinstruct.files import shipped
from selfinstruct.ledger import JudgedSlot, Ledger
from selfinstruct.records import Candidate, Completion, Instance, Neighbour, Prompt, Source, Usage, Verdict
from selfinstruct.seeds import read_seeds
from tests.generating import ROOT
from tests.server import RunningServer, running_server

ACCEPTED_PER_SLOT, REJECTED_PER_SLOT = 4, 2
N_NEAREST, N_DEMONSTRATIONS = 10, 8
RULES = ("novelty", "novelty", "too_short", "format", "language", "unparsable")
# Median and spread (of the logarithm) of words in an instruction, an input and an output; half have no input.
WORDS = {"instruction": (16, 0.5), "input": (30, 0.8), "output": (55, 0.9)}
SECONDS_PER_SLOT = 0.4
SLOTS_AT_ONCE = 400
GOAL_S, GOAL_MB = 3.0, 25.0

WRITING = """\
import re, sys
from pathlib import Path
from selfinstruct.report_page import ReportConfig, report

report(ReportConfig(run=Path(sys.argv[1]), out=Path(sys.argv[2])))
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""
# Milliseconds from an action to the next change of a table's status line, measured in the page.
UNTIL_SHOWN = """([control, action, value]) => new Promise((resolve) => {
  const table = document.querySelector("[data-table=accepted]");
  const begin = performance.now();
  new MutationObserver((_, observer) => { observer.disconnect(); resolve(performance.now() - begin); })
    .observe(table.querySelector(".found"), { childList: true });
  const element = table.querySelector(control);
  if (value !== null) element.value = value;
  action === "click" ? element.click() : element.dispatchEvent(new Event(action));
})"""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a report of so many accepted rows takes.

    Attributes:
        rows: Accepted tasks of the run; half as many were rejected.
        shown: Accepted tasks in the page.
        write_s, peak_mib: Of the process that writes it.
        mb: Size of the file.
        usable_s: From opening it until the load event has passed and the first table stands with its controls.
        first_search_s, search_s, order_s, turn_s: From the last key or click until the rows stand there; the first
            search has to unpack all rows. A key waits a tenth of a second for the next one.
    """

    rows: int
    shown: int
    write_s: float
    peak_mib: float
    mb: float
    usable_s: float
    first_search_s: float
    search_s: float
    order_s: float
    turn_s: float


# -- a run as if generated ---------------------------------------------------------------------------------------------


class Texts:
    """Texts of words as common as in the shipped seed tasks, of all lengths."""

    def __init__(self) -> None:
        seeds = read_seeds(shipped("seed_tasks.jsonl"))
        self.ids = [seed.id for seed in seeds]
        self._openings = [seed.instruction.split()[0] for seed in seeds]
        self._words = [w for s in seeds for i in s.instances for w in f"{s.instruction} {i.input} {i.output}".split()]

    def instruction(self, rng: Random) -> str:
        """One that begins as those of the seeds do."""
        return f"{rng.choice(self._openings)} {self.of(rng, 'instruction')}"

    def of(self, rng: Random, kind: str) -> str:
        """A text as long as others of its kind."""
        middle, sigma = WORDS[kind]
        return " ".join(rng.choices(self._words, k=1 + round(rng.lognormvariate(0, sigma) * middle)))


def make_run(run: Path, server: RunningServer, accepted: int) -> None:
    """Make the folder of a closed run: options as generate settles them, rows through the ledger, results from there.

    Args:
        run: The folder.
        server: Answers one request.
        accepted: Accepted tasks.
    """
    _call(generate(run, server, accepted, max_requests=1), expected=4)
    path = run / "ledger.sqlite"
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (run / name).unlink(missing_ok=True)
    asyncio.run(_fill(path, accepted))
    with closing(sqlite3.connect(path)) as ledger, ledger:
        # As if it had taken hours, with a pause over night.
        ledger.execute(
            "UPDATE attempts SET started_at = strftime('%Y-%m-%dT%H:%M:%fZ', '2026-01-01', (slot * ?) || ' seconds',"
            " ((slot > (SELECT max(slot) / 2 FROM attempts)) * 10) || ' hours')",
            (SECONDS_PER_SLOT,),
        )
    _call(generate(run, server, accepted), expected=0)


def _call(command: Sequence[str], expected: int) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != expected:
        raise RuntimeError(f"{command} ended with exit code {done.returncode}:\n{done.stderr}")
    return done.stdout


async def _fill(path: Path, accepted: int) -> None:
    texts = Texts()
    n_slots = -(-accepted // ACCEPTED_PER_SLOT)
    with closing(Ledger(path)) as ledger:
        for first in range(0, n_slots, SLOTS_AT_ONCE):
            numbers = range(first, min(first + SLOTS_AT_ONCE, n_slots))
            await asyncio.gather(*(_slot(ledger, texts, number, accepted, n_slots) for number in numbers))
        closed = {"slot": n_slots - 1, "target": accepted, "by": "target"}
        await ledger.record_fact("closing", closed)
        await ledger.record_fact("elapsed_s", n_slots * SECONDS_PER_SLOT)


async def _slot(ledger: Ledger, texts: Texts, number: int, accepted: int, n_slots: int) -> None:
    """A request, its reply and what was made of it."""
    rng = Random(number)
    shown = rng.sample(texts.ids, N_DEMONSTRATIONS)
    first = number * (ACCEPTED_PER_SLOT + REJECTED_PER_SLOT)
    n_accepted = min(ACCEPTED_PER_SLOT, accepted - number * ACCEPTED_PER_SLOT)
    source = Source("alpaca", "m", number, f"{number:024x}", f"{number:025x}", tuple(shown))
    judged = [
        _judged(texts, rng, source, first + index, index < n_accepted)
        for index in range(n_accepted + REJECTED_PER_SLOT)
    ]
    listed = "\n\n".join(f"{c.instruction}\n{c.instances[0].output}" for c, _ in judged)
    prompt = Prompt(({"role": "user", "content": "\n".join([*shown, texts.of(rng, "output")])},), 1000, 1.0)
    attempt = await ledger.begin_attempt(source.prompt_key, number, 0.001)
    reply = Completion(source.prompt_key, source.completion_key, listed, "stop")
    usage = Usage(600, len(listed) // 4)
    await ledger.complete_attempt(attempt, [reply], number, "tasks", prompt.as_request(), 0.0005, usage, 2.5)
    rejected: dict[str, int] = {}
    for _, verdict in judged:
        if verdict.rule:
            rejected[verdict.rule] = rejected.get(verdict.rule, 0) + 1
    slot = JudgedSlot(number, "alpaca", len(judged), n_accepted, rejected, 0)
    await ledger.record_slot(slot, first, judged, None)


def _judged(texts: Texts, rng: Random, source: Source, position: int, is_accepted: bool) -> tuple[Candidate, Verdict]:
    instance = Instance(texts.of(rng, "input") if rng.random() < 0.5 else "", texts.of(rng, "output"))
    candidate = Candidate(f"alpaca-{position:016x}", texts.instruction(rng), (instance,), False, source)
    rule = None if is_accepted else rng.choice(RULES)
    nearest = 0.7 + 0.3 * rng.random() if rule == "novelty" else 0.7 * rng.betavariate(3, 2)
    scores = [nearest * 0.97**rank for rank in range(N_NEAREST)]
    near = tuple(Neighbour(rng.choice(texts.ids), score) for score in scores)
    return candidate, Verdict(rule, f"ROUGE-L {nearest:.3f} to {near[0].id}" if rule == "novelty" else "", near)


# -- what it costs -----------------------------------------------------------------------------------------------------


def costs(run: Path, rows: int, page: Path, repeat: int) -> Costs:
    """Write the report of a run and use it."""
    began_s = time.monotonic()
    peak_kib = _call([sys.executable, "-c", WRITING, str(run), str(page)], expected=0)
    write_s = time.monotonic() - began_s
    opened = list(_opened(page, repeat))

    def middle(name: str) -> float:
        return median(one[name] for one in opened)

    return Costs(
        rows, int(opened[0]["shown"]), write_s, int(peak_kib) / 1024, page.stat().st_size / 1e6,
        **{name: middle(name) for name in ("usable_s", "first_search_s", "search_s", "order_s", "turn_s")},
    )  # fmt: skip


def _opened(page: Path, repeat: int) -> Iterator[dict[str, float]]:
    """Times of opening the page, each time in a new browser, and of using it."""
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import FLAGS, browser_path

    for _ in range(repeat):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path(), args=list(FLAGS))
            tab = browser.new_page(viewport={"width": 1200, "height": 900})
            began_s = time.monotonic()
            tab.goto(page.as_uri(), wait_until="load")
            tab.wait_for_selector("[data-table=accepted] .controls", state="visible")
            usable_s = time.monotonic() - began_s

            def act(control: str, action: str, value: str | None = None, tab: Any = tab) -> float:
                return float(tab.evaluate(UNTIL_SHOWN, [control, action, value])) / 1000

            yield {
                "usable_s": usable_s,
                "first_search_s": act("[type=search]", "input", "write the"),
                "search_s": act("[type=search]", "input", "explain how"),
                "all_s": act("[type=search]", "input", ""),
                "order_s": act("[data-order]", "change", "down"),
                "turn_s": act("[data-go=next]", "click"),
                "shown": int(tab.locator("[data-table=accepted]").get_attribute("data-n")),
            }
            browser.close()


def table(measured: Sequence[Costs]) -> str:
    """A column for each length of the run."""
    rows = [
        ["", *(f"{one.rows:,} rows" for one in measured)],
        ["--", *("--:" for _ in measured)],
        ["accepted rows in the page", *(f"{one.shown:,}" for one in measured)],
        ["time to write it", *(f"{one.write_s:.1f} s" for one in measured)],
        ["most memory meanwhile", *(f"{one.peak_mib:.0f} MiB" for one in measured)],
        [f"size, goal {GOAL_MB:g} MB", *(f"{one.mb:.1f} MB" for one in measured)],
        [f"until it can be used, goal {GOAL_S:g} s", *(f"{one.usable_s:.2f} s" for one in measured)],
        ["first search, at once", *(f"{one.first_search_s:.2f} s" for one in measured)],
        ["another search", *(f"{one.search_s:.2f} s" for one in measured)],
        ["another order of all", *(f"{one.order_s:.2f} s" for one in measured)],
        ["next page", *(f"{one.turn_s:.3f} s" for one in measured)],
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Make, write and open reports, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1000,100000", help="accepted tasks of each run")
    parser.add_argument("--repeat", type=int, default=3, help="how often each page is opened; medians count")
    parser.add_argument("--folder", type=Path, help="where runs are made for the time being")
    parser.add_argument("--out", type=Path, help="JSON file for all raw figures")
    args = parser.parse_args()
    measured = []
    with running_server() as server, TemporaryDirectory(dir=args.folder) as folder:
        for rows in map(int, args.rows.split(",")):
            run, began_s = Path(folder) / f"{rows}-rows", time.monotonic()
            make_run(run, server, rows)
            print(f"made {rows:,} rows in {time.monotonic() - began_s:.0f} s", file=sys.stderr)
            measured.append(costs(run, rows, Path(folder) / f"{rows}.html", args.repeat))
    if args.out:
        facts = {"machine": machine(), "costs": [asdict(one) for one in measured]}
        args.out.write_text(json.dumps(facts, indent=1))
    print(f"{machine()['cpu']}, {machine()['cores']} cores; medians of {args.repeat} openings\n")
    print(table(measured))


if __name__ == "__main__":
    main()
