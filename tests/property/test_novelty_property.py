"""The novelty index equals rouge_score on whatever texts there are, and changes with the pool as F does."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import tokenize

from selfinstruct import novelty
from selfinstruct.novelty import NoveltyIndex
from selfinstruct.novelty.compiled import CompiledIndex
from tests.rouge import THRESHOLDS, by_rouge_score, compiled_of, index_of, nearest, ranking, replay, small_segments

ANY_TEXT = st.text(max_size=60)
# Few words, so that many pairs share some; odd letters, so that lower-casing and splitting matter.
WORDS = st.lists(st.sampled_from(["a", "B", "c-d", "É", "\u212a", "\u0130", "ß", "9", "..", "名"]), max_size=12)
TEXTS = st.one_of(ANY_TEXT, WORDS.map(" ".join))
PLAIN_WORDS = st.lists(st.sampled_from(["a", "B", "c-d", "É", "9", "Ж"]), max_size=12)
POOLS = st.lists(TEXTS, max_size=40)
TOKENIZERS = st.sampled_from(["rouge", "unicode"])
PUNCTUATION = st.text(" .,;:!?'\"()_\n\t—…", min_size=1, max_size=3)


@st.composite
def sizes_of_segments(draw):
    """A context in which an index has segments of such sizes."""
    return small_segments(draw(st.integers(1, 20)), draw(st.integers(2, 30)))


def compiled_matches(pool, candidates, k=1, tokenizer="rouge"):
    """Of each candidate."""
    matches = compiled_of(pool, tokenizer).search(candidates, k)
    return [matches.of(number) for number in range(len(candidates))]


# -- rouge_score -------------------------------------------------------------------------------------------------------


@given(ANY_TEXT)
def test_rouge_tokenizer_is_rouge_scores(text):
    assert novelty.tokenize(text, "rouge") == tokenize.tokenize(text, None)


@settings(max_examples=200)
@given(TEXTS, st.lists(TEXTS, max_size=8), st.integers(1, 5), st.integers(0, 8))
def test_nearest_is_rouge_scores(candidate, pool, k, size):
    index = index_of(pool)
    assert nearest(index, candidate, k) == ranking(candidate, pool)[:k]
    assert nearest(index, candidate, k, size) == ranking(candidate, pool[:size])[:k]


@settings(max_examples=150, deadline=None)
@given(POOLS, st.lists(TEXTS, max_size=4), st.integers(1, 50), sizes_of_segments())
def test_search_is_rouge_scores(pool, candidates, k, segments):
    with segments:
        found = compiled_matches(pool, candidates, k)
    expected = [[(int(id), score) for id, score in ranking(text, pool)[:k]] for text in candidates]
    assert [list(matches) for matches in found] == expected


@settings(max_examples=150, deadline=None)
@given(POOLS, st.sampled_from(THRESHOLDS), TOKENIZERS, sizes_of_segments())
def test_decisions_are_rouge_scores(texts, threshold, tokenizer, segments):
    expected = replay(by_rouge_score(texts, texts, tokenizer), threshold)
    with segments:
        compiled = CompiledIndex(tokenizer, threads=2).judge(texts, threshold)
    for judged in (compiled, NoveltyIndex(tokenizer).judge(texts, threshold)):
        assert judged.accepted.tolist() == expected.accepted.tolist()
        assert judged.matches.scores.tolist() == expected.matches.scores.tolist()
        assert judged.matches.positions.tolist() == expected.matches.positions.tolist()


@given(ANY_TEXT, TOKENIZERS)
def test_text_with_tokens_is_all_like_itself(text, tokenizer):
    tokens = novelty.tokenize(text, tokenizer)
    assert nearest(index_of([text], tokenizer), text) == ([("0", 1.0)] if tokens else [])
    assert all(token and not any(c.isspace() for c in token) for token in tokens)


@settings(deadline=None)
@given(st.lists(ANY_TEXT, max_size=10), TOKENIZERS)
def test_compiled_tokens_are_the_tokenizers(texts, tokenizer):
    """Equal scores with all texts need equal tokens, up to their names."""
    index = compiled_of(texts, tokenizer)
    for text in texts:
        assert index.scores(text).tolist() == by_rouge_score([text], texts, tokenizer)[0].tolist()


# -- what a change of the pool or of a text changes --------------------------------------------------------------------


@settings(deadline=None)
@given(POOLS, TEXTS, TEXTS, sizes_of_segments())
def test_another_text_lowers_no_maximum(pool, candidate, another, segments):
    with segments:
        index = compiled_of(pool)
        (before,) = index.search([candidate]).scores[0]
        index.add([another])
        (after,) = index.search([candidate]).scores[0]
    assert after >= before
    assert after in (before, by_rouge_score([candidate], [another])[0, 0])


@settings(deadline=None)
@given(TEXTS, TEXTS, TOKENIZERS)
def test_score_is_symmetric(one, other, tokenizer):
    """To the last bit: 2 * P is exact, and P * R and P + R are symmetric."""
    assert nearest(index_of([one], tokenizer), other) == nearest(index_of([other], tokenizer), one)
    assert compiled_matches([one], [other], 1, tokenizer) == compiled_matches([other], [one], 1, tokenizer)


@settings(deadline=None)
@given(POOLS, st.randoms(use_true_random=False), TEXTS, st.integers(1, 9), sizes_of_segments())
def test_order_of_the_pool_changes_positions_only(pool, rng, candidate, k, segments):
    order = rng.sample(range(len(pool)), len(pool))
    with segments:
        (one,) = compiled_matches(pool, [candidate], k)
        (other,) = compiled_matches([pool[position] for position in order], [candidate], k)
    assert [match.score for match in one] == [match.score for match in other]
    scores = by_rouge_score([candidate], pool)[0]
    assert [scores[order[match.position]] for match in other] == [match.score for match in other]


@settings(deadline=None)
@given(st.lists(PLAIN_WORDS, max_size=15), PLAIN_WORDS, st.data())
def test_case_and_punctuation_change_nothing(pool, candidate, data):
    def changed(words):
        return "".join(data.draw(PUNCTUATION) + word.swapcase() for word in words)

    with small_segments(4, 6):
        plain = compiled_matches([" ".join(words) for words in pool], [" ".join(candidate)], 5)
        other = compiled_matches([changed(words) for words in pool], [changed(candidate)], 5)
    assert plain == other
    assert nearest(index_of([changed(words) for words in pool]), changed(candidate), 5) == [
        (str(match.position), match.score) for match in plain[0]
    ]


@settings(deadline=None)
@given(POOLS, TEXTS, st.text("!? …名ж", max_size=5), st.data(), sizes_of_segments())
def test_a_text_without_tokens_changes_positions_only(pool, candidate, blank, data, segments):
    at = data.draw(st.integers(0, len(pool)))
    with segments:
        (without,) = compiled_matches(pool, [candidate], 50)
        (found,) = compiled_matches([*pool[:at], blank, *pool[at:]], [candidate], 50)
        assert compiled_matches(pool, [blank]) == [()]
        judged = compiled_of(pool).judge([blank, blank], 0.0)
    assert found == tuple((position + (position >= at), score) for position, score in without)
    assert judged.accepted.all()
    assert not judged.matches.scores.any()


@settings(deadline=None)
@given(POOLS, st.lists(st.integers(0, 40), max_size=6), st.sampled_from(THRESHOLDS), st.integers(1, 3),
       sizes_of_segments())  # fmt: skip
def test_portions_of_a_stream_change_nothing(texts, cuts, threshold, k, segments):
    bounds = [0, *sorted(min(cut, len(texts)) for cut in cuts), len(texts)]
    portions = [texts[begin:end] for begin, end in pairwise(bounds)]
    whole = CompiledIndex("rouge").judge(texts, threshold, k)
    for index in (CompiledIndex("rouge"), NoveltyIndex()):
        with segments:
            judged = [index.judge(portion, threshold, k) for portion in portions]
        for name in ("scores", "positions"):
            parts = np.concatenate([getattr(one.matches, name) for one in judged])
            assert parts.tolist() == getattr(whole.matches, name).tolist()
        assert np.concatenate([one.accepted for one in judged]).tolist() == whole.accepted.tolist()


@settings(deadline=None)
@given(POOLS, POOLS, st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 6), sizes_of_segments())
def test_the_best_of_two_halves_is_the_best_of_the_whole(one, other, candidates, k, segments):
    with segments:
        halves = CompiledIndex("rouge"), CompiledIndex("rouge")
        halves[0].add(one)
        halves[1].add(other, np.arange(len(one), len(one) + len(other), dtype=np.uint32))
        found = [half.search(candidates, k) for half in halves]
        whole = compiled_matches([*one, *other], candidates, k)
    for number, expected in enumerate(whole):
        together = [match for half in found for match in half.of(number)]
        assert tuple(sorted(together, key=lambda match: (-match.score, match.position))[:k]) == expected


@settings(deadline=None)
@given(POOLS, TEXTS, st.integers(0, 45), st.integers(1, 5), sizes_of_segments())
def test_the_first_texts_are_a_pool_of_their_own(pool, candidate, size, k, segments):
    with segments:
        matches = compiled_of(pool).search([candidate], k, np.array([size]))
        assert [matches.of(0)] == compiled_matches(pool[:size], [candidate], k)
