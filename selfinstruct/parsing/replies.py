"""What surrounds the parts of a reply: thinking, fences, quotation; and words for "yes" and for "no input"."""

from __future__ import annotations

import re

_THINKING_TAGS = "think|thinking|thought|reasoning"
_THINKING = re.compile(rf"\s*<({_THINKING_TAGS})>.*?(?:</\1>|\Z)\s*", re.S | re.I)
_TAG = re.compile(rf"<(/?)(?:{_THINKING_TAGS})>\s*", re.I)
_FENCED = re.compile(r"```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```", re.S)
_PLAIN_FENCED = re.compile(r"```(?:text|txt|plaintext|plain)?[ \t]*\n(.*?)\n?[ \t]*```", re.S | re.I)
_FENCE_LINE = re.compile(r"[ \t]*```[\w-]*[ \t]*")
_QUOTED = re.compile(r"^[ \t]*> ?", re.M)
_NO_INPUT = re.compile(
    r"[<\[(（【《〈]?\s{0,9}(?:no ?(?:input|output)|none|n/?a|not applicable|empty|无输入|无|空|なし|入力なし"
    r"|없음|입력 없음|keine?|aucune?|ninguna|ninguno|nenhuma|nenhum|nessuno|nessuna|нет|لا يوجد)"
    r"\s{0,9}[>\])）】》〉]?[.。]?",
    re.I,
)
_YES = re.compile(r"[\W_]{0,9}(?:是(?!否)|对|はい|예|네|ja\b|oui\b|s[ií]\b|sì|sim\b|да\b|نعم)", re.I)


def without_thinking(text: str) -> str:
    """A reply without the thinking that some reasoning models write before it.

    Unclosed thinking is all of the reply; where only the closing tag stands, the prompt had opened it.
    """
    first = _TAG.search(text)
    if first and first[1]:
        return text[first.end() :]
    start = 0
    while thinking := _THINKING.match(text, start):
        start = thinking.end()
    return text[start:]


def unwrapped(text: str) -> str:
    """A reply without a code fence or quotation that surrounds all of it."""
    text = text.replace("\r\n", "\n").strip("\n")
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and all(line.lstrip().startswith(">") for line in lines):
        text = _QUOTED.sub("", text)
    match = _FENCED.fullmatch(text.strip())
    return match[1] if match and not is_fence_line(match[1].split("\n")[-1]) else text


def without_plain_fence(text: str) -> str:
    """A part without a fence around it that names no programming language."""
    match = _PLAIN_FENCED.fullmatch(text)
    return match[1].strip() if match and "```" not in match[1] else text


def is_fence_line(line: str) -> bool:
    """Whether a line opens or closes fenced code."""
    return _FENCE_LINE.fullmatch(line) is not None


def is_yes(text: str) -> bool:
    """Whether an answer to "Is it classification?" means yes: "yes" in any case, or another language's word for it."""
    return "yes" in text.lower() or _YES.match(text) is not None


def real_input(text: str) -> str:
    """An input, or "" where the text only says that there is none ("<noinput>", "None", "无")."""
    text = text.strip()
    return "" if _NO_INPUT.fullmatch(text) else text
