"""An index on disk: the same answers, a file that nothing changes, and an error for every file that is not whole."""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from selfinstruct.errors import InputError
from selfinstruct.novelty import storage
from selfinstruct.novelty.compiled import CompiledIndex
from tests.rouge import KINDS, compiled_of, differing, shipped_sentences, small_segments

ALIGNMENT = 64


def texts_of(kind, n, seed=0):
    return KINDS[kind].make(Random(seed), n, shipped_sentences())


def assert_same_answers(one, other, kind, n=40):
    """Of two indices, whatever they are asked; texts are added to both."""
    candidates = texts_of(kind, n, seed=7)
    assert (len(one), one.next_id) == (len(other), other.next_id)
    assert not differing(one.search(candidates, 5), other.search(candidates, 5)).any()
    for text in candidates[:5]:
        assert one.scores(text).tolist() == other.scores(text).tolist()
    judged, again = (index.judge(texts_of(kind, 3 * n, seed=8), 0.7, 2) for index in (one, other))
    assert judged.accepted.tolist() == again.accepted.tolist()
    assert not differing(judged.matches, again.matches).any()
    for index in (one, other):
        index.add(texts_of(kind, 2 * n, seed=9))
    assert not differing(one.search(candidates, 5), other.search(candidates, 5)).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 2, 30, 200])
def test_a_file_gives_the_same_answers(kind, n, tmp_path):
    tokenizer = KINDS[kind].tokenizer
    texts = texts_of(kind, max(n, 2))[:n]
    with small_segments(batch=20, max_records=70):
        saved, untouched = (compiled_of(texts, tokenizer) for _ in range(2))
        storage.save(saved, tmp_path / "pool.idx", {"from": ["a.jsonl"], "threshold": 0.7})
        loaded, about = storage.load(tmp_path / "pool.idx", threads=2)
        assert about == {"from": ["a.jsonl"], "threshold": 0.7}
        assert loaded.vocabulary.tokenizer == tokenizer
        assert_same_answers(loaded, untouched, kind)
        assert_same_answers(saved, storage.load(tmp_path / "pool.idx")[0], kind)


def test_saving_what_was_opened_writes_the_same_file(tmp_path):
    storage.save(compiled_of(texts_of("real texts", 2_000)), tmp_path / "a", {"name": "é"})
    loaded, about = storage.load(tmp_path / "a")
    storage.save(loaded, tmp_path / "b", about)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_grown_index_may_replace_the_file_it_came_from(tmp_path):
    path = tmp_path / "pool.idx"
    texts = texts_of("near-duplicates", 300)
    storage.save(compiled_of(texts[:200]), path)
    index, _ = storage.load(path)
    index.add(texts[200:])
    storage.save(index, path)
    assert_same_answers(storage.load(path)[0], compiled_of(texts), "near-duplicates")
    assert [file.name for file in tmp_path.iterdir()] == ["pool.idx"]


def test_adding_leaves_the_file_as_it_is(tmp_path):
    path = tmp_path / "pool.idx"
    storage.save(compiled_of(texts_of("near-duplicates", 1_500)), path)
    before = hashlib.sha256(path.read_bytes()).digest()
    index, _ = storage.load(path)
    path.chmod(0o444)
    index.judge(texts_of("filled templates", 1_500, seed=1), 0.7)
    index.add(texts_of("few words", 2_500))
    assert len(index) > 4_000
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_a_file_is_mapped_and_not_read_into_memory(tmp_path):
    storage.save(compiled_of(texts_of("real texts", 2_000)), tmp_path / "pool.idx")
    (segment,) = storage.load(tmp_path / "pool.idx")[0].segments
    for array in segment:
        base = array
        while isinstance(base, np.ndarray):
            base = base.base
        assert isinstance(base, mmap.mmap), array


