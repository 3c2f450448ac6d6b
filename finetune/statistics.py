"""Intervals, paired tests and power for scores; pure functions, random draws seeded.

All of it counts in units: what was drawn independently. With at least `MIN_TASKS` tasks these are tasks, whose items
resemble each other, and what is said holds for further tasks of their kind. With fewer they are items, and it holds for
further items of these tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]
Verdict = Literal["better", "worse", "no significant change"]
Unit = Literal["item", "task"]
Floats = NDArray[np.float64]

ALPHA = 0.05
N_RESAMPLES = 10_000
# Standard errors clustered by fewer units come out too small (Cameron and Miller, 2015, section VI).
MIN_TASKS = 20
# A sign-flip test of k changed units has no p-value below 2 / 2^k, which first passes under ALPHA at k = 6.
MIN_CHANGED = math.ceil(math.log2(2 / ALPHA))
_NORMAL = NormalDist()
_Z_95 = _NORMAL.inv_cdf(1 - ALPHA / 2)
_Z_POWER = _NORMAL.inv_cdf(0.8)
_BLOCK = 2_000_000
# Resamples may lose all variation there is; without a floor one of them would say that anything is possible.
_LEAST_ERROR = 1 / 4


@dataclass(frozen=True, slots=True)
class Units:
    """Scores, or differences of scores, summed over what was drawn independently.

    Attributes:
        sums: Shape (units).
        sizes: Items in each, shape (units).
    """

    sums: Floats
    sizes: Floats
    unit: Unit

    @classmethod
    def of(cls, values: ArrayLike, tasks: Sequence[str] = ()) -> Units:
        """By task where there are at least `MIN_TASKS`, else by item.

        Args:
            values: One for each item, shape (n).
            tasks: The task of each item; none if they are all of one.
        """
        array: Floats = np.asarray(values, np.float64)
        names, index = np.unique(np.asarray(tasks, dtype=str), return_inverse=True)
        if len(names) < MIN_TASKS:
            return cls(array, np.ones_like(array), "item")
        return cls(np.bincount(index, array).astype(np.float64), np.bincount(index).astype(np.float64), "task")

    @property
    def n(self) -> int:
        """Number of items."""
        return int(self.sizes.sum())

    @property
    def mean(self) -> float:
        """Of all items."""
        return math.fsum(self.sums) / self.n

    @property
    def standard_error(self) -> float | None:
        """Of the mean, see `_mean_and_error`; None with fewer than two units."""
        return None if len(self.sums) < 2 else float(_mean_and_error(self.sums[None], self.sizes[None])[1][0])


def mean_interval(scores: Units) -> Interval | None:
    """95% interval of a mean of scores between 0 and 1, see `mean_limits`; None with fewer than two units."""
    return _interval(mean_limits(scores.sums[None], scores.sizes[None])) if len(scores.sums) > 1 else None


def difference_interval(differences: Units) -> Interval | None:
    """95% interval of a mean of paired differences, see `difference_limits`; None with fewer than two units."""
    units = differences
    return _interval(difference_limits(units.sums[None], units.sizes[None])) if len(units.sums) > 1 else None


def _interval(limits: tuple[Floats, Floats]) -> Interval:
    return float(limits[0][0]), float(limits[1][0])


def mean_limits(sums: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """95% limits of means of scores between 0 and 1.

    Items that score 0 or 1: Wilson's (Wilson, 1927), which never have zero width. Others: the bootstrap-t on a scale of
    stable variance (Efron and Tibshirani, 1993, sections 12.5 and 12.6), which here is arcsin(sqrt(mean)); means near
    0 or 1 need both. A resample's standard error counts as at least a quarter of the sample's (a deviation). Units of
    equal means: `_rule_of_three`.

    Args:
        sums: Scores summed by unit, shape (samples, units).
        sizes: Items in each unit, of the same shape.

    Returns:
        Lower and upper limits, shape (samples) each.
    """
    n, k = sizes.sum(axis=1), sums.shape[1]
    mean, error = _mean_and_error(sums, sizes)
    is_binary = ((sizes == 1) & ((sums == 0) | (sums == 1))).all(axis=1)
    wilson_low, wilson_high = _wilson(mean, k)
    if is_binary.all():
        return wilson_low, wilson_high
    inside = 1 / (4 * n)  # the transformation has no slope at 0 and 1

    def slope(means: Floats) -> Floats:
        bounded = np.clip(means, inside, 1 - inside)
        return 1 / (2 * np.sqrt(bounded * (1 - bounded)))

    def stable(means: Floats) -> Floats:
        return np.asarray(np.arcsin(np.sqrt(np.clip(means, inside, 1 - inside))))

    stable_error = np.where(error > 0, error * slope(mean), 1)
    studentised = np.empty((N_RESAMPLES, len(sums)))
    for rows, counts in _resamples(k):
        size = counts @ sizes.T
        means = counts @ sums.T / size
        squares = counts @ (sums**2).T - 2 * means * (counts @ (sums * sizes).T) + means**2 * (counts @ (sizes**2).T)
        errors = np.sqrt(np.maximum(squares, 0) * k / (k - 1)) / size * slope(means)
        studentised[rows] = (stable(means) - stable(mean)) / np.maximum(errors, _LEAST_ERROR * stable_error)
    t_low, t_high = np.quantile(studentised, (ALPHA / 2, 1 - ALPHA / 2), axis=0, overwrite_input=True)
    low, high = (
        np.sin(np.clip(stable(mean) - t * stable_error, 0, math.pi / 2)) ** 2 for t in (t_high, t_low)
    )  # fmt: skip
    few_low, few_high = _rule_of_three(mean, k, 0)
    low, high = np.where(error > 0, low, few_low), np.where(error > 0, high, few_high)
    return np.where(is_binary, wilson_low, low), np.where(is_binary, wilson_high, high)


def difference_limits(sums: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """95% limits of means of paired differences between -1 and 1.

    The paired bootstrap, clustered where units are tasks: mean -+ t s, with s the standard deviation of the means of
    the resamples, enlarged by sqrt(k / (k - 1)) for k units, and t the 97.5% quantile of Student's t with k - 1 degrees
    of freedom (Hesterberg, 2015, section 4.3). Equal differences: `_rule_of_three`.

    Args:
        sums: Differences summed by unit, shape (samples, units).
        sizes: Items in each unit, of the same shape.

    Returns:
        Lower and upper limits, shape (samples) each.
    """
    k = sums.shape[1]
    mean, error = _mean_and_error(sums, sizes)
    means = np.empty((N_RESAMPLES, len(sums)))
    for rows, counts in _resamples(k):
        means[rows] = counts @ sums.T / (counts @ sizes.T)
    half = t_quantile(k - 1) * means.std(axis=0) * math.sqrt(k / (k - 1))
    few_low, few_high = _rule_of_three(mean, k, -1)
    low, high = np.maximum(mean - half, -1), np.minimum(mean + half, 1)
    return np.where(error > 0, low, few_low), np.where(error > 0, high, few_high)


def _mean_and_error(sums: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Means over all items, and their standard errors by unit, shape (samples) each.

    The mean is a ratio of two sums, as tasks may have unequal numbers of items; its error is the linearised one
    (Cochran, 1977, section 2.11), sqrt(k / (k - 1) sum((sum_u - mean size_u)^2)) / n. For items it is sd / sqrt(n).
    """
    n, k = sizes.sum(axis=1), sums.shape[1]
    mean = sums.sum(axis=1) / n
    residuals = sums - mean[:, None] * sizes
    # Sums of equal numbers differ in the last bits; that is no variation.
    residuals[np.abs(residuals) < 1e-12 * sizes] = 0
    return mean, np.sqrt((residuals**2).sum(axis=1) * k / (k - 1)) / n


