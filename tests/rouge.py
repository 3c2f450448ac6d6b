"""What novelty should say, found without it: by rouge_score itself, or faster by RapidFuzz; and texts to ask about.

The oracles compare every pair and know nothing of an index. `replay` decides from their scores in order, `checked`
counts how many decisions of an index are not the same in decision, float and position.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist
from rouge_score import rouge_scorer
from rouge_score import tokenize as rouge_tokenize
from rouge_score.tokenizers import Tokenizer as RougeTokenizer

from selfinstruct import novelty
from selfinstruct.files import read_jsonl, shipped
from selfinstruct.novelty import Judged, Matches, NoveltyIndex, Tokenizer
from selfinstruct.novelty.compiled import CompiledIndex
from selfinstruct.novelty.matches import NOBODY

THRESHOLDS = (0.5, 0.7, 0.9)
SCORER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)


# -- rouge_score -------------------------------------------------------------------------------------------------------


def rouge_score(candidate: str, reference: str, scorer: rouge_scorer.RougeScorer = SCORER) -> float:
    return float(scorer.score(reference, candidate)["rougeL"].fmeasure)


def ranking(candidate: str, pool: list[str]) -> list[tuple[str, float]]:
    """What the index should say: (id, F) by F descending, then order of addition; no overlap, no mention."""
    scores = [(str(number), rouge_score(candidate, text)) for number, text in enumerate(pool)]
    return sorted((pair for pair in scores if pair[1] > 0), key=lambda pair: -pair[1])


def index_of(pool: list[str], tokenizer: Tokenizer = "rouge") -> NoveltyIndex:
    index = NoveltyIndex(tokenizer)
    index.add(*pool)
    return index


def compiled_of(pool: Sequence[str], tokenizer: Tokenizer = "rouge", threads: int = 1) -> CompiledIndex:
    index = CompiledIndex(tokenizer, threads)
    index.add(pool)
    return index


def nearest(index: NoveltyIndex, text: str, k: int = 1, size: int | None = None) -> list[tuple[str, float]]:
    return [(str(match.position), match.score) for match in index.nearest(text, k, size)]


# -- oracles: F of each candidate (row) with each text of a pool (column) ----------------------------------------------

Oracle = Callable[[Sequence[str], Sequence[str], Tokenizer], NDArray[np.float64]]


class _Unicode(RougeTokenizer):
    def tokenize(self, text: str) -> list[str]:
        return novelty.tokenize(text, "unicode")


_SCORERS = {"rouge": SCORER, "unicode": rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Unicode())}


def by_rouge_score(
    candidates: Sequence[str], pool: Sequence[str], tokenizer: Tokenizer = "rouge"
) -> NDArray[np.float64]:
    """By rouge_score itself; of a pool compared with itself only the pairs (later, earlier), as `replay` needs them."""
    scores = np.zeros((len(candidates), len(pool)))
    for row, candidate in enumerate(candidates):
        for column, text in enumerate(pool[:row] if candidates is pool else pool):
            scores[row, column] = rouge_score(candidate, text, _SCORERS[tokenizer])
    return scores


@lru_cache(maxsize=200_000)
def _tokens(text: str, tokenizer: Tokenizer) -> tuple[str, ...]:
    return tuple(rouge_tokenize.tokenize(text, None) if tokenizer == "rouge" else novelty.tokenize(text, tokenizer))


def by_rapidfuzz(candidates: Sequence[str], pool: Sequence[str], tokenizer: Tokenizer = "rouge") -> NDArray[np.float64]:
    """By RapidFuzz's LCS of strings with a character a token, and rouge_score's formula of F in numpy's floats."""
    characters: defaultdict[str, str] = defaultdict(lambda: chr(len(characters) + 1))

    def strings(texts: Sequence[str]) -> list[str]:
        return ["".join([characters[token] for token in _tokens(text, tokenizer)]) for text in texts]

    rows = strings(candidates)
    columns = rows if candidates is pool else strings(pool)
    lcs = cdist(rows, columns, scorer=LCSseq.similarity, dtype=np.int32).astype(float)
    m, n = (np.maximum(np.fromiter(map(len, side), float, len(side)), 1) for side in (rows, columns))
    precision, recall = lcs / m[:, None], lcs / n
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(lcs), where=total > 0)


