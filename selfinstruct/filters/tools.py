"""Tasks that need hands, a network, a clock or someone's belongings."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.filters.acts import ACTS
from selfinstruct.filters.asked import request, words
from selfinstruct.filters.present import PERSONAL, PRESENT
from selfinstruct.records import Verdict

# Where the present is a subject, not a source.
_SUBJECT = words(
    "poem story song haiku limerick fiction(?:al)? imaginary imagine pretend invent hypothetical dialogue conversation"
    " skit joke e-?mail letter sentences? phrase template function script program code query api app why ad advert\\w*"
    " you(?:'re|_are)_an? explain translate slogan word role weather_report how_(?:to|do|does|can|would|should)"
)
_FIGURE = re.compile(r"\d")
_WRITTEN = re.compile(rf"\b{_SUBJECT}\b", re.I)


class Tools(Filter):
    """To act in the world or on a device, to look something up, or to know the present or what the user has at hand.

    Both originals ask the teacher for tasks without these; what comes nevertheless is rejected here.
    """

    kind: Literal["tools"] = "tools"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the wording of the instruction."""
        asked = request(case.instruction)
        found = ACTS.search(asked)
        if not found and not _FIGURE.search(asked):  # with figures it is a word problem
            found = PERSONAL.search(asked)
        if not found and (now := PRESENT.search(asked)) and not _WRITTEN.search(asked):
            found = now
        return Verdict("tools", f"'{found['what'].strip().lower()}'") if found else None
