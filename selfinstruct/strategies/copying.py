"""Instructions that were copied from the prompt that asked for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from selfinstruct.novelty import tokenize
from selfinstruct.records import Example, Prompt, Verdict

_COPIED_WORDS, _COPIED_CHARACTERS = 8, 16  # in a row; characters where words are not separated
_HEADING = re.compile(r"[^\n.。:：!?！？]{3,100}[:：]")  # "How to make it harder:"
_MIN_HEADING_WORDS, _MIN_HEADING_LETTERS = 2, 7  # "Input:" may stand in a task
_NO_INPUT = re.compile(r"\((?:none|no input)\)|（无）|<noinput>", re.I)


def texts_of(tasks: Iterable[Example]) -> list[str]:
    """All that demonstrations say: their instructions, inputs and outputs."""
    cases = [
        (task.instruction, *(text for case in task.instances for text in (case.input, case.output))) for task in tasks
    ]
    return [text for case in cases for text in case]


def copy_check(prompt: Prompt, given: Sequence[str]) -> Callable[[str], Verdict | None]:
    """Makes what objects to an instruction that has a piece of its prompt in it.

    A piece is a heading, the words that stand for no input, or many words in a row.

    Args:
        prompt: What asked for the instruction.
        given: Texts in it that are no part of its frame, such as demonstrations: their words may come again.
    """
    asked = prompt.messages[-1]["content"]
    tokens = tokenize(asked, "unicode")
    n_run = _COPIED_CHARACTERS if len("".join(tokens)) < 2 * len(tokens) else _COPIED_WORDS
    runs = _runs(asked, n_run).difference(*(_runs(text, n_run) for text in given))
    known = _one_line("\n".join(given))
    marks = {mark for mark in map(_one_line, (*_headings(asked), *_NO_INPUT.findall(asked))) if mark not in known}

    def objection(instruction: str) -> Verdict | None:
        line = _one_line(instruction)
        copied = {mark for mark in marks if mark in line} or runs & _runs(instruction, n_run)
        return Verdict("copied_prompt", f"'{min(copied)}'") if copied else None

    return objection


def _headings(text: str) -> Iterator[str]:
    """What ends with a colon and is more than a label."""
    for heading in _HEADING.findall(text):
        words = tokenize(heading, "unicode")
        if len(words) >= _MIN_HEADING_WORDS and len("".join(words)) >= _MIN_HEADING_LETTERS:
            yield heading


def _one_line(text: str) -> str:
    return " ".join(text.casefold().split())


def _runs(text: str, n: int) -> set[str]:
    """All runs of so many words in a row."""
    words = tokenize(text, "unicode")
    return {" ".join(words[start : start + n]) for start in range(len(words) - n + 1)}