def best(scores: NDArray[np.float64], k: int = 1) -> Matches:
    """The k best of every row, by (F descending, position ascending)."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k] if k > 1 else scores.argmax(axis=1)[:, None]
    values = np.zeros((len(scores), k))
    positions = np.full((len(scores), k), NOBODY)
    values[:, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
    positions[:, : order.shape[1]] = order
    positions[values == 0] = NOBODY
    return Matches(values, positions)


def best_of_pool(
    candidates: Sequence[str], pool: Sequence[str], tokenizer: Tokenizer = "rouge",
    sizes: NDArray[np.int64] | None = None,
) -> Matches:  # fmt: skip
    """The best match of every candidate among its first `sizes` texts of a pool that may be large, by RapidFuzz."""
    found = Matches.none(len(candidates), 1)
    step = max(5_000_000 // len(candidates), 1)
    for begin in range(0, len(pool), step):
        scores = by_rapidfuzz(candidates, pool[begin : begin + step], tokenizer)
        if sizes is not None:
            scores[np.arange(begin, begin + scores.shape[1]) >= sizes[:, None]] = 0
        part = best(scores)
        better = part.scores > found.scores
        found.scores[better] = part.scores[better]
        found.positions[better] = part.positions[better] + begin
    return found


def replay(scores: NDArray[np.float64], threshold: float) -> Judged:
    """Decide on texts in order from the F of each with every one: each is compared with those accepted before it."""
    n = len(scores)
    scores = np.asfortranarray(np.tril(scores, -1).T).T  # rows in order in memory; a copy
    accepted = np.zeros(n, bool)
    matches = Matches.none(n, 1)
    position_of = np.zeros(n, np.int64)
    n_accepted = 0
    for i in range(n):
        row = scores[i]
        nearest = row.argmax()
        f = row[nearest]
        if f > 0:
            matches.scores[i], matches.positions[i] = f, position_of[nearest]
        if f > threshold:
            scores[i:, i] = 0
        else:
            accepted[i] = True
            position_of[i] = n_accepted
            n_accepted += 1
    return Judged(accepted, matches)


def differing(one: Matches, other: Matches) -> NDArray[np.bool_]:
    """bool[candidates], where two answers are not the same, bit for bit."""
    return ((one.scores != other.scores) | (one.positions != other.positions)).any(axis=1)


# -- texts -------------------------------------------------------------------------------------------------------------


def strings_in(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from strings_in(item)


def sentences(*paths: Path) -> list[str]:
    """Of all texts in files of JSON lines, each once, as they come."""
    texts = (text for path in paths for _, row in read_jsonl(path) for text in strings_in(row))
    return list(dict.fromkeys(part for text in texts for part in re.split(r"(?<=[.!?。！？])\s*|\n+", text) if part))


@cache
def shipped_sentences() -> list[str]:
    """Of the shipped data in English."""
    return sentences(shipped("seed_tasks.jsonl"), shipped("validation.jsonl"), *sorted(shipped("heldout").iterdir()))


def boundary_triples(f: Fraction, longest: int) -> list[tuple[int, int, int]]:
    """All (candidate's length, reference's length, LCS) whose exact F = 2 LCS / (m + n) is f."""
    lengths = range(1, longest + 1)
    exact = [(m, n, f * (m + n) / 2) for m in lengths for n in lengths]
    return [(m, n, int(lcs)) for m, n, lcs in exact if lcs.denominator == 1 and lcs <= min(m, n)]


def pair_with(m: int, n: int, lcs: int, rng: Random, name: str = "") -> tuple[str, str]:
    """Two texts of m and n tokens that share a subsequence of lcs tokens and nothing else.

    Pairs with other names have no token in common.
    """

    def scattered(length: int, own: str) -> str:
        places = set(rng.sample(range(length), lcs))
        common = iter(range(lcs))
        return " ".join(f"c{name}{next(common)}" if at in places else f"{own}{name}{at}" for at in range(length))

    return scattered(m, "a"), scattered(n, "b")


def edited(parts: Sequence[str], others: Sequence[str], rng: Random) -> list[str]:
    """A few parts taken out, and others put in."""
    parts = list(parts)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(parts))
        parts[at : at + rng.randint(0, 2)] = rng.choices(others, k=rng.randint(0, 2))
    return parts


TEMPLATES = (
    "Write a {} about the {} and the {}.", "Explain how a {} differs from a {}, and what a {} has to do with it.",
    "Name three {}s that a {} can have!", "Is the {} of a {} larger than the {} of a {}? Answer yes or no.",
    "Translate: '{} {} {}'", "Given a {}, a {} and a {}, which one is a {}?", "What is a {}?",
)  # fmt: skip
NOUNS = (
    "poem", "river", "lamp", "number", "house", "colour", "train", "story", "reason", "bird", "question", "name",
    "list", "summary", "city", "word",
)  # fmt: skip
# Without a token for rouge_score, or with others than one would think.
ODD = (
    "", " ", "...", "?!", "\n\t", "\N{FIRE}", "_", "Привет, мир", "你好", "\u212aelvin 3\u212a", "\u0130stanbul", "x²3",
    "a\u0301 café ǅ", "ﬁne ﬁ", "Σίσυφος", "a", "A.", "b a", "a-b_c", "0", "00 0", "1\u00a02", "\ud800 a", "a\0b",
)  # fmt: skip
SCRIPTS = (
    ("", "请把下面的句子翻译成英文法名写一首诗关于河流"), ("", "次の文章を英語に翻訳してくださいカタカナ"),
    ("", ["ภาษา", "ไทย", "แปล", "ประโยค", "นี้"]), (" ", ["переведи", "эту", "короткую", "фразу", "Ёлка", "на"]),
    (" ", ["ترجم", "هذه", "الجملة", "القصيرة", "النصّ", "إلى"]), (" ", ["हिन्दी", "में", "लिखो", "वाक्य", "एक"]),
    (" ", ["번역해", "주세요", "문장을", "영어로", "이"]), (", ", ["Straße", "café", "cafe\u0301", "ﬁne", "İ", "x_y"]),
)  # fmt: skip
# Lengths at which the bit-parallel LCS needs another word.
LENGTHS = (0, 1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193)


def _real(rng: Random, n: int, corpus: Sequence[str]) -> list[str]:
    return rng.choices(rng.choices(corpus, k=2 * n), k=n)  # some are equal


def _near_duplicates(rng: Random, n: int, corpus: Sequence[str]) -> list[str]:
    """Of some real texts, with other words, case and punctuation; some are equal."""
    originals = [text.split() for text in rng.choices(corpus, k=n // 8 + 1)]
    words = [word for original in originals[:20] for word in original]
    texts = [rng.choice((" ", ", ", " - ")).join(edited(rng.choice(originals), words, rng)) for _ in range(n)]
    return [rng.choice((text, text, text.upper(), rng.choice(texts))) for text in texts]


def _templates(rng: Random, n: int, corpus: Sequence[str]) -> list[str]:
    words = [*NOUNS, *rng.choice(corpus).split()]
    return [template.format(*rng.choices(words, k=4)) for template in rng.choices(TEMPLATES, k=n)]


def _few_words(rng: Random, n: int, corpus: Sequence[str]) -> list[str]:
    """Tokens many times in a text, and many equal scores."""
    words = [f"w{number}" for number in range(rng.choice((1, 2, 5, 20, 60)))]
    return [" ".join(rng.choices(words, k=rng.choice((0, 1, 2, 5, 9, 12, 25, 50)))) for _ in range(n)]


def _boundaries(rng: Random, n: int, corpus: Sequence[str]) -> list[str]:
    """Pairs whose F is exactly a threshold, or 1; some share tokens with others."""
    triples = [rng.choice(_triples(f)) for f in rng.choices(("0.5", "0.7", "0.9", "1"), k=n // 2)]
    names = rng.choices(("", "x", *(f"{number}x" for number in range(n))), k=len(triples))
    return [text for triple, name in zip(triples, names, strict=True) for text in pair_with(*triple, rng, name)]


@cache
def _triples(f: str) -> list[tuple[int, int, int]]:
    return boundary_triples(Fraction(f), 60)


def _odd(rng: Random, n: int, corpus: Sequence[str]) -> list[str]:
    return [rng.choice((" ", "", ",", "\n")).join(rng.choices(ODD, k=rng.randint(0, 5))) for _ in range(n)]


def _long(rng: Random, n: int, corpus: Sequence[str]) -> list[str]:
    words = [f"w{number}" for number in range(rng.choice((5, 300, 3000)))]
    lengths = [*rng.choices(LENGTHS, k=n - 2), 1000, rng.randint(900, 1100)]
    texts = [rng.choices(words, k=length) for length in lengths]
    return [" ".join(rng.choice((text, edited(rng.choice(texts), words, rng)))) for text in texts]


def _other_scripts(rng: Random, n: int, corpus: Sequence[str]) -> list[str]:
    """Real ones in Chinese, and words of seven scripts, each with near-duplicates."""
    originals = [("", sentence, sentence) for sentence in rng.choices(_chinese(), k=n // 8 + 1)]
    originals += [
        (between, words, rng.choices(words, k=rng.randint(0, 15))) for between, words in rng.choices(SCRIPTS, k=n // 8)
    ]
    return [between.join(edited(parts, words, rng)) for between, words, parts in rng.choices(originals, k=n)]


@cache
def _chinese() -> list[str]:
    return sentences(shipped("seed_tasks.zh.jsonl"))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of texts.

    Attributes:
        make: (random numbers, how many, real texts) -> texts.
        n: As many at a time as make sense.
        share: Per cent of decisions that are compared with all pairs.
        rouge_share: Per cent of those that are compared with rouge_score.
        tokenizer: By which they are compared.
    """

    make: Callable[[Random, int, Sequence[str]], list[str]]
    n: int
    share: int
    rouge_share: int
    tokenizer: Tokenizer = "rouge"


