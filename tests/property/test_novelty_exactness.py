"""A million decisions of the novelty index and more, each with its float and its position, as oracles make them.

`python -m benchmarks.novelty_exactness` does the same with more decisions and on other texts.
"""

from __future__ import annotations

from fractions import Fraction
from random import Random

import numpy as np
import pytest

from selfinstruct.novelty import Matches, NoveltyIndex, rouge_l
from selfinstruct.novelty.compiled import BATCH, CompiledIndex
from selfinstruct.novelty.segments import MAX_RECORDS
from tests.rouge import (
    KINDS,
    NOUNS,
    TEMPLATES,
    THRESHOLDS,
    best_of_pool,
    boundary_triples,
    by_novelty_index,
    by_rouge_score,
    checked,
    differing,
    edited,
    pair_with,
    rouge_score,
    shipped_sentences,
    small_segments,
)

DECISIONS, ROUGE_DECISIONS = 1_000_000, 20_000


def by_usual_segments(texts, threshold, tokenizer, rng):
    return CompiledIndex(tokenizer).judge(texts, threshold)


def assert_all_equal(tallies, n_decisions):
    assert {threshold: tally.mismatches for threshold, tally in tallies.items()} == dict.fromkeys(THRESHOLDS, 0)
    assert sum(tally.decisions for tally in tallies.values()) >= n_decisions
    assert all(0.005 < tally.rejected / tally.decisions < 0.995 for tally in tallies.values())  # there are both


def test_shares_of_kinds_are_all_there_is():
    assert sum(kind.share for kind in KINDS.values()) == sum(kind.rouge_share for kind in KINDS.values()) == 100


@pytest.mark.parametrize("name", KINDS)
def test_decisions_are_those_of_all_pairs(name):
    n = DECISIONS * KINDS[name].share // 100
    assert_all_equal(checked(KINDS[name], n, seed=1), n)


@pytest.mark.parametrize("name", KINDS)
def test_decisions_are_rouge_scores(name):
    n = ROUGE_DECISIONS * KINDS[name].rouge_share // 100
    assert_all_equal(checked(KINDS[name], n, seed=2, oracle=by_rouge_score), n)


@pytest.mark.parametrize("name", KINDS)
def test_decisions_in_small_pools_are_those_of_all_pairs(name):
    assert_all_equal(checked(KINDS[name], 4_000, seed=3, judge=by_novelty_index), 4_000)


@pytest.mark.parametrize("name", ["near-duplicates", "filled templates"])
def test_decisions_with_segments_of_full_size(name):
    n = 2 * BATCH + 300
    assert_all_equal(checked(KINDS[name], 3 * n, seed=4, n=n, judge=by_usual_segments), 3 * n)


@pytest.mark.parametrize("f", ["0.5", "0.7", "0.9"])
def test_every_pair_whose_score_is_exactly_a_threshold(f):
    """All (candidate's length, reference's length, LCS) up to 60 tokens, among all others and alone."""
    rng = Random(5)
    triples = boundary_triples(Fraction(f), 60)
    pairs = [pair_with(*triple, rng, f"{number}x") for number, triple in enumerate(triples)]
    pool = [reference for _, reference in pairs]
    expected = [rouge_l(lcs, m, n) for m, n, lcs in triples]
    assert expected == [rouge_score(candidate, reference) for candidate, reference in pairs]
    with small_segments(max_records=1 << 16):
        index = CompiledIndex("rouge")
        index.add(pool)
        matches = index.search([candidate for candidate, _ in pairs])
        assert matches.scores[:, 0].tolist() == expected
        assert matches.positions[:, 0].tolist() == list(range(len(pairs)))
        # Each right after its reference, so that the decision is the boundary's.
        judged = CompiledIndex("rouge").judge([text for pair in pairs for text in reversed(pair)], float(f))
    assert judged.accepted[::2].all()
    assert judged.accepted[1::2].tolist() == [score <= float(f) for score in expected]
    brute = NoveltyIndex()
    brute.add(*pool)
    assert [brute.nearest(candidate)[0] for candidate, _ in pairs] == list(enumerate(expected))
    assert {score > float(f) for score in expected} == {"0.5": {True, False}, "0.7": {True, False}, "0.9": {False}}[f]
    assert {score < float(f) for score in expected} == {True, False}  # rounding decides


@pytest.fixture(scope="module")
def stream():
    """More texts than a segment takes: real ones, filled templates and edits of both."""
    rng = Random(6)
    words = [*NOUNS, *(word for text in shipped_sentences()[:400] for word in text.split())]
    texts = list(shipped_sentences())
    while len(texts) < 95_000:
        template = rng.choice(TEMPLATES).format(*rng.choices(words, k=4))
        texts.append(rng.choice((template, template, " ".join(edited(rng.choice(texts).split(), words, rng)))))
    return texts


def test_a_stream_that_fills_several_segments(stream):
    """Of some decisions, each is compared with those of all pairs with what had been accepted before."""
    index = CompiledIndex("rouge", threads=2)
    judged = index.judge(stream, 0.9)
    pool = [text for text, accepted in zip(stream, judged.accepted, strict=True) if accepted]
    assert len(index) == len(pool) > MAX_RECORDS + BATCH
    sizes = [len(segment.ids) for segment in index.segments]
    assert max(sizes) > MAX_RECORDS // 2 and len(sizes) > 1
    assert len(index.segments[0].dense) > 64 and len(index.segments[0].postings) > 10_000
    rng = Random(7)
    some = sorted(rng.sample(range(len(stream)), 150) + rng.sample(range(90_000, len(stream)), 50))
    before = np.cumsum(judged.accepted) - judged.accepted
    expected = best_of_pool([stream[i] for i in some], pool, sizes=before[some])
    assert not differing(Matches(*(array[some] for array in judged.matches)), expected).any()
    assert judged.accepted[some].tolist() == (expected.scores[:, 0] <= 0.9).tolist()
    assert (~judged.accepted[some]).sum() > 20


def test_a_bulk_of_more_than_a_segment(stream):
    index = CompiledIndex("rouge")
    index.add(stream)
    assert [len(segment.ids) for segment in index.segments] == [MAX_RECORDS, len(stream) - MAX_RECORDS]
    rng = Random(8)
    words = " ".join(rng.choices(stream, k=50)).split()
    candidates = [" ".join(edited(text.split(), words, rng)) for text in rng.choices(stream, k=150)]
    candidates += rng.choices(stream, k=20) + [" ".join(rng.choices(words, k=k)) for k in range(30)]
    assert not differing(index.search(candidates), best_of_pool(candidates, stream)).any()
    sizes = np.array([rng.randrange(len(stream) + 1) for _ in candidates])
    assert not differing(index.search(candidates, sizes=sizes), best_of_pool(candidates, stream, sizes=sizes)).any()
