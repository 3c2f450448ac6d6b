"""From the text of a reply to its parts: numbered lists, instances, blocks of tasks. Pure; never raises."""

from __future__ import annotations

import re
from dataclasses import dataclass

from selfinstruct.records import Instance

# "9.", "9)", "**9.**", "Task 9:", "- 9." at the start of a line.
_NUMBER = re.compile(
    r"^[ \t]*(?:[-*>#]+[ \t]*)?(?:\*\*)?(?:Task[ \t]+)?(\d{1,3})[ \t]*[.):][ \t]*(?:\*\*)?", re.M | re.I
)
_FENCE = re.compile(r"^```[a-z]*\n(.*?)\n?```\s*$", re.S | re.I)
_LABEL = re.compile(
    r"^[ \t]*(?:\*\*)?(?:#+[ \t]*)?(input|output|class label|label|text|answer)[ \t]*(?:\*\*)?[ \t]*:[ \t]*(?:\*\*)?[ \t]*",
    re.M | re.I,
)
_THINKING = re.compile(r"^\s*<(think|thinking|reasoning)>.*?(?:</\1>|\Z)\s*", re.S | re.I)
_NO_INPUT = re.compile(r"^[<\[(]?\s*(?:no ?input|none|n/?a|not applicable|empty)\s*[>\])]?\.?$", re.I)


@dataclass(frozen=True, slots=True)
class Block:
    """One task of a list reply; `complete` is False where the reply may have been cut inside it."""

    instruction: str
    instances: tuple[Instance, ...]
    complete: bool


def without_thinking(text: str) -> str:
    """A reply without the thinking that some reasoning models write before it; unclosed thinking is all of it."""
    return _THINKING.sub("", text, count=1)


def numbered_items(text: str, first: int | None = None) -> list[str]:
    """The items of a numbered list, each on one line.

    Args:
        text: The reply.
        first: The number that the prompt already ended with, so that the reply starts in the middle of that item;
            None for a reply with its own numbers, whose text before the first number is an introduction.
    """
    text = _unfenced(text)
    marks = list(_NUMBER.finditer(text))
    starts = [mark.end() for mark in marks]
    ends = [mark.start() for mark in marks] + [len(text)]
    if first is not None and not (marks and not text[: marks[0].start()].strip()):
        starts, ends = [0, *starts], ends
    else:
        ends = ends[1:]
    items = (" ".join(text[start:end].replace("**", "").split()) for start, end in zip(starts, ends, strict=True))
    return [item for item in items if item]


def is_yes(text: str) -> bool:
    """Whether an answer to "Is it classification?" means yes: "yes" in any case (Self-Instruct)."""
    return "yes" in text.lower()


def labelled_parts(text: str) -> list[tuple[str, str]]:
    """The parts of a text that stand after labels such as "Input:", in order, as (label in lower case, text).

    Text before the first label comes first, under the label "".
    """
    text = _unfenced(text)
    marks = list(_LABEL.finditer(text))
    parts = [("", text[: marks[0].start() if marks else len(text)].strip())]
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        end = following.start() if following else len(text)
        parts.append((mark[1].lower(), text[mark.end() : end].strip()))
    return parts


def input_first(text: str) -> Instance | None:
    """The first instance of an input-first reply: "Input: ... Output: ...", or the bare answer.

    Returns:
        None when there is no answer in it.
    """
    parts = labelled_parts(text)
    inputs = [part for label, part in parts if label in ("input", "text")]
    outputs = [part for label, part in parts if label in ("output", "answer")]
    if outputs:
        return Instance(real_input(inputs[0]) if inputs else "", outputs[0])
    return Instance("", parts[0][1]) if parts[0][1] and not inputs else None


def output_first(text: str) -> Instance | None:
    """The first instance of an output-first reply: "Class label: ..." and what belongs to it.

    Returns:
        None when there is no label in it. Without an input of its own the task is complete in itself.
    """
    parts = labelled_parts(text)
    for index, (label, part) in enumerate(parts):
        if label in ("class label", "label") and part:
            first, _, rest = part.partition("\n")
            following = [text for name, text in parts[index + 1 : index + 2] if name in ("input", "text")]
            return Instance(real_input(following[0] if following else rest.strip()), first.strip())
    return None


def real_input(text: str) -> str:
    """An input, or "" where the text only says that there is none ("<noinput>", "None", "N/A")."""
    text = text.strip()
    return "" if _NO_INPUT.match(text) else text


def task_blocks(text: str) -> list[Block]:
    """The tasks of a reply to the list prompt: blocks of "N. Instruction: / N. Input: / N. Output:".

    Recovers from wrong or missing numbers, markdown and separators other than "###"; a block ends where the next
    instruction starts. The prompt ends with "4. Instruction:", so the reply starts in the middle of a block.
    """
    label = re.compile(
        r"^[ \t]*(?:#+[ \t]*)?(?:\*\*)?(?:\d{1,3}[ \t]*[.):][ \t]*)?(?:\*\*)?(instruction|input|output)[ \t]*(?:\*\*)?[ \t]*:[ \t]*(?:\*\*)?",
        re.M | re.I,
    )
    marks = list(label.finditer(text))
    parts: list[tuple[str, str]] = []
    if head := _trimmed(text[: marks[0].start() if marks else len(text)]):
        continues = not marks or marks[0][1].lower() != "instruction"
        parts += [("instruction", head)] if continues else []
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        parts.append((mark[1].lower(), _trimmed(text[mark.end() : following.start() if following else len(text)])))
    blocks: list[dict[str, str]] = []
    for name, part in parts:
        if name == "instruction" or not blocks or name in blocks[-1]:
            blocks.append({})
        blocks[-1][name] = part
    return [
        Block(
            " ".join(block.get("instruction", "").split()),
            (Instance(real_input(block.get("input", "")), block["output"]),) if block.get("output") else (),
            complete=index < len(blocks) - 1 and "output" in block,
        )
        for index, block in enumerate(blocks)
        if any(block.values())
    ]


def _trimmed(text: str) -> str:
    """Block text without the separators that stand around it."""
    return re.sub(r"(?:^\s*(?:###|---)+\s*)|(?:\s*(?:###|---)+\s*\d{0,3}\.?\s*$)", "", text).strip()


def _unfenced(text: str) -> str:
    match = _FENCE.match(text.strip())
    return match[1] if match else text
