"""Characters that a text may hold and that files, terminals or pages cannot take as they are."""

from __future__ import annotations

import re

# Control characters but for tabs and new lines, line separators, direction overrides and lone surrogates: they show
# nothing of themselves, but can drive a terminal, break a line or turn around what stands beside them.
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def storable(text: str) -> str:
    """Text without lone surrogates, which JSON can spell and UTF-8 cannot: half an emoji, cut by a token limit."""
    return text.encode("utf-8", "replace").decode()


def visible(text: str) -> str:
    """Text for a page, with a mark in the place of each hidden character."""
    return HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def printable(text: str) -> str:
    """Text for a terminal, with hidden characters spelt out."""
    return HIDDEN.sub(lambda hidden: f"\\x{ord(hidden[0]):02x}", text)


def escaped(text: str) -> str:
    """JSON or TOML for a terminal: the same values, with hidden characters as the escapes of their strings."""
    return HIDDEN.sub(lambda hidden: f"\\u{ord(hidden[0]):04x}", text)


def cut(text: str, most: int = 2000) -> str:
    """Text up to a length, and how much more there is."""
    more = len(text) - most
    return text if more <= 0 else f"{text[:most]} … ({more:,} more characters)"
