"""What must not be trained on, recognised by name and by text.

By text: tokens in a row, GPT-3's test (Brown et al., 2020, appendix C), which looks for n-grams of 8 to 13 words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from selfinstruct.novelty import tokenize

NGRAM = 13
# What is shorter than GPT-3's shortest n-grams ("yes", "Paris") is anyone's.
MIN_TOKENS = 8


class TokenRuns:
    """Texts and whose they are, asked whose have tokens in a row in common with another text.

    Args:
        ngram: Tokens in a row that are no coincidence. A text with fewer counts as a whole, if it has `MIN_TOKENS`.
    """

    def __init__(self, ngram: int = NGRAM) -> None:
        self._ngram, self._shortest = ngram, min(ngram, MIN_TOKENS)
        self._owners: dict[str, list[str]] = {}  # of tokens in a row
        self._beginnings: set[str] = set()  # of those, as long as the shortest
        self._lengths: set[int] = set()

    def add(self, text: str, owner: str) -> None:
        """Add a text; one that is too short changes nothing."""
        tokens = tokenize(text, "unicode")
        if len(tokens) < self._shortest:
            return
        n = min(len(tokens), self._ngram)
        self._lengths.add(n)
        for start in range(len(tokens) - n + 1):
            owners = self._owners.setdefault(" ".join(tokens[start : start + n]), [])
            if owner not in owners[-1:]:
                owners.append(owner)
            self._beginnings.add(" ".join(tokens[start : start + self._shortest]))

    def shared(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """(How many tokens in a row, whose they are) at each place of a text where there are any, in its order."""
        tokens = tokenize(text, "unicode")
        for start in range(len(tokens) - self._shortest + 1):
            if " ".join(tokens[start : start + self._shortest]) in self._beginnings:
                for n in self._lengths:
                    if owners := self._owners.get(" ".join(tokens[start : start + n])):
                        yield n, owners


def plain_name(name: str) -> str:
    """A cluster's or data set's name without what differs between collections.

    "Data-to-Text" is data_to_text, and summarization is with s.
    """
    return re.sub(r"[\W_]+", "_", name.casefold()).replace("ization", "isation")
