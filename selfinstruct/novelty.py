"""The novelty filter: how much a text resembles the pool by ROUGE-L, with exactly rouge_score's floats.

F = 2PR / (P + R) with P = LCS / len(candidate) and R = LCS / len(reference) over tokens (Lin, 2004; rouge_score's
`_score_lcs` and `fmeasure`). Both originals reject a candidate whose largest F against seeds and accepted is above 0.7.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from selfinstruct.records import Neighbour

Tokenizer = Literal["rouge", "unicode"]

_ROUGE = re.compile(r"[a-z0-9]+")
# Scripts written without spaces are compared character by character: Thai, Lao, Burmese, Khmer, kana, Han.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and accents belong to the word that they stand in, though \w leaves them out.
_MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c).startswith("M"))
_UNICODE = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])(?:[^\W_]|[{_MARKS}]))+")
_UNKNOWN = "\0"


def tokenize(text: str, tokenizer: Tokenizer) -> list[str]:
    """Split a text into tokens.

    Args:
        text: Any text.
        tokenizer: "rouge" is rouge_score's default (lower-case runs of [a-z0-9], no stemming); "unicode" sees every
            script: words, and single characters where words are not separated by spaces.
    """
    if tokenizer == "rouge":
        return _ROUGE.findall(text.lower())
    return _UNICODE.findall(unicodedata.normalize("NFKC", text).casefold())


def rouge_l(lcs: int, n_candidate: int, n_reference: int) -> float:
    """F-measure of one pair from the length of its longest common subsequence, rounded as rouge_score rounds it."""
    if not lcs:
        return 0.0
    precision, recall = lcs / n_candidate, lcs / n_reference
    return 2 * precision * recall / (precision + recall)


class NoveltyIndex:
    """A growing pool of texts, asked for those most like a candidate.

    Each distinct token becomes one character, so that a text is a string and RapidFuzz's bit-parallel LCS applies.

    Args:
        tokenizer: See `tokenize`.
    """

    def __init__(self, tokenizer: Tokenizer = "rouge") -> None:
        self._tokenizer = tokenizer
        self._characters: dict[str, str] = {}
        self._ids: list[str] = []
        self._texts: list[str] = []
        self._lengths: list[int] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, id: str, text: str) -> None:
        """Add a text to the pool."""
        encoded = "".join(map(self._character, tokenize(text, self._tokenizer)))
        self._ids.append(id)
        self._texts.append(encoded)
        self._lengths.append(len(encoded))

    def nearest(self, text: str, k: int = 1, size: int | None = None) -> tuple[Neighbour, ...]:
        """The k texts with the largest F, (F descending, order of addition), those without any overlap left out.

        Args:
            text: The candidate.
            k: How many at most.
            size: Look only at the first so many texts of the pool; None for all.
        """
        # Tokens that the pool lacks match nothing, so one character stands for all of them.
        query = "".join(self._characters.get(token, _UNKNOWN) for token in tokenize(text, self._tokenizer))
        return self._nearest(query, self._texts[:size], self._lengths[:size], k)

    def _nearest(self, query: str, texts: Sequence[str], lengths: Sequence[int], k: int) -> tuple[Neighbour, ...]:
        if not query or not texts:
            return ()
        lcs: NDArray[np.float64] = cdist([query], texts, scorer=LCSseq.similarity, dtype=np.int64)[0].astype(float)
        scores = _f_measures(lcs, len(query), np.asarray(lengths, dtype=float))
        best = np.argsort(-scores, kind="stable")[:k]
        return tuple(Neighbour(self._ids[i], float(scores[i])) for i in best if scores[i] > 0)

    def _character(self, token: str) -> str:
        character = self._characters.get(token)
        if character is None:
            character = self._characters[token] = chr(len(self._characters) + 1)
        return character


def _f_measures(lcs: NDArray[Any], n_candidate: int, n_references: NDArray[Any]) -> NDArray[np.float64]:
    """`rouge_l` for a whole pool, in the same floating-point operations and order."""
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = lcs / n_candidate, lcs / n_references
        scores = 2 * precision * recall / (precision + recall)
    return np.where(lcs > 0, scores, 0.0)
