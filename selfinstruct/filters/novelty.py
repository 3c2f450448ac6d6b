"""Instructions too similar to one in the pool."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from selfinstruct.filters import Case, Filter
from selfinstruct.records import Verdict


class Novelty(Filter):
    """The largest ROUGE-L F with any instruction of the pool is above the threshold, strictly as in both originals."""

    kind: Literal["novelty"] = "novelty"
    threshold: float = Field(0.7, ge=0, le=1)
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the nearest instruction."""
        nearest = case.nearest
        if not nearest or nearest[0].score <= self.threshold:
            return None
        return Verdict("novelty", f"ROUGE-L {nearest[0].score:.3f} to {nearest[0].id}", nearest)
