"""Rows compressed into text that a page can hold: as many, evenly spread, as a budget of bytes allows."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import orjson

T = TypeVar("T")
ROWS_PER_CHUNK = 250


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows as chunks of base64 of zlib of JSON lists, `ROWS_PER_CHUNK` rows each.

    Attributes:
        n: Number of rows.
        n_all: Number of rows that there are.
    """

    chunks: tuple[str, ...]
    n: int
    n_all: int


def packed(rows: Callable[[int], Iterable[Any]], sample: Sequence[Any], n: int, budget: int) -> Packed:
    """Pack as many of n rows as a budget allows.

    Args:
        rows: Gives so many rows, evenly spread over all.
        sample: Some of them, which tell how many will fit.
        n: Number of all rows.
        budget: Most characters of all chunks together.
    """
    n_fitting = min(n, int(budget / _size(sample))) if sample else 0
    while True:
        chunks = tuple(_chunks(rows(n_fitting)))
        if sum(map(len, chunks)) <= budget:
            return Packed(chunks, n_fitting, n)
        n_fitting = n_fitting * 9 // 10


def _size(sample: Sequence[Any]) -> float:
    """Characters that a row takes, a hair more than those of the sample."""
    return 1.02 * sum(map(len, _chunks(sample))) / len(sample)


def _chunks(rows: Iterable[Any]) -> Iterator[str]:
    waiting = iter(rows)
    while chunk := list(islice(waiting, ROWS_PER_CHUNK)):
        yield base64.b64encode(zlib.compress(orjson.dumps(chunk), 9)).decode()
