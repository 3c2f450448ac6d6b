"""Texts that are cut, or that carry pieces of the prompt's form."""

from __future__ import annotations

import re
from typing import Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.filters.asked import CODE
from selfinstruct.novelty import tokenize
from selfinstruct.records import Instance, Verdict

# Control characters, lone surrogates, and what stands for bytes that were no text.
_BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
# Marks of chat templates and of tokenizers. (<s> is a tag of HTML too.)
_SPECIAL = re.compile(
    r"<\|[a-z_0-9]{2,20}\|>|<｜[^<>｜]{2,30}｜>|</s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?think(?:ing)?>"
    r"|<noinput>"
    r"|<(?:bos|eos|pad|unk)>", re.I
)  # fmt: skip
# "5. Input:" by itself, "### Response:", a lone "##": of a list prompt or of Alpaca's template. Markdown has headings
# with a name and lists such as "1. Input: the keyboard".
_LABEL = re.compile(
    r"^[ \t]*(?:\d{1,3}[.)][ \t]*(?:instruction|指令)[ \t]*[:：]"
    r"|\d{1,3}[.)][ \t]*(?:input|output|输入|输出)[ \t]*[:：][ \t]*$"
    r"|#{2,6}[ \t]*(?:instruction|input|output|response)[ \t]*:?[ \t]*$|#{2,}[ \t]*(?:\d{1,3}\.?[ \t]*)?$"
    r"|(?:instruction|class label)[ \t]*:)",
    re.I | re.M,
)
# A line of a list. "5. Input: text" belongs to a list of tasks, unless 4 stands before it.
_NUMBERED = re.compile(
    r"^[ \t*_]{0,8}(?P<number>\d{1,3})[.)](?P<label>[ \t]{0,8}(?:input|output|输入|输出)[ \t]{0,8}[:：])?", re.I | re.M
)
_PAIR_LABEL = re.compile(r"^[ \t]*(?:input|output)[ \t]*:", re.I | re.M)
_ABOUT_PAIRS = re.compile(r"\b(?:inputs?|outputs?|examples?|functions?|programs?|instructions?|prompts?)\b", re.I)
_TASK_LABEL = re.compile(r"^[ \t]*(?:task|example)[ \t]+(\d{1,3})[ \t]*:", re.I | re.M)
_CLOSING = ")]}"
_OPENING = "([{"
_EMOTICON = re.compile(r"[:;=8][-'^]?[(\[{)\]}]")
_ENDED = re.compile(r"[.!?…。！？:;\"'”’»」』)*_~|>/\]}]\Z")
_MIN_WORDS_BEFORE_END = 5  # "Best regards," and "Dear Sir or Madam," end with a comma
_MIN_CHARACTERS_BEFORE_END = 12  # the same where words are not separated
# Words that no sentence ends with.
_UNENDING = {
    "en": r"and|or|the|an|because|although|whereas|whose|every|your",
    "de": r"und|oder|weil|dass|eine|einen|einem|einer|dem|den|sowie",
    "fr": r"et|ou|les|une|des|du|parce que|dont",
    "es": r"y|o|los|las|una|del|porque",
    "it": r"e|o|gli|una|della|perché",
    "pt": r"e|ou|os|uma|da|porque",
    "nl": r"en|of|het|een|omdat",
    "ru": r"и|или|потому что|который",
}


class Format(Filter):
    """An answer cut in mid-sentence, a field with labels or special tokens of a prompt in it, broken characters.

    A cut shows where a code fence, a bracket or a quotation mark stays open, or the last word cannot be the last. Marks
    that the instruction speaks of itself are fine.
    """

    kind: Literal["format"] = "format"

    def judge(self, case: Case) -> Verdict | None:
        """By each field of each instance."""
        for instance in case.instances:
            fields = (("instruction", case.instruction), ("input", instance.input), ("output", instance.output))
            for field, text in fields:
                if problem := _broken(text) or _leaked(text, field, case.instruction):
                    return Verdict("format", f"{field}: {problem}")
            if problem := _cut(instance, case.language):
                return Verdict("incomplete", f"output: {problem}")
            if _same(instance.output, case.instruction):
                return Verdict("format", "output: repeats the instruction")
        return None


def _broken(text: str) -> str | None:
    """Characters that no text has."""
    bad = _BROKEN.search(text)
    return f"character U+{ord(bad[0]):04X}" if bad else None


def _leaked(text: str, field: str, instruction: str) -> str | None:
    """A piece of a prompt's form that the instruction does not speak of."""
    found = _LABEL.search(CODE.sub("", text)) or _SPECIAL.search(text)
    if found and field == "instruction" and found.re is _SPECIAL and text[found.end() :].strip():
        found = None  # spoken of: a leftover stands at the end
    if not found and "```" not in text and not _ABOUT_PAIRS.search(instruction):
        found = _PAIR_LABEL.search(text)
    if not found:
        number = _TASK_LABEL.search(text)  # a list of tasks begins with the first
        found = number if number and int(number[1]) > 1 else _out_of_turn(text)
    mark = found[0].strip() if found else _separator(text)
    if not mark or (field != "instruction" and mark.lower() in instruction.lower()):
        return None
    return f"'{mark}'"


def _out_of_turn(text: str) -> re.Match[str] | None:
    """A numbered label that does not follow the number before it."""
    before = {0}
    for line in _NUMBERED.finditer(text):
        number = int(line["number"])
        if line["label"] and number - 1 not in before:
            return line
        before.add(number)
    return None


def _separator(text: str) -> str | None:
    """What is left of the line between two tasks at a text's end: "##", which no heading opened, or "###"."""
    last = text.rstrip().rpartition("\n")[2]
    rest = last.rstrip("#")
    n_marks = len(last) - len(rest)
    is_heading = rest.lstrip().startswith("#")
    return None if is_heading or n_marks < 2 or (n_marks == 2 and not rest.endswith((" ", "\t"))) else last[-n_marks:]


def _cut(instance: Instance, language: str) -> str | None:
    """How one sees that an answer breaks off."""
    text = instance.output.rstrip()
    if text.count("```") % 2:
        return "a code fence stays open"
    last = CODE.sub("", text).rpartition("\n")[2]
    if _ENDED.search(last):
        return None
    if _depth(_EMOTICON.sub("", last)) > 0:
        return "a bracket stays open"
    if last.count("“") > last.count("”") or last.count("「") > last.count("」"):
        return "a quotation mark stays open"
    if len(tokenize(last, "unicode")) < (_MIN_WORDS_BEFORE_END if " " in last else _MIN_CHARACTERS_BEFORE_END):
        return None
    if last.endswith((",", "，", "、", "،")):
        return "ends with a comma"
    word = last.rpartition(" ")[2]
    unending = _UNENDING.get(language)
    return f"ends with '{word}'" if unending and re.fullmatch(unending, word) else None


def _depth(line: str) -> int:
    """How many brackets stay open; of any kind, since intervals such as [0, 1) mix them."""
    depth = 0
    for c in line:
        depth += (c in _OPENING) - (c in _CLOSING and depth > 0)
    return depth


def _same(one: str, other: str) -> bool:
    def letters(text: str) -> str:
        return "".join(c for c in text.casefold() if c.isalnum())

    return bool(letters(one)) and letters(one) == letters(other)
