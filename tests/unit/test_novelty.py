"""The novelty index against rouge_score: equal floats, equal decisions, equal order."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import numpy as np
import pytest
from rouge_score import tokenize

from selfinstruct import novelty
from selfinstruct.novelty import Matches, NoveltyIndex, rouge_l
from selfinstruct.novelty.compiled import BATCH, CompiledIndex
from selfinstruct.novelty.index import MAX_BRUTE
from selfinstruct.novelty.matches import NOBODY
from tests.rouge import (
    KINDS,
    best,
    boundary_triples,
    by_rapidfuzz,
    by_rouge_score,
    compiled_of,
    differing,
    edited,
    index_of,
    nearest,
    pair_with,
    ranking,
    rouge_score,
    shipped_sentences,
    small_segments,
)


@pytest.fixture(params=["brute", "compiled"])
def searched(request):
    """(pool, candidates, k, sizes, tokenizer) -> the matches of each candidate, by either index."""

    def search(pool, candidates, k=1, sizes=None, tokenizer="rouge"):
        if request.param == "brute":
            index = index_of(pool, tokenizer)
            sizes = sizes or [len(pool)] * len(candidates)
            return [index.nearest(text, k, size) for text, size in zip(candidates, sizes, strict=True)]
        with small_segments(batch=20, max_records=70):
            matches = compiled_of(pool, tokenizer).search(candidates, k, None if sizes is None else np.array(sizes))
        return [matches.of(number) for number in range(len(candidates))]

    return search


def expected_matches(candidates, pool, k=1, sizes=None, tokenizer="rouge"):
    scores = by_rapidfuzz(candidates, pool, tokenizer)
    for row, size in enumerate(sizes or []):
        scores[row, size:] = 0
    matches = best(scores, k)
    return [matches.of(number) for number in range(len(candidates))]


def equal(one, other):
    """Whether two arrays of matches are the same, bit for bit."""
    return one.scores.shape == other.scores.shape and not differing(one, other).any()


def texts_of(kind, n, seed=0):
    return KINDS[kind].make(Random(seed), n, shipped_sentences())


def test_every_pair_of_up_to_199_tokens_whose_score_is_exactly_the_threshold():
    triples = boundary_triples(Fraction("0.7"), 199)
    rng = Random(0)
    scores = []
    for m, n, lcs in triples:
        candidate, reference = pair_with(m, n, lcs, rng)
        scores.append(rouge_score(candidate, reference))
        assert nearest(index_of([reference]), candidate) == [("0", scores[-1])]
        assert rouge_l(lcs, m, n) == scores[-1]
    # Rounding decides these: `>=` or exact arithmetic would decide them otherwise.
    counts = [sum(compare(score) for score in scores) for compare in ((0.7).__lt__, (0.7).__eq__, (0.7).__gt__)]
    assert counts == [432, 459, 40]


def test_a_score_of_exactly_the_threshold_can_be_above_it():
    assert rouge_l(7, 7, 13) == 0.7000000000000001


def test_20_000_pairs_in_order_of_score_then_of_addition(searched):
    pool = texts_of("few words", 130, seed=1) + texts_of("near-duplicates", 70, seed=1)
    rng = Random(1)
    candidates = texts_of("few words", 60, seed=2) + rng.choices(pool, k=40)
    assert len(pool) * len(candidates) == 20_000
    expected = [[(int(number), score) for number, score in ranking(candidate, pool)] for candidate in candidates]
    for k in (1, 10, len(pool), 2 * len(pool)):
        assert searched(pool, candidates, k) == [tuple(ranked[:k]) for ranked in expected]
    sizes = [rng.randrange(len(pool) + 1) for _ in candidates]
    for k in (1, 10, len(pool)):
        assert searched(pool, candidates, k, sizes) == [
            tuple(match for match in ranked if match[0] < size)[:k]
            for ranked, size in zip(expected, sizes, strict=True)
        ]
    # Many have equal scores at the tenth place, where position decides.
    assert sum(len(ranked) > 10 and ranked[9][1] == ranked[10][1] for ranked in expected) > 20


def test_streaming_decisions_are_those_of_both_originals():
    rng = Random(2)
    index, pool = NoveltyIndex(), []
    decisions = []
    for _ in range(150):
        text = " ".join(rng.choices("abcde", k=rng.randint(3, 8)))
        expected = max((rouge_score(text, other) for other in pool), default=0.0) > 0.7
        found = index.nearest(text)
        assert (bool(found) and found[0].score > 0.7) == expected
        decisions.append(expected)
        if not expected:
            pool.append(text)
            index.add(text)
    assert 30 < sum(decisions) < 120
    assert len(index) == len(pool)


def test_texts_without_tokens_resemble_nothing(searched):
    pool = ["", "...", "Привет, мир", "one two"]
    for text in ("", "   ", "?!", "你好", "\N{FIRE}"):
        assert searched(pool, [text], k=9) == [()]
    assert searched(pool, ["one two"], k=9) == [((3, 1.0),)]
    assert searched([], ["one two"]) == [()]
    assert searched(pool, ["one two"], sizes=[0]) == [()]


@pytest.mark.parametrize(
    "text", ["\u212aelvin 3\u212a", "\u0130stanbul I\u0307", "ﬁne", "Σίσυφος", "a\u0301 café ǅ", "x²3", "a\ud800b a\0b"]
)
def test_lower_casing_oddities(text, searched):
    assert novelty.tokenize(text, "rouge") == tokenize.tokenize(text, None)
    pool = [text.lower(), text.upper(), "kelvin", "istanbul", "i stanbul 3k"]
    assert searched(pool, [text], k=9) == [tuple((int(id), score) for id, score in ranking(text, pool))]


LENGTHS = (0, 1, 2, 31, 32, 33, 62, 63, 64, 65, 66, 126, 127, 128, 129, 130, 191, 192, 193, 500, 1_000, 1_001)


@pytest.mark.parametrize("n_words", [1, 2, 40, 5_000])
def test_texts_of_all_lengths(n_words, searched):
    """Also with tokens that stand in a text many times."""
    rng = Random(3)
    words = [f"w{number}" for number in range(n_words)]
    pool = [" ".join(rng.choices(words, k=length)) for length in rng.sample(3 * LENGTHS, 3 * len(LENGTHS))]
    candidates = [" ".join(edited(text.split(), words, rng)) for text in pool[::2]]
    candidates += [" ".join(rng.choices(words, k=length)) for length in LENGTHS]
    for k in (1, 3):
        assert searched(pool, candidates, k) == expected_matches(candidates, pool, k)


def test_a_long_text_is_rouge_scores(searched):
    rng = Random(4)
    long = rng.choices([f"w{number}" for number in range(200)], k=1_000)
    pool = [" ".join(long[begin : begin + 300]) for begin in range(0, 1_000, 150)]
    assert searched(pool, [" ".join(long[20:700])], k=9) == [
        tuple((int(id), score) for id, score in ranking(" ".join(long[20:700]), pool))
    ]


def test_texts_of_10_000_tokens(searched):
    long = " ".join(f"w{number}" for number in range(10_000))
    half = " ".join(f"w{number}" for number in range(0, 10_000, 2))
    repeated = " ".join(f"w{number % 7}" for number in range(10_000))
    pool = [half, long, f"{half} {half}", repeated, "w3"]
    expected = ((1, 1.0), (0, rouge_l(5000, 10_000, 5000)), (2, rouge_l(5000, 10_000, 10_000)))
    rest = ((3, rouge_l(7, 10_000, 10_000)), (4, rouge_l(1, 10_000, 1)))
    assert searched(pool, [long], k=9) == [expected + rest]
    assert searched(pool, [repeated], k=2) == expected_matches([repeated], pool, k=2)


def test_more_tokens_than_a_plane_of_characters(searched):
    """Tokens are numbered through the surrogates, which are no characters, and past 65,535."""
    pool = [" ".join(f"w{number}" for number in range(start, start + 500)) for start in range(0, 70_000, 500)]
    assert searched(pool, pool, k=9) == [((number, 1.0),) for number in range(len(pool))]


def test_equal_texts_are_told_apart_by_position(searched):
    pool = [f"{letter} b c {number}" for number in range(120) for letter in ("a", "a", "A!")]
    candidates = [pool[0], pool[59], pool[-1], "a b c", "c b a", "b"]
    for k in (1, 10, 400):
        assert searched(pool, candidates, k) == expected_matches(candidates, pool, k)
    assert searched(pool, [pool[-1]], k=4)[0] == ((357, 1.0), (358, 1.0), (359, 1.0), (0, 0.75))
    assert searched(pool, [pool[-1]], sizes=[357]) == [((0, 0.75),)]


def test_terms_of_every_frequency(searched):
    """From one record to all: such as are listed and such as have a bitmap, and candidates of both."""
    rng = Random(5)
    words = [f"w{number}" for number in range(60)]
    weights = [1 / (1 + number) ** 2 for number in range(60)]
    pool = [" ".join(rng.choices(words, weights, k=rng.randint(1, 25))) for _ in range(400)]
    candidates = [" ".join(edited(rng.choice(pool).split(), words, rng)) for _ in range(100)]
    candidates += [" ".join(rng.sample(words, 20)) for _ in range(30)] + words + ["unknown", "w0 unknown w0 unknown"]
    for k in (1, 10):
        assert searched(pool, candidates, k) == expected_matches(candidates, pool, k)


# -- the compiled index ------------------------------------------------------------------------------------------------


def test_lists_and_bitmaps_are_both_searched():
    pool = texts_of("filled templates", 3_000)
    index = compiled_of(pool)
    (segment,) = index.segments
    frequencies = np.diff(segment.starts)
    assert len(segment.dense) > 10
    assert 8 <= frequencies.max() < 3_000 / 256 + 1
    assert np.count_nonzero(frequencies) > 10
    candidates = texts_of("filled templates", 300, seed=1)
    assert equal(index.search(candidates, 5), best(by_rapidfuzz(candidates, pool), 5))


def test_one_by_one_and_in_bulk():
    """Around the number at which recent texts become a segment, also while it is being searched."""
    texts = texts_of("near-duplicates", BATCH + 600)
    candidates = texts_of("near-duplicates", 40)
    growing = compiled_of([])
    for n, text in enumerate(texts, start=1):
        growing.add([text])
        if n % 100 == 0 or BATCH - 2 <= n <= BATCH + 2:
            assert equal(growing.search(candidates, 3), best(by_rapidfuzz(candidates, texts[:n]), 3))
            assert len(growing) == n
    assert [len(segment.ids) for segment in growing.segments] == [BATCH]
    assert equal(growing.search(candidates, 3), compiled_of(texts).search(candidates, 3))


@pytest.mark.parametrize("size", [1, 7, 64, 333, BATCH, 2 * BATCH])
def test_any_portions(size):
    texts = texts_of("filled templates", 2 * BATCH + 200)
    candidates = texts_of("filled templates", 100, seed=1)
    if size == 1:
        texts = texts[:400]
    with small_segments(max_records=500):
        index, judging = CompiledIndex("rouge"), CompiledIndex("rouge")
        judged = []
        for begin in range(0, len(texts), size):
            index.add(texts[begin : begin + size])
            judged.append(judging.judge(texts[begin : begin + size], 0.7, k=2))
        assert equal(index.search(candidates, 4), best(by_rapidfuzz(candidates, texts), 4))
    whole = CompiledIndex("rouge").judge(texts, 0.7, k=2)
    assert [part for one in judged for part in one.accepted] == whole.accepted.tolist()
    assert equal(Matches(*map(np.concatenate, zip(*(one.matches for one in judged), strict=True))), whole.matches)


@pytest.mark.parametrize("kind", ["near-duplicates", "few words", "long"])
def test_threads_give_the_same(kind):
    texts = texts_of(kind, 500)
    with small_segments():
        one, two, many = (CompiledIndex("rouge", threads) for threads in (1, 2, 5))
        expected, *others = (index.judge(texts, 0.7, k=3) for index in (one, two, many))
        for other in others:
            assert other.accepted.tolist() == expected.accepted.tolist()
            assert equal(other.matches, expected.matches)
        assert equal(two.search(texts[:3], 3), one.search(texts[:3], 3))


def test_best_matches_of_decisions_are_among_the_texts_before():
    texts = texts_of("near-duplicates", 400)
    with small_segments():
        judged = CompiledIndex("rouge").judge(texts, 0.7, k=10)
    pool = []
    for number, text in enumerate(texts):
        expected = best(by_rapidfuzz([text], pool), 10).of(0) if pool else ()
        assert judged.matches.of(number) == expected
        assert judged.accepted[number] == (not expected or expected[0].score <= 0.7)
        if judged.accepted[number]:
            pool.append(text)


@pytest.mark.parametrize("k", [1, 3])
def test_matches_known_from_elsewhere_count_and_come_first(k):
    elsewhere, texts = texts_of("filled templates", 300, seed=1), texts_of("filled templates", 300, seed=2)
    with small_segments():
        whole = compiled_of(elsewhere)
        expected = whole.judge(texts, 0.9, k)
        part = CompiledIndex("rouge")
        part.next_id = len(elsewhere)
        judged = part.judge(texts, 0.9, k, compiled_of(elsewhere).search(texts, k))
    assert judged.accepted.tolist() == expected.accepted.tolist()
    assert 20 < judged.accepted.sum() < 280
    assert equal(judged.matches, expected.matches)
    positions = judged.matches.positions[:, 0]
    assert (positions < 300).sum() > 50 < ((positions >= 300) & (positions != NOBODY)).sum()


def test_parts_of_a_pool_keep_their_positions():
    texts, candidates = texts_of("near-duplicates", 300), texts_of("near-duplicates", 100, seed=1)
    with small_segments():
        parts = [CompiledIndex("rouge") for _ in range(3)]
        for begin in range(0, len(texts), 10):
            positions = np.arange(begin, begin + 10, dtype=np.uint32)
            parts[begin // 10 % 3].add(texts[begin : begin + 10], positions)
        found = [part.search(candidates, 4) for part in parts]
    for number in range(len(candidates)):
        together = sorted((match for part in found for match in part.of(number)), key=lambda m: (-m.score, m.position))
        assert tuple(together[:4]) == best(by_rapidfuzz([candidates[number]], texts), 4).of(0)


def test_nothing_is_asked_or_added():
    index = compiled_of(["a b"])
    index.add([])
    assert index.search([], 3).scores.shape == (0, 3)
    judged = index.judge([], 0.7)
    assert (len(judged.accepted), len(index)) == (0, 1)
    assert index.search(["a"]).of(0) == ((0, rouge_l(1, 1, 2)),)


# -- all scores, and the way from small to large -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_scores_with_all_of_the_pool_are_rouge_scores(kind):
    n = 6 if kind == "long" else 60
    tokenizer = KINDS[kind].tokenizer
    pool = texts_of(kind, n)
    with small_segments(batch=20):
        compiled = compiled_of(pool, tokenizer)
        for text in [*texts_of(kind, 5, seed=1)[:5], pool[0], ""]:
            expected = by_rouge_score([text], pool, tokenizer)[0].tolist()
            assert compiled.scores(text).tolist() == expected
            assert NoveltyIndex.of(compiled).mean(text) == index_of(pool, tokenizer).mean(text) == np.mean(expected)


def test_mean_over_an_empty_pool_is_0():
    assert NoveltyIndex().mean("a b") == NoveltyIndex.of(CompiledIndex("rouge")).mean("a b") == 0.0


def test_growing_out_of_the_small_index():
    """Across the size up to which all pairs are compared: same answers before, at and after it."""
    texts = texts_of("filled templates", MAX_BRUTE + 10)
    candidates = texts_of("near-duplicates", 8) + texts_of("filled templates", 8, seed=1)
    index = NoveltyIndex()
    index.add(*texts[: MAX_BRUTE - 3])
    for n in range(MAX_BRUTE - 3, MAX_BRUTE + 10):
        assert len(index) == n
        scores = by_rapidfuzz(candidates, texts[:n])
        assert [index.nearest(text, 3) for text in candidates] == [best(scores, 3).of(i) for i in range(16)]
        assert index.nearest(candidates[-1], 2, size=n // 2) == best(scores[-1:, : n // 2], 2).of(0)
        assert index.mean(candidates[-1]) == scores[-1].mean()
        index.add(texts[n])


def test_a_pool_that_will_be_large_is_compiled_from_the_start():
    few, many = NoveltyIndex(expected=MAX_BRUTE), NoveltyIndex(expected=MAX_BRUTE + 1)
    few.add("a b c"), many.add("a b c")
    assert many.nbytes == many.compiled().nbytes != few.nbytes
    assert few.nearest("a b d") == many.nearest("a b d")


@pytest.mark.parametrize("small", [0, MAX_BRUTE - 40])
def test_judging_across_the_size_of_the_small_index(small):
    texts = texts_of("near-duplicates", 300)
    pool = texts_of("filled templates", small)
    index = index_of(pool)
    judged = [index.judge(texts[begin : begin + 30], 0.7, k=2) for begin in range(0, 300, 30)]
    expected = compiled_of(pool).judge(texts, 0.7, k=2)
    assert [part for one in judged for part in one.accepted] == expected.accepted.tolist()
    assert equal(Matches(*map(np.concatenate, zip(*(one.matches for one in judged), strict=True))), expected.matches)


@pytest.mark.parametrize("k", [1, 4, 200])
def test_many_candidates_at_once_in_a_small_pool(k):
    pool, candidates = texts_of("few words", 150), texts_of("few words", 300, seed=1)
    sizes = [number % 151 for number in range(300)]
    index = index_of(pool)
    assert equal(index.search(candidates, k), best(by_rapidfuzz(candidates, pool), k))
    assert equal(index.search(candidates, k, sizes), compiled_of(pool).search(candidates, k, np.array(sizes)))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't STOP, Straße_2!", ["don", "t", "stop", "strasse", "2"]),
        ("请把句子翻译成英文。", list("请把句子翻译成英文")),
        ("カタカナとひらがな ﾃｽﾄ", list("カタカナとひらがなテスト")),
        ("ภาษาไทย", list("ภาษาไทย")),
        ("Переведи текст — быстро", ["переведи", "текст", "быстро"]),
        ("ترجم النصّ، من فضلك", ["ترجم", "النصّ", "من", "فضلك"]),
        ("हिन्दी में लिखो", ["हिन्दी", "में", "लिखो"]),
        ("번역해 주세요", ["번역해", "주세요"]),
        ("Python 3で書く", ["python", "3", "で", "書", "く"]),
        ("cafe\u0301 = café", ["café", "café"]),
        ("\N{FIRE} …", []),
    ],
)
def test_unicode_tokenizer_sees_every_script(text, tokens):
    assert novelty.tokenize(text, "unicode") == tokens


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("请把下面的句子翻译成英文", "请把下面的句子翻译成法文"),
        ("次の文章を英語に翻訳してください", "次の文章を独語に翻訳してください"),
        ("Переведи эту короткую фразу на английский", "Переведи эту короткую фразу на французский"),
        ("ترجم هذه الجملة القصيرة إلى الإنجليزية", "ترجم هذه الجملة القصيرة إلى الفرنسية"),
    ],
)
def test_near_duplicates_in_other_scripts_need_the_unicode_tokenizer(one, other):
    assert nearest(index_of([one]), other) == []
    assert 0.7 < index_of([one], "unicode").nearest(other)[0].score < 1
