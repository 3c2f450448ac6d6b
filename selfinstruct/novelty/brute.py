"""The index for small pools: every pair is compared, and nothing has to be compiled or built."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from selfinstruct.novelty.matches import Judged, Match, Matches
from selfinstruct.novelty.tokens import Tokenizer, tokenize

# Candidates that are compared at a time, which takes a third of what one by one takes.
_BATCH = 256
_UNKNOWN = "\0"


class BruteIndex:
    """A growing pool of texts, each a string in which a character stands for a token, for RapidFuzz's LCS.

    Args:
        tokenizer: See `tokens.tokenize`.

    Attributes:
        texts: The pool.
        n_letters: Of all texts whose tokens have a character, of which there are 1,114,112.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.texts: list[str] = []
        self.n_letters = 0
        self._tokenizer = tokenizer
        self._characters: dict[str, str] = {}
        self._encoded: list[str] = []

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        strings = (*self.texts, *self._encoded, *self._characters, *self._characters.values())
        return sum(map(sys.getsizeof, (*strings, self.texts, self._encoded, self._characters)))

    def add(self, text: str) -> None:
        """Add a text."""
        self.texts.append(text)
        self._encoded.append(self._encode(text))

    def nearest(self, text: str, k: int, size: int | None = None) -> tuple[Match, ...]:
        """The best matches among the first so many texts; None for all."""
        scores = self.scores(text, size)
        return tuple(Match(int(i), float(scores[i])) for i in _best(scores, k))

    def search(self, texts: Sequence[str], k: int, sizes: Sequence[int] | None = None) -> Matches:
        """The best matches of many texts, see `index.NoveltyIndex.search`."""
        matches = Matches.none(len(texts), k)
        for number, text in enumerate(texts):
            _put(matches, number, self.scores(text, sizes[number] if sizes else None))
        return matches

    def judge(self, texts: Sequence[str], threshold: float, k: int) -> Judged:
        """Decide on texts in order, see `index.NoveltyIndex.judge`."""
        judged = Judged(np.zeros(len(texts), np.bool_), Matches.none(len(texts), k))
        for begin in range(0, len(texts), _BATCH):
            part = slice(begin, begin + _BATCH)
            self._judge(texts[part], threshold, judged.accepted[part], judged.matches.part(part))
        return judged

    def scores(self, text: str, size: int | None = None) -> NDArray[np.float64]:
        """F of a text with each of the first so many texts."""
        # Tokens that the pool lacks match nothing, so one character stands for all of them.
        query = "".join(self._characters.get(token, _UNKNOWN) for token in tokenize(text, self._tokenizer))
        scores: NDArray[np.float64] = _f_measures([query], self._encoded[:size])[0]
        return scores

    def _judge(self, texts: Sequence[str], threshold: float, accepted: NDArray[np.bool_], matches: Matches) -> None:
        """Decide on a batch, which is compared with the pool and with itself at once."""
        encoded = [self._encode(text) for text in texts]
        n = len(self.texts)
        scores = _f_measures(encoded, [*self._encoded, *encoded])
        in_pool = np.append(np.ones(n, np.bool_), accepted)
        for number, text in enumerate(texts):
            _put(matches, number, scores[number, in_pool])
            if matches.scores[number, 0] <= threshold:
                accepted[number] = in_pool[n + number] = True
                self.texts.append(text)
                self._encoded.append(encoded[number])

    def _encode(self, text: str) -> str:
        self.n_letters += len(text)
        return "".join(map(self._character, tokenize(text, self._tokenizer)))

    def _character(self, token: str) -> str:
        character = self._characters.get(token)
        if character is None:
            character = self._characters[token] = chr(len(self._characters) + 1)
        return character


def _best(scores: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """Where the k largest are, those above 0, by (score descending, place ascending)."""
    if k == 1 and len(scores):
        first = scores.argmax()
        return np.array([first] if scores[first] > 0 else [], np.intp)
    enough = np.partition(scores, -k)[-k] if k < len(scores) else 0.0
    places = np.flatnonzero((scores >= enough) & (scores > 0))
    order: NDArray[np.intp] = places[np.argsort(-scores[places], kind="stable")]
    return order[:k]


def _put(matches: Matches, candidate: int, scores: NDArray[np.float64]) -> None:
    """Note the best matches of a candidate, which has these scores with the pool."""
    best = _best(scores, matches.scores.shape[1])
    matches.scores[candidate, : len(best)] = scores[best]
    matches.positions[candidate, : len(best)] = best


def _f_measures(candidates: Sequence[str], pool: Sequence[str]) -> NDArray[np.float64]:
    """`tokens.rouge_l` of all pairs, in the same floating-point operations and order: float64[candidates, pool]."""
    if not pool:
        return np.zeros((len(candidates), 0))
    lcs: NDArray[np.float64] = cdist(candidates, pool, scorer=LCSseq.similarity, dtype=np.int64).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = lcs / _lengths(candidates)[:, None], lcs / _lengths(pool)
        scores = 2 * precision * recall / (precision + recall)
    return np.where(lcs > 0, scores, 0.0)


def _lengths(texts: Sequence[str]) -> NDArray[np.float64]:
    return np.fromiter(map(len, texts), float, len(texts))
