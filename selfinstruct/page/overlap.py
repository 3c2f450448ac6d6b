"""What two texts have in common: the words of their longest common subsequence, which ROUGE-L counts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# More words are not compared: the table has as many fields as both numbers multiplied.
MAX_WORDS = 300
_WORD = re.compile(r"\w+")
Pieces = list[tuple[str, bool]]


def in_common(a: str, b: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces, each with whether it is a word that both have, in the same order."""
    words_a, words_b = ([*_WORD.finditer(text)][:MAX_WORDS] for text in (a, b))
    common = list(_common([w[0].casefold() for w in words_a], [w[0].casefold() for w in words_b]))
    return (
        list(_pieces(a, [words_a[i].span() for i, _ in common])),
        list(_pieces(b, [words_b[j].span() for _, j in common])),
    )


def _common(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Places of a longest common subsequence in both, by the usual table of the lengths for all ends of both."""
    lengths = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            lengths[i][j] = lengths[i + 1][j + 1] + 1 if a[i] == b[j] else max(lengths[i + 1][j], lengths[i][j + 1])
    i = j = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            yield i, j
            i, j = i + 1, j + 1
        elif lengths[i + 1][j] >= lengths[i][j + 1]:
            i += 1
        else:
            j += 1


def _pieces(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    at = 0
    for begin, end in spans:
        if begin > at:
            yield text[at:begin], False
        yield text[begin:end], True
        at = end
    if at < len(text):
        yield text[at:], False
