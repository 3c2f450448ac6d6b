import math

import pytest

from selfinstruct.page.charts import (
    MAX_POINTS,
    N_OBJECTS,
    N_VERBS,
    Histogram,
    LineChart,
    Sunburst,
    averages,
    histogram,
    line_chart,
    short,
    sunburst,
    ticks,
)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 50, 100]),
        (1.02, 2.21, [1.0, 1.5, 2.0, 2.5]),
        (-0.013, 0.031, [-0.02, 0.0, 0.02, 0.04]),
        (12_000, 31_000, [10_000, 20_000, 30_000, 40_000]),
    ],
)
def test_ticks_are_round_and_enclose_the_range(low, high, expected):
    assert ticks(low, high, 4) == pytest.approx(expected)


def test_chart_keeps_within_its_axes():
    chart = line_chart([(float(step), 3 - step / 500) for step in range(1, 1001)], [(0.0, 3.5), (1000.0, 0.8)])
    assert len(chart.curve) <= MAX_POINTS
    for x, y in (*chart.curve, *chart.marks):
        assert LineChart.left <= x <= LineChart.right
        assert LineChart.top <= y <= LineChart.bottom
    assert chart.marks[0][0] == LineChart.left
    assert chart.marks[1] == (LineChart.right, max(y for _, y in (*chart.curve, *chart.marks)))


def test_single_point_is_drawn():
    chart = line_chart([(5.0, 2.0)])
    assert chart.curve == ((220.0, 90.0),)


def test_axis_may_begin_at_zero():
    chart = line_chart([(0.0, 5.0), (1.0, 6.0)], from_zero=True)
    assert chart.y_ticks[0] == (LineChart.bottom, "0")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (1500, "1.5k"),
        (2_000_000, "2M"),
        (0.00015, "1.5e-4"),
        (0.0002, "2e-4"),
        (-1e-5, "-1e-5"),
    ],
)
def test_numbers_on_axes_are_short(number, text):
    assert short(number) == text


def test_bars_are_shares_of_their_set():
    chart = histogram(["a", "b"], {"few": [1, 1], "many": [30, 10], "none": [0, 0]}, rule=1.5)
    assert list(chart.sets) == ["few", "many"]
    assert [bar.share for bar in chart.sets["many"]] == [0.75, 0.25]
    heights = {name: [bar.height for bar in bars] for name, bars in chart.sets.items()}
    assert heights["few"][0] == pytest.approx(heights["many"][0] * 2 / 3, abs=0.1)
    places = [bar.x for index in range(2) for bars in chart.sets.values() for bar in [bars[index]]]
    assert places == sorted(places)
    assert chart.rule == (Histogram.left + 1.5 * (Histogram.right - Histogram.left) / 2)
    assert [label for _, label in chart.labels] == ["a", "b"]


def test_borders_of_bins_are_labelled_where_they_are():
    chart = histogram(["low", "high"], {"set": [1, 3]}, borders=["0", "1", "2"])
    assert chart.labels == ((Histogram.left, "0"), (220.0, "1"), (Histogram.right, "2"))


def test_sunburst_has_the_commonest_verbs_and_their_commonest_objects():
    pairs = {(f"verb{v}", f"noun{n}"): 100 - v - 10 * n for v in range(30) for n in range(6)}
    burst = sunburst(pairs)
    assert [verb for verb, _, _ in burst.verbs] == [f"verb{v}" for v in range(N_VERBS)]
    assert burst.verbs[0] == (
        "verb0",
        100 + 90 + 80 + 70 + 60 + 50,
        tuple((f"noun{n}", 100 - 10 * n) for n in range(4)),
    )
    assert (len(burst.inner), len(burst.outer)) == (N_VERBS, N_VERBS * N_OBJECTS)
    assert burst.n == sum(n for _, n, _ in burst.verbs)
    # An object lies within its verb, and a ring goes round once.
    angles = [angle(segment) for segment in burst.inner]
    assert angles == sorted(angles)
    for verb, first in zip(burst.inner, burst.outer[::N_OBJECTS], strict=True):
        assert verb.hue == first.hue
        assert abs(angle(verb) - angle(first)) < 10


def angle(segment):
    """Of a segment's middle, in degrees clockwise from the top."""
    x, y = segment.x - Sunburst.size / 2, Sunburst.size / 2 - segment.y
    return math.degrees(math.atan2(x, y)) % 360


def test_one_verb_goes_all_the_way_round():
    burst = sunburst({("name", "river"): 3})
    assert (burst.inner[0].label, burst.outer[0].label) == ("name", "river")
    assert "1 1" in burst.inner[0].path  # the larger of the two arcs
    assert sunburst({}) is None


def test_averages_keep_the_mean():
    points = [(float(i), float(i % 7)) for i in range(700)]
    averaged = averages(points, 100)
    assert len(averaged) == 100
    assert all(y == 3 for _, y in averaged)