def _rule_of_three(mean: Floats, k: int, least: float) -> tuple[Floats, Floats]:
    """Of what none of k units showed there may still be a share of 3 / k (Hanley and Lippman-Hand, 1983)."""
    return np.maximum(least, mean - 3 / k), np.minimum(1.0, mean + 3 / k)


def _wilson(share: Floats, n: int) -> tuple[Floats, Floats]:
    centre = (share + _Z_95**2 / (2 * n)) / (1 + _Z_95**2 / n)
    half = _Z_95 / (1 + _Z_95**2 / n) * np.sqrt(np.maximum(share * (1 - share), 0) / n + _Z_95**2 / (4 * n * n))
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)


def _resamples(k: int) -> Iterator[tuple[slice, Floats]]:
    """(Which of the resamples, how often each holds each of k units), shape (resamples, k), in blocks."""
    rng = np.random.default_rng(0)
    for rows in _blocks(k):
        n_rows = rows.stop - rows.start
        drawn = rng.integers(0, k, (n_rows, k)) + k * np.arange(n_rows)[:, None]
        yield rows, np.bincount(drawn.ravel(), minlength=n_rows * k).reshape(n_rows, k).astype(np.float64)


def _blocks(n: int) -> Iterator[slice]:
    """`N_RESAMPLES` rows of n values in parts of a bounded number of values."""
    step = max(1, _BLOCK // n)
    for start in range(0, N_RESAMPLES, step):
        yield slice(start, min(start + step, N_RESAMPLES))


def t_quantile(degrees: int) -> float:
    """97.5% quantile of Student's t: expansion 26.7.5 of Abramowitz and Stegun, within 0.1% from 4 degrees on."""
    z, v = _Z_95, degrees
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / v**power for power, term in enumerate(terms, start=1)))


