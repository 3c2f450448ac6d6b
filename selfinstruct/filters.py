"""The heuristic filters: each one a pure decision, cheap ones first.

After `bootstrap_instructions.py` and `prepare_for_finetuning.py` of Self-Instruct and `generate_instruction.py` of
Alpaca; where this differs, the line says so. A filter gives the reason for a rejection, or None.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from selfinstruct.novelty import UNSPACED
from selfinstruct.records import Instance, Verdict

MIN_WORDS, MAX_WORDS = 4, 150
# A character counts as a word where words are not separated by spaces; the originals know English only.
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
# Self-Instruct's and Alpaca's lists of what a text model cannot see or do.
_KEYWORDS = re.compile(
    r"\b(images?|graphs?|pictures?|files?|maps?|draw|plot|go to|videos?|audio|music|flowcharts?|diagrams?)\b", re.I
)
# Where those words ask for nothing beyond text. (The originals drop "draw a conclusion" too.)
_HARMLESS = re.compile(
    r"\bdraw (?:(?:a|an|any|the|your|some) )?(?:\w+ )?"
    r"(?:conclusions?|inferences?|parallels?|comparisons?|attention|inspiration)\b"
    r"|\bplot (?:of|twist|summary|holes?)\b|\b(?:story|novel|film|movie|book)'?s? plot\b|\b(?:the|a) plot\b",
    re.I,
)
# Text that compresses below a fifth of its size says the same thing again and again.
_REPETITION_MIN_CHARACTERS, _REPETITION_MAX_RATIO = 160, 0.2


def length(instruction: str) -> Verdict | None:
    """Fewer than 4 words or more than 150 (Self-Instruct)."""
    words = len(_WORD.findall(instruction))
    if words < MIN_WORDS:
        return Verdict("too_short", f"{words} words, at least {MIN_WORDS} wanted")
    return Verdict("too_long", f"{words} words, at most {MAX_WORDS} wanted") if words > MAX_WORDS else None


def keyword(instruction: str) -> Verdict | None:
    """Asks for something that a text model cannot see or make (both originals' lists)."""
    found = _KEYWORDS.search(_HARMLESS.sub(" ", instruction))
    return Verdict("keyword", f"'{found[0].lower()}'") if found else None


def program(instruction: str) -> Verdict | None:
    """Starts with "Write a program": such tasks crowd the pool and confuse what is to be answered (Self-Instruct)."""
    return Verdict("program") if instruction.lower().startswith("write a program") else None


def start(instruction: str) -> Verdict | None:
    """Starts with punctuation, so most likely the tail of something else (Self-Instruct).

    Quotation marks and brackets may open an instruction here; the originals refuse them too.
    """
    first = instruction[:1]
    fine = first.isalnum() or first in "\"'([{“‘«„¿¡「『《"
    return None if fine else Verdict("punctuation", f"starts with '{first}'")


def ascii_start(instruction: str) -> Verdict | None:
    """Starts with a character outside ASCII (both originals): for English runs only."""
    return None if instruction[:1].isascii() else Verdict("language", f"starts with '{instruction[:1]}'")


def empty_output(instance: Instance) -> Verdict | None:
    """There is no answer (Self-Instruct)."""
    return None if instance.output.strip() else Verdict("empty_output")


def input_is_output(instance: Instance) -> Verdict | None:
    """The answer repeats the input (Self-Instruct)."""
    return Verdict("input_is_output") if instance.input.strip() == instance.output.strip() != "" else None


def incomplete(instance: Instance) -> Verdict | None:
    """Input or output ends with a colon: something is missing after it (Self-Instruct)."""
    for field, text in (("input", instance.input), ("output", instance.output)):
        if text.rstrip().endswith((":", "：")):
            return Verdict("incomplete", f"{field} ends with a colon")
    return None


def repetition(instance: Instance) -> Verdict | None:
    """The answer turns in circles, as small models' answers do (not in the originals)."""
    data = instance.output.encode()
    if len(instance.output) < _REPETITION_MIN_CHARACTERS:
        return None
    ratio = len(zlib.compress(data)) / len(data)
    return Verdict("repetition", f"compresses to {ratio:.0%}") if ratio < _REPETITION_MAX_RATIO else None


InstructionFilter = Callable[[str], Verdict | None]
InstanceFilter = Callable[[Instance], Verdict | None]
INSTANCE_FILTERS: tuple[InstanceFilter, ...] = (empty_output, input_is_output, incomplete, repetition)


def instruction_filters(language: str) -> tuple[InstructionFilter, ...]:
    """The filters on instructions for a run's language."""
    return (length, keyword, program, start, *([ascii_start] if language == "en" else []))


def judge_instruction(instruction: str, language: str) -> Verdict | None:
    """The first filter's objection to an instruction, or None."""
    return next((verdict for f in instruction_filters(language) if (verdict := f(instruction))), None)


def judge_instances(instances: tuple[Instance, ...]) -> Verdict | None:
    """The first filter's objection to any instance, or None; a task without an instance has no answer."""
    if not instances:
        return Verdict("empty_output", "no instance")
    return next((verdict for i in instances for f in INSTANCE_FILTERS if (verdict := f(i))), None)
