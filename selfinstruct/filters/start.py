"""Instructions that begin in the middle of something else."""

from __future__ import annotations

from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.records import Verdict


class Start(Filter):
    """Starts with punctuation, so most likely the tail of something else (Self-Instruct).

    Quotation marks and brackets may open an instruction here; the originals refuse them too. In English runs the first
    character has to be ASCII, as in both originals.
    """

    kind: Literal["start"] = "start"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the first character of the instruction."""
        first = case.instruction[:1]
        if not (first.isalnum() or first in "\"'([{“‘«„¿¡「『《"):
            return Verdict("punctuation", f"starts with '{first}'")
        foreign = case.language == "en" and not first.isascii()
        return Verdict("language", f"starts with '{first}'") if foreign else None