KINDS = {
    "real texts": Kind(_real, 600, 28, 20),
    "near-duplicates": Kind(_near_duplicates, 400, 23, 20),
    "filled templates": Kind(_templates, 400, 22, 26),
    "few words": Kind(_few_words, 300, 9, 10),
    "exactly at a threshold": Kind(_boundaries, 300, 5, 8),
    "hardly a token": Kind(_odd, 300, 6, 8),
    "long": Kind(_long, 60, 1, 1),
    "other scripts": Kind(_other_scripts, 400, 6, 7, "unicode"),
}


# -- decisions of an index, counted ------------------------------------------------------------------------------------

Judge = Callable[[Sequence[str], float, Tokenizer, Random], Judged]


def small_segments(batch: int = 64, max_records: int = 150) -> Any:
    """While this context lasts, an index of a few hundred texts is built like one of a million: of many segments."""
    return patch.multiple("selfinstruct.novelty.compiled", BATCH=batch, MAX_RECORDS=max_records)


def by_compiled(texts: Sequence[str], threshold: float, tokenizer: Tokenizer, rng: Random) -> Judged:
    """Of the compiled index, with segments of many sizes."""
    batch, max_records = rng.choice(((48, 150), (64, 1 << 16), (96, 40), (1024, 1 << 16)))
    with small_segments(batch, max_records):
        return CompiledIndex(tokenizer, threads=2 if rng.random() < 0.1 else 1).judge(texts, threshold)


