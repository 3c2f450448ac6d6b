"""Geometry of the report's charts: from numbers to coordinates; the templates draw them as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

Point = tuple[float, float]
MAX_POINTS = 160


@dataclass(frozen=True, slots=True)
class LineChart:
    """A curve, ticks as (place, label), and marked points, on a canvas of width x height.

    The axes run from left to right and from bottom to top; labels stand outside.
    """

    width: ClassVar[float] = 480
    height: ClassVar[float] = 220
    left: ClassVar[float] = 44
    right: ClassVar[float] = 468
    top: ClassVar[float] = 12
    bottom: ClassVar[float] = 180

    curve: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    marks: tuple[Point, ...]


def line_chart(points: Sequence[Point], marks: Sequence[Point] = ()) -> LineChart:
    """Place a curve and marks on common axes; many points are averaged down to at most MAX_POINTS.

    Args:
        points: (x, y), at least one, x ascending.
        marks: Further points, drawn singly.
    """
    averaged = averages(points, MAX_POINTS)
    shown = [*averaged, *marks]
    x_low, x_high = _range(x for x, _ in shown)
    y_ticks = ticks(*_range(y for _, y in shown), 5)

    def x_place(x: float) -> float:
        share = (x - x_low) / (x_high - x_low)
        return round(LineChart.left + share * (LineChart.right - LineChart.left), 1)

    def y_place(y: float) -> float:
        share = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(LineChart.bottom - share * (LineChart.bottom - LineChart.top), 1)

    return LineChart(
        curve=tuple((x_place(x), y_place(y)) for x, y in averaged),
        x_ticks=tuple((x_place(tick), f"{tick:g}") for tick in ticks(x_low, x_high, 6) if x_low <= tick <= x_high),
        y_ticks=tuple((y_place(tick), f"{tick:g}") for tick in y_ticks),
        marks=tuple((x_place(x), y_place(y)) for x, y in marks),
    )


def averages(points: Sequence[Point], most: int) -> list[Point]:
    """Means of neighbouring points, in equal groups, so that at most so many are left."""
    size = math.ceil(len(points) / most)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _range(values: Iterable[float]) -> tuple[float, float]:
    """Least and largest; a single value gets room around it."""
    listed = list(values)
    low, high = min(listed), max(listed)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, the first at or below low, the last at or above high.

    After Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990.

    Args:
        low: Start of the range.
        high: Its end, above low.
        most: Numbers that would span the range exactly; rounding outwards may add one.
    """
    rough = (high - low) / (most - 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]
