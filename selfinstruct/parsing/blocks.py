"""Blocks of tasks: instruction, input and output, one task after the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from selfinstruct.parsing.borders import SEPARATOR, trimmed
from selfinstruct.parsing.labels import EXAMPLE_WORDS, MARKUP, SPACE, TASK_WORDS, Field, Label, find_labels
from selfinstruct.parsing.replies import real_input, unwrapped, without_plain_fence
from selfinstruct.parsing.structured import Item, json_items
from selfinstruct.parsing.tables import without_tables
from selfinstruct.records import Instance

# The line before "Input:" that is an instruction without a label: "5. Name a river.", "### Name a river."
_BARE_INSTRUCTION = re.compile(
    rf"(?:{MARKUP}(?:(?:{TASK_WORDS}){SPACE}?)?[（(]?(?P<number>\d{{1,3}}){SPACE}?[.．。、)）:：](?!\d)[*_`]{{0,3}}"
    rf"|[ \t]{{0,3}}(?:#{{1,6}}[ \t]|\*\*)){SPACE}{{0,16}}(?=\S)",
    re.I,
)
_MAX_INSTRUCTION = 2000  # characters that are looked at for an instruction without a label
# The line before "Instruction:" that says which task it is: "### 5. Rivers", "**Task 5: rivers**", "5."
_HEADING = re.compile(
    rf"(?:{MARKUP}(?:{TASK_WORDS}|{EXAMPLE_WORDS}){SPACE}?#?|[ \t]{{0,16}}#{{1,6}}[ \t]{{1,4}})\d{{1,3}}\b"
    rf"|{MARKUP}\d{{1,3}}[.．。、)）:：]?[*_` \t]{{0,8}}\Z",
    re.I,
)
_MAX_HEADING = 200  # characters that are looked at for one
_NUMBER = re.compile(r"\d{1,3}")


@dataclass(frozen=True, slots=True)
class Block:
    """One task of a list reply.

    Attributes:
        number: With which it was labelled, None where it was with none; the same task may stand under any.
    """

    instruction: str
    instances: tuple[Instance, ...]
    number: int | None = field(default=None, compare=False)


def task_blocks(text: str) -> list[Block]:
    """The tasks of a reply to the list prompt: blocks of "N. Instruction: / N. Input: / N. Output:", or JSON.

    Recovers from wrong or missing numbers and labels, markdown, tables, fences, labels in other languages and
    separators other than "###"; a block ends where the next instruction starts. The prompt ends with
    "4. Instruction:", so the reply starts in the middle of a block.
    """
    if items := json_items(text):
        return [_of_item(item) for item in items]
    text = without_tables(unwrapped(text))
    labels = _fields(text, find_labels(text))
    starts = [label.start for label in labels] + [len(text)]
    head = trimmed(text[: starts[0]], followed=bool(labels))
    # Before an instruction's label stands an introduction, a heading, or a block that has nothing but its instruction.
    introduces = head.endswith((":", "：")) or ("\n" not in head and _HEADING.match(head))
    is_introduction = bool(labels) and labels[0].field == "instruction" and introduces
    blocks: list[dict[Field, str]] = [{"instruction": head}] if head and not is_introduction else []
    numbers: list[int | None] = [None] * len(blocks)
    for label, following, start in zip(labels, [*labels[1:], None], starts[1:], strict=False):
        if label.field == "instruction" or not blocks or {label.field, "output"} & set(blocks[-1]):
            blocks.append({})
            numbers.append(None)
        followed = following is not None and (label.field == "output" or following.field == "instruction")
        blocks[-1][label.field] = without_plain_fence(trimmed(text[label.end : start], followed))
        numbers[-1] = _number(text, label) if numbers[-1] is None else numbers[-1]
    return [_block(block, number=n) for block, n in zip(blocks, numbers, strict=True) if any(block.values())]


def _block(fields: dict[Field, str], instances: Iterable[Instance] = (), number: int | None = None) -> Block:
    if not instances and {"input", "output", "label"} & set(fields):
        output = fields.get("output") or fields.get("label", "")
        instances = (Instance(real_input(fields.get("input", "")), output),)
    return Block(" ".join(fields.get("instruction", "").split()), tuple(instances), number)


def _number(text: str, label: Label) -> int | None:
    """Which task a label says that it belongs to: "4. Input:", "Task 4:", or in the heading before an instruction."""
    found = _NUMBER.search(text, label.start, label.end)
    if not found and label.field == "instruction":
        before = text[max(label.start - _MAX_HEADING, 0) : label.start].rstrip()
        heading = _HEADING.match(before, before.rfind("\n") + 1)
        found = _NUMBER.search(heading[0]) if heading else None
    return int(found[0]) if found else None


def _of_item(item: Item) -> Block:
    cases = [Instance(real_input(case.get("input", "")), case["output"]) for case in item.cases]
    return _block(item.fields, cases)


def _fields(text: str, labels: Sequence[Label]) -> list[Label]:
    """The fields of the blocks, in order; labels that belong to an answer are left out.

    Those are the ones without a number where others of that field carry one (unless their instruction has none), and
    after an output all that do not begin another block.
    """
    numbered = {label.field for label in labels if label.number is not None}
    kept: list[Label] = []
    is_plain = False  # the block has an instruction without a number
    for label in labels:
        if label.field == "label" or (label.number is None and label.field in numbered and not is_plain):
            continue
        if label.field == "instruction":
            is_plain = label.number is None
        kept.append(label)
    fields: list[Label] = []
    for label in sorted([*kept, *_unlabelled(text, kept)], key=lambda label: label.start):
        last = fields[-1] if fields else label
        is_new = label.field == "instruction" or label.number not in (None, last.number)
        if not fields or last.field != "output" or is_new:
            fields.append(label)
    return fields


def _unlabelled(text: str, labels: Sequence[Label]) -> list[Label]:
    """Instructions without a label, after a block's output or at the start.

    They follow a separator, or are the numbered or highlighted line before an input or output.
    """
    found = []
    for previous, label in zip([None, *labels], labels, strict=False):
        if label.field == "instruction" or (previous and previous.field != "output"):
            continue
        start = max(previous.end if previous else 0, label.start - _MAX_INSTRUCTION)
        *_, separator = [None, *SEPARATOR.finditer(text, start, label.start)]
        if separator and (instruction := text[separator.end() : label.start].lstrip()):
            start = label.start - len(instruction)
            bare = _BARE_INSTRUCTION.match(text, start)
            found.append(Label("instruction", label.number, False, start, bare.end() if bare else start))
        elif not separator:
            found += _line_before(text, start, label)
    return found


def _line_before(text: str, start: int, label: Label) -> list[Label]:
    """The last line before a label, if it is an instruction by its number or markdown."""
    end = start + len(text[start : label.start].rstrip())
    line = text.rfind("\n", start, end) + 1 or (0 if start == 0 else -1)
    bare = _BARE_INSTRUCTION.match(text, line, end) if line >= 0 else None
    return [Label("instruction", label.number, False, line, bare.end())] if bare else []
