"""From the text of a reply to its parts: numbered lists, instances, blocks of tasks. Pure; never raises."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from selfinstruct.records import Instance

# "9.", "9)", "(9)", "- 9.", "Task 9:", "### Task 9:" at the start of a line; not "3.5" or "10:30".
_NUMBER = re.compile(
    r"^(?P<indent>[ \t]*)(?:[-*>#]+[ \t]*)?(?:Task[ \t]+)?\(?(?P<number>\d{1,3})[ \t]*[.):](?!\d)[ \t]*", re.M | re.I
)
_MAX_SKIPPED = 1  # numbers that a list may leave out between two items
_BOLD = re.compile(r"(?<!\w)\*\*(?=\S)(.{1,200}?)(?<=\S)\*\*")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_FENCE = re.compile(r"^```[a-z]*\n(.*?)\n?```\s*$", re.S | re.I)
_FENCE_LINE = re.compile(r"^[ \t]*```\w*[ \t]*$", re.M)
_LABEL = re.compile(
    r"^[ \t]*(?:\*\*)?(?:#+[ \t]*)?(input|output|class label|label|text|answer)"
    r"[ \t]*(?:\*\*[ \t]*)?:[ \t]*(?:\*\*[ \t]*)?",
    re.M | re.I,
)
_OUTPUT_LABEL = re.compile(r"^[ \t]*(?:\*\*)?output[ \t]*(?:\*\*[ \t]*)?:", re.M | re.I)
# What stands between two instances.
_NEXT_EXAMPLE = re.compile(
    r"(?:^|\n)[ \t]*(?:-{3,}|(?:#+[ \t]*)?(?:\*\*)?Example[ \t]+\d+[.:)]?(?:\*\*)?)[ \t]*\Z", re.I
)
_THINKING_TAGS = "think|thinking|thought|reasoning"
_THINKING = re.compile(rf"\s*<({_THINKING_TAGS})>.*?(?:</\1>|\Z)\s*", re.S | re.I)
_TAG = re.compile(rf"<(/?)(?:{_THINKING_TAGS})>\s*", re.I)
_NO_INPUT = re.compile(r"[<\[(]?\s*(?:no ?input|none|n/?a|not applicable|empty)\s*[>\])]?\.?", re.I)
# "4. Instruction:", "**Input:**", "### 5. Output:" of the list prompt's blocks.
_FIELD = re.compile(
    r"^[ \t]*(?:#+[ \t]*)?(?:\*\*)?(?:(?P<number>\d{1,3})[ \t]*[.):][ \t]*)?(?:\*\*)?(?P<name>instruction|input|output)"
    r"[ \t]*(?:\*\*[ \t]*)?:[ \t]*(?:\*\*)?",
    re.M | re.I,
)
# A block without its label "Instruction:": "5. Name ..." after "###" or before "5. Input:".
_UNLABELLED = re.compile(
    r"^[ \t]*(?P<separator>#{3,}(?:[ \t]*\n)?[ \t]*)?(?P<number>\d{1,3})[ \t]*[.)](?!\d)[ \t]*"
    r"(?!(?:\*\*)?(?:instruction|input|output)\b)(?=\S)"
    r"(?(separator)|(?=.*\n[ \t]*(?P=number)[.)][ \t]*(?:input|output)\b))",
    re.M | re.I,
)
_SEPARATOR_BEFORE = re.compile(r"\A(?:[ \t]*(?:#{3,}|-{3,})[ \t]*\n)+")
_SEPARATOR_AFTER = re.compile(r"(?:\n[ \t]*-{3,}|(?<!#)#{3,})[ \t]*(?:(?:\n[ \t]*)?\d{1,3}[.)]?)?\Z")


@dataclass(frozen=True, slots=True)
class Block:
    """One task of a list reply."""

    instruction: str
    instances: tuple[Instance, ...]


def without_thinking(text: str) -> str:
    """A reply without the thinking that some reasoning models write before it.

    Unclosed thinking is all of the reply; where only the closing tag stands, the prompt had opened it.
    """
    first = _TAG.search(text)
    if first and first[1]:
        return text[first.end() :]
    while thinking := _THINKING.match(text):
        text = text[thinking.end() :]
    return text


def numbered_items(text: str, first: int | None = None) -> list[str]:
    """The items of a numbered list, each on one line.

    A number at the start of a line begins an item only where it goes on with the list, so that years, times and
    lists inside an item do not split it.

    Args:
        text: The reply.
        first: The number that the prompt already ended with, so that the reply starts in the middle of that item;
            None for a reply with its own numbers, whose text before the first number is an introduction.
    """
    text = _BOLD.sub(r"\1", _FENCE_LINE.sub("", text))
    marks = list(_NUMBER.finditer(text))
    if first is not None and marks and not text[: marks[0].start()].strip():
        first = None  # the reply repeats the number, or starts a list of its own
    marks = _items_among(text, marks, first)
    starts = [mark.end() for mark in marks]
    ends = [mark.start() for mark in marks] + [len(text)]
    items = [text[start:end] for start, end in zip([0, *starts], ends, strict=True)][first is None :]
    items[-1:] = [_BLANK_LINE.split(item.strip())[0] for item in items[-1:]]  # a closing remark belongs to no item
    return [line for item in items if (line := " ".join(item.split()))]


def _items_among(text: str, marks: Sequence[re.Match[str]], previous: int | None) -> list[re.Match[str]]:
    """Those numbers that go on with the list.

    A list may leave out a number, begin anywhere, give every item the same number, as markdown allows, and start over
    at 1 after a finished sentence.
    """
    if len({mark["number"] for mark in marks}) == 1 and len(marks) > 1:
        return list(marks)
    if previous is not None and not any(_follows(int(mark["number"]), previous) for mark in marks):
        previous = None
    items: list[re.Match[str]] = []
    for mark in marks:
        number = int(mark["number"])
        before = text[items[-1].end() if items else 0 : mark.start()].rstrip()
        starts_over = number == 1 and before.endswith((".", "?", "!", '"', "”"))
        is_deeper = bool(items) and len(mark["indent"]) > len(items[0]["indent"]) + 1
        if not is_deeper and (previous is None or _follows(number, previous) or starts_over):
            items.append(mark)
            previous = number
    return items


def _follows(number: int, previous: int) -> bool:
    return previous < number <= previous + 1 + _MAX_SKIPPED


def is_yes(text: str) -> bool:
    """Whether an answer to "Is it classification?" means yes: "yes" in any case (Self-Instruct)."""
    return "yes" in text.lower()


def input_first(text: str) -> Instance | None:
    """The first instance of an input-first reply: "Input: ... Output: ...", or the bare answer.

    Labels inside the answer stay in it, unless they begin another instance.

    Returns:
        None when there is no answer in it.
    """
    text = _unfenced(text)
    inputs, outputs = _labels(text, "input", "text"), _labels(text, "output", "answer")
    if not outputs:
        return Instance("", text.strip()) if text.strip() and not inputs else None
    output, *further = outputs
    before = [mark for mark in inputs if mark.start() < output.start()]
    after = [mark for mark in inputs if mark.start() > output.start()]
    given = text[before[0].end() if before else 0 : output.start()].strip()
    continued = output[1].lower() == "output" and given and not given.endswith(":")  # else it is an introduction
    if before or continued:
        ends = [mark.start() for mark in after if further and mark.start() < further[-1].start()]
        return Instance(real_input(given), _first_instance(text[output.end() : min(ends, default=len(text))]))
    end = after[0].start() if after else len(text)
    swapped = _first_instance(text[after[0].end() :]) if after else ""
    return Instance(real_input(swapped), text[output.end() : end].strip())


def output_first(text: str) -> Instance | None:
    """The first instance of an output-first reply: "Class label: ..." and what belongs to it.

    Returns:
        None when there is no label in it. Without an input of its own the task is complete in itself.
    """
    text = _unfenced(text)
    inputs = _labels(text, "input", "text")
    labels = [mark for mark in _labels(text, "class label", "label") if text[mark.end() :].strip()]
    if not labels:
        return None
    label, following = labels[0], labels[1].start() if len(labels) > 1 else len(text)
    before = [mark for mark in inputs if mark.start() < label.start()]
    after = [mark for mark in inputs if label.end() <= mark.start() < following]
    answer = text[label.end() : after[0].start() if after else following].strip()
    first, _, rest = answer.partition("\n")
    if before:
        rest = text[before[0].end() : label.start()]
    elif after:
        rest = text[after[0].end() : following]
    if again := _OUTPUT_LABEL.search(rest):  # the label once more, as an answer to its own input
        rest = rest[: again.start()]
    return Instance(real_input(_first_instance(rest)), first.strip())


def _labels(text: str, *names: str) -> list[re.Match[str]]:
    """The labels of the first of these names that stands in the text at all."""
    marks = list(_LABEL.finditer(text))
    return next((found for name in names if (found := [m for m in marks if m[1].lower() == name])), [])


def _first_instance(text: str) -> str:
    """Text up to another instance, without the heading that announces it."""
    return _NEXT_EXAMPLE.sub("", text.strip()).strip()


def real_input(text: str) -> str:
    """An input, or "" where the text only says that there is none ("<noinput>", "None", "N/A")."""
    text = text.strip()
    return "" if _NO_INPUT.fullmatch(text) else text


def task_blocks(text: str) -> list[Block]:
    """The tasks of a reply to the list prompt: blocks of "N. Instruction: / N. Input: / N. Output:".

    Recovers from wrong or missing numbers and labels, markdown and separators other than "###"; a block ends where the
    next instruction starts. The prompt ends with "4. Instruction:", so the reply starts in the middle of a block.
    """
    text = _unfenced(text)
    fields = _fields(text)
    starts = [mark.start() for _, mark in fields] + [len(text)]
    head = _trimmed(text[: starts[0]])
    # Before an instruction's label stands an introduction, or a block that has nothing but its instruction.
    is_introduction = bool(fields) and fields[0][0] == "instruction" and head.endswith(":")
    blocks = [{"instruction": head}] if head and not is_introduction else []
    for (name, mark), following in zip(fields, starts[1:], strict=True):
        if name == "instruction" or not blocks or {name, "output"} & set(blocks[-1]):
            blocks.append({})
        blocks[-1][name] = _trimmed(text[mark.end() : following])
    return [
        Block(
            " ".join(block.get("instruction", "").split()),
            (Instance(real_input(block.get("input", "")), block["output"]),) if block.get("output") else (),
        )
        for block in blocks
        if any(block.values())
    ]


def _fields(text: str) -> list[tuple[str, re.Match[str]]]:
    """(name, label) of every field of the blocks, in order; labels that belong to an answer are left out.

    Those are the ones without a number where others of that name carry one, and after an output all that do not begin
    another block.
    """
    labels = [(mark["name"].lower(), mark) for mark in _FIELD.finditer(text)]
    numbered = {name for name, mark in labels if mark["number"]}
    labels = [(name, mark) for name, mark in labels if mark["number"] or name not in numbered]
    labels += [("instruction", mark) for mark in _UNLABELLED.finditer(text)]
    fields: list[tuple[str, re.Match[str]]] = []
    for name, mark in sorted(labels, key=lambda label: label[1].start()):
        last_name, last = fields[-1] if fields else ("", mark)
        within_answer = last_name == "output" and name != "instruction" and mark["number"] in (None, last["number"])
        if not within_answer:
            fields.append((name, mark))
    return fields


def _trimmed(text: str) -> str:
    """Block text without the separators that stand around it."""
    return _SEPARATOR_AFTER.sub("", _SEPARATOR_BEFORE.sub("", text.strip() + "\n").strip()).strip()


def _unfenced(text: str) -> str:
    match = _FENCE.match(text.strip())
    return match[1] if match else text
