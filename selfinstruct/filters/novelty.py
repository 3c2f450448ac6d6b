"""Tasks too similar to one in the pool."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from selfinstruct.filters import Case, Filter, Over
from selfinstruct.records import Verdict


class Novelty(Filter):
    """The largest ROUGE-L F with any of the pool is above the threshold, strictly as in both originals.

    Attributes:
        over: The originals compare instructions. Over whole tasks, instruction and first input count together, so that
            a similar instruction may come again with a new input; the very same one too with `duplicate:over=task`.
    """

    kind: Literal["novelty"] = "novelty"
    threshold: float = Field(0.7, ge=0, le=1)
    over: Over = "instruction"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the nearest instruction or task; a task is not known before its input."""
        if self.over == "task" and not case.instances:
            return None
        nearest = case.nearest_over(self.over)
        if not nearest or nearest[0].score <= self.threshold:
            return None
        return Verdict("novelty", f"ROUGE-L {nearest[0].score:.3f} to {nearest[0].id}", nearest)
