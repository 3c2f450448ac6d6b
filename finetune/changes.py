"""Paired changes of scores from one evaluation to another, by cluster, metric, task and kind of answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from finetune.contamination import Overlap
from finetune.figures import answer_figures
from finetune.predictions import Prediction, grouped, metric_of
from finetune.statistics import (
    Interval,
    Unit,
    Units,
    Verdict,
    difference_interval,
    holm,
    items_needed,
    minimal_detectable_effect,
    sign_flip_p,
    verdict,
)

# The difference whose cost in items is told: five points of a hundred.
NOTABLE_EFFECT = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference of mean scores, without a judgement.

    Attributes:
        n, n_tasks: Number of items, and of their tasks.
        base, tuned: Means, 0 to 1.
        delta: tuned - base.
        standard_error: Of delta; None for a single item.
        ci95: Paired bootstrap interval of delta; None for a single item.
        unit: What error, interval and any test are by: tasks where there are at least `statistics.MIN_TASKS`.
        answers: How the generated answers of "base" and "tuned" were, see `figures.AnswerFigures`; empty if none were.
    """

    metric: str
    n: int
    n_tasks: int
    base: float
    tuned: float
    delta: float
    standard_error: float | None
    ci95: Interval | None
    unit: Unit
    answers: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Change(Difference):
    """A paired difference that is judged.

    Attributes:
        p: Of a paired sign-flip permutation test.
        p_holm: p adjusted for all that are judged together: all clusters, all metrics, or all tasks.
        minimal_detectable_effect: See `statistics.minimal_detectable_effect`.
        items_needed: Items that would show a true difference of NOTABLE_EFFECT, see `statistics.items_needed`.
        verdict: From p_holm, at 5%.
    """

    p: float
    p_holm: float
    minimal_detectable_effect: float | None
    items_needed: int | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ChangedItem:
    """An item whose score is not the same."""

    item: str
    task: str
    cluster: str
    base: float
    tuned: float


