"""The index for large pools: immutable segments, and the latest records flat behind them.

A log-structured merge: recent records are compared one by one; when they are many they become a segment, together with
smaller segments before it, so that a pool of a million has some 16 large segments and a few small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from selfinstruct.novelty import kernels, segments
from selfinstruct.novelty.matches import NOBODY, Judged, Matches
from selfinstruct.novelty.segments import MAX_RECORDS, Records, Segment, Workspace
from selfinstruct.novelty.tokens import Tokenizer
from selfinstruct.novelty.vocabulary import Encoded, Vocabulary, resized

# Candidates that are judged at a time, and recent records at which they become a segment.
BATCH = 1024
# Candidates that are searched for at a time: what a segment has in the cache serves more of them.
SEARCH_BATCH = 4096


class _Recent:
    """The latest records, in arrays with room for more."""

    def __init__(self) -> None:
        self.n = 0
        self.tokens: NDArray[np.int32] = np.empty(0, np.int32)
        self.offsets: NDArray[np.int64] = np.zeros(1, np.int64)
        self.signatures: NDArray[np.uint64] = np.empty(0, np.uint64)
        self.ids: NDArray[np.int64] = np.empty(0, np.int64)

    @property
    def records(self) -> Records:
        tokens = self.tokens[: self.offsets[self.n]]
        return Records(tokens, self.offsets[: self.n + 1], self.ids[: self.n].astype(np.uint32))

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self.tokens, self.offsets, self.signatures, self.ids))

    def append(self, encoded: Encoded, ids: NDArray[np.uint32]) -> None:
        """Add records."""
        n = len(ids)
        self._make_room(n, len(encoded.tokens))
        begin = int(self.offsets[self.n])
        self.tokens[begin : begin + len(encoded.tokens)] = encoded.tokens
        self.offsets[self.n + 1 : self.n + 1 + n] = encoded.offsets[1:] + begin
        self.ids[self.n : self.n + n] = ids
        kernels.signatures(encoded.terms, encoded.offsets, self.signatures[self.n : self.n + n])
        self.n += n

    def settle(
        self, encoded: Encoded, threshold: float, sizes: NDArray[np.int64], next_id: int, n_terms: int, matches: Matches
    ) -> NDArray[np.bool_]:
        """Decide in order, see `kernels.settle`; a threshold of nan only compares."""
        n = len(encoded.offsets) - 1
        self._make_room(n, len(encoded.tokens))
        accepted = np.zeros(n, np.bool_)
        self.n = kernels.settle(
            *encoded, threshold, sizes, next_id,
            self.tokens, self.offsets, self.signatures, self.ids, self.n,
            *matches, accepted, Workspace.of(n_terms, _longest(encoded)),
        )  # fmt: skip
        return accepted

    def _make_room(self, n: int, n_tokens: int) -> None:
        self.tokens = resized(self.tokens, int(self.offsets[self.n]) + n_tokens)
        self.offsets = resized(self.offsets, self.n + n + 1)
        self.signatures = resized(self.signatures, self.n + n)
        self.ids = resized(self.ids, self.n + n)


class CompiledIndex:
    """A growing pool of texts, asked for those most like others.

    Args:
        tokenizer: See `tokens.tokenize`.
        threads: How many share a search.
    """

    def __init__(self, tokenizer: Tokenizer, threads: int = 1) -> None:
        self.vocabulary = Vocabulary(tokenizer)
        self.segments: list[Segment] = []
        self.next_id = 0
        self._recent = _Recent()
        self._threads = threads

    @classmethod
    def of(cls, vocabulary: Vocabulary, segments: Sequence[Segment], next_id: int, threads: int) -> CompiledIndex:
        """The index with these parts."""
        index = cls(vocabulary.tokenizer, threads)
        index.vocabulary, index.segments, index.next_id = vocabulary, list(segments), next_id
        return index

    def __len__(self) -> int:
        return sum(len(segment.ids) for segment in self.segments) + self._recent.n

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(segment.nbytes for segment in self.segments) + self._recent.nbytes + self.vocabulary.nbytes

    def add(self, texts: Sequence[str], ids: NDArray[np.uint32] | None = None) -> None:
        """Add texts.

        Args:
            texts: Any.
            ids: Their positions in a pool of which this is a part, all above those before; None to count on.
        """
        encoded = self.vocabulary.encode(texts, grow=True)
        if ids is None:
            ids = np.arange(self.next_id, self.next_id + len(texts), dtype=np.uint32)
        if len(texts):
            self.next_id = int(ids[-1]) + 1
        if len(texts) < BATCH:
            self._recent.append(encoded, ids)
            self._merge_recent(BATCH)
        else:
            self._merge_recent(1)
            self._add_segments(Records(encoded.tokens, encoded.offsets, ids))

    def search(self, texts: Sequence[str], k: int = 1, sizes: NDArray[np.int64] | None = None) -> Matches:
        """The best matches of texts.

        Args:
            texts: Candidates.
            k: How many of each at most.
            sizes: int64[texts], only positions below are looked at; None for all.
        """
        matches = Matches.none(len(texts), k)
        sizes = np.full(len(texts), NOBODY) if sizes is None else sizes
        for begin in range(0, len(texts), SEARCH_BATCH):
            part = slice(begin, begin + SEARCH_BATCH)
            encoded = self.vocabulary.encode(texts[part], grow=False)
            self._compare(encoded, sizes[part], matches.part(part))
            self._recent.settle(
                encoded, float("nan"), sizes[part], self.next_id, self.vocabulary.n_terms, matches.part(part)
            )
        return matches

    def judge(self, texts: Sequence[str], threshold: float, k: int = 1, known: Matches | None = None) -> Judged:
        """Decide on texts in order: one with an F above the threshold is rejected, the others are added.

        Args:
            texts: Candidates.
            threshold: Strictly above it is too similar.
            k: Matches of each at most.
            known: Their best matches elsewhere, with positions below all here; overwritten.
        """
        matches = Matches.none(len(texts), k) if known is None else known
        accepted = [np.zeros(0, np.bool_)]
        for begin in range(0, len(texts), BATCH):
            part = slice(begin, begin + BATCH)
            encoded = self.vocabulary.encode(texts[part], grow=True)
            sizes = np.full(len(encoded.offsets) - 1, NOBODY)
            self._compare(encoded, sizes, matches.part(part))
            accepted.append(
                self._recent.settle(
                    encoded, threshold, sizes, self.next_id, self.vocabulary.n_terms, matches.part(part)
                )
            )
            self.next_id += int(accepted[-1].sum())
            self._merge_recent(BATCH)
        return Judged(np.concatenate(accepted), matches)

    def scores(self, text: str) -> NDArray[np.float64]:
        """F of a text with every text of the pool, by position."""
        encoded = self.vocabulary.encode([text], grow=False)
        work = Workspace.of(self.vocabulary.n_terms, _longest(encoded))
        scores = np.zeros(self.next_id)
        for tokens, offsets, ids in [*(segment.records for segment in self.segments), self._recent.records]:
            kernels.all_scores(encoded.tokens, tokens, offsets, ids, scores, work)
        return scores

    def settled(self) -> Sequence[Segment]:
        """Its segments, the recent records among them."""
        self._merge_recent(1)
        return self.segments

    def _compare(self, encoded: Encoded, sizes: NDArray[np.int64], matches: Matches) -> None:
        """With all segments.

        The last one, the smallest, comes first: a good match saves work in the others. They follow from the earliest
        on, so that equal matches further on are out of the question by their position.
        """
        longest = _longest(encoded)
        in_turn = self.segments[-1:] + self.segments[:-1]

        def compare(first: int, last: int) -> None:
            work = Workspace.of(self.vocabulary.n_terms, longest, MAX_RECORDS)
            for segment in in_turn:
                kernels.search(*encoded, first, last, segment, sizes, *matches, work)

        bounds = np.linspace(0, len(sizes), self._threads + 1).astype(int).tolist()
        if self._threads == 1 or not self.segments:
            compare(bounds[0], bounds[-1])
            return
        with ThreadPoolExecutor(self._threads) as threads:
            list(threads.map(compare, bounds[:-1], bounds[1:]))

    def _merge_recent(self, at_least: int) -> None:
        if self._recent.n >= at_least:
            self._add_segments(self._recent.records)
            self._recent = _Recent()

    def _add_segments(self, records: Records) -> None:
        """Make segments of records and of the last ones that are less than twice as many, so that there are few."""
        while self.segments and len(self.segments[-1].ids) < min(2 * len(records.ids), MAX_RECORDS):
            records = segments.joined([self.segments.pop().records, records])
        terms = self.vocabulary.terms(records.tokens, records.offsets)
        for begin in range(0, len(records.ids), MAX_RECORDS):
            part, part_terms = segments.part(records, terms, begin, begin + MAX_RECORDS)
            self.segments.append(segments.build(part, part_terms, self.vocabulary.n_terms))


def _longest(encoded: Encoded) -> int:
    """Tokens of the longest text, at least 1."""
    return max(int(np.diff(encoded.offsets).max(initial=0)), 1)
