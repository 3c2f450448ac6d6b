"""The parsers of Self-Instruct and Alpaca as they are, flaws included; the other modules mend them.

Written anew after `bootstrap_instructions.py`, `prepare_for_finetuning.py` and `generate_instruction.py`.
"""

from __future__ import annotations

import re
from random import Random

from selfinstruct.records import Instance

_ITEM = re.compile(r"\n\d+\s?\. ")
# The same texts as the originals' `Output\s*\d*\s*:`, in linear time.
_INPUT, _OUTPUT = re.compile(r"Input\s*(?:\d+\s*)?:"), re.compile(r"Output\s*(?:\d+\s*)?:")
_EXAMPLE = re.compile(r"Example\s?\d*\.?")
_CLASS_LABEL = "Class label:"
_FIELD = re.compile(r"(?<![0-9])([0-9]+)\.\s+(?:Instruction|Input|Output):")
_COLON_WORD = re.compile(r"(\w+):")


def listed_instructions(text: str) -> list[str]:
    """Self-Instruct's list: any line that begins with a number splits it, and `capitalize` lowers all other letters."""
    items = (" ".join(item.split()).capitalize() for item in _ITEM.split(text))
    return [item for item in items if item]


def is_classification(text: str) -> bool:
    """Self-Instruct's second step knows these three answers; "Yes." is none of them."""
    return text.strip() in ("Yes", "yes", "YES")


def generation_instances(text: str) -> list[Instance]:
    """Self-Instruct's instances of other tasks: the word "Example" splits them wherever it stands.

    Without it there is one instance, and without "Output:" none: a bare answer is lost.
    """
    text = text.strip()
    if _EXAMPLE.search(text):
        return [_instance(part.strip()) for part in _EXAMPLE.split(text) if part.strip()]
    return [_instance(text)] if _OUTPUT.search(text) else []


def _instance(text: str) -> Instance:
    given, *outputs = _OUTPUT.split(text)
    given, output = (given, outputs[0]) if outputs else ("", text)
    start = _INPUT.match(given.strip())
    return Instance(given.strip()[start.end() if start else 0 :].strip(), _INPUT.split(output)[0].strip())


def classification_instances(text: str) -> list[Instance]:
    """Self-Instruct's instances of classification tasks: a label's line, and all up to the next label as its input."""
    pairs = (part.strip().partition("\n") for part in text.split(_CLASS_LABEL)[1:])
    return [Instance(given.strip(), label.strip()) for label, _, given in pairs]


def without_field_name(instance: Instance, rng: Random) -> Instance:
    """Half of the time, an input with one word before a colon loses all up to it, and its blank lines.

    Meant for "Paragraph: ..."; it breaks "https://..." and "10:30" as well.
    """
    if rng.random() >= 0.5:
        return instance
    given = instance.input
    if len(set(_COLON_WORD.findall(given))) == 1:
        given = given.split(":", 1)[1].strip()
    return Instance(given.replace("\n\n", "\n"), instance.output)


def numbered_blocks(text: str, first: int) -> list[tuple[str, Instance] | str]:
    """Alpaca's blocks between "###": (instruction, instance), or the text of a block that is dropped.

    A block's number is its place in the reply. Unless it has exactly the three fields with that number, it is dropped:
    renumbering loses all that follows, and "###" in an answer ends it.

    Args:
        text: The reply.
        first: The number that the prompt ended with.
    """
    blocks: list[tuple[str, Instance] | str] = []
    for number, block in enumerate(f"{first}. Instruction:{text}".split("###"), start=first):
        # A longer number that ends with this one counts too: "14. Input:" in block 4.
        labels = [mark for mark in _FIELD.finditer(block) if mark[1].endswith(str(number))]
        if len(labels) == 3:
            starts = [mark.end() for mark in labels]
            ends = [mark.end(1) - len(str(number)) for mark in labels[1:]] + [len(block)]
            instruction, given, output = (block[start:end].strip() for start, end in zip(starts, ends, strict=True))
            blocks.append((instruction, Instance("" if given.lower() == "<noinput>" else given, output)))
        else:
            blocks.append(block.strip())
    return blocks
