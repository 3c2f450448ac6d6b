"""How often 95% intervals hold the truth, and how often "better" is said of models that are equally good.

Experiments are drawn from known models, with the very functions that evaluate and compare use. Scores are 0 or 1, or
ROUGE-like: from a beta distribution, with some 15% of exact zeros and ones. Tasks differ in how hard they are: the
correlation is the share of the variance that lies between tasks. In comparisons half the tasks are as hard for one
model as for the other, and half the scores of those are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finetune.statistics import Units, difference_limits, holm, mean_limits, sign_flip_p, verdict

Floats = NDArray[np.float64]
Scores = Literal["0 or 1", "ROUGE-like"]
KINDS: tuple[Scores, ...] = ("0 or 1", "ROUGE-like")
LEAST, MOST = 0.93, 0.97  # what counts as 95%
# Sum of the beta distribution's parameters; share of exact zeros and ones together.
_CONCENTRATION, _EXACT = 3.0, 0.15
_CHUNK = 250  # experiments at once, for memory


@dataclass(frozen=True, slots=True)
class Design:
    """What an experiment draws.

    Attributes:
        units: Items, or tasks where there are several items in each.
        size: Items a task, on average; 1 for items by themselves. Tasks have from 1 to twice as many.
        correlation: Within tasks.
    """

    scores: Scores
    units: int
    size: int = 1
    correlation: float = 0.0

    @property
    def label(self) -> str:
        if self.size == 1:
            return f"{self.units} items"
        return f"{self.units} tasks of 1 to {2 * self.size - 1} items"

    def drawn(self, rng: np.random.Generator, means: Floats) -> tuple[Floats, Floats]:
        """Scores of an experiment for each true mean, summed by unit, and the units' sizes, shape (n, units) each."""
        sizes, present = self._sizes(rng, len(means))
        return (self._scores(rng, self._abilities(rng, means), present) * present).sum(axis=2), sizes

    def differences(self, rng: np.random.Generator, n: int, mean: float, effect: float) -> tuple[Floats, Floats]:
        """Differences of two models whose mean scores differ by the effect, as `drawn`."""
        sizes, present = self._sizes(rng, n)
        means = np.full(n, mean)
        abilities = self._abilities(rng, means)
        is_alike = rng.random(abilities.shape) < 0.5
        others = np.where(is_alike, abilities, self._abilities(rng, means))
        before = self._scores(rng, abilities, present)
        after = self._scores(rng, others + (1 - others) * effect / (1 - mean), present)
        if not effect:
            after = np.where(is_alike & (rng.random(present.shape) < 0.5), before, after)
        return ((after - before) * present).sum(axis=2), sizes

    def _sizes(self, rng: np.random.Generator, n: int) -> tuple[Floats, NDArray[np.bool_]]:
        sizes = rng.integers(1, 2 * self.size, (n, self.units))
        return sizes.astype(float), np.arange(2 * self.size - 1) < sizes[..., None]

    def _abilities(self, rng: np.random.Generator, means: Floats) -> Floats:
        shape = (len(means), self.units, 1)
        if not self.correlation:
            return np.broadcast_to(means[:, None, None], shape)
        total = 1 / self.correlation - 1
        return rng.beta(means[:, None, None] * total, (1 - means)[:, None, None] * total, shape)

    def _scores(self, rng: np.random.Generator, means: Floats, present: NDArray[np.bool_]) -> Floats:
        if self.scores == "0 or 1":
            return (rng.random(present.shape) < means).astype(float)
        within = np.clip(means, 1e-6, 1 - 1e-6)
        scores = rng.beta(within * _CONCENTRATION, (1 - within) * _CONCENTRATION, present.shape)
        chance = rng.random(present.shape)
        return np.where(chance < _EXACT * (1 - within), 0, np.where(chance > 1 - _EXACT * within, 1, scores))


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often an interval held the truth.

    Attributes:
        of: "mean", or "difference" of two models.
        truth: The mean, or the effect.
    """

    of: str
    scores: Scores
    design: str
    correlation: float
    truth: float
    experiments: int
    covered: float

    @property
    def is_right(self) -> bool:
        return LEAST <= self.covered <= MOST


@dataclass(frozen=True, slots=True)
class FalseVerdicts:
    """How often any verdict was given on models that are equally good.

    Attributes:
        better, any: Share of the comparisons in which any of their clusters got "better", or any verdict but none.
    """

    scores: Scores
    design: str
    correlation: float
    experiments: int
    better: float
    any: float


def designs() -> Iterator[Design]:
    """The stated conditions: 20 items or more, or 20 tasks or more and correlations up to 0.5."""
    for scores in KINDS:
        for n in (20, 50, 200):
            yield Design(scores, n)
        for tasks, size in ((20, 5), (50, 8)):
            for correlation in (0.0, 0.25, 0.5):
                yield Design(scores, tasks, size, correlation)


def mean_coverage(design: Design, mean: float, n_experiments: int, seed: int) -> Coverage:
    """Coverage of the interval of a mean score, whose truth is drawn within 20% of the one given.

    At a single truth the coverage of any interval for counts jumps with the number of items (Brown, Cai and DasGupta,
    2001), and says more of that number than of the interval.
    """
    rng = np.random.default_rng(seed)
    held = 0
    for n in _chunks(n_experiments):
        truths = rng.uniform(0.8 * mean, 1.2 * mean, n)
        low, high = mean_limits(*design.drawn(rng, truths))
        held += _held(low, high, truths)
    return Coverage("mean", design.scores, design.label, design.correlation, mean, n_experiments, held / n_experiments)


def difference_coverage(design: Design, effect: float, n_experiments: int, seed: int, mean: float = 0.4) -> Coverage:
    """Coverage of the interval of a difference; the first model's mean score is given too."""
    rng = np.random.default_rng(seed)
    held = 0
    for n in _chunks(n_experiments):
        low, high = difference_limits(*design.differences(rng, n, mean, effect))
        held += _held(low, high, effect)
    return Coverage(
        "difference", design.scores, design.label, design.correlation, effect, n_experiments, held / n_experiments
    )


