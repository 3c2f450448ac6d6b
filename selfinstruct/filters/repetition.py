"""Answers that turn in circles."""

from __future__ import annotations

import zlib
from typing import Literal

from pydantic import Field

from selfinstruct.filters import Case, Filter
from selfinstruct.records import Verdict

_MIN_CHARACTERS = 160  # shorter ones compress too little to tell


class Repetition(Filter):
    """The answer compresses to less than a fifth: it says the same again and again, as small models do."""

    kind: Literal["repetition"] = "repetition"
    max_ratio: float = Field(0.2, ge=0, le=1)

    def judge(self, case: Case) -> Verdict | None:
        """By each answer."""
        for instance in case.instances:
            data = instance.output.encode("utf-8", "replace")
            if len(instance.output) < _MIN_CHARACTERS:
                continue
            ratio = len(zlib.compress(data)) / len(data)
            if ratio < self.max_ratio:
                return Verdict("repetition", f"compresses to {ratio:.0%}")
        return None
