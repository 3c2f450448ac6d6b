"""Draws what a candidate costs against the size of the pool, for all contenders, from the raw figures of `novelty.py`.

The result is an SVG file without a background, legible on light and dark pages.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

GREY = "#888888"


def series(costs: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """(Texts in the pool, microseconds of processor time a candidate) of each contender."""
    found = defaultdict(list)
    for cost in costs:
        found[cost["contender"]].append((cost["n_pool"], 1e6 * cost["time"]["cpu_s"]))
    return {_label(costs, name): points for name, points in found.items()}


def _label(costs: list[dict[str, Any]], name: str) -> str:
    last = [cost for cost in costs if cost["contender"] == name][-1]  # in the largest pool
    is_exact = last["recall"] is None
    return name if is_exact else f"{name}: precision {last['precision']:.2f}, recall {last['recall']:.2f}"


def apart(values: list[float], factor: float) -> list[float]:
    """Places for labels of ascending values, each at least so many times the one before."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] * factor) if places else value)
    return places


def draw(figures: dict[str, Any], out: Path) -> None:
    """Draw the figures that `novelty.py --out` wrote."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "novelty"  # the same figures give the same file
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    lines = sorted(series(figures["costs"]).items(), key=lambda line: line[1][-1][1])
    places = apart([points[-1][1] for _, points in lines], 1.8)
    for (name, points), place in zip(lines, places, strict=True):
        width = 2.5 if name.startswith("this index") else 1.2
        color = axes.plot(*zip(*points, strict=True), marker="o", linewidth=width)[0].get_color()
        axes.annotate(name, (points[-1][0] * 1.3, place), va="center", fontsize=8, color=color)
    axes.set(xscale="log", yscale="log", xlabel="texts in the pool", ylabel="processor time for a candidate, µs")
    axes.set_xlim(right=axes.get_xlim()[1] * 20)  # room for the names
    axes.grid(color=GREY, alpha=0.3)
    axes.tick_params(colors=GREY, which="both")
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(GREY)
    axes.spines[:].set_color(GREY)
    figure.savefig(out, transparent=True, metadata={"Date": None})


def main() -> None:
    """Draw a picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path, help="JSON file of benchmarks.novelty --out")
    parser.add_argument("out", type=Path, help="SVG file to write")
    given = parser.parse_args()
    draw(json.loads(given.figures.read_text()), given.out)


if __name__ == "__main__":
    main()
