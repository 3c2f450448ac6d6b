"""Geometry of the report's charts: from numbers to coordinates; the templates draw them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
WIDTH, HEIGHT = 480.0, 220.0
# Room for the labels of the axes.
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 12.0, 40.0
MAX_POINTS = 160


@dataclass(frozen=True, slots=True)
class LineChart:
    """A curve in a frame of WIDTH x HEIGHT, with ticks as (place, label) and marked points."""

    curve: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    marks: tuple[Point, ...]


def line_chart(points: Sequence[Point], marks: Sequence[Point] = ()) -> LineChart:
    """Place a curve and marks in their common frame; many points are averaged down to at most MAX_POINTS.

    Args:
        points: (x, y), at least one, x ascending.
        marks: Further points, drawn singly.
    """
    averaged = averages(points, MAX_POINTS)
    shown = [*averaged, *marks]
    xs, ys = [x for x, _ in shown], [y for _, y in shown]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6), ticks(min(ys), max(ys), 5)
    x_low, x_high = min(*xs, x_ticks[0]), max(*xs, x_ticks[-1])
    y_low, y_high = min(*ys, y_ticks[0]), max(*ys, y_ticks[-1])

    def x_place(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y_place(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    return LineChart(
        curve=tuple((x_place(x), y_place(y)) for x, y in averaged),
        x_ticks=tuple((x_place(tick), f"{tick:g}") for tick in x_ticks),
        y_ticks=tuple((y_place(tick), f"{tick:g}") for tick in y_ticks),
        marks=tuple((x_place(x), y_place(y)) for x, y in marks),
    )


def averages(points: Sequence[Point], most: int) -> list[Point]:
    """Means of neighbouring points, in equal groups, so that at most so many are left."""
    size = math.ceil(len(points) / most)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within or around [low, high], two at least.

    After Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990.
    """
    if high <= low:
        low, high = low - 0.5, low + 0.5
    rough = (high - low) / (most - 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def evenly(n: int, most: int) -> list[int]:
    """Indices below n, first and last among them, evenly spread, at most so many (2 or more)."""
    return list(range(n)) if n <= most else [index * (n - 1) // (most - 1) for index in range(most)]
