"""What stands between the parts of a reply: separators, numbers, headings, loose fences."""

from __future__ import annotations

import re

from selfinstruct.parsing.labels import EXAMPLE_WORDS, MARKUP, SPACE, TASK_WORDS
from selfinstruct.parsing.replies import is_fence_line

SEPARATOR = re.compile(r"^[ \t]{0,16}(?:#{3,}|-{3,}|={3,}|\*{3,})[ \t]{0,16}(?:\d{1,3}[.)]?)?[ \t]{0,16}$", re.M)
_NUMBER_ALONE = re.compile(
    rf"{MARKUP}(?:(?:{TASK_WORDS}|{EXAMPLE_WORDS}){SPACE}?#?)?\d{{1,3}}[.．、)）:：][*_` \t]{{0,8}}", re.I
)
# What announces the next block, at the end of one: "### 5. Rivers", "**Task 5: rivers**", "任务 5".
_HEADING = re.compile(
    rf"[ \t]{{0,16}}(?:#{{1,6}}[ \t]+\S.*"
    rf"|[*_#> \t]{{0,8}}(?:{TASK_WORDS}|{EXAMPLE_WORDS}){SPACE}?#?\d{{1,3}}\b.{{0,80}})",
    re.I,
)


def trimmed(text: str, followed: bool) -> str:
    """A part without the separators, fences and numbers that stand around it.

    Args:
        text: What stands between two labels.
        followed: Whether another block comes next, whose heading may stand at the end.
    """
    lines = text.strip().split("\n")
    while lines and SEPARATOR.fullmatch(lines[0]):
        del lines[0]
    n_fences = sum(map(is_fence_line, lines))
    while lines:
        last = lines[-1]
        before = next((line for line in lines[-2:-4:-1] if line.strip()), "")
        if is_fence_line(last) and (n_fences % 2 or is_fence_line(before)):
            n_fences -= 1
        elif last.strip() and not (
            SEPARATOR.fullmatch(last)
            or (_NUMBER_ALONE.fullmatch(last) and (followed or SEPARATOR.fullmatch(before)))
            or (followed and len(lines) > 1 and _HEADING.fullmatch(last))
        ):
            break
        lines.pop()
    trimmed = "\n".join(lines).strip()
    if trimmed.endswith("###"):
        trimmed = trimmed.rstrip("#").rstrip()
    return trimmed[:-2].rstrip() if trimmed.endswith("**") and trimmed.count("**") % 2 else trimmed
