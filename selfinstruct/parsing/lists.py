"""Numbered lists of instructions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from selfinstruct.parsing.labels import SPACE, TASK_WORDS, find_labels
from selfinstruct.parsing.replies import is_fence_line
from selfinstruct.parsing.structured import json_items

# "9.", "9)", "(9)", "- 9.", "| 9 |", "９．", "9、", "### Task 9:" at the start of a line; not "3.5" or "10:30".
_NUMBER = re.compile(
    rf"^(?P<indent>{SPACE}{{0,32}})(?:[-*>#|]{{1,6}}{SPACE}{{0,4}})?(?:(?:{TASK_WORDS}){SPACE}?)?[（(]?"
    rf"(?P<number>\d{{1,3}}){SPACE}{{0,4}}[.．。、)）|:：](?!\d){SPACE}{{0,32}}",
    re.M | re.I,
)
_BULLET = re.compile(rf"^{SPACE}{{0,3}}[-*•]{SPACE}{{1,4}}(?=\S)", re.M)
_MAX_SKIPPED = 1  # numbers that a list may leave out between two items
_BOLD = re.compile(r"(?<!\w)\*\*(?=\S)([^*\n]{1,300})(?<=\S)\*\*")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_TABLE_RULE = re.compile(r"^[ \t]*\|[ \t:|-]*\|[ \t]*$", re.M)
_SENTENCE_ENDS = (".", "?", "!", '"', "”", "。", "？", "！", "؟", "।")


def numbered_items(text: str, first: int | None = None) -> list[str]:
    """The items of a numbered list, each on one line; also of a bulleted list, or a JSON array.

    A number at the start of a line begins an item only where it goes on with the list, so that years, times and
    lists inside an item do not split it.

    Args:
        text: The reply.
        first: The number that the prompt already ended with, so that the reply starts in the middle of that item;
            None for a reply with its own numbers, whose text before the first number is an introduction.
    """
    if items_in_json := json_items(text):
        return [line for item in items_in_json if (line := _line(item.fields.get("instruction", "")))]
    text = "\n".join(line for line in text.split("\n") if not is_fence_line(line))
    text = _BOLD.sub(r"\1", _TABLE_RULE.sub("", text))
    marks = list(_NUMBER.finditer(text))
    if first is not None and marks and not text[: marks[0].start()].strip():
        first = None  # the reply repeats the number, or starts a list of its own
    marks = _items_among(text, marks, first)
    if not marks and (first is None or _BULLET.match(text.lstrip())):
        marks, first = list(_BULLET.finditer(text)), None
    starts = [mark.end() for mark in marks]
    ends = [mark.start() for mark in marks] + [len(text)]
    items = [text[start:end] for start, end in zip([0, *starts], ends, strict=True)][first is None :]
    items[-1:] = [_BLANK_LINE.split(item.strip(), 1)[0] for item in items[-1:]]  # a closing remark belongs to no item
    return [line for item in items if (line := _line(item))]


def _line(item: str) -> str:
    """An item on one line, without the label or the table's rule that frames it."""
    label = next(iter(find_labels(item[:80].split("\n")[0])), None)
    if label and label.field == "instruction" and item[label.end :].strip():
        item = item[label.end :]
    return " ".join(item.split()).removesuffix("|").rstrip()


def _items_among(text: str, marks: Sequence[re.Match[str]], previous: int | None) -> list[re.Match[str]]:
    """Those numbers that go on with the list.

    A list may leave out a number, begin anywhere, give every item the same number, as markdown allows, and start over
    at 1 after a finished sentence.
    """
    if len({int(mark["number"]) for mark in marks}) == 1 and len(marks) > 1:
        return list(marks)
    if previous is not None and not any(_follows(int(mark["number"]), previous) for mark in marks):
        previous = None
    items: list[re.Match[str]] = []
    for mark in marks:
        number = int(mark["number"])
        before = text[max(items[-1].end() if items else 0, mark.start() - 80) : mark.start()].rstrip()
        starts_over = number == 1 and before.endswith(_SENTENCE_ENDS)
        is_deeper = bool(items) and len(mark["indent"]) > len(items[0]["indent"]) + 1
        if not is_deeper and (previous is None or _follows(number, previous) or starts_over):
            items.append(mark)
            previous = number
    return items


def _follows(number: int, previous: int) -> bool:
    return previous < number <= previous + 1 + _MAX_SKIPPED