def sign_flip_p(differences: Units) -> float:
    """Two-sided p-value of a paired sign-flip permutation test of a mean of zero (Fisher, 1935).

    Without an effect the difference of each unit is as likely with the other sign; of a task all items turn together.
    All sign patterns are tried where they are at most `N_RESAMPLES`, else as many random ones, counting the observed
    one too (Phipson and Smyth, 2010). For items that score 0 or 1 this is McNemar's exact test.
    """
    changed = differences.sums[differences.sums != 0]
    k = len(changed)
    # Sums in another order differ in the last bits; equal ones must count as equal.
    observed = abs(changed.sum()) * (1 - 1e-9)
    if 2**k <= N_RESAMPLES:
        return float((np.abs(_all_signs(k) @ changed) >= observed).mean())
    as_large = sum(
        int((np.abs(_random_signs(k, rows.start, rows.stop) @ changed) >= observed).sum()) for rows in _blocks(k)
    )
    return (as_large + 1) / (N_RESAMPLES + 1)


@lru_cache(maxsize=16)
def _all_signs(k: int) -> NDArray[np.int8]:
    patterns: NDArray[np.int8] = (1 - 2 * (np.arange(2**k)[:, None] >> np.arange(k) & 1)).astype(np.int8)
    return patterns


@lru_cache(maxsize=64)
def _random_signs(k: int, start: int, stop: int) -> NDArray[np.int8]:
    rng = np.random.default_rng([k, start])
    signs: NDArray[np.int8] = 1 - 2 * rng.integers(0, 2, (stop - start, k), dtype=np.int8)
    return signs


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several (Holm, 1979): below ALPHA, the chance of any false one is below ALPHA."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def verdict(delta: float, adjusted_p: float) -> Verdict:
    """What may be said of a difference, given its p-value adjusted for all those that are judged with it."""
    if adjusted_p >= ALPHA:
        return "no significant change"
    return "better" if delta > 0 else "worse"


def minimal_detectable_effect(differences: Units) -> float | None:
    """Smallest true difference that so many units would show as significant in 80% of cases, at alpha 5%.

    (1.96 + 0.84) standard errors of the mean difference (Cohen, 1988; the correction for several clusters comes on
    top). With few changed units, or none, that is far too small: a sign-flip test needs `MIN_CHANGED` changed units, so
    no mean below what so many would change it by (each by as much as those that did change; every item by 1 if nothing
    did) can be significant. The larger of the two counts.

    Returns:
        None where even a change of every unit could not be significant.
    """
    error = differences.standard_error
    if len(differences.sums) < MIN_CHANGED or error is None:
        return None
    return max((_Z_95 + _Z_POWER) * error, MIN_CHANGED * _change(differences) / differences.n)


def items_needed(differences: Units, effect: float) -> int | None:
    """Number of items whose `minimal_detectable_effect` would be the given one, if they differ as these do.

    Where units are tasks: that many in further tasks, each with as many items as these have.

    Returns:
        None with fewer than two units.
    """
    error = differences.standard_error
    if error is None:
        return None
    by_power = differences.n * ((_Z_95 + _Z_POWER) * error / effect) ** 2
    return math.ceil(max(by_power, MIN_CHANGED * _change(differences) / effect) - 1e-9)


def _change(differences: Units) -> float:
    """Mean size of the changes of those units that changed, summed over their items; the largest there is if none."""
    changed = differences.sums[differences.sums != 0]
    return float(np.abs(changed).mean()) if len(changed) else float(differences.sizes.mean())
