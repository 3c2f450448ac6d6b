"""Instructions that the pool has already."""

from __future__ import annotations

from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.records import Verdict


class Duplicate(Filter):
    """The same instruction, case, punctuation and spaces aside."""

    kind: Literal["duplicate"] = "duplicate"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By what the pool has."""
        id = case.find_duplicate()
        return Verdict("duplicate", f"same as {id}", case.nearest) if id else None
