import pytest

from selfinstruct.charts import MAX_POINTS, LineChart, averages, line_chart, ticks


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
    assert chart.curve == ((256.0, 96.0),)


def test_averages_keep_the_mean():
    points = [(float(i), float(i % 7)) for i in range(700)]
    averaged = averages(points, 100)
    assert len(averaged) == 100
    assert all(y == 3 for _, y in averaged)
