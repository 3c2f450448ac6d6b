"""How varied a data set is, beside the same figures for the seeds that it grew from."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from statistics import fmean
from typing import TypeVar

import numpy as np

from selfinstruct.novelty import NoveltyIndex, Tokenizer, tokenize
from selfinstruct.records import Example

# Enough for two digits of every figure, and few enough for any data set to take seconds.
MAX_TASKS = 10_000
MAX_SEEDS_COMPARED = 1_000
MAX_SAMPLES = 10
MAX_SAMPLE_BYTES, MAX_SAMPLE_TEXTS, MAX_SAMPLE_NGRAMS = 100_000, 1_000, 10_000
LONG_NGRAM = 4
N_BINS = 10

StreamT = TypeVar("StreamT", bytes, list[str], list[tuple[str, ...]], list[list[str]])


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of texts in words (in characters where words are not separated).

    Attributes:
        n: Texts.
        p10, p90: What a tenth of the texts stays below, and what a tenth exceeds.
    """

    n: int
    mean: float
    median: float
    p10: float
    p90: float


@dataclass(frozen=True, slots=True)
class Nearest:
    """ROUGE-L (F-measure) of each task's instruction with the one most like it.

    Attributes:
        n: Tasks.
        histogram: Tasks by score, in bins of 0.1; a score of 1 is in the last one.
    """

    n: int
    mean: float
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a set of tasks consists of; None where there is nothing to measure.

    Attributes:
        n_tasks, n_instances: All of them.
        n_measured: Tasks whose texts are measured: all, or a sample of `MAX_TASKS`.
        without_input: Share of the instances that have no input; `input` describes the others.
        nearest: Of a data set, beside what was there before each task; of seeds, beside all other seeds.
    """

    n_tasks: int
    n_instances: int
    n_measured: int
    without_input: float | None
    instruction: Lengths | None
    input: Lengths | None
    output: Lengths | None
    nearest: Nearest | None


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure that changes with the amount of text, so both sets are measured on samples of one size.

    Attributes:
        dataset, seeds: Mean over up to `MAX_SAMPLES` samples; None for a set without such text.
        size: Of a sample, in the unit that the figure is a share or ratio of.
    """

    dataset: float | None
    seeds: float | None
    size: int


@dataclass(frozen=True, slots=True)
class Variety:
    """How varied the texts of one kind are.

    Attributes:
        compression_ratio: Bytes over bytes after zlib at level 9: high for repetitive text (Shaib et al., 2024,
            "Standardizing the Measurement of Text Diversity"). Unit: bytes.
        self_repetition: Share of the texts that contain a 4-gram of another text, among those of 4 words or more
            (Salkar et al., 2022, "Self-Repetition in Abstractive Neural Summarizers"). Unit: texts.
        distinct_1, distinct_2: Share of words, and of pairs of words, that are distinct (Li et al., 2016, "A
            Diversity-Promoting Objective Function for Neural Conversation Models"). Unit: words, pairs.
    """

    compression_ratio: Compared
    self_repetition: Compared
    distinct_1: Compared
    distinct_2: Compared


@dataclass(frozen=True, slots=True)
class Diversity:
    """Figures of a data set and of its seeds.

    Attributes:
        tokenizer: What counts as a word, see `novelty.tokenize`.
        openings: Share of the instructions' first words that are distinct. Unit: instructions.
    """

    tokenizer: Tokenizer
    dataset: Contents
    seeds: Contents
    instructions: Variety
    outputs: Variety
    openings: Compared


@dataclass(frozen=True, slots=True)
class _Texts:
    """Texts and their words."""

    texts: list[str]
    words: list[list[str]]

    @classmethod
    def of(cls, texts: Iterable[str], tokenizer: Tokenizer) -> _Texts:
        texts = list(texts)
        return cls(texts, [tokenize(text, tokenizer) for text in texts])


@dataclass(frozen=True, slots=True)
class _Measured:
    """The tasks of a set that are measured."""

    tasks: list[Example]
    instructions: _Texts
    inputs: _Texts
    outputs: _Texts

    @classmethod
    def of(cls, examples: Iterable[Example], tokenizer: Tokenizer) -> _Measured:
        tasks = sorted(examples, key=_place)[:MAX_TASKS]
        instances = [instance for task in tasks for instance in task.instances]
        return cls(
            tasks,
            _Texts.of((task.instruction for task in tasks), tokenizer),
            _Texts.of((instance.input for instance in instances), tokenizer),
            _Texts.of((instance.output for instance in instances), tokenizer),
        )


