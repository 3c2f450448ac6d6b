"""Tasks without a usable answer."""

from __future__ import annotations

import re
from typing import Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.filters.asked import MAX_CHARACTERS
from selfinstruct.parsing import real_input
from selfinstruct.records import Verdict

# "None" answers a question, a choice, a search, a calculation, or a task that speaks of such an answer.
_MAY_BE_NONE = re.compile(
    r"[?？]|\b(?:which|what|who|whether|any|if|none|nothing|n/?a|empty|null|find|identif\w+|extract|list|choose|select"
    r"|pick|spot|detect|classify|categori[sz]e|label|tag|mark|count|determine|check|evaluate|compute|calculate|return"
    r"|print|output|execute|filter|search|look for|name|give me|state|decide|predict|complete|fill)\b"
    r"|哪|什么|谁|是否|有没有|如果|无|没有|找|列出|提取|选|挑|分类|判断|识别|标|检查|计算|输出|填",
    re.I,
)
_JUDGED = ("en", "zh")  # the languages of these words


class Answer(Filter):
    """No answer or a stand-in for none, one that repeats the input, or a field that breaks off at a colon.

    "(none)" and "<noinput>" never answer anything. "None" by itself may, unless the task wants a text to be written.
    (The original knows empty answers, repeated inputs and colons only.)
    """

    kind: Literal["answer"] = "answer"

    def judge(self, case: Case) -> Verdict | None:
        """By each instance."""
        if not case.instances:
            return Verdict("empty_output", "no instance")
        for instance in case.instances:
            if not instance.output.strip():
                return Verdict("empty_output")
            task = f"{case.instruction}\n{instance.input}"
            if _is_stand_in(instance.output, case.candidate.is_classification or _may_be_none(task, case.language)):
                return Verdict("empty_output", f"'{instance.output.strip()}' stands for none")
            if instance.input.strip() == instance.output.strip():
                return Verdict("input_is_output")
            for field, text in (("input", instance.input), ("output", instance.output)):
                if text.rstrip().endswith((":", "：")):
                    return Verdict("incomplete", f"{field} ends with a colon")
        return None


def _is_stand_in(answer: str, may_be_none: bool) -> bool:
    """Whether an answer only says that there is none."""
    if real_input(answer):
        return False
    is_bare = answer.strip()[0].isalnum() and "input" not in answer.lower()
    return not (is_bare and may_be_none)


def _may_be_none(task: str, language: str) -> bool:
    return language.split("-")[0] not in _JUDGED or _MAY_BE_NONE.search(task[:MAX_CHARACTERS]) is not None
