"""The index for small pools: every pair is compared, and nothing has to be compiled or built."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from selfinstruct.novelty.matches import Match
from selfinstruct.novelty.tokens import Tokenizer, tokenize

_UNKNOWN = "\0"


class BruteIndex:
    """A growing pool of texts, each a string in which a character stands for a token, for RapidFuzz's LCS.

    Args:
        tokenizer: See `tokens.tokenize`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.texts: list[str] = []
        self._tokenizer = tokenizer
        self._characters: dict[str, str] = {}
        self._encoded: list[str] = []
        self._lengths: list[int] = []

    def add(self, text: str) -> None:
        """Add a text."""
        encoded = "".join(map(self._character, tokenize(text, self._tokenizer)))
        self.texts.append(text)
        self._encoded.append(encoded)
        self._lengths.append(len(encoded))

    def nearest(self, text: str, k: int, size: int | None = None) -> tuple[Match, ...]:
        """The best matches among the first so many texts; None for all."""
        scores = self.scores(text, size)
        best = np.argsort(-scores, kind="stable")[:k]
        return tuple(Match(int(i), float(scores[i])) for i in best if scores[i] > 0)

    def scores(self, text: str, size: int | None = None) -> NDArray[np.float64]:
        """F of a text with each of the first so many texts."""
        # Tokens that the pool lacks match nothing, so one character stands for all of them.
        query = "".join(self._characters.get(token, _UNKNOWN) for token in tokenize(text, self._tokenizer))
        pool = self._encoded[:size]
        if not query or not pool:
            return np.zeros(len(pool))
        lcs: NDArray[np.float64] = cdist([query], pool, scorer=LCSseq.similarity, dtype=np.int64)[0].astype(float)
        return _f_measures(lcs, len(query), np.asarray(self._lengths[:size], dtype=float))

    def _character(self, token: str) -> str:
        character = self._characters.get(token)
        if character is None:
            character = self._characters[token] = chr(len(self._characters) + 1)
        return character


def _f_measures(lcs: NDArray[Any], n_candidate: int, n_references: NDArray[Any]) -> NDArray[np.float64]:
    """`tokens.rouge_l` for a whole pool, in the same floating-point operations and order."""
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = lcs / n_candidate, lcs / n_references
        scores = 2 * precision * recall / (precision + recall)
    return np.where(lcs > 0, scores, 0.0)
