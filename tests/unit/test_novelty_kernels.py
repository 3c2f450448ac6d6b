"""The compiled inner loops by themselves, each against the plainest code that says the same."""

from __future__ import annotations

from collections import Counter
from math import nextafter
from random import Random

import numpy as np
import pytest

from selfinstruct.novelty import kernels, rouge_l, segments, tokenize
from selfinstruct.novelty.segments import Records, Workspace
from selfinstruct.novelty.vocabulary import Vocabulary
from tests.rouge import KINDS, shipped_sentences

BORDERS = (1, 2, 31, 32, 33, 62, 63, 64, 65, 66, 127, 128, 129, 191, 192, 193)


def test_popcount():
    rng = Random(0)
    numbers = [0, 1, 1 << 63, 2**64 - 1, *(1 << bit for bit in range(64)), *(rng.getrandbits(64) for _ in range(1000))]
    assert [kernels.popcount(np.uint64(number)) for number in numbers] == [number.bit_count() for number in numbers]


def test_f_measure_is_the_float_of_a_pair():
    for m in range(1, 45):
        for n in range(1, 45):
            for lcs in range(min(m, n) + 1):
                assert kernels.f_measure(lcs, m, n) == rouge_l(lcs, m, n)


def test_required_is_the_shortest_subsequence_that_reaches_a_score():
    def shortest(score, m, n):
        lcs = 1
        while rouge_l(lcs, m, n) < score:
            lcs += 1
        return lcs

    thresholds = [0.0, 5e-324, 0.5, 0.7, nextafter(0.7, 0), nextafter(0.7, 1), 0.9, 1.0]
    for m in [*range(1, 25), 63, 64, 65, 1000]:
        for n in [*range(1, 25), 128, 1001]:
            scores = [rouge_l(lcs, m, n) for lcs in range(min(m, n) + 1)]
            near = [nextafter(score, side) for score in scores[:40] for side in (0.0, 1.0)]
            for score in [*thresholds, *scores[:40], scores[-1], *near]:
                assert kernels.required(score, m, n) == shortest(score, m, n), (score, m, n)


def test_early_terms_have_a_bit_of_the_signature_to_themselves():
    bits = [int(kernels.signature(np.array([term], np.int32))) for term in range(64)]
    assert sorted(bits) == [1 << bit for bit in range(64)]
    assert kernels.signature(np.array([3, -1, 67, 5], np.int32)) == bits[3] | bits[5]
    assert kernels.signature(np.array([-1], np.int32)) == 0


@pytest.mark.parametrize("n_terms", [20, 64, 100, 1000])
def test_overlap_bound_is_never_too_small(n_terms):
    rng = Random(1)
    loose = 0
    for _ in range(2000):
        one, other = (rng.sample(range(n_terms), rng.randint(0, min(n_terms, 80))) for _ in range(2))
        bits, other_bits = (np.uint64(kernels.signature(np.array(side, np.int32))) for side in (one, other))
        bound = kernels.overlap_bound(bits, len(one), int(bits).bit_count(), other_bits, len(other))
        common = len({*one} & {*other})
        assert common <= bound <= min(len(one), len(other))
        loose += bound > common
    assert (loose > 0) == (n_terms > 64)  # exact where no two terms share a bit


def lcs_length(one, other):
    """By dynamic programming, row by row."""
    row = [0] * (len(other) + 1)
    for token in one:
        before = row
        row = [0]
        for at, other_token in enumerate(other):
            row.append(before[at] + 1 if token == other_token else max(row[-1], before[at + 1]))
    return row[-1]


