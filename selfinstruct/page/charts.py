"""Geometry of the report's charts: from numbers to coordinates; the templates draw them as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

Point = tuple[float, float]
MAX_POINTS = 160
# Rings of figure 3 of Wang et al., 2023, "Self-Instruct": the twenty commonest root verbs, four objects of each.
N_VERBS, N_OBJECTS = 20, 4


class Canvas:
    """What charts are drawn on, width x height; axes run from left to right and from bottom to top, labels outside."""

    __slots__ = ()
    width: ClassVar[float] = 400
    height: ClassVar[float] = 210
    left: ClassVar[float] = 50
    right: ClassVar[float] = 390
    top: ClassVar[float] = 10
    bottom: ClassVar[float] = 170

    @classmethod
    def across(cls, share: float) -> float:
        """The place of a share of the horizontal axis."""
        return round(cls.left + share * (cls.right - cls.left), 1)

    @classmethod
    def up(cls, share: float) -> float:
        """The place of a share of the vertical axis."""
        return round(cls.bottom - share * (cls.bottom - cls.top), 1)


# -- lines -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LineChart(Canvas):
    """A curve, ticks as (place, label), and marked points."""

    curve: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    marks: tuple[Point, ...]


def line_chart(points: Sequence[Point], marks: Sequence[Point] = (), *, from_zero: bool = False) -> LineChart:
    """Place a curve and marks on common axes; many points are averaged down to at most MAX_POINTS.

    Args:
        points: (x, y), at least one, x ascending.
        marks: Further points, drawn singly.
        from_zero: Whether the vertical axis begins at 0.
    """
    averaged = averages(points, MAX_POINTS)
    shown = [*averaged, *marks]
    x_low, x_high = _range(x for x, _ in shown)
    y_ticks = ticks(*_range([*(y for _, y in shown), *([0.0] if from_zero else [])]), 5)

    def x_place(x: float) -> float:
        return Canvas.across((x - x_low) / (x_high - x_low))

    def y_place(y: float) -> float:
        return Canvas.up((y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]))

    return LineChart(
        curve=tuple((x_place(x), y_place(y)) for x, y in averaged),
        x_ticks=tuple((x_place(tick), short(tick)) for tick in ticks(x_low, x_high, 6) if x_low <= tick <= x_high),
        y_ticks=tuple((y_place(tick), short(tick)) for tick in y_ticks),
        marks=tuple((x_place(x), y_place(y)) for x, y in marks),
    )


def short(number: float) -> str:
    """A round number in a few characters: 1500 is "1.5k", 0.00015 is "1.5e-4"."""
    if 0 < abs(number) < 0.001:
        exponent = math.floor(math.log10(abs(number)) + 1e-9)
        return f"{number / 10.0**exponent:.3g}e{exponent}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


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


# -- histograms --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its place, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    n: int
    share: float


@dataclass(frozen=True, slots=True)
class Histogram(Canvas):
    """Bars of one or two sets side by side in each bin, by share of the set.

    Attributes:
        labels: (place, label) below the axis: of the bins, or of the borders between them.
        sets: Name of each set to its bars, one for each bin.
        rule: Place of a vertical line, if there is one.
    """

    bins: tuple[str, ...]
    labels: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    sets: Mapping[str, tuple[Bar, ...]]
    rule: float | None = None


def histogram(
    bins: Sequence[str],
    counts: Mapping[str, Sequence[int]],
    *,
    labels: Sequence[str] = (),
    borders: Sequence[str] = (),
    rule: float | None = None,
) -> Histogram:
    """Place the bars of several sets, as shares of their sums, so that sets of different sizes compare.

    Args:
        bins: Names of the bins.
        counts: Name of a set to a number for each bin; sets without any are left out.
        labels: Short names of the bins, for the axis.
        borders: Instead of them, names of the bins' borders, one more than bins.
        rule: Where a vertical line is wanted, in bins from the left.
    """
    shown = {name: numbers for name, numbers in counts.items() if sum(numbers)}
    shares = {name: [n / sum(numbers) for n in numbers] for name, numbers in shown.items()}
    y_ticks = ticks(0.0, max((share for values in shares.values() for share in values), default=1.0), 5)
    step = (Histogram.right - Histogram.left) / len(bins)
    gap = step * 0.12
    width = (step - 2 * gap) / max(1, len(shown))

    def bar(order: int, index: int, n: int, share: float) -> Bar:
        height = share / y_ticks[-1] * (Histogram.bottom - Histogram.top)
        x = Histogram.left + index * step + gap + order * width
        return Bar(round(x, 1), round(Histogram.bottom - height, 1), round(width, 1), round(height, 1), n, share)

    names = borders or labels or bins
    places = [Histogram.left + (index + (0 if borders else 0.5)) * step for index in range(len(names))]
    return Histogram(
        bins=tuple(bins),
        labels=tuple((round(place, 1), label) for place, label in zip(places, names, strict=True)),
        y_ticks=tuple((Canvas.up(tick / y_ticks[-1]), f"{100 * tick:g}%") for tick in y_ticks),
        sets={
            name: tuple(
                bar(order, index, n, share)
                for index, (n, share) in enumerate(zip(shown[name], shares[name], strict=True))
            )
            for order, name in enumerate(shown)
        },
        rule=None if rule is None else round(Histogram.left + rule * step, 1),
    )


# -- sunburst ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a ring.

    Attributes:
        path: Of its outline, for SVG.
        label: "" where it does not fit.
        x, y, turn: Middle of the label, and degrees by which it is turned.
        hue: Number of the verb that it belongs to.
    """

    name: str
    n: int
    path: str
    label: str
    x: float
    y: float
    turn: float
    hue: int


