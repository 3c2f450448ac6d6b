"""The novelty index against rouge_score: equal floats, equal decisions, equal order."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest
from rouge_score import tokenize

from selfinstruct import novelty
from selfinstruct.novelty import NoveltyIndex, rouge_l
from tests.rouge import index_of, nearest, ranking, rouge_score


def boundary_triples(f: Fraction, longest: int) -> list[tuple[int, int, int]]:
    """All (candidate's length, reference's length, LCS) whose exact F = 2 LCS / (m + n) is f."""
    lengths = range(1, longest + 1)
    exact = [(m, n, f * (m + n) / 2) for m in lengths for n in lengths]
    return [(m, n, int(lcs)) for m, n, lcs in exact if lcs.denominator == 1 and lcs <= min(m, n)]


def pair_with(m: int, n: int, lcs: int, rng: Random) -> tuple[str, str]:
    """Two texts of m and n tokens that share a subsequence of lcs tokens and nothing else."""

    def scattered(length: int, own: str) -> str:
        places = set(rng.sample(range(length), lcs))
        common = iter(range(lcs))
        return " ".join(f"c{next(common)}" if place in places else f"{own}{place}" for place in range(length))

    return scattered(m, "a"), scattered(n, "b")


@pytest.mark.parametrize(("f", "longest"), [("0.7", 199), ("0.5", 60), ("0.9", 60)])
def test_every_boundary(f, longest):
    triples = boundary_triples(Fraction(f), longest)
    rng = Random(0)
    scores = []
    for m, n, lcs in triples:
        candidate, reference = pair_with(m, n, lcs, rng)
        scores.append(rouge_score(candidate, reference))
        assert nearest(index_of([reference]), candidate) == [("0", scores[-1])]
        assert rouge_l(lcs, m, n) == scores[-1]
    if f == "0.7":  # rounding decides these: `>=` or exact arithmetic would decide them otherwise
        counts = [sum(compare(score) for score in scores) for compare in ((0.7).__lt__, (0.7).__eq__, (0.7).__gt__)]
        assert counts == [432, 459, 40]


def test_a_score_of_exactly_the_threshold_can_be_above_it():
    assert rouge_l(7, 7, 13) == 0.7000000000000001


def test_20_000_pairs_in_order_of_score_then_of_addition():
    rng = Random(1)
    vocabulary = [f"w{number}" for number in range(40)]

    def text():
        return " ".join(rng.choices(vocabulary, k=rng.choice([0, 1, 2, 5, 10, 10, 20, 40])))

    def near_duplicate(of):
        words = of.split() or ["w0"]
        words[rng.randrange(len(words))] = rng.choice(vocabulary)
        return ", ".join(words).title()

    pool = [text() for _ in range(120)]
    pool += [near_duplicate(rng.choice(pool)) for _ in range(60)] + rng.sample(pool, 20)
    index = index_of(pool)
    candidates = [text() for _ in range(60)] + [near_duplicate(rng.choice(pool)) for _ in range(40)]
    assert len(pool) * len(candidates) == 20_000
    ties = 0
    for candidate in candidates:
        expected = ranking(candidate, pool)
        assert nearest(index, candidate, k=len(pool)) == expected
        assert nearest(index, candidate, k=10) == expected[:10]
        size = rng.randrange(len(pool))
        assert nearest(index, candidate, k=10, size=size) == ranking(candidate, pool[:size])[:10]
        ties += len({score for _, score in expected[:2]}) < len(expected[:2])
    assert ties > 10


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


def test_texts_without_tokens_resemble_nothing():
    index = index_of(["", "...", "Привет, мир", "one two"])
    for text in ("", "   ", "?!", "你好", "\N{FIRE}"):
        assert nearest(index, text, k=9) == []
    assert nearest(index, "one two", k=9) == [("3", 1.0)]
    assert nearest(NoveltyIndex(), "one two") == []
    assert nearest(index, "one two", size=0) == []


@pytest.mark.parametrize(
    "text", ["\u212aelvin 3\u212a", "\u0130stanbul I\u0307", "ﬁne", "Σίσυφος", "a\u0301 café ǅ", "x²3"]
)
def test_lower_casing_oddities(text):
    assert novelty.tokenize(text, "rouge") == tokenize.tokenize(text, None)
    pool = [text.lower(), text.upper(), "kelvin", "istanbul", "i stanbul 3k"]
    assert nearest(index_of(pool), text, k=9) == ranking(text, pool)


def test_long_texts():
    long = " ".join(f"w{number}" for number in range(10_000))
    half = " ".join(f"w{number}" for number in range(0, 10_000, 2))
    index = index_of([half, long, f"{half} {half}"])
    assert nearest(index, long, k=3) == [
        ("1", 1.0),
        ("0", rouge_l(5000, 10_000, 5000)),
        ("2", rouge_l(5000, 10_000, 10_000)),
    ]


def test_more_tokens_than_a_plane_of_characters():
    """Tokens are numbered through the surrogates, which are no characters, and past 65,535."""
    pool = [" ".join(f"w{number}" for number in range(start, start + 500)) for start in range(0, 70_000, 500)]
    index = index_of(pool)
    for number, text in enumerate(pool):
        assert nearest(index, text, k=9) == [(str(number), 1.0)]


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