def by_novelty_index(texts: Sequence[str], threshold: float, tokenizer: Tokenizer, rng: Random) -> Judged:
    """Of the index as users get it, which compares all pairs as long as texts are few: one by one, or many at once."""
    index = NoveltyIndex(tokenizer)
    if rng.random() < 0.5:
        return index.judge(texts, threshold)
    judged = Judged(np.zeros(len(texts), bool), Matches.none(len(texts), 1))
    for number, text in enumerate(texts):
        for match in index.nearest(text):
            judged.matches.scores[number], judged.matches.positions[number] = match.score, match.position
        judged.accepted[number] = judged.matches.scores[number, 0] <= threshold
        if judged.accepted[number]:
            index.add(text)
    return judged


@dataclass(slots=True)
class Tally:
    """Decisions that were compared, and those that were not the same."""

    decisions: int = 0
    mismatches: int = 0
    rejected: int = 0

    def add(self, judged: Judged, expected: Judged) -> None:
        wrong = (judged.accepted != expected.accepted) | differing(judged.matches, expected.matches)
        self.decisions += len(wrong)
        self.mismatches += int(wrong.sum())
        self.rejected += int((~expected.accepted).sum())


def checked(
    kind: Kind, n_decisions: int, seed: int, *, judge: Judge = by_compiled, oracle: Oracle = by_rapidfuzz,
    n: int | None = None, corpus: Sequence[str] = (),
) -> dict[float, Tally]:  # fmt: skip
    """Judge streams of texts, until at least so many decisions at all thresholds have been compared with an oracle.

    Args:
        kind: Of texts.
        n_decisions: At all thresholds together.
        seed: Of the texts.
        judge: Whose decisions.
        oracle: What they are compared with.
        n: Texts of a stream; the kind's if None, few for rouge_score, which is slow.
        corpus: Real texts; the shipped ones if there are none.
    """
    rng = Random(seed)
    tallies = {threshold: Tally() for threshold in THRESHOLDS}
    n = n or (min(kind.n // 10, 30) if oracle is by_rouge_score else kind.n)
    while sum(tally.decisions for tally in tallies.values()) < n_decisions:
        texts = kind.make(rng, n, corpus or shipped_sentences())
        scores = oracle(texts, texts, kind.tokenizer)
        for threshold, tally in tallies.items():
            tally.add(judge(texts, threshold, kind.tokenizer, rng), replay(scores, threshold))
    return tallies
