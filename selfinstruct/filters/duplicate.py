"""Tasks that the pool has already."""

from __future__ import annotations

from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter, Over
from selfinstruct.records import Verdict


class Duplicate(Filter):
    """The same instruction, case, punctuation and spaces aside.

    Over whole tasks, the same instruction with another first input is no duplicate. That goes with `novelty:over=task`,
    which alone leaves every instruction unique; the two are set apart, as either may be wanted without the other.

    Attributes:
        over: What has to be the same; of inputs, only case and spaces do not count, since a sign may be the difference.
    """

    kind: Literal["duplicate"] = "duplicate"
    over: Over = "instruction"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By what the pool has; a task is not known before its input."""
        if self.over == "task" and not case.instances:
            return None
        id = case.find_duplicate(self.over)
        return Verdict("duplicate", f"same as {id}", case.nearest_over(self.over)) if id else None
