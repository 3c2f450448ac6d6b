"""An index on disk: one file, checked when it is opened and mapped into memory instead of being read.

    magic, 16 bytes | length and CRC-32 of the header, uint64 each | header, JSON | arrays at multiples of 64 bytes

The header has the version, the tokenizer, and of each array its name, type, shape, place and CRC-32. Numbers are
little-endian.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from selfinstruct.errors import InputError
from selfinstruct.files import atomic_file, opened
from selfinstruct.novelty.compiled import CompiledIndex
from selfinstruct.novelty.segments import Segment
from selfinstruct.novelty.tokens import Tokenizer
from selfinstruct.novelty.vocabulary import Vocabulary

_MAGIC = b"selfinstruct-nov"
_ALIGNMENT = 64
_REMEDY = "build it again from the data"


class _Array(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    dtype: str
    shape: list[int]
    offset: int
    crc32: int


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    version: Literal[1]
    tokenizer: Tokenizer
    next_id: int
    n_segments: int
    arrays: list[_Array]
    about: dict[str, Any]


def save(index: CompiledIndex, path: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write an index to a file, which appears complete or not at all.

    Args:
        index: Any.
        path: Of the file; replaced.
        about: Whatever belongs to it and is JSON, for instance where its texts came from.
    """
    vocabulary, segments = index.vocabulary, index.settled()
    n = vocabulary.n_terms
    arrays: dict[str, NDArray[Any]] = {
        "letters": vocabulary.letters[: vocabulary.starts[n]],
        "starts": vocabulary.starts[: n + 1],
        "hashes": vocabulary.hashes[:n],
    }
    for number, segment in enumerate(segments):
        arrays |= {f"{number}.{name}": array for name, array in segment._asdict().items()}
    arrays = {name: np.ascontiguousarray(a, a.dtype.newbyteorder("<")) for name, a in arrays.items()}
    places, offset = [], 0
    for name, a in arrays.items():
        crc = zlib.crc32(_bytes(a))
        places.append(_Array(name=name, dtype=a.dtype.str, shape=list(a.shape), offset=offset, crc32=crc))
        offset += _aligned(a.nbytes)
    header = _Header(
        version=1, tokenizer=vocabulary.tokenizer, next_id=index.next_id, n_segments=len(segments),
        arrays=places, about=dict(about or {}),
    ).model_dump_json().encode()  # fmt: skip
    head = _MAGIC + len(header).to_bytes(8, "little") + zlib.crc32(header).to_bytes(8, "little") + header
    with atomic_file(path) as file:
        file.write(head.ljust(_aligned(len(head)), b" "))
        for a in arrays.values():
            file.write(_bytes(a))
            file.write(bytes(_aligned(a.nbytes) - a.nbytes))


def load(path: Path, threads: int = 1) -> tuple[CompiledIndex, dict[str, Any]]:
    """Open an index and what was saved about it. Texts may be added to it; the file stays as it is.

    Raises:
        InputError: For a file that cannot be read, is no index, has another version or is damaged.
    """
    with opened(path) as file:
        start = file.read(len(_MAGIC) + 16)
        if not start.startswith(_MAGIC):
            raise InputError("is no novelty index", path=path, remedy="give a file that --save-index wrote")
        length, crc = (int.from_bytes(start[at : at + 8], "little") for at in (len(_MAGIC), len(_MAGIC) + 8))
        text = file.read(min(length, path.stat().st_size))
    if len(text) < length:
        raise InputError("is cut off", path=path, remedy=_REMEDY)
    if zlib.crc32(text) != crc:
        raise InputError("is damaged (its header)", path=path, remedy=_REMEDY)
    try:
        header = _Header.model_validate_json(text)
    except ValueError as error:
        raise InputError("is of another version", path=path, remedy=_REMEDY) from error
    begin = _aligned(len(start) + length)
    arrays = {place.name: _mapped(path, place, begin) for place in header.arrays}
    vocabulary = Vocabulary.of(header.tokenizer, arrays["letters"], arrays["starts"], arrays["hashes"])
    segments = [
        Segment(*(arrays[f"{number}.{name}"] for name in Segment._fields)) for number in range(header.n_segments)
    ]
    return CompiledIndex.of(vocabulary, segments, header.next_id, threads), header.about


def is_index(path: Path) -> bool:
    """Whether a file begins like an index."""
    with opened(path) as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _mapped(path: Path, place: _Array, begin: int) -> NDArray[Any]:
    """An array of the file; what is written to it stays in memory."""
    if 0 in place.shape:
        return np.empty(place.shape, place.dtype)
    try:
        mapped = np.memmap(path, place.dtype, "c", begin + place.offset, tuple(place.shape))
    except ValueError as error:  # beyond the end
        raise InputError("is cut off", path=path, remedy=_REMEDY) from error
    array = np.asarray(mapped)
    if zlib.crc32(_bytes(array)) != place.crc32:
        raise InputError(f"is damaged ({place.name})", path=path, remedy=_REMEDY)
    return array


def _aligned(n: int) -> int:
    return -(-n // _ALIGNMENT) * _ALIGNMENT


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
