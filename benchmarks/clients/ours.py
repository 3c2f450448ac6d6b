"""This project's teacher with everything on: a ledger on disk, a price, a cap."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio

from benchmarks.clients.cell import WARM_UP, Cell, given
from selfinstruct.budget import Budget, price_of
from selfinstruct.endpoint import Server
from selfinstruct.ledger import Ledger
from selfinstruct.records import Prompt
from selfinstruct.teacher import DirectTeacher


@asynccontextmanager
async def open_teacher(cell: Cell) -> AsyncIterator[DirectTeacher]:
    """The teacher as `selfinstruct generate` makes it."""
    server = Server(
        model=cell.model, base_url=cell.base_url, api_key="none", key_name="KEY", endpoint="chat", timeout_s=120.0,
        outage_s=120.0,
    )  # fmt: skip
    budget = Budget(price_of(cell.model, cell.base_url, 0.15, 0.60), 1000.0, 10**6, spent_usd=0.0, n_requests=0)
    with closing(Ledger(Path(cell.folder) / "ledger.sqlite")) as ledger:
        async with DirectTeacher(server, ledger, budget, "benchmark", cell.concurrency) as teacher:
            yield teacher


def prompt_of(cell: Cell, text: str) -> Prompt:
    """A prompt of the benchmark as ours."""
    return Prompt(({"role": "user", "content": text},), cell.max_tokens, temperature=0.7)


async def ask_all(cell: Cell) -> None:
    """Ask every prompt, each in a task of its own; the teacher bounds how many are in flight."""
    answers = [""] * cell.n_requests

    async def ask(teacher: DirectTeacher, slot: int, prompt: Prompt) -> None:
        (completion,) = await teacher.ask(slot, "instructions", prompt)
        answers[slot] = completion.text

    prompts = [prompt_of(cell, text) for text in cell.prompts()]
    async with open_teacher(cell) as teacher:
        # The first request of a run goes alone, to show whether key, model and parameters are right.
        await teacher.ask(-1, "warm-up", prompt_of(cell, WARM_UP))
        cell.ready()
        async with anyio.create_task_group() as group:
            for slot, prompt in enumerate(prompts):
                group.start_soon(ask, teacher, slot, prompt)
        cell.done(answers)


if __name__ == "__main__":
    anyio.run(ask_all, given(), backend_options={"use_uvloop": True})