def diversity(examples: Sequence[Example], seeds: Sequence[Example], tokenizer: Tokenizer) -> Diversity:
    """Measure a data set and its seeds.

    Samples go by a hash of the instruction: they are the same every time and in whatever order the tasks come, and
    copies of a task stand side by side in them, so that copies show in a sample as they would in the whole.

    Args:
        examples: The data set, with `nearest` as the run recorded it.
        seeds: The tasks to compare with.
        tokenizer: That of the run's novelty filter.
    """
    ours, theirs = _Measured.of(examples, tokenizer), _Measured.of(seeds, tokenizer)
    return Diversity(
        tokenizer,
        _contents(examples, ours, _scores_recorded(examples)),
        _contents(seeds, theirs, _scores_among(theirs.tasks[:MAX_SEEDS_COMPARED], tokenizer)),
        _variety(ours.instructions, theirs.instructions),
        _variety(ours.outputs, theirs.outputs),
        _compared(_distinct, _openings(ours.instructions), _openings(theirs.instructions), MAX_SAMPLE_TEXTS),
    )


def _place(example: Example) -> tuple[bytes, list[tuple[str, str]]]:
    """Where a task stands in the order that samples are taken in."""
    digest = hashlib.blake2b(example.instruction.encode("utf-8", "replace"), digest_size=8).digest()
    return digest, [(instance.input, instance.output) for instance in example.instances]


def _contents(examples: Sequence[Example], measured: _Measured, scores: Sequence[float]) -> Contents:
    inputs = measured.inputs
    given = [words for text, words in zip(inputs.texts, inputs.words, strict=True) if text.strip()]
    return Contents(
        n_tasks=len(examples),
        n_instances=sum(len(example.instances) for example in examples),
        n_measured=len(measured.tasks),
        without_input=1 - len(given) / len(inputs.texts) if inputs.texts else None,
        instruction=_lengths(measured.instructions.words),
        input=_lengths(given),
        output=_lengths(measured.outputs.words),
        nearest=_nearest(scores),
    )


def _lengths(texts: Sequence[Sequence[str]]) -> Lengths | None:
    if not texts:
        return None
    lengths = [len(words) for words in texts]
    p10, median, p90 = np.percentile(lengths, [10, 50, 90]).tolist()
    return Lengths(len(lengths), fmean(lengths), median, p10, p90)


def _scores_recorded(examples: Iterable[Example]) -> list[float]:
    """Of the generated tasks: one without a neighbour shares no word with what was there."""
    return [e.nearest[0].score if e.nearest else 0.0 for e in examples if e.nearest or e.source]


def _scores_among(tasks: Sequence[Example], tokenizer: Tokenizer) -> list[float]:
    """Of each task beside all others."""
    index = NoveltyIndex(tokenizer)
    index.add(*(task.instruction for task in tasks))
    if len(tasks) < 2:
        return []
    others = (
        (match.score for match in index.nearest(task.instruction, k=2) if match.position != number)
        for number, task in enumerate(tasks)
    )
    return [next(scores, 0.0) for scores in others]


def _nearest(scores: Sequence[float]) -> Nearest | None:
    if not scores:
        return None
    bins = Counter(min(int(score * N_BINS), N_BINS - 1) for score in scores)
    return Nearest(len(scores), fmean(scores), tuple(bins[i] for i in range(N_BINS)))


def _variety(ours: _Texts, theirs: _Texts) -> Variety:
    return Variety(
        compression_ratio=_compared(_compression_ratio, _joined(ours), _joined(theirs), MAX_SAMPLE_BYTES),
        self_repetition=_compared(_self_repetition, _long(ours), _long(theirs), MAX_SAMPLE_TEXTS),
        distinct_1=_compared(_distinct, _ngrams(ours, 1), _ngrams(theirs, 1), MAX_SAMPLE_NGRAMS),
        distinct_2=_compared(_distinct, _ngrams(ours, 2), _ngrams(theirs, 2), MAX_SAMPLE_NGRAMS),
    )


