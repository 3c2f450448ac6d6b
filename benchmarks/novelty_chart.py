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
    return found


def draw(figures: dict[str, Any], out: Path) -> None:
    """Draw the figures that `novelty.py --out` wrote."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "novelty"  # the same figures give the same file
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for name, points in series(figures["costs"]).items():
        is_ours = name.startswith("this index")
        line = axes.plot(*zip(*points, strict=True), marker="o", linewidth=2.5 if is_ours else 1.2, label=name)[0]
        axes.annotate(name, points[-1], xytext=(8, 0), textcoords="offset points", va="center", fontsize=8,
                      color=line.get_color())  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="texts in the pool", ylabel="processor time for a candidate, µs")
    axes.set_xlim(right=axes.get_xlim()[1] * 6)  # room for the names
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
