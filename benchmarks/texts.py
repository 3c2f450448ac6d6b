"""As many texts as are asked for, made from the few of a file, so that a pool of a million can be had from a thousand.

The file's own texts come first. Of the others,

- four of five go from word to word as the file's texts do (a bigram model). The words that the file has once stand for
  all that it lacks: their share of its words is the share that unseen words have among new ones (I. J. Good, "The
  population frequencies of species and the estimation of population parameters", 1953). Each becomes a made-up word,
  drawn anew from 150,000 by Zipf's law;
- one of five is an earlier text of the pool with one to three words replaced.

Grammar beyond two words, meaning, and families of texts about one matter are lost; lengths, frequent words and rare
ones are as in the file.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import TypeVar

from selfinstruct.errors import InputError
from selfinstruct.files import read_jsonl

NEAR_DUPLICATES = 0.2  # share of the made texts
REPLACED = (1, 1, 2, 3)  # words of a near-duplicate, each as likely
MAX_WORDS = 80
RARE_WORDS, ZIPF_OFFSET = 150_000, 10.0  # frequency ~ 1 / (rank + offset), Mandelbrot's form of Zipf's law
ItemT = TypeVar("ItemT")
BEGIN, END = "\0begin", "\0end"


def read_texts(path: Path, field: str) -> list[str]:
    """The texts of a JSONL file.

    Raises:
        InputError: For a file that cannot be read, a row without such a text, and for no rows.
    """
    texts = []
    for line, row in read_jsonl(path):
        if not isinstance(row.get(field), str):
            raise InputError("is no text", path=path, line=line, field=field, remedy="name the field with --field")
        texts.append(row[field])
    if not any(text.split() for text in texts):
        raise InputError("has no words", path=path)
    return texts


def pool_and_candidates(
    real: Sequence[str], n_pool: int, n_candidates: int, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Texts of a pool, and texts that are then asked about.

    Args:
        real: Texts of a file, see `read_texts`; used as they are as far as they go.
        n_pool: How many texts the pool has.
        n_candidates: How many others.
        seed: Another one gives other texts.
    """
    maker = _Maker(real, Random(f"texts/{n_pool}/{seed}"))
    pool, candidates = list(real[:n_pool]), list(real[n_pool : n_pool + n_candidates])
    while len(pool) < n_pool:
        pool.append(maker.text(pool))
    while len(candidates) < n_candidates:
        candidates.append(maker.text(pool))
    return pool, candidates


class _Maker:
    def __init__(self, real: Sequence[str], rng: Random) -> None:
        texts = [text.split() for text in real]
        self._words = [word for words in texts for word in words]
        self._counts = Counter(self._words)
        self._successors: dict[str, list[str]] = {}
        for words in texts:
            for word, successor in zip([BEGIN, *words], [*words, END], strict=True):
                self._successors.setdefault(word, []).append(successor)
        self._zipf = list(accumulate(1 / (rank + ZIPF_OFFSET) for rank in range(RARE_WORDS)))
        self._rng = rng

    def text(self, earlier: Sequence[str]) -> str:
        """A text, with luck a near-duplicate of an earlier one."""
        if self._rng.random() < NEAR_DUPLICATES:
            return self._altered(self._drawn(earlier))
        words: list[str] = []
        word = self._drawn(self._successors[BEGIN])
        while word != END and len(words) < MAX_WORDS:
            words.append(word if self._counts[word] > 1 else self._rare())
            word = self._drawn(self._successors[word])
        return " ".join(words)

    def _altered(self, text: str) -> str:
        words = text.split() or [""]
        for _ in range(self._drawn(REPLACED)):
            words[int(self._rng.random() * len(words))] = self._drawn(self._words)
        return " ".join(words)

    def _rare(self) -> str:
        return f"w{bisect(self._zipf, self._rng.random() * self._zipf[-1])}"

    def _drawn(self, items: Sequence[ItemT]) -> ItemT:
        return items[int(self._rng.random() * len(items))]
