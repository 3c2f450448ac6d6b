"""The novelty index: for few texts without any set-up, for many compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from selfinstruct.novelty.brute import BruteIndex
from selfinstruct.novelty.matches import Judged, Match, Matches
from selfinstruct.novelty.tokens import Tokenizer

if TYPE_CHECKING:
    from selfinstruct.novelty.compiled import CompiledIndex

# Up to here all pairs are compared: some 0.1 ms a candidate, while loading compiled code takes a second.
MAX_BRUTE = 5_000
_MAX_BRUTE_LETTERS = 2_000_000  # of texts, which then have fewer tokens than there are characters to stand for them


class NoveltyIndex:
    """A growing pool of texts, asked for those most like a candidate; a text is known by its position.

    Every score is the float that rouge_score gives, and nothing is left out for speed.

    Args:
        tokenizer: See `tokens.tokenize`.
        threads: How many share a search in a large pool.
        expected: How many texts will come, as far as is known; for many the set-up is made at once, not on the way.
    """

    def __init__(self, tokenizer: Tokenizer = "rouge", threads: int = 1, expected: int = 0) -> None:
        self._tokenizer = tokenizer
        self._threads = threads
        self._brute: BruteIndex | None = BruteIndex(tokenizer)
        self._compiled: CompiledIndex | None = None
        if expected > MAX_BRUTE:
            self.compiled()

    @classmethod
    def of(cls, compiled: CompiledIndex) -> NoveltyIndex:
        """An index that is compiled already, for instance since it comes from a file."""
        index = cls(compiled.vocabulary.tokenizer)
        index._brute, index._compiled = None, compiled
        return index

    def __len__(self) -> int:
        return len(self._brute.texts) if self._brute else len(self.compiled())

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self._brute.nbytes if self._brute else self.compiled().nbytes

    def add(self, *texts: str) -> None:
        """Add texts to the pool."""
        if brute := self._brute_for(texts):
            for text in texts:
                brute.add(text)
        else:
            self.compiled().add(texts)

    def nearest(self, text: str, k: int = 1, size: int | None = None) -> tuple[Match, ...]:
        """The k texts with the largest F, by (F descending, position ascending), those without any overlap left out.

        Args:
            text: The candidate.
            k: How many at most.
            size: Look only at the first so many texts of the pool; None for all.
        """
        if self._brute:
            return self._brute.nearest(text, k, size)
        return self.search([text], k, None if size is None else [size]).of(0)

    def search(self, texts: Sequence[str], k: int = 1, sizes: Sequence[int] | None = None) -> Matches:
        """As `nearest`, for many candidates at once.

        Args:
            texts: Candidates.
            k: How many matches of each.
            sizes: Of each, see `nearest`; None for all.
        """
        if brute := self._brute_for(texts):
            return brute.search(texts, k, sizes)
        return self.compiled().search(texts, k, None if sizes is None else np.asarray(sizes, np.int64))

    def judge(self, texts: Sequence[str], threshold: float, k: int = 1) -> Judged:
        """Decide on texts one after the other: those with an F above the threshold are rejected, others are added.

        Args:
            texts: Candidates; a text without tokens is accepted.
            threshold: Strictly above it is too similar.
            k: How many matches of each to give.
        """
        if brute := self._brute_for(texts):
            return brute.judge(texts, threshold, k)
        return self.compiled().judge(texts, threshold, k)

    def mean(self, text: str) -> float:
        """Mean F of a text with all of the pool, as the originals record it; 0 for an empty pool."""
        scores = self._brute.scores(text) if self._brute else self.compiled().scores(text)
        return float(np.mean(scores)) if len(scores) else 0.0

    def compiled(self) -> CompiledIndex:
        """The index for large pools, which this one is from now on."""
        if self._compiled is None:
            from selfinstruct.novelty.compiled import CompiledIndex

            self._compiled = CompiledIndex(self._tokenizer, self._threads)
            if self._brute:
                self._compiled.add(self._brute.texts)
                self._brute = None
        return self._compiled

    def _brute_for(self, texts: Sequence[str]) -> BruteIndex | None:
        """The index for small pools, unless these texts are too many for it."""
        brute = self._brute
        if not brute or len(brute.texts) + len(texts) > MAX_BRUTE:
            return None
        return brute if brute.n_letters + sum(map(len, texts)) <= _MAX_BRUTE_LETTERS else None