# -- files that are not whole ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a small index with lists, bitmaps, two segments and something about it."""
    path = tmp_path_factory.mktemp("index") / "pool.idx"
    with small_segments(batch=16, max_records=24):
        index = compiled_of([f"a b{number % 3} c{number // 2} d d" for number in range(40)])
        storage.save(index, path, {"texts": 40})
    assert len(index.segments) == 2 and all(len(s.dense) and len(s.postings) for s in index.segments)
    return path.read_bytes()


def layout(data):
    """{what: (begin, end)} of all that a file holds: the head and the arrays that it speaks of."""
    header, length = json.JSONDecoder().raw_decode(data[data.index(b"{") :].decode("latin-1"))
    end = data.index(b"{") + length
    begin = -(-end // ALIGNMENT) * ALIGNMENT
    parts = {"head": (0, end)}
    for array in header["arrays"]:
        n_bytes = int(np.prod(array["shape"])) * np.dtype(array["dtype"]).itemsize
        parts[array["name"]] = (begin + array["offset"], begin + array["offset"] + n_bytes)
    return parts


def opens(data, path):
    """Whether a file with these bytes can be opened; what else than an InputError comes up is not caught."""
    path.write_bytes(data)
    try:
        storage.load(path)
    except InputError as error:
        assert str(path) in str(error)
        return False
    return True


def changed(data, at, bits):
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


def test_every_part_is_in_the_file(whole, tmp_path):
    parts = layout(whole)
    assert len(parts) == 1 + 3 + 2 * 10
    places = sorted(parts.values())
    assert all(0 <= begin - end < ALIGNMENT for (_, end), (begin, _) in pairwise(places))
    assert opens(whole, tmp_path / "pool.idx")


def test_every_damaged_byte_of_the_head_is_noticed(whole, tmp_path):
    """What says where the arrays are and what they mean has no byte that may be wrong."""
    flips = [(at, bits) for at in range(layout(whole)["head"][1]) for bits in (1, 128)]
    unnoticed = {at for at, bits in flips if opens(changed(whole, at, bits), tmp_path / "pool.idx")}
    assert unnoticed <= {16}  # the header's length: with blanks that follow it, it is the same header


@pytest.mark.parametrize("bits", [1, 128, 255])
def test_every_damaged_array_is_noticed(whole, bits, tmp_path):
    for name, (begin, end) in layout(whole).items():
        for at in {begin, (begin + end) // 2, end - 1} if name != "head" else ():
            assert not opens(changed(whole, at, bits), tmp_path / "pool.idx"), (name, at)


def test_every_cut_is_noticed(whole, tmp_path):
    end = max(end for _, end in layout(whole).values())
    for size in [*range(0, end, 37), end - 1]:
        assert not opens(whole[:size], tmp_path / "pool.idx"), size


def test_another_version_is_refused(whole, tmp_path):
    assert whole.count(b'"version":1') == 1
    assert not opens(whole.replace(b'"version":1', b'"version":2'), tmp_path / "pool.idx")


@pytest.mark.parametrize("data", [b"", b"x", b'{"instruction": "a"}\n', b"selfinstruct-no", b"\x1f\x8b\x08 no gzip"])
def test_another_file_is_no_index(data, tmp_path):
    path = tmp_path / "pool.idx"
    path.write_bytes(data)
    assert not storage.is_index(path)
    with pytest.raises(InputError, match=re.escape(str(path))):
        storage.load(path)


def test_an_index_is_known_by_its_beginning(whole, tmp_path):
    path = tmp_path / "pool.idx"
    path.write_bytes(whole)
    assert storage.is_index(path)


@pytest.mark.parametrize("function", [storage.load, storage.is_index])
def test_a_path_without_a_file_is_said(function, tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match=re.escape(str(path))):
            function(path)


def test_an_empty_index_is_a_file_too(tmp_path):
    storage.save(CompiledIndex("unicode"), tmp_path / "pool.idx")
    index, about = storage.load(tmp_path / "pool.idx")
    assert (len(index), about) == (0, {})
    assert index.judge(["一 二", "一二"], 0.7).accepted.tolist() == [True, False]