@pytest.mark.parametrize("n_tokens", [1, 2, 5, 50, 500])
def test_lcs_length_is_that_of_dynamic_programming(n_tokens):
    """Candidates of all numbers of words one after the other in the same memory, with tokens that no record has."""
    rng = Random(2)
    slots, masks, row = Workspace.of(n_tokens, max(BORDERS))[:3]
    for m in [*rng.sample(BORDERS, len(BORDERS)), 0, *rng.choices(BORDERS, k=20)]:
        candidate = rng.choices(range(-1, n_tokens), k=m)
        kernels.places(np.array(candidate, np.int32), slots, masks)
        for n in (0, 1, m // 2, m, 130):
            record = rng.choice((rng.choices(range(n_tokens), k=n), [token for token in candidate if token >= 0][:n]))
            found = kernels.lcs_length(np.array(record, np.int32), m, slots, masks, row)
            assert found == lcs_length(candidate, record), (candidate, record)
        kernels.forget(np.array(candidate, np.int32), slots)
        assert not slots.any()


def test_lcs_length_of_long_texts():
    rng = Random(3)
    one, other = (rng.choices(range(100), k=k) for k in (1500, 1000))
    slots, masks, row = Workspace.of(100, 1500)[:3]
    kernels.places(np.array(one, np.int32), slots, masks)
    assert kernels.lcs_length(np.array(other, np.int32), 1500, slots, masks, row) == lcs_length(one, other)


def texts_of(kind, n):
    return KINDS[kind].make(Random(4), n, shipped_sentences())


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_numbered_in_the_order_of_their_appearance(kind):
    """In portions, since the table grows, and so does a text with repeated tokens between them."""
    texts, tokenizer = texts_of(kind, 200), KINDS[kind].tokenizer
    vocabulary = Vocabulary(tokenizer)
    number_of = {}
    for begin in range(0, len(texts), 30):
        part = texts[begin : begin + 30]
        known = dict(number_of)
        before = vocabulary.encode(part, grow=False)
        encoded = vocabulary.encode(part, grow=True)
        assert len(before.offsets) == len(encoded.offsets) == len(part) + 1
        for text, start, end in zip(part, encoded.offsets, encoded.offsets[1:], strict=False):
            tokens = tokenize(text, tokenizer)
            numbers = encoded.tokens[start:end].tolist()
            assert [
                number_of.setdefault(token, number) for token, number in zip(tokens, numbers, strict=True)
            ] == numbers
            assert before.tokens[start:end].tolist() == [known.get(token, -1) for token in tokens]
    assert len({*number_of.values()}) == len(number_of)
    in_order = [
        number_of[token] for token in dict.fromkeys(token for text in texts for token in tokenize(text, tokenizer))
    ]
    assert in_order == sorted(in_order)


@pytest.mark.parametrize("kind", ["real texts", "few words", "long"])
def test_repeated_tokens_are_terms_of_their_own(kind):
    """Texts become sets of terms, with as many in common as the texts have tokens, each as often as both have it."""
    texts = texts_of(kind, 60)
    vocabulary = Vocabulary("rouge")
    encoded = vocabulary.encode(texts, grow=True)
    meaning = {}
    for text, start, end in zip(texts, encoded.offsets, encoded.offsets[1:], strict=False):
        times = Counter()
        for token, term in zip(tokenize(text, "rouge"), encoded.terms[start:end].tolist(), strict=True):
            times[token] += 1
            assert meaning.setdefault(term, (token, times[token])) == (token, times[token])
    assert len({*meaning.values()}) == len(meaning) == vocabulary.n_terms
    assert any(time > 1 for _, time in meaning.values())
    # Asked for again without anything new, and after more texts, they are the same; unknown repeats are no term.
    assert vocabulary.encode(texts, grow=False).terms.tolist() == encoded.terms.tolist()
    vocabulary.encode([f"new{number} new{number}" for number in range(5_000)], grow=True)
    assert vocabulary.encode(texts, grow=False).terms.tolist() == encoded.terms.tolist()
    assert Vocabulary("rouge").encode(["a a"], grow=False).terms.tolist() == [-1, -1]
    fresh = Vocabulary("rouge")
    fresh.encode(["a"], grow=True)
    assert fresh.encode(["a a a"], grow=False).terms.tolist() == [0, -1, -1]


def test_more_text_than_is_numbered_at_a_time():
    words = [f"w{number}" for number in range(200_000)]
    texts = ["", " ".join(words[:100_000]), "", *words[100_000:], ""]
    encoded = Vocabulary("rouge").encode(texts, grow=True)
    assert encoded.tokens.tolist() == encoded.terms.tolist() == list(range(200_000))
    assert encoded.offsets.tolist() == [0, 0, 100_000, 100_000, *range(100_001, 200_001), 200_000]


def test_a_segment_finds_every_record_of_every_term():
    vocabulary = Vocabulary("rouge")
    texts = texts_of("few words", 300) + texts_of("real texts", 1_700)
    encoded = vocabulary.encode(texts, grow=True)
    ids = np.arange(5, 5 + len(texts), dtype=np.uint32)
    segment = segments.build(Records(encoded.tokens, encoded.offsets, ids), encoded.terms, vocabulary.n_terms)
    expected = {}
    for id, start, end in zip(ids.tolist(), encoded.offsets, encoded.offsets[1:], strict=False):
        for term in encoded.terms[start:end].tolist():
            expected.setdefault(term, set()).add(id)
    rows = segment.dense.tolist()
    assert 20 < len(rows) < len(expected) / 2
    for term in range(vocabulary.n_terms):
        listed = segment.postings[segment.starts[term] : segment.starts[term + 1]].tolist()
        if term in rows:
            assert not listed
            bits = np.unpackbits(segment.bitmaps[rows.index(term)].view(np.uint8), bitorder="little")
            listed = np.flatnonzero(bits).tolist()
        assert sorted(segment.ids[listed].tolist()) == sorted(expected[term])
    lengths = np.diff(segment.offsets)
    assert [*zip(lengths, segment.ids, strict=True)] == sorted(zip(np.diff(encoded.offsets), ids, strict=True))
    for length, start, end in zip(segment.class_lengths, segment.class_starts, segment.class_starts[1:], strict=False):
        assert (lengths == length).nonzero()[0].tolist() == list(range(start, end))
    assert segment.class_lengths.tolist() == sorted({*lengths.tolist()} - {0})
