"""Tasks without a usable answer."""

from __future__ import annotations

from typing import Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.records import Verdict


class Answer(Filter):
    """No answer, one that repeats the input, or an input or answer that breaks off at a colon (Self-Instruct)."""

    kind: Literal["answer"] = "answer"

    def judge(self, case: Case) -> Verdict | None:
        """By each instance."""
        if not case.instances:
            return Verdict("empty_output", "no instance")
        for instance in case.instances:
            if not instance.output.strip():
                return Verdict("empty_output")
            if instance.input.strip() == instance.output.strip():
                return Verdict("input_is_output")
            for field, text in (("input", instance.input), ("output", instance.output)):
                if text.rstrip().endswith((":", "：")):
                    return Verdict("incomplete", f"{field} ends with a colon")
        return None
