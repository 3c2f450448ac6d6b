import itertools
import math

import numpy as np
import pytest

from benchmarks import statistics_simulation as simulation
from finetune import statistics as st
from finetune.statistics import Units


def test_wilson_interval_of_a_known_share():
    # 81 of 263: an example worked out by Newcombe (1998), method 3: 0.2553 to 0.3662.
    low, high = st.mean_interval(Units.of([1] * 81 + [0] * 182))
    assert (low, high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))


@pytest.mark.parametrize("scores", [[0.0] * 16, [1.0] * 16, [0.5] * 16])
def test_no_interval_of_several_equal_scores_is_without_width(scores):
    low, high = st.mean_interval(Units.of(scores))
    assert 0 <= low < high <= 1
    assert low <= scores[0] <= high


def test_one_score_has_no_interval():
    assert st.mean_interval(Units.of([1.0])) is None
    assert st.difference_interval(Units.of([0.3])) is None


@pytest.mark.parametrize(("degrees", "quantile"), [(4, 2.7764), (10, 2.2281), (30, 2.0423), (1000, 1.9623)])
def test_t_quantile(degrees, quantile):
    assert st.t_quantile(degrees) == pytest.approx(quantile, rel=1e-3)


@pytest.mark.parametrize("n", [12, 34])
def test_intervals_cover_the_mean_about_95_times_in_100(n):
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        low, high = st.mean_interval(Units.of(rng.beta(0.6, 1.4, n)))
        covered += low <= 0.3 <= high
    assert 0.9 <= covered / 200 <= 0.99


@pytest.mark.parametrize("differences", [[1, 1, 1, 1, 1, -1, 0, 0], [0.2, -0.1, 0.4, 0.3], [1, 1, 1, 1, 1, 1]])
def test_sign_flip_p_is_the_share_of_sign_patterns_as_extreme(differences):
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in patterns]
    expected = sum(total >= sums[0] - 1e-12 for total in sums) / len(patterns)
    assert st.sign_flip_p(Units.of(differences)) == pytest.approx(expected, abs=1e-12)


def test_sampled_sign_flip_p_is_near_the_binomial_one():
    up, down = 20, 8
    exact = 2 * sum(math.comb(28, k) for k in range(down + 1)) / 2**28
    assert st.sign_flip_p(Units.of([1] * up + [-1] * down + [0] * 40)) == pytest.approx(exact, abs=0.005)
    assert 0 < st.sign_flip_p(Units.of([1] * 40)) <= 1 / st.N_RESAMPLES


def test_no_change_has_p_one():
    assert st.sign_flip_p(Units.of([0, 0, 0])) == 1
    assert st.sign_flip_p(Units.of([])) == 1


def test_holm_by_hand():
    assert st.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert st.holm([0.9, 0.8]) == [1, 1]
    assert st.holm([]) == []


def test_verdicts():
    assert st.verdict(0.2, 0.049) == "better"
    assert st.verdict(-0.2, 0.049) == "worse"
    assert st.verdict(0.2, 0.05) == "no significant change"


def test_minimal_detectable_effect_is_that_of_the_paired_differences():
    differences = np.tile([0.3, -0.1, 0.2, -0.2], 25)
    expected = 2.8016 * differences.std(ddof=1) / math.sqrt(100)
    assert st.minimal_detectable_effect(Units.of(differences)) == pytest.approx(expected, rel=1e-4)
    assert st.items_needed(Units.of(differences), expected) in (100, 101)


def test_minimal_detectable_effect_when_nothing_or_little_changed():
    # Six of n items must change in one direction before p is below 0.05.
    assert st.minimal_detectable_effect(Units.of([0] * 34)) == pytest.approx(6 / 34)
    assert st.minimal_detectable_effect(Units.of([1] + [0] * 33)) == pytest.approx(6 / 34)
    assert st.sign_flip_p(Units.of([1] * 5 + [0] * 29)) > 0.05 > st.sign_flip_p(Units.of([1] * 6 + [0] * 28))
    assert st.minimal_detectable_effect(Units.of([1] * 5)) is None
    assert st.items_needed(Units.of([0] * 34), 0.05) == 120
    assert st.items_needed(Units.of([1]), 0.05) is None


def test_the_minimal_detectable_effect_is_detected_about_four_times_in_five():
    rng = np.random.default_rng(5)
    effect = st.minimal_detectable_effect(Units.of(rng.normal(0, 0.3, 4000)[:30]))
    found = sum(st.sign_flip_p(Units.of(rng.normal(effect, 0.3, 30))) < 0.05 for _ in range(150))
    assert 0.65 <= found / 150 <= 0.95


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_without_an_effect_any_false_verdict_comes_in_at_most_5_of_100_comparisons(kind):
    rng = np.random.default_rng(11)
    sizes = (16, 18, 20, 24, 28, 30, 34, 34)
    n_experiments, n_false, n_false_better = 300, 0, 0
    for _ in range(n_experiments):
        differences = [_null_differences(rng, n, kind) for n in sizes]
        adjusted = st.holm([st.sign_flip_p(Units.of(d)) for d in differences])
        verdicts = [st.verdict(float(d.mean()), p) for d, p in zip(differences, adjusted, strict=True)]
        n_false += any(v != "no significant change" for v in verdicts)
        n_false_better += "better" in verdicts
    assert n_false_better / n_experiments <= 0.05
    assert n_false / n_experiments <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / n_experiments)


