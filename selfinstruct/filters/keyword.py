"""Tasks that ask for something that a text model cannot see or make."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.records import Verdict

# Self-Instruct's and Alpaca's lists.
_KEYWORDS = re.compile(
    r"\b(images?|graphs?|pictures?|files?|maps?|draw|plot|go to|videos?|audio|music|flowcharts?|diagrams?)\b", re.I
)
# Where those words ask for nothing beyond text. (The originals drop "draw a conclusion" too.)
_HARMLESS = re.compile(
    r"\bdraw (?:(?:a|an|any|the|your|some) )?(?:\w+ )?"
    r"(?:conclusions?|inferences?|parallels?|comparisons?|attention|inspiration)\b"
    r"|\bplot (?:of|twist|summary|holes?)\b|\b(?:story|novel|film|movie|book)'?s? plot\b|\b(?:the|a) plot\b",
    re.I,
)


class Keyword(Filter):
    """A word of both originals' lists, as a whole word and outside harmless phrases."""

    kind: Literal["keyword"] = "keyword"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the words of the instruction."""
        found = _KEYWORDS.search(_HARMLESS.sub(" ", case.instruction))
        return Verdict("keyword", f"'{found[0].lower()}'") if found else None
