"""Instructions that are too short or too long."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field

from selfinstruct.filters import Case, Filter
from selfinstruct.novelty import UNSPACED
from selfinstruct.records import Verdict

# A character counts as a word where words are not separated by spaces; the originals know English only.
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


class Length(Filter):
    """Fewer than 4 words or more than 150 (Self-Instruct)."""

    kind: Literal["length"] = "length"
    min_words: int = Field(4, ge=0)
    max_words: int = Field(150, gt=0)
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the number of words of the instruction."""
        words = len(_WORD.findall(case.instruction))
        if words < self.min_words:
            return Verdict("too_short", f"{words} words, at least {self.min_words} wanted")
        return (
            Verdict("too_long", f"{words} words, at most {self.max_words} wanted") if words > self.max_words else None
        )
