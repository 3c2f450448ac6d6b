"""Instructions that ask for a program."""

from __future__ import annotations

from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.records import Verdict


class Program(Filter):
    """Starts with "Write a program": such tasks crowd the pool and confuse what is to be answered (Self-Instruct)."""

    kind: Literal["program"] = "program"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the first words of the instruction."""
        return Verdict("program") if case.instruction.lower().startswith("write a program") else None
