"""Strategies: how instructions, inputs and outputs come to be. One file each.

A strategy is an async function of what a slot is handed: its random generator, the pool as it stood, and `ask`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from selfinstruct.files import digest
from selfinstruct.records import Candidate, Completion, Endpoint, Example, Instance, Prompt, Source, Verdict


@dataclass(frozen=True, slots=True)
class Slot:
    """What a strategy is handed for one slot.

    Attributes:
        number: The slot's place in the run's order.
        rng: The slot's own random generator; nothing else may draw.
        run_rng: Makes a generator for what all slots share, such as the demonstrations of a fixed prompt prefix.
        seeds: The seed tasks.
        accepted: The accepted tasks, as they stood when the slot began.
        ask_all: Gives the completions of (step, prompt), as many as the prompt's n; steps are unique within the slot.
        screen: The verdict that an instruction is certain to get, if it is one of rejection: nothing need be paid to
            complete such a task.
        strategy, model: For the source of candidates.
        endpoint: Which way of asking suits.
        tasks_per_request: How many tasks one reply is asked for.
        replies_per_request: How many replies a request for a list asks for.
        max_output_tokens: Most tokens of one instance.
    """

    number: int
    rng: Random
    run_rng: Callable[[str], Random]
    seeds: Sequence[Example]
    accepted: Sequence[Example]
    ask_all: Callable[[str, Prompt], Awaitable[tuple[Completion, ...]]]
    screen: Callable[[str], Verdict | None]
    strategy: str
    model: str
    endpoint: Endpoint
    tasks_per_request: int
    replies_per_request: int
    max_output_tokens: int

    async def ask(self, step: str, prompt: Prompt) -> Completion:
        """The one completion of a prompt."""
        return (await self.ask_all(step, prompt))[0]

    def candidate(
        self,
        completion: Completion,
        index: int,
        instruction: str,
        instances: tuple[Instance, ...] = (),
        is_classification: bool = False,
        demonstrations: tuple[str, ...] = (),
        rejection: Verdict | None = None,
    ) -> Candidate:
        """A candidate that stands at a place of a completion."""
        source = Source(
            self.strategy, self.model, self.number, completion.prompt_key, completion.key, demonstrations
        )  # fmt: skip
        id = f"{self.strategy}-{digest([completion.key, index])}"
        return Candidate(id, instruction, instances, is_classification, source, rejection)


Strategy = Callable[[Slot], Awaitable[list[Candidate]]]


def unparsable(slot: Slot, completion: Completion, demonstrations: tuple[str, ...]) -> Candidate:
    """The one rejected row of a reply without any task in it."""
    reason = {
        "error": f"the endpoint refused the request: {completion.error}",
        "content_filter": "the endpoint's content filter ended the reply",
        "length": "cut by the token limit before the first task; a reasoning model may need more --thinking-tokens",
    }.get(completion.finish_reason, "no task found")
    detail = f"{reason}: {completion.text[:200]!r}" if completion.text else reason
    return slot.candidate(completion, 0, "", demonstrations=demonstrations, rejection=Verdict("unparsable", detail))
