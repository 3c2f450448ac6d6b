"""Text that others wrote, in Markdown and in its YAML front matter, where none of it may take effect."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selfinstruct.characters import storable, visible

# What Markdown (CommonMark, tables and links of GitHub's) gives a meaning within a line, and HTML's marks.
_MARKS = re.compile(r"[\\`*~\[\]|$@&<>]|(?<![^\W_])_|_(?![^\W_])|(?<=:)(?=//)|(?<=\bwww)(?=\.)", re.I)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LINK = re.compile(r"https?://[A-Za-z0-9][^\s<>\"\\^`{|}]*")


def inline(text: str) -> str:
    """Text within a line or a cell of a table: shown as it is, whatever marks it has."""
    return _MARKS.sub(lambda mark: _ENTITIES.get(mark[0], "\\" + mark[0]), " ".join(visible(text).split()))


def linked(text: str) -> str:
    """`inline` text, but a link where all of it is the address of a page."""
    return f"<{text}>" if _LINK.fullmatch(text) and visible(text) == text else inline(text)


def block(text: str, language: str = "text") -> str:
    """Text as a block of code, whose fence is longer than any in the text."""
    text = visible(text.replace("\r\n", "\n"))
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
    return f"{fence}{language}\n{text}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def front_matter(values: Mapping[str, Any]) -> str:
    """The YAML block before a card, which the hub reads; None and empty values are left out.

    Args:
        values: Text, a list of texts, or a list of mappings whose values are such.
    """
    return "\n".join(["---", *_yaml(values), "---", ""])


def _yaml(values: Mapping[str, Any]) -> Iterable[str]:
    for name, value in values.items():
        if isinstance(value, str):
            yield f"{name}: {_quoted(value)}"
        elif value:
            yield f"{name}:"
            for item in value:
                lines = [_quoted(item)] if isinstance(item, str) else _yaml(item)
                yield from (f"{'  ' if number else '- '}{line}" for number, line in enumerate(lines))


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar, in which a string of JSON stands for itself; what is not to be seen is escaped."""
    text = json.dumps(storable(text), ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