def _null_differences(rng, n, kind):
    """Scores of two models that are equally good on each item, but answer it independently."""
    if kind == "binary":
        chance = rng.uniform(0.2, 0.8, n)
        return (rng.random(n) < chance).astype(float) - (rng.random(n) < chance)
    ability = rng.uniform(0.3, 3, n)
    return rng.beta(ability, 2) - rng.beta(ability, 2)


def test_a_large_effect_is_found():
    rng = np.random.default_rng(1)
    differences = (rng.random(34) < 0.9).astype(float) - (rng.random(34) < 0.4)
    p_values = [st.sign_flip_p(Units.of(differences)), *[1.0] * 7]
    assert st.verdict(float(differences.mean()), st.holm(p_values)[0]) == "better"


# -- tasks -------------------------------------------------------------------------------------------------------------


def clustered(n_tasks, n_items=5, seed=0):
    """Values of tasks that differ much, and the task of each."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-0.4, 0.4, (n_tasks, 1)) + rng.uniform(-0.1, 0.1, (n_tasks, n_items))
    return values.ravel(), [f"t{i}" for i in range(n_tasks) for _ in range(n_items)]


@pytest.mark.parametrize(("n_tasks", "unit", "n_units"), [(19, "item", 95), (20, "task", 20)])
def test_the_unit_is_the_task_from_twenty_tasks_on(n_tasks, unit, n_units):
    units = Units.of(*clustered(n_tasks))
    assert (units.unit, len(units.sums), units.n) == (unit, n_units, 5 * n_tasks)
    assert units.mean == pytest.approx(clustered(n_tasks)[0].mean())


def test_the_standard_error_of_equal_tasks_is_that_of_their_means():
    values, tasks = clustered(25)
    means = values.reshape(25, 5).mean(axis=1)
    assert Units.of(values, tasks).standard_error == pytest.approx(means.std(ddof=1) / 5)
    assert Units.of(values).standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(125))


def test_tasks_that_differ_make_intervals_tests_and_power_honest():
    values, tasks = clustered(25, seed=1)
    by_item, by_task = Units.of(values), Units.of(values, tasks)
    (low, high), (wide_low, wide_high) = map(st.difference_interval, (by_item, by_task))
    assert wide_low < low < values.mean() < high < wide_high
    assert st.sign_flip_p(by_task) > st.sign_flip_p(by_item)
    assert st.minimal_detectable_effect(by_task) > 1.5 * st.minimal_detectable_effect(by_item)


def test_the_signs_of_a_tasks_items_turn_together():
    # Six changed tasks of two items each, all up: 2 of 64 patterns are as extreme; of items it would be 2 of 4096.
    values, tasks = [0.5] * 12 + [0.0] * 28, [f"t{i // 2}" for i in range(40)]
    assert st.sign_flip_p(Units.of(values, tasks)) == pytest.approx(2 / 64)
    assert st.sign_flip_p(Units.of(values)) == pytest.approx(2 / 4096)
    assert st.minimal_detectable_effect(Units.of(values, tasks)) >= 6 * 1.0 / 40


def test_intervals_of_many_samples_at_once_are_those_of_each():
    rng = np.random.default_rng(2)
    sums, sizes = rng.uniform(0, 3, (3, 24)), np.full((3, 24), 3.0)
    for limits, alone in ((st.mean_limits, st.mean_interval), (st.difference_limits, st.difference_interval)):
        low, high = limits(sums, sizes)
        for number in range(3):
            assert alone(Units(sums[number], sizes[number], "task")) == pytest.approx((low[number], high[number]))


def test_a_single_odd_score_does_not_make_everything_possible():
    low, high = st.mean_interval(Units.of([0.0] * 19 + [0.5]))
    assert 0 <= low < 0.025 < high < 0.3


@pytest.mark.parametrize("scores", simulation.KINDS)
@pytest.mark.parametrize(
    "design", [{"units": 30}, {"units": 24, "size": 5, "correlation": 0.4}], ids=["items", "tasks"]
)
def test_intervals_cover_in_a_quick_simulation(scores, design):
    one = simulation.Design(scores, **design)
    for coverage in (
        simulation.mean_coverage(one, 0.3, 250, seed=1),
        simulation.difference_coverage(one, 0.1, 250, seed=1),
    ):
        # Four standard errors of a share of 95% in 250.
        assert abs(coverage.covered - 0.95) < 0.055, coverage


@pytest.mark.parametrize("scores", simulation.KINDS)
def test_false_betters_are_few_in_a_quick_simulation(scores):
    wrong = simulation.false_verdicts(simulation.Design(scores, 30), 12, 150, seed=3)
    assert wrong.better <= 0.05
    assert wrong.any <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 150)


def test_the_simulation_notices_intervals_that_ignore_the_tasks():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        sums, sizes = simulation.Design("0 or 1", 24, 10, 0.5).drawn(rng, np.array([0.4]))
        items = [float(i < s) for s, n in zip(sums[0], sizes[0], strict=True) for i in range(int(n))]
        low, high = st.mean_interval(Units.of(items))
        held += low <= 0.4 <= high
    assert held < 80