def _held(low: Floats, high: Floats, truth: float | Floats) -> int:
    return int(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).sum())


def _chunks(n: int) -> Iterator[int]:
    for start in range(0, n, _CHUNK):
        yield min(_CHUNK, n - start)


def false_verdicts(design: Design, n_clusters: int, n_experiments: int, seed: int, mean: float = 0.4) -> FalseVerdicts:
    """Verdicts on clusters of the same design, all without an effect, corrected for being several."""
    rng = np.random.default_rng(seed)
    better = wrong = 0
    for _ in range(n_experiments):
        sums, sizes = design.differences(rng, n_clusters, mean, 0.0)
        unit = "item" if design.size == 1 else "task"
        adjusted = holm([sign_flip_p(Units(*pair, unit)) for pair in zip(sums, sizes, strict=True)])
        verdicts = [verdict(float(delta), p) for delta, p in zip(sums.sum(axis=1), adjusted, strict=True)]
        better += "better" in verdicts
        wrong += verdicts != ["no significant change"] * n_clusters
    label = f"{n_clusters} cluster{'s' if n_clusters > 1 else ''}, {design.label} in each"
    return FalseVerdicts(
        design.scores, label, design.correlation, n_experiments, better / n_experiments, wrong / n_experiments
    )


def simulate(n_experiments: int, seed: int) -> tuple[list[Coverage], list[FalseVerdicts]]:
    """Everything that the table shows."""
    coverages = []
    for design in designs():
        coverages += [mean_coverage(design, mean, n_experiments, seed) for mean in (0.1, 0.4)]
        coverages += [difference_coverage(design, effect, n_experiments, seed) for effect in (0.0, 0.15)]
        print(f"{design.scores}, {design.label}, {design.correlation}", file=sys.stderr)
    wrong = []
    for scores in KINDS:
        wrong.append(false_verdicts(Design(scores, 40), 12, n_experiments, seed))
        wrong.append(false_verdicts(Design(scores, 24, 10, 0.5), 1, n_experiments, seed))
        wrong.append(false_verdicts(Design(scores, 24, 10, 0.5), 12, n_experiments, seed))
    return coverages, wrong


def coverage_table(coverages: Sequence[Coverage]) -> str:
    """A line for each condition."""
    rows = [("interval of", "scores", "drawn", "correlation", "truth", "covered", ""), ("--",) * 7]
    for c in coverages:
        mark = "" if c.is_right else f"outside {LEAST:.0%} to {MOST:.0%}"
        rows.append((c.of, c.scores, c.design, f"{c.correlation:g}", f"{c.truth:g}", f"{c.covered:.1%}", mark))
    return _table(rows)


def verdict_table(wrong: Sequence[FalseVerdicts]) -> str:
    """A line for each condition."""
    rows = [("scores", "drawn, without an effect", "correlation", "any false better", "any false verdict"), ("--",) * 5]
    for w in wrong:
        rows.append((w.scores, w.design, f"{w.correlation:g}", f"{w.better:.1%}", f"{w.any:.1%}"))
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Simulate, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=2_000, help="of each condition")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    args = parser.parse_args()
    started = time.process_time()
    coverages, wrong = simulate(args.experiments, args.seed)
    if args.out:
        figures = {"coverages": [asdict(c) for c in coverages], "false_verdicts": [asdict(w) for w in wrong]}
        args.out.write_text(json.dumps(figures, indent=1))
    print(f"{args.experiments:,} experiments of each condition, {time.process_time() - started:.0f} s of CPU\n")
    print(coverage_table(coverages))
    print()
    print(verdict_table(wrong))
    outside = sum(not c.is_right for c in coverages)
    print(f"\n{len(coverages)} conditions, {outside} outside {LEAST:.0%} to {MOST:.0%}")


if __name__ == "__main__":
    main()
