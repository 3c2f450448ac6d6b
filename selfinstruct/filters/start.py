"""Instructions that begin in the middle of something else."""

from __future__ import annotations

from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.records import Verdict


class Start(Filter):
    """Starts with punctuation, so most likely the tail of something else (Self-Instruct).

    Quotation marks and brackets may open an instruction here; the originals refuse them too, and in English whatever
    begins outside ASCII, which `language` judges by the whole text instead.
    """

    kind: Literal["start"] = "start"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the first character of the instruction."""
        first = case.instruction[:1]
        return (
            None
            if first.isalnum() or first in "\"'([{“‘«„¿¡「『《"
            else Verdict("punctuation", f"starts with '{first}'")
        )