def _compared(measure: Callable[[StreamT], float], ours: StreamT, theirs: StreamT, largest: int) -> Compared:
    """A figure of both streams in pieces as long as the shorter stream, or `largest`."""
    size = min([largest, *(len(stream) for stream in (ours, theirs) if stream)])

    def mean(stream: StreamT) -> float | None:
        starts = range(0, len(stream) - size + 1, size)[:MAX_SAMPLES]
        return fmean(measure(stream[start : start + size]) for start in starts) if stream else None

    return Compared(mean(ours), mean(theirs), size if ours or theirs else 0)


def _joined(texts: _Texts) -> bytes:
    return "\n".join(texts.texts).encode("utf-8", "replace")


def _long(texts: _Texts) -> list[list[str]]:
    return [words for words in texts.words if len(words) >= LONG_NGRAM]


def _ngrams(texts: _Texts, n: int) -> list[tuple[str, ...]]:
    """N-grams within texts, as many as samples take."""
    return list(islice(chain.from_iterable(_ngrams_of(w, n) for w in texts.words), MAX_SAMPLES * MAX_SAMPLE_NGRAMS))


def _ngrams_of(words: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(n)), strict=False)


def _openings(texts: _Texts) -> list[str]:
    return [words[0] for words in texts.words if words]


def _compression_ratio(text: bytes) -> float:
    return len(text) / len(zlib.compress(text, 9))


def _self_repetition(texts: list[list[str]]) -> float:
    grams = [set(_ngrams_of(words, LONG_NGRAM)) for words in texts]
    n_texts = Counter(chain.from_iterable(grams))
    return sum(any(n_texts[gram] > 1 for gram in own) for own in grams) / len(texts)


def _distinct(items: Sequence[object]) -> float:
    return len(set(items)) / len(items)


def describe_diversity(d: Diversity) -> str:
    """A table of the figures in plain text: figure, data set, seeds."""
    sets = (d.dataset, d.seeds)
    rows = [
        ("figure", "data set", "seeds"),
        ("tasks", *(f"{s.n_tasks:,}" for s in sets)),
        ("instances", *(f"{s.n_instances:,}" for s in sets)),
        ("tasks measured below", *(f"{s.n_measured:,}" for s in sets)),
        ("without input", *(_percent(s.without_input) for s in sets)),
        ("words of an instruction", *(_length(s.instruction) for s in sets)),
        ("words of an input", *(_length(s.input) for s in sets)),
        ("words of an output", *(_length(s.output) for s in sets)),
        *_variety_rows("instructions", d.instructions),
        (f"distinct first words, of {d.openings.size:,}", _percent(d.openings.dataset), _percent(d.openings.seeds)),
        *_variety_rows("outputs", d.outputs),
        ("most like another, mean ROUGE-L", *(_number(s.nearest.mean if s.nearest else None) for s in sets)),
        *(
            (f"  {i / N_BINS:.1f} to {(i + 1) / N_BINS:.1f}", *(_percent(_share(s.nearest, i)) for s in sets))
            for i in range(N_BINS)
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{figure:<{widths[0]}} | {dataset:>{widths[1]}} | {seeds:>{widths[2]}}" for figure, dataset, seeds in rows
    )


def _variety_rows(kind: str, v: Variety) -> list[tuple[str, str, str]]:
    def row(figure: str, c: Compared, unit: str, show: Callable[[float | None], str]) -> tuple[str, str, str]:
        return f"{figure}, of {c.size:,} {unit}", show(c.dataset), show(c.seeds)

    return [
        row(f"compression ratio of {kind}", v.compression_ratio, "bytes", _number),
        row(f"{kind} with another's 4-gram", v.self_repetition, "texts", _percent),
        row(f"distinct words in {kind}", v.distinct_1, "words", _percent),
        row(f"distinct pairs in {kind}", v.distinct_2, "pairs", _percent),
    ]


def _length(lengths: Lengths | None) -> str:
    return f"{lengths.mean:.1f} ({lengths.p10:.0f} to {lengths.p90:.0f})" if lengths else "-"


def _share(nearest: Nearest | None, i: int) -> float | None:
    return nearest.histogram[i] / nearest.n if nearest else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
