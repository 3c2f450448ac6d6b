"""Intervals, paired tests and power for scores of a few dozen items; pure functions, random draws seeded.

All say how much would change with other items of the same tasks; none says anything about other tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]
Verdict = Literal["better", "worse", "no significant change"]

ALPHA = 0.05
N_RESAMPLES = 10_000
# A sign-flip test of k changed items has no p-value below 2 / 2^k, which first passes under ALPHA at k = 6.
MIN_CHANGED = math.ceil(math.log2(2 / ALPHA))
_NORMAL = NormalDist()
_Z_95 = _NORMAL.inv_cdf(1 - ALPHA / 2)
_Z_POWER = _NORMAL.inv_cdf(0.8)
_BLOCK = 2_000_000


def mean_interval(scores: ArrayLike) -> Interval | None:
    """95% interval of a mean of scores between 0 and 1.

    Scores that are all 0 or 1: Wilson's interval (Wilson, 1927), which never has zero width. Others: the expanded
    percentile bootstrap of `bootstrap_interval`.

    Args:
        scores: Shape (n,).

    Returns:
        None with fewer than two scores.
    """
    values = np.asarray(scores, dtype=float)
    if len(values) < 2:
        return None
    if np.isin(values, (0, 1)).all():
        return _wilson(values)
    low, high = bootstrap_interval(values) or (0.0, 1.0)
    return max(0.0, low), high


def _wilson(values: NDArray[np.float64]) -> Interval:
    n, share = len(values), float(values.mean())
    centre = (share + _Z_95**2 / (2 * n)) / (1 + _Z_95**2 / n)
    half = _Z_95 / (1 + _Z_95**2 / n) * math.sqrt(share * (1 - share) / n + _Z_95**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(values: ArrayLike, seed: int = 0) -> Interval | None:
    """95% interval of a mean: expanded percentile bootstrap (Hesterberg, 2015).

    Plain percentile intervals are too narrow for few values. Here the tail is not 2.5% but
    Phi(-sqrt(n / (n - 1)) t), t the 97.5% quantile of Student's t with n - 1 degrees of freedom. Of paired
    differences this is the paired bootstrap. Equal values would give an interval without width; for them it reaches
    3 / n to either side, since of what none of n showed there may still be a share of 3 / n (the rule of three,
    Hanley and Lippman-Hand, 1983).

    Args:
        values: Shape (n,), -1 to 1.
        seed: Of the resampling.

    Returns:
        None with fewer than two values.
    """
    sample = np.asarray(values, dtype=float)
    n = len(sample)
    if n < 2:
        return None
    if (sample == sample[0]).all():
        return max(-1.0, float(sample[0]) - 3 / n), min(1.0, float(sample[0]) + 3 / n)
    rng = np.random.default_rng(seed)
    means = np.concatenate([sample[rng.integers(0, n, (rows, n))].mean(axis=1) for rows in _blocks(n)])
    tail = _NORMAL.cdf(-math.sqrt(n / (n - 1)) * t_quantile(n - 1))
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


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


def sign_flip_p(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p-value of a paired sign-flip permutation test of a mean of zero (Fisher, 1935).

    Without an effect each difference is as likely with the other sign. All sign patterns are tried where they are at
    most `N_RESAMPLES`, else as many random ones, counting the observed one too (Phipson and Smyth, 2010). For scores
    of 0 and 1 this is McNemar's exact test.

    Args:
        differences: Shape (n,); zeros do not matter.
        seed: Of the random patterns.
    """
    values = np.asarray(differences, dtype=float)
    changed = values[values != 0]
    k = len(changed)
    # Sums in another order differ in the last bits; equal ones must count as equal.
    observed = abs(changed.sum()) * (1 - 1e-9)
    if 2**k <= N_RESAMPLES:
        patterns = 1 - 2 * (np.arange(2**k)[:, None] >> np.arange(k) & 1)
        return float((np.abs(patterns @ changed) >= observed).mean())
    rng = np.random.default_rng(seed)
    as_large = sum(
        int((np.abs((1 - 2 * rng.integers(0, 2, (rows, k), dtype=np.int8)) @ changed) >= observed).sum())
        for rows in _blocks(k)
    )
    return (as_large + 1) / (N_RESAMPLES + 1)


def _blocks(n: int) -> Iterator[int]:
    """Numbers of rows that sum to `N_RESAMPLES`, each with a bounded number of values."""
    done = 0
    while done < N_RESAMPLES:
        rows = min(max(1, _BLOCK // n), N_RESAMPLES - done)
        yield rows
        done += rows


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


def minimal_detectable_effect(differences: ArrayLike) -> float | None:
    """Smallest true difference that so many items would show as significant in 80% of cases, at alpha 5%.

    (1.96 + 0.84) sd / sqrt(n) with the standard deviation of the paired differences (Cohen, 1988; the correction for
    several clusters comes on top). With few changed items, or none, that is far too small: a sign-flip test needs
    `MIN_CHANGED` changed items, so no mean below MIN_CHANGED / n times the mean size of a change (1 if nothing
    changed) can be significant. The larger of the two counts.

    Args:
        differences: Shape (n,).

    Returns:
        None where even a change of every item could not be significant.
    """
    values = np.asarray(differences, dtype=float)
    n = len(values)
    if n < MIN_CHANGED:
        return None
    return max((_Z_95 + _Z_POWER) * float(values.std(ddof=1)) / math.sqrt(n), MIN_CHANGED / n * _size(values))


def items_needed(differences: ArrayLike, effect: float) -> int | None:
    """Number of items whose `minimal_detectable_effect` would be the given one, if they differ as these do.

    Returns:
        None with fewer than two differences.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return None
    by_power = ((_Z_95 + _Z_POWER) * float(values.std(ddof=1)) / effect) ** 2
    return math.ceil(max(by_power, MIN_CHANGED * _size(values) / effect) - 1e-9)


def _size(differences: NDArray[np.float64]) -> float:
    """Mean size of the changes; 1, the largest there is, when nothing changed."""
    changed = differences[differences != 0]
    return float(np.abs(changed).mean()) if len(changed) else 1.0
