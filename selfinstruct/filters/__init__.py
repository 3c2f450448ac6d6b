"""Filters: which candidates are worth keeping. One file each; a filter is one pure decision with a reason.

Heuristics follow `bootstrap_instructions.py` and `prepare_for_finetuning.py` of Self-Instruct and
`generate_instruction.py` of Alpaca; where one differs, its file says so.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from selfinstruct.records import Candidate, Instance, Neighbour, Verdict
from selfinstruct.specs import Spec

# What tasks are compared by: their instruction, or instruction and first input together.
Over = Literal["instruction", "task"]


@dataclass(frozen=True)
class Case:
    """A candidate before its judges.

    Attributes:
        candidate: What is judged.
        language: Of the run, ISO 639-1.
        find_nearest: Gives the most similar tasks in the pool, highest first; costly.
        find_duplicate: Gives the id of a task in the pool that says the same.
    """

    candidate: Candidate
    language: str
    find_nearest: Callable[[Over], tuple[Neighbour, ...]] = lambda over: ()
    find_duplicate: Callable[[Over], str | None] = lambda over: None

    @property
    def instruction(self) -> str:
        """The candidate's instruction."""
        return self.candidate.instruction

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The candidate's instances; empty while only its instruction is known."""
        return self.candidate.instances

    @cached_property
    def nearest(self) -> tuple[Neighbour, ...]:
        """The most similar instructions in the pool, highest first."""
        return self.find_nearest("instruction")

    @cached_property
    def nearest_task(self) -> tuple[Neighbour, ...]:
        """The most similar tasks in the pool by instruction and first input together, highest first."""
        return self.find_nearest("task")

    def nearest_over(self, over: Over) -> tuple[Neighbour, ...]:
        """The most similar tasks in the pool, highest first."""
        return self.nearest if over == "instruction" else self.nearest_task


class Filter(Spec, abc.ABC):
    """One decision on a candidate.

    `by_instruction` says that the instruction alone may be enough to object, for good: such an objection stands
    whatever instances follow and however the pool grows. The task is then not completed, so that nothing is paid for
    what is certain to be thrown away. Such a filter is asked without instances first, and again with those that came.
    """

    by_instruction: ClassVar[bool] = False

    @abc.abstractmethod
    def judge(self, case: Case) -> Verdict | None:
        """The objection to a candidate, with its rule and a detail for people; None where there is none."""
