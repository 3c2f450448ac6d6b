"""A slot whose requests are answered by a function, for tests of strategies without an endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from selfinstruct.records import Candidate, Completion, Example, Instance, Prompt
from selfinstruct.strategies import Slot, Strategy

Reply = str | tuple[str, str]  # text, or text and finish reason


def seed(number: int, instruction: str, *cases: tuple[str, str], is_classification: bool = False) -> Example:
    return Example(f"s{number}", instruction, tuple(Instance(*case) for case in cases), is_classification)


SEEDS = (
    seed(1, "Add  the\nnumbers:", ("2 and 3", "5"), ("1 and 1", "2")),
    seed(2, "Name a river.", ("", "Lena")),
    seed(3, "Is it spam?", ("Win now", "Yes"), ("Hi Anna", "No"), is_classification=True),
    seed(4, "Name any vowel.", ("", "a"), is_classification=True),
)


def slot(answer: Callable[[str, Prompt], Reply], seeds: Sequence[Example] = SEEDS, **fields: Any) -> Slot:
    """A slot that asks a function of (step, prompt)."""

    async def ask_all(step: str, prompt: Prompt) -> tuple[Completion, ...]:
        reply = answer(step, prompt)
        text, finish_reason = (reply, "stop") if isinstance(reply, str) else reply
        return (Completion(f"p-{step}", f"c-{step}", text, finish_reason),)

    values: dict[str, Any] = {
        "number": 0, "rng": Random(0), "run_rng": lambda purpose: Random(purpose), "seeds": seeds, "accepted": (),
        "ask_all": ask_all, "screen": lambda instruction: False, "strategy": "s", "model": "m", "endpoint": "chat",
        "language": "en", "max_output_tokens": 350,
    }  # fmt: skip
    return Slot(**{**values, **fields})


def propose(strategy: Strategy, replies: dict[str, Reply], **fields: Any) -> list[Candidate]:
    """What a strategy makes of replies by the beginning of their steps' names."""

    def answer(step: str, prompt: Prompt) -> Reply:
        return next(reply for name, reply in replies.items() if step.startswith(name))

    return asyncio.run(strategy.propose(slot(answer, **fields)))


def asked(strategy: Strategy, replies: dict[str, Reply], **fields: Any) -> dict[str, Prompt]:
    """The prompts of a strategy by step."""
    prompts: dict[str, Prompt] = {}

    def answer(step: str, prompt: Prompt) -> Reply:
        prompts[step] = prompt
        return next(reply for name, reply in replies.items() if step.startswith(name))

    asyncio.run(strategy.propose(slot(answer, **fields)))
    return prompts


def text_of(prompt: Prompt) -> str:
    return prompt.messages[-1]["content"]
