"""`finetune compare`: what got better or worse between evaluations of the same items, and what cannot be told."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import Field

from finetune.predictions import Prediction, grouped, metric_of, read_predictions
from finetune.statistics import (
    ALPHA,
    MIN_CHANGED,
    Interval,
    Verdict,
    bootstrap_interval,
    holm,
    items_needed,
    minimal_detectable_effect,
    sign_flip_p,
    verdict,
)
from selfinstruct.command import Config, table
from selfinstruct.errors import InputError
from selfinstruct.files import refuse_to_replace, write_json

logger = logging.getLogger(__name__)

# The difference whose cost in items is told: five points of a hundred.
NOTABLE_EFFECT = 0.05


class CompareConfig(Config):
    """Which evaluations to compare."""

    base: Path = Field(description="Evaluation that the others are compared with.")
    tuned: list[Path] = Field(min_length=1, description="Evaluations of the same items, each compared with the first.")
    out: Path | None = Field(None, description="File for the comparison as JSON.")
    overwrite: bool = Field(False, description="Replace --out if it exists.")


@dataclass(frozen=True, slots=True)
class Change:
    """A paired difference of mean scores.

    Attributes:
        n: Number of items.
        base, tuned: Means, 0 to 1.
        delta: tuned - base.
        ci95: Paired bootstrap interval of delta; None with fewer than two items.
        p: Of a paired sign-flip permutation test.
        p_holm: p adjusted for all clusters (or, overall, all metrics) of this comparison.
        minimal_detectable_effect: See `statistics.minimal_detectable_effect`.
        items_needed: Items that would show a true difference of NOTABLE_EFFECT, see `statistics.items_needed`.
        verdict: From p_holm, at 5%.
    """

    metric: str
    n: int
    base: float
    tuned: float
    delta: float
    ci95: Interval | None
    p: float
    p_holm: float
    minimal_detectable_effect: float | None
    items_needed: int | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """One evaluation against another.

    Attributes:
        base, tuned: Their folders.
        n: Number of items.
        clusters: By cluster, all its items together, also where they have several metrics (see `metric_of`).
        overall: By metric, over all items.
        warnings: What makes the comparison less fair than it looks.
        further: Comparisons of further folders with the same base.
    """

    base: str
    tuned: str
    n: int
    clusters: dict[str, Change]
    overall: dict[str, Change]
    warnings: tuple[str, ...]
    further: tuple[Comparison, ...] = ()


def compare(config: CompareConfig) -> Comparison:
    """Compare evaluations of the same items, pair by pair, and say which differences are more than chance.

    Raises:
        InputError: When a folder holds no finished evaluation, or its items are not those of the base.
        UsageError: When --out exists.
    """
    if config.out:
        refuse_to_replace(config.out, config.overwrite)
    base = read_predictions(config.base)
    first, *further = (_compare(config.base, base, folder, read_predictions(folder)) for folder in config.tuned)
    result = replace(first, further=tuple(further))
    for comparison in (first, *further):
        for warning in comparison.warnings:
            logger.warning("%s: %s", comparison.tuned, warning)
    if config.out:
        write_json(config.out, asdict(result))
    return result


def _compare(
    base_folder: Path, base: Mapping[str, Prediction], tuned_folder: Path, tuned: Mapping[str, Prediction]
) -> Comparison:
    _check_items(base_folder, base, tuned_folder, tuned)
    return Comparison(
        base=str(base_folder),
        tuned=str(tuned_folder),
        n=len(base),
        clusters=_changes(grouped(base.values(), lambda p: p.cluster), tuned),
        overall=_changes(grouped(base.values(), lambda p: p.metric), tuned),
        warnings=tuple(_warnings(base, tuned)),
    )


def _check_items(
    base_folder: Path, base: Mapping[str, Prediction], tuned_folder: Path, tuned: Mapping[str, Prediction]
) -> None:
    """Make sure that both evaluations hold the same items, asked to be answered and scored in the same way."""
    for folder, missing in ((tuned_folder, base.keys() - tuned.keys()), (base_folder, tuned.keys() - base.keys())):
        if missing:
            raise InputError(
                f"lacks {len(missing)} items of the other evaluation: {_first(missing)}", path=folder,
                remedy="evaluate both on the same tasks with the same --limit",
            )  # fmt: skip
    if differing := [id for id in base if _question(base[id]) != _question(tuned[id])]:
        raise InputError(
            f"{len(differing)} items have another cluster, metric, options or references than in {base_folder}: "
            f"{_first(differing)}", path=tuned_folder, remedy="evaluate both on the same tasks",
        )  # fmt: skip


def _question(prediction: Prediction) -> tuple[object, ...]:
    return prediction.cluster, prediction.metric, prediction.options, prediction.references


def _first(ids: Sequence[str] | set[str]) -> str:
    shown = ", ".join(sorted(ids)[:3])
    return f"{shown}, ..." if len(ids) > 3 else shown


def _warnings(base: Mapping[str, Prediction], tuned: Mapping[str, Prediction]) -> list[str]:
    differing = [id for id in base if base[id].prompt != tuned[id].prompt]
    if not differing:
        return []
    return [
        f"{len(differing)} of {len(base)} prompts differ from the base's ({_first(differing)}), perhaps by template or "
        "shots, so the difference is not the model's alone"
    ]


def _changes(groups: Mapping[str, Sequence[Prediction]], tuned: Mapping[str, Prediction]) -> dict[str, Change]:
    """The change of each group; the groups are one family of tests."""
    pairs = {
        name: (np.array([p.score for p in group]), np.array([tuned[p.item].score for p in group]))
        for name, group in groups.items()
    }
    p_values = [sign_flip_p(after - before) for before, after in pairs.values()]
    changes = {}
    for (name, (before, after)), p, p_holm in zip(pairs.items(), p_values, holm(p_values), strict=True):
        differences = after - before
        delta = float(differences.mean())
        changes[name] = Change(
            metric=metric_of(groups[name]),
            n=len(differences),
            base=float(before.mean()),
            tuned=float(after.mean()),
            delta=delta,
            ci95=bootstrap_interval(differences),
            p=p,
            p_holm=p_holm,
            minimal_detectable_effect=minimal_detectable_effect(differences),
            items_needed=items_needed(differences, NOTABLE_EFFECT),
            verdict=verdict(delta, p_holm),
        )
    return changes


def describe(comparison: Comparison) -> str:
    """A comparison, and any further ones, for people."""
    return "\n\n\n".join(_describe(one) for one in (comparison, *comparison.further))


def _describe(comparison: Comparison) -> str:
    header = ("cluster", "metric", "items", "base", "tuned", "delta", "95% interval", "p", "verdict")
    rows = [_row(name, change) for name, change in comparison.clusters.items()]
    rows += [_row(f"all {metric}", change) for metric, change in comparison.overall.items()]
    sections = [
        f"base   {comparison.base}\ntuned  {comparison.tuned}\n{comparison.n} items, compared pair by pair",
        table([header, *rows]),
        *(f"Careful: {warning}." for warning in comparison.warnings),
        "\n".join(_in_words(comparison)),
        "Interval: paired bootstrap. p: paired sign-flip test. Both are of each line by itself.\n"
        "Verdict: p after Holm's correction for all clusters together, and for all metrics together, so that chance\n"
        "alone gives a false one in at most 5% of comparisons.\n"
        "All of it holds for further items of these tasks, not for other tasks.",
    ]
    return "\n\n".join(sections)


def _row(name: str, change: Change) -> tuple[str, ...]:
    interval = "" if change.ci95 is None else f"{change.ci95[0]:+.3f} to {change.ci95[1]:+.3f}"
    p = "<0.001" if change.p < 0.001 else f"{change.p:.3f}"
    means = f"{change.base:.3f}", f"{change.tuned:.3f}", f"{change.delta:+.3f}"
    return (name, change.metric, str(change.n), *means, interval, p, change.verdict)


def _in_words(comparison: Comparison) -> list[str]:
    """What got better, what worse, what cannot be told and why."""
    lines = []
    for wanted, label in (("better", "Better"), ("worse", "Worse")):
        named = [f"{name} ({c.delta:+.3f})" for name, c in comparison.clusters.items() if c.verdict == wanted]
        lines.append(f"{label}: {', '.join(named) or 'no cluster'}.")
    unclear = {name: c for name, c in comparison.clusters.items() if c.verdict == "no significant change"}
    if unclear:
        lines.append("No significant change, which is no proof of no change:")
        by_limits: dict[str, list[str]] = {}
        for name, change in unclear.items():
            by_limits.setdefault(_limits(change), []).append(name)
        lines += [f"  {', '.join(names)}: {limits}." for limits, names in by_limits.items()]
    return lines


def _limits(change: Change) -> str:
    """What so many items could and could not show."""
    effect = change.minimal_detectable_effect
    if effect is None:
        return f"with {change.n} items no difference can be significant; at least {MIN_CHANGED} are needed"
    if change.p < ALPHA:
        return f"p is {change.p:.3f} by itself, which is not enough among so many clusters; more items would tell"
    if effect <= NOTABLE_EFFECT:
        return f"with {change.n} items a difference of {effect:.2f} would mostly have been seen"
    return (
        f"with {change.n} items only differences above about {effect:.2f} are seen reliably; one of "
        f"{NOTABLE_EFFECT:.2f} would take at least about {change.items_needed} items"
    )