@dataclass(frozen=True, slots=True)
class Contamination:
    """Items that the training data holds, and the scores without them.

    Attributes:
        training_data: Its files and folders.
        rows: Number of training rows.
        items: What was found, an entry for each contaminated item.
        clean, contaminated: Changes of the other items and of these, by cluster and as "all METRIC"; each judged by
            itself, beside the comparison of all items.
    """

    training_data: tuple[str, ...]
    rows: int
    items: tuple[Overlap, ...]
    clean: dict[str, Change]
    contaminated: dict[str, Change]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One evaluation against another.

    Attributes:
        base, tuned: Their folders.
        n: Number of items.
        clusters: By cluster, all its items together, also where they have several metrics (see `metric_of`).
        overall: By metric, over all items.
        tasks: By task.
        kinds: "ranked" by log-likelihood and "generated", each by cluster.
        changed_items: Those with another score, the largest gain first.
        unscored: Items that one of the evaluations left out, by its folder, with the reason.
        contamination: None without --training-data.
        warnings: What makes the comparison less fair than it looks.
        further: Comparisons of further folders with the same base.
    """

    base: str
    tuned: str
    n: int
    clusters: dict[str, Change]
    overall: dict[str, Change]
    tasks: dict[str, Change]
    kinds: dict[str, dict[str, Difference]]
    changed_items: tuple[ChangedItem, ...]
    unscored: dict[str, dict[str, str]]
    contamination: Contamination | None
    warnings: tuple[str, ...]
    further: tuple[Comparison, ...] = ()


def compared(
    folders: tuple[str, str],
    base: Mapping[str, Prediction],
    tuned: Mapping[str, Prediction],
    *,
    unscored: Mapping[str, Mapping[str, str]] | None = None,
    contamination: Contamination | None = None,
    warnings: Sequence[str] = (),
) -> Comparison:
    """Compare predictions on the same items; what else is given is passed on.

    Args:
        folders: Of base and tuned.
        base, tuned: Predictions by item.
        unscored, contamination, warnings: See `Comparison`.
    """
    before = list(base.values())
    kinds = grouped(before, lambda p: "ranked" if p.option_scores else "generated")
    return Comparison(
        base=folders[0],
        tuned=folders[1],
        n=len(before),
        clusters=_changes(grouped(before, _cluster), tuned),
        overall=_changes(grouped(before, _metric), tuned),
        tasks=_changes(grouped(before, lambda p: p.task), tuned),
        kinds={
            kind: {name: _difference(some, tuned) for name, some in grouped(group, _cluster).items()}
            for kind, group in sorted(kinds.items(), reverse=True)
        },
        changed_items=_changed_items(before, tuned),
        unscored={folder: dict(items) for folder, items in (unscored or {}).items()},
        contamination=contamination,
        warnings=tuple(warnings),
    )


def scored_apart(
    base: Mapping[str, Prediction],
    tuned: Mapping[str, Prediction],
    training_data: Sequence[str],
    n_rows: int,
    found: Sequence[Overlap],
) -> Contamination:
    """Score the items that training data holds apart from the others.

    Args:
        base, tuned: Predictions by item.
        training_data: Its files and folders.
        n_rows: Its rows.
        found: What it holds.
    """
    spoilt = {overlap.item for overlap in found}
    clean, contaminated = ([p for p in base.values() if (p.item in spoilt) is wanted] for wanted in (False, True))
    return Contamination(
        training_data=tuple(training_data),
        rows=n_rows,
        items=tuple(found),
        clean=_by_cluster_and_metric(clean, tuned),
        contaminated=_by_cluster_and_metric(contaminated, tuned),
    )


def _cluster(prediction: Prediction) -> str:
    return prediction.cluster


def _metric(prediction: Prediction) -> str:
    return prediction.metric


def _by_cluster_and_metric(base: Sequence[Prediction], tuned: Mapping[str, Prediction]) -> dict[str, Change]:
    overall = _changes(grouped(base, _metric), tuned)
    return _changes(grouped(base, _cluster), tuned) | {f"all {metric}": change for metric, change in overall.items()}


def _changed_items(base: Sequence[Prediction], tuned: Mapping[str, Prediction]) -> tuple[ChangedItem, ...]:
    changed = [
        ChangedItem(p.item, p.task, p.cluster, p.score, tuned[p.item].score)
        for p in base
        if p.score != tuned[p.item].score
    ]
    return tuple(sorted(changed, key=lambda change: change.base - change.tuned))


def _changes(groups: Mapping[str, Sequence[Prediction]], tuned: Mapping[str, Prediction]) -> dict[str, Change]:
    """The change of each group; the groups are one family of tests."""
    units = {name: _units(group, tuned) for name, group in groups.items()}
    p_values = [sign_flip_p(differences) for differences in units.values()]
    changes = {}
    for (name, differences), p, p_holm in zip(units.items(), p_values, holm(p_values), strict=True):
        difference = _difference(groups[name], tuned)
        changes[name] = Change(
            **{attribute: getattr(difference, attribute) for attribute in Difference.__slots__},
            p=p,
            p_holm=p_holm,
            minimal_detectable_effect=minimal_detectable_effect(differences),
            items_needed=items_needed(differences, NOTABLE_EFFECT),
            verdict=verdict(difference.delta, p_holm),
        )
    return changes


def _units(group: Sequence[Prediction], tuned: Mapping[str, Prediction]) -> Units:
    return Units.of([tuned[p.item].score - p.score for p in group], [p.task for p in group])


def _difference(group: Sequence[Prediction], tuned: Mapping[str, Prediction]) -> Difference:
    differences = _units(group, tuned)
    after = [tuned[p.item] for p in group]
    return Difference(
        metric=metric_of(group),
        n=len(group),
        n_tasks=len({p.task for p in group}),
        base=fmean(p.score for p in group),
        tuned=fmean(p.score for p in after),
        delta=differences.mean,
        standard_error=differences.standard_error,
        ci95=difference_interval(differences),
        unit=differences.unit,
        answers={
            name: figures.model_dump()
            for name, predictions in (("base", group), ("tuned", after))
            for figures in answer_figures(predictions, lambda p: "").values()
            if figures.generated
        },
    )
