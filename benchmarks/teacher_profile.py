"""Where the teacher's processor time goes: one run under cProfile, times by package.

The profiler itself takes about as long as what it measures; the shares are what to look at.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
from collections import Counter
from pathlib import Path

import anyio

from benchmarks.clients.cell import WARM_UP, Cell
from benchmarks.clients.ours import open_teacher, prompt_of
from benchmarks.teacher import running_server

# The first that fits a function's file or name says what it belongs to.
PLACES = (
    ("waiting", "poll"), ("aiohttp", "aiohttp"), ("aiohttp", "multidict"), ("aiohttp", "yarl"), ("anyio", "anyio"),
    ("asyncio", "asyncio"), ("SQLite", "sqlite3"), ("sockets", "socket"), ("JSON and hashes", "json"),
    ("JSON and hashes", "hash"), ("this project", "selfinstruct/"),
)  # fmt: skip


async def profiled(cell: Cell) -> cProfile.Profile:
    """Ask all prompts under the profiler."""
    profile = cProfile.Profile()
    async with open_teacher(cell) as teacher:
        await teacher.ask(-1, "warm-up", prompt_of(cell, WARM_UP))
        profile.enable()
        async with anyio.create_task_group() as group:
            for slot, text in enumerate(cell.prompts()):
                group.start_soon(teacher.ask, slot, "instructions", prompt_of(cell, text))
        profile.disable()
    return profile


def shares(profile: cProfile.Profile) -> dict[str, float]:
    """Share of the time that is not waiting, by package."""
    seconds: Counter[str] = Counter()
    for (file, _, name), (_, _, own, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        place = next((place for place, part in PLACES if part in file or part in name), "other built-in functions")
        seconds[place] += own
    del seconds["waiting"]
    return {place: own / seconds.total() for place, own in seconds.most_common()}


def main() -> None:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight")
    parser.add_argument("--requests", type=int, default=2000, help="how many")
    parser.add_argument("--latency-ms", type=int, default=250, help="of the server")
    args = parser.parse_args()
    with running_server(max(os.sched_getaffinity(0))) as server, tempfile.TemporaryDirectory() as folder:
        server.reset(args.latency_ms / 1000, os.getpid())
        cell = Cell(server.base_url, "m", args.concurrency, args.requests, 0, 350, str(Path(folder)))
        # On asyncio's own loop: the profiler does not see into uvloop's.
        profile = anyio.run(profiled, cell)
    for place, share in shares(profile).items():
        print(f"{place:<26} {share:>4.0%}")


if __name__ == "__main__":
    main()
