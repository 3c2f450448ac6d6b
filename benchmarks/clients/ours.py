"""This project's teacher with everything on: a ledger on disk, a price, a cap."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from benchmarks.clients.cell import WARM_UP, Cell, chat, given
from selfinstruct.budget import Budget, price_of
from selfinstruct.ledger import Ledger
from selfinstruct.records import Prompt
from selfinstruct.teacher import Server, Teacher


@asynccontextmanager
async def open_teacher(cell: Cell) -> AsyncIterator[Teacher]:
    """The teacher as `selfinstruct generate` makes it."""
    server = Server(
        model=cell.model, base_url=cell.base_url, api_key="none", key_name="KEY", endpoint="chat", timeout_s=120.0,
        outage_s=120.0,
    )  # fmt: skip
    ledger = Ledger(Path(cell.folder) / "ledger.sqlite")
    budget = Budget(price_of(cell.model, cell.base_url, 0.15, 0.60), 1000.0, 10**6, 0.0, 0)
    teacher = Teacher(server, ledger, budget, cell.concurrency, config_key="benchmark")
    try:
        yield teacher
    finally:
        await teacher.close()
        ledger.close()


async def ask_all(cell: Cell) -> None:
    """Ask every prompt, each in a task of its own; the teacher bounds how many are in flight."""
    answers = [""] * cell.n_requests

    async def ask(teacher: Teacher, slot: int, prompt: Prompt) -> None:
        answers[slot] = (await teacher.ask(slot, "instructions", prompt)).text

    prompts = [Prompt((chat(text)[0],), cell.max_tokens, temperature=0.7) for text in cell.prompts()]
    async with open_teacher(cell) as teacher:
        # The first request of a run goes alone, to show whether key, model and parameters are right.
        await teacher.ask(-1, "warm-up", Prompt((chat(WARM_UP)[0],), cell.max_tokens, temperature=0.7))
        cell.ready()
        async with anyio.create_task_group() as group:
            for slot, prompt in enumerate(prompts):
                group.start_soon(ask, teacher, slot, prompt)
        cell.done(answers)


if __name__ == "__main__":
    anyio.run(ask_all, given())
