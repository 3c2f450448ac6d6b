"""Up to 65,536 records of the pool, laid out for search; a segment never changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfinstruct.novelty import kernels

# So that a record has a number of 16 bits, and what a search touches fits into a core's cache.
MAX_RECORDS = 64 * kernels.WORDS
# A term that so large a share of the records has gets a bitmap: a list would be as long from 1/8 on, but slower.
_DENSE_SHARE = 1 / 256
_MIN_DENSE = 8


class Records(NamedTuple):
    """Texts of the pool as numbers.

    Attributes:
        tokens: int32, of all one after the other.
        offsets: int64[records + 1], where each begins.
        ids: uint32[records], their positions in the pool.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    ids: NDArray[np.uint32]


class Segment(NamedTuple):
    """Records by (length, id), and where terms are.

    Attributes:
        ids: uint32[records].
        class_lengths, class_starts: int64; the distinct lengths above 0, and the first record of each, then the end.
        tokens, offsets: Of the records, see `Records`.
        signatures: uint64[records], see `kernels.signature`.
        starts: uint32[terms + 1], where each term's list begins in `postings`; a term with a bitmap has none.
        postings: uint16, the records of the other terms.
        dense: int32, the terms with a bitmap, ascending.
        bitmaps: uint64[dense terms + 1, words], bit r for record r; the last one is empty.
    """

    ids: NDArray[np.uint32]
    class_lengths: NDArray[np.int64]
    class_starts: NDArray[np.int64]
    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    signatures: NDArray[np.uint64]
    starts: NDArray[np.uint32]
    postings: NDArray[np.uint16]
    dense: NDArray[np.int32]
    bitmaps: NDArray[np.uint64]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in self)

    @property
    def records(self) -> Records:
        """What it was built from, in its own order."""
        return Records(self.tokens, self.offsets, self.ids)


class Workspace(NamedTuple):
    """Memory that a search uses; one a thread.

    Attributes:
        slots, masks, row: See `kernels.places` and `kernels.lcs_length`.
        order, rest: Likewise, see `kernels.search`.
        planes: uint64, counters bit by bit, see `kernels.WORDS`.
        needed: int64[words of the largest segment], what counters of a word had to reach.
        eight: int64[8].
    """

    slots: NDArray[np.int32]
    masks: NDArray[np.uint64]
    row: NDArray[np.uint64]
    order: NDArray[np.int64]
    rest: NDArray[np.uint64]
    planes: NDArray[np.uint64]
    needed: NDArray[np.int64]
    eight: NDArray[np.int64]

    @classmethod
    def of(cls, n_terms: int, longest: int, n_records: int = 0) -> Workspace:
        """For a vocabulary, candidates of up to so many tokens, and segments of up to so many records."""
        words = (longest + 63) // 64
        n_planes = max(longest.bit_length(), 4)
        n_words = (n_records + 63) // 64
        return cls(
            np.zeros(n_terms, np.int32),
            np.zeros((longest + 1, words), np.uint64),
            np.empty(words, np.uint64),
            np.empty(longest, np.int64),
            np.empty(longest + 1, np.uint64),
            np.empty((n_planes + 2) * kernels.WORDS if n_records else 0, np.uint64),
            np.empty(n_words, np.int64),
            np.empty(8, np.int64),
        )


def build(records: Records, terms: NDArray[np.int32], n_terms: int) -> Segment:
    """Lay records out.

    Args:
        records: At most `MAX_RECORDS`.
        terms: Of their tokens.
        n_terms: All terms are below.
    """
    lengths = np.diff(records.offsets)
    order = np.lexsort((records.ids, lengths))
    tokens, offsets = np.empty_like(records.tokens), np.zeros_like(records.offsets)
    sorted_terms = np.empty_like(terms)
    kernels.gather(records.tokens, records.offsets, order, tokens, offsets)
    kernels.gather(terms, records.offsets, order, sorted_terms, offsets)
    class_lengths, class_starts = np.unique(lengths[order], return_index=True)
    some = class_lengths > 0
    frequencies = kernels.document_frequencies(sorted_terms, n_terms)
    is_dense = frequencies >= max(_DENSE_SHARE * len(order), _MIN_DENSE)
    dense = np.flatnonzero(is_dense).astype(np.int32)
    starts = np.zeros(n_terms + 1, np.uint32)
    np.cumsum(np.where(is_dense, 0, frequencies), out=starts[1:])
    rows = np.full(n_terms, -1, np.int32)
    rows[dense] = np.arange(len(dense))
    postings = np.empty(int(starts[-1]), np.uint16)
    bitmaps = np.zeros((len(dense) + 1, (len(order) + 63) >> 6), np.uint64)
    kernels.fill_postings(sorted_terms, offsets, starts[:-1].astype(np.int64), rows, postings, bitmaps)
    signatures = np.empty(len(order), np.uint64)
    kernels.signatures(sorted_terms, offsets, signatures)
    return Segment(
        records.ids[order],
        class_lengths[some].astype(np.int64),
        np.append(class_starts[some], len(order)).astype(np.int64),
        tokens,
        offsets,
        signatures,
        starts,
        postings,
        dense,
        bitmaps,
    )


def joined(parts: list[Records]) -> Records:
    """Records one after the other."""
    begins = np.cumsum([0, *(len(part.tokens) for part in parts)])
    offsets = [part.offsets[1:] + begin for part, begin in zip(parts, begins[:-1], strict=True)]
    return Records(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([np.zeros(1, np.int64), *offsets]),
        np.concatenate([part.ids for part in parts]),
    )


def part(records: Records, terms: NDArray[np.int32], begin: int, end: int) -> tuple[Records, NDArray[np.int32]]:
    """Records begin..end and their terms."""
    offsets = records.offsets[begin : end + 1]
    tokens = slice(int(offsets[0]), int(offsets[-1]))
    return Records(records.tokens[tokens], offsets - offsets[0], records.ids[begin:end]), terms[tokens]
