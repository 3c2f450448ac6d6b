"""The heuristics of both originals, in their order and with their flaws, for faithful runs."""

from __future__ import annotations

import re
import string
from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.records import Verdict

_MIN_WORDS, _MAX_WORDS = 4, 150
_SELF_INSTRUCT = "image|images|graph|graphs|picture|pictures|file|files|map|maps|draw|plot|go to"
_ALPACA = f"{_SELF_INSTRUCT}|video|audio|music|flowchart|diagram"


class SelfInstructHeuristics(Filter):
    """Those of `bootstrap_instructions.py`: they drop "draw a conclusion", and all that begins outside ASCII."""

    kind: Literal["self-instruct-heuristics"] = "self-instruct-heuristics"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the instruction."""
        return _objection(case.instruction, _SELF_INSTRUCT)


class AlpacaHeuristics(Filter):
    """Those of `generate_instruction.py`: more words, but not their plurals ("videos"); "write a program" passes."""

    kind: Literal["alpaca-heuristics"] = "alpaca-heuristics"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the instruction."""
        return _objection(case.instruction, _ALPACA)


def _objection(instruction: str, words: str) -> Verdict | None:
    n_words = len(instruction.split())
    if n_words < _MIN_WORDS:
        return Verdict("too_short", f"{n_words} words, at least {_MIN_WORDS} wanted")
    if n_words > _MAX_WORDS:
        return Verdict("too_long", f"{n_words} words, at most {_MAX_WORDS} wanted")
    if found := re.search(rf"\b({words})\b", instruction, re.I):
        return Verdict("keyword", f"'{found[0].lower()}'")
    if instruction.startswith("Write a program"):
        return Verdict("program")
    if instruction[0] in string.punctuation:
        return Verdict("punctuation", f"starts with '{instruction[0]}'")
    return None if instruction[0].isascii() else Verdict("language", f"starts with '{instruction[0]}'")
