"""The novelty index equals rouge_score on whatever texts there are."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import tokenize

from selfinstruct import novelty
from tests.rouge import index_of, nearest, ranking

ANY_TEXT = st.text(max_size=60)
# Few words, so that many pairs share some; odd letters, so that lower-casing and splitting matter.
WORDS = st.lists(st.sampled_from(["a", "B", "c-d", "É", "\u212a", "\u0130", "ß", "9", "..", "名"]), max_size=12)
TEXTS = st.one_of(ANY_TEXT, WORDS.map(" ".join))


@given(ANY_TEXT)
def test_rouge_tokenizer_is_rouge_scores(text):
    assert novelty.tokenize(text, "rouge") == tokenize.tokenize(text, None)


@settings(max_examples=200)
@given(TEXTS, st.lists(TEXTS, max_size=8), st.integers(1, 5), st.integers(0, 8))
def test_nearest_is_rouge_scores(candidate, pool, k, size):
    index = index_of(pool)
    assert nearest(index, candidate, k) == ranking(candidate, pool)[:k]
    assert nearest(index, candidate, k, size) == ranking(candidate, pool[:size])[:k]


@given(ANY_TEXT, st.sampled_from(["rouge", "unicode"]))
def test_text_with_tokens_is_all_like_itself(text, tokenizer):
    tokens = novelty.tokenize(text, tokenizer)
    assert nearest(index_of([text], tokenizer), text) == ([("0", 1.0)] if tokens else [])
    assert all(token and not any(c.isspace() for c in token) for token in tokens)
