"""Blocks of tasks: instruction, input and output, one task after the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from selfinstruct.parsing.borders import SEPARATOR, trimmed
from selfinstruct.parsing.labels import MARKUP, SPACE, TASK_WORDS, Field, Label, find_labels
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


@dataclass(frozen=True, slots=True)
class Block:
    """One task of a list reply."""

    instruction: str
    instances: tuple[Instance, ...]


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
    # Before an instruction's label stands an introduction, or a block that has nothing but its instruction.
    is_introduction = bool(labels) and labels[0].field == "instruction" and head.endswith((":", "："))
    blocks: list[dict[Field, str]] = [{"instruction": head}] if head and not is_introduction else []
    for label, following, start in zip(labels, [*labels[1:], None], starts[1:], strict=False):
        if label.field == "instruction" or not blocks or {label.field, "output"} & set(blocks[-1]):
            blocks.append({})
        followed = following is not None and (label.field == "output" or following.field == "instruction")
        blocks[-1][label.field] = without_plain_fence(trimmed(text[label.end : start], followed))
    return [_block(block) for block in blocks if any(block.values())]


def _block(fields: dict[Field, str], instances: Iterable[Instance] = ()) -> Block:
    if not instances and {"input", "output", "label"} & set(fields):
        output = fields.get("output") or fields.get("label", "")
        instances = (Instance(real_input(fields.get("input", "")), output),)
    return Block(" ".join(fields.get("instruction", "").split()), tuple(instances))


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