@dataclass(frozen=True, slots=True)
class Sunburst:
    """Two rings around the middle of a square canvas: verbs within, their objects without.

    Attributes:
        verbs: (verb, number of texts with it, its commonest objects with theirs), the commonest first.
        n: Number of texts with one of these verbs.
    """

    size: ClassVar[float] = 640
    radii: ClassVar[tuple[float, float, float]] = (84, 192, 312)

    verbs: tuple[tuple[str, int, tuple[tuple[str, int], ...]], ...]
    inner: tuple[Segment, ...]
    outer: tuple[Segment, ...]
    n: int


def sunburst(pairs: Mapping[tuple[str, str], int]) -> Sunburst | None:
    """Place the commonest verbs, by how often they occur with any object, and the commonest objects of each.

    An object's arc lies within its verb's; what is left of that stands for rarer objects.

    Args:
        pairs: How often each (verb, object) occurs.

    Returns:
        None where there is no pair.
    """
    objects: dict[str, list[tuple[str, int]]] = {}
    for (verb, noun), n in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
        objects.setdefault(verb, []).append((noun, n))
    totals = {verb: sum(n for _, n in nouns) for verb, nouns in objects.items()}
    verbs = sorted(totals, key=lambda verb: (-totals[verb], verb))[:N_VERBS]
    whole = sum(totals[verb] for verb in verbs)
    if not whole:
        return None
    inner, outer = [], []
    begin = 0.0
    for hue, verb in enumerate(verbs):
        inner.append(_segment(verb, totals[verb], begin / whole, 0, hue, whole))
        at = begin
        for noun, n in objects[verb][:N_OBJECTS]:
            outer.append(_segment(noun, n, at / whole, 1, hue, whole))
            at += n
        begin += totals[verb]
    listed = tuple((verb, totals[verb], tuple(objects[verb][:N_OBJECTS])) for verb in verbs)
    return Sunburst(listed, tuple(inner), tuple(outer), whole)


def _segment(name: str, n: int, begin: float, ring: int, hue: int, whole: int) -> Segment:
    """A segment of a ring; `begin` is a share of the circle, clockwise from the top."""
    share = n / whole
    low, high = Sunburst.radii[ring : ring + 2]
    middle = (begin + share / 2) * 360
    x, y = _on_circle((low + high) / 2, begin + share / 2)
    # Text runs along the radius and is never upside down.
    turn = middle - 90 if middle <= 180 else middle + 90
    # A line of text is about 14 high, and a letter half of that wide.
    fits = share * 2 * math.pi * (low + high) / 2 >= 14
    room = int((high - low - 8) / 7)
    label = (name if len(name) <= room else f"{name[: room - 1]}…") if fits else ""
    return Segment(name, n, _ring_path(low, high, begin, begin + share), label, x, y, round(turn, 1), hue)


def _ring_path(low: float, high: float, begin: float, end: float) -> str:
    # An arc of a whole circle would have no length, so that it gets a hair less.
    end = min(end, begin + 0.9999)
    far = int(end - begin > 0.5)
    (ax, ay), (bx, by) = _on_circle(high, begin), _on_circle(high, end)
    (cx, cy), (dx, dy) = _on_circle(low, end), _on_circle(low, begin)
    return f"M{ax} {ay}A{high} {high} 0 {far} 1 {bx} {by}L{cx} {cy}A{low} {low} 0 {far} 0 {dx} {dy}Z"


def _on_circle(radius: float, share: float) -> Point:
    angle = 2 * math.pi * share
    middle = Sunburst.size / 2
    return round(middle + radius * math.sin(angle), 1), round(middle - radius * math.cos(angle), 1)
