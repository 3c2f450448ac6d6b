"""Texts as numbers: every distinct token gets one, in the order of their first appearance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from selfinstruct.novelty import kernels
from selfinstruct.novelty.tokens import Tokenizer, tokenize

ScalarT = TypeVar("ScalarT", bound=np.generic)

_MAX_BYTES = 1 << 18  # of the texts that are numbered at a time
_ROUGE_BYTES = b"abcdefghijklmnopqrstuvwxyz0123456789"


class Encoded(NamedTuple):
    """Texts as numbers.

    Attributes:
        tokens: int32, of all texts one after the other; -1 for one that the vocabulary lacks.
        terms: int32, the same with repeated tokens told apart, see `kernels.number_repeats`.
        offsets: int64[texts + 1], where each text begins.
    """

    tokens: NDArray[np.int32]
    terms: NDArray[np.int32]
    offsets: NDArray[np.int64]


class Vocabulary:
    """Numbers of terms, in an open hash table over flat arrays, so that it is stored and mapped as it is.

    Attributes:
        tokenizer: See `tokens.tokenize`.
        n_terms: How many there are.
        letters: uint8, the bytes of all terms.
        starts: int64, where each begins.
        hashes: uint64, of each.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.n_terms = 0
        self.letters: NDArray[np.uint8] = np.empty(0, np.uint8)
        self.starts: NDArray[np.int64] = np.zeros(1, np.int64)
        self.hashes: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._slots: NDArray[np.int32] = np.full(16, -1, np.int32)
        self._seen_in: NDArray[np.int64] = np.empty(0, np.int64)
        self._times: NDArray[np.int32] = np.empty(0, np.int32)
        self._serial = 1
        self._in_token = np.zeros(256, np.bool_)
        if tokenizer == "rouge":
            self._in_token[list(_ROUGE_BYTES)] = True
        else:  # a space parts the tokens, which `_bytes` finds
            self._in_token[:] = True
            self._in_token[[0, ord(" ")]] = False

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, letters: NDArray[np.uint8], starts: NDArray[np.int64], hashes: NDArray[np.uint64]
    ) -> Vocabulary:
        """The vocabulary with these terms."""
        vocabulary = cls(tokenizer)
        vocabulary._make_room(len(hashes), 0)
        vocabulary.n_terms = len(hashes)
        vocabulary.letters, vocabulary.starts, vocabulary.hashes = letters, starts, hashes
        kernels.place(vocabulary._slots, hashes, len(hashes))
        return vocabulary

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        arrays = (self.letters, self.starts, self.hashes, self._slots, self._seen_in, self._times)
        return sum(array.nbytes for array in arrays)

    def encode(self, texts: Sequence[str], grow: bool) -> Encoded:
        """Number the tokens of texts.

        Args:
            texts: Any.
            grow: Whether new terms get a number.
        """
        parts = [self._encode(part, grow) for part in _parts([self._bytes(text) for text in texts])]
        if len(parts) == 1:
            return parts[0]
        tokens, terms, offsets = zip(*parts, strict=True)
        begins = np.cumsum([0, *(len(part) for part in tokens)])
        shifted = [part[1:] + begin for part, begin in zip(offsets, begins[:-1], strict=True)]
        return Encoded(np.concatenate(tokens), np.concatenate(terms), np.concatenate([np.zeros(1, np.int64), *shifted]))

    def _bytes(self, text: str) -> bytes:
        plain = text.lower() if self.tokenizer == "rouge" else " ".join(tokenize(text, self.tokenizer))
        return plain.encode("utf-8", "replace")

    def _encode(self, texts: Sequence[bytes], grow: bool) -> Encoded:
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        buffer = np.frombuffer(b"".join(texts), np.uint8)
        tokens = np.empty(len(buffer) // 2 + len(texts), np.int32)
        offsets = np.zeros(len(texts) + 1, np.int64)
        if grow:
            self._make_room(len(tokens), len(buffer))
        self.n_terms = kernels.number_tokens(
            buffer, ends, self._in_token, self._slots, self.hashes, self.letters, self.starts, self.n_terms,
            grow, tokens, offsets,
        )  # fmt: skip
        tokens = tokens[: offsets[-1]].copy()
        return Encoded(tokens, self.terms(tokens, offsets, grow), offsets)

    def terms(self, tokens: NDArray[np.int32], offsets: NDArray[np.int64], grow: bool = False) -> NDArray[np.int32]:
        """Tell the repeated tokens of texts apart, see `kernels.number_repeats`."""
        terms = np.empty(len(tokens), np.int32)
        if grow:
            self._make_room(len(tokens), 9 * len(tokens))
        self.n_terms = kernels.number_repeats(
            tokens, offsets, self._serial, self._seen_in, self._times,
            self._slots, self.hashes, self.letters, self.starts, self.n_terms, grow, terms,
        )  # fmt: skip
        self._serial += len(offsets) - 1
        return terms

    def _make_room(self, n_terms: int, n_letters: int) -> None:
        """For so many more terms of so many bytes in all, and a table that stays half empty."""
        n = self.n_terms + n_terms
        self.letters = resized(self.letters, int(self.starts[self.n_terms]) + n_letters)
        self.hashes = resized(self.hashes, n)
        self.starts = resized(self.starts, n + 1)
        self._times = resized(self._times, n)
        self._seen_in = resized(self._seen_in, n)
        if 2 * n > len(self._slots):
            self._slots = np.full(1 << (2 * n).bit_length(), -1, np.int32)
            kernels.place(self._slots, self.hashes, self.n_terms)


def resized(array: NDArray[ScalarT], size: int) -> NDArray[ScalarT]:
    """The array itself if it is long enough, else a longer one, a third longer than asked for; zeros are added."""
    if len(array) >= size:
        return array
    longer = np.zeros((size + size // 3, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


def _parts(texts: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    """Runs of texts of up to `_MAX_BYTES` or of one text; one empty run for none."""
    begin = 0
    size = 0
    for at, text in enumerate(texts):
        if size and size + len(text) > _MAX_BYTES:
            yield texts[begin:at]
            begin, size = at, 0
        size += len(text)
    yield texts[begin:]
