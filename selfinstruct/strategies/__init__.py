"""Strategies: how instructions, inputs and outputs come to be. One file each.

A strategy is options and an async function of what a slot is handed: its random generator, the pool as it stood, and
`ask`.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from pydantic import Field

from selfinstruct.files import digest
from selfinstruct.records import Candidate, Completion, Endpoint, Example, Instance, Prompt, Source, Verdict
from selfinstruct.specs import Spec


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
        screen: Whether an instruction is certain to be rejected: nothing need be paid to complete such a task.
        strategy, model: For the source of candidates.
        endpoint: Which way of asking suits.
        language: Of the tasks, ISO 639-1.
        max_output_tokens: Most tokens of one instance.
    """

    number: int
    rng: Random
    run_rng: Callable[[str], Random]
    seeds: Sequence[Example]
    accepted: Sequence[Example]
    ask_all: Callable[[str, Prompt], Awaitable[tuple[Completion, ...]]]
    screen: Callable[[str], bool]
    strategy: str
    model: str
    endpoint: Endpoint
    language: str
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
        screened: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Candidate:
        """A candidate that stands at a place of a completion."""
        source = Source(
            self.strategy, self.model, self.number, completion.prompt_key, completion.key, demonstrations,
            attributes or {},
        )  # fmt: skip
        id = f"{self.strategy}-{digest([completion.key, index])}"
        return Candidate(id, instruction, instances, is_classification, source, rejection, screened)


@dataclass(frozen=True, slots=True)
class Step:
    """A kind of request that a strategy makes, for forecasts.

    Attributes:
        prompt: One of them.
        completion_tokens: What its reply usually takes.
        per_task: How many there are for each accepted task; else one for each list.
    """

    prompt: Prompt
    completion_tokens: int
    per_task: bool = False


class Strategy(Spec, abc.ABC):
    """One way for tasks to come to be.

    Attributes:
        share: Of several strategies in a mixture; without shares the next one takes over when one is saturated.
        tasks_per_request: How many tasks are asked for at once.
        replies_per_request: How many replies a request for tasks asks for.
    """

    share: float | None = Field(None, gt=0)
    tasks_per_request: int = Field(8, gt=0, le=50)
    replies_per_request: int = Field(1, gt=0, le=16)

    @property
    def tasks_per_reply(self) -> int:
        """How many tasks one reply is asked for; one without any stands for so many that failed."""
        return self.tasks_per_request

    @abc.abstractmethod
    async def propose(self, slot: Slot) -> list[Candidate]:
        """New tasks."""

    @abc.abstractmethod
    def steps(self, slot: Slot) -> tuple[Step, ...]:
        """The requests that a slot makes, by kind."""


def unparsable(
    slot: Slot, completion: Completion, demonstrations: tuple[str, ...], attributes: Mapping[str, str] | None = None
) -> Candidate:
    """The one rejected row of a reply without any task in it."""
    reason = {
        "error": f"the endpoint refused the request: {completion.error}",
        "content_filter": "the endpoint's content filter ended the reply",
        "length": "cut by the token limit before the first task; a reasoning model may need more --thinking-tokens",
    }.get(completion.finish_reason, "no task found")
    detail = f"{reason}: {completion.text[:200]!r}" if completion.text else reason
    rejection = Verdict("unparsable", detail)
    return slot.candidate(
        completion, 0, "", demonstrations=demonstrations, rejection=rejection, attributes=attributes
    )  # fmt: skip
