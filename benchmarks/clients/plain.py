"""The reference: the OpenAI client as it comes, with gather and a semaphore. It stores nothing and counts no money."""

from __future__ import annotations

import asyncio

from openai import AsyncOpenAI

from benchmarks.clients.cell import WARM_UP, Cell, chat, given


async def ask_all(cell: Cell) -> None:
    """Ask every prompt, as many at once as the semaphore lets through."""
    client = AsyncOpenAI(base_url=cell.base_url, api_key="none")
    limit = asyncio.Semaphore(cell.concurrency)

    async def ask(prompt: str) -> str:
        async with limit:
            reply = await client.chat.completions.create(
                model=cell.model, messages=chat(prompt), max_tokens=cell.max_tokens, temperature=0.7
            )
        return reply.choices[0].message.content or ""

    prompts = cell.prompts()
    await ask(WARM_UP)
    cell.ready()
    cell.done(await asyncio.gather(*map(ask, prompts)))


if __name__ == "__main__":
    asyncio.run(ask_all(given()))
