"""Held-out results by cluster, all evaluations side by side, as the page shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from selfinstruct.page import words
from selfinstruct.page.words import limits, metric, percent, points
from selfinstruct.results import Change, Comparison, Evaluation, Interval, Score


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one model scored on some items, 0 to 1.

    Attributes:
        number: Of the model, for its mark in the charts.
        change: From the base; None of the base itself, and where nothing was compared.
        limits: What a change without a verdict could have shown.
    """

    model: str
    number: int
    mean: float
    ci95: Interval | None
    change: Change | None
    limits: str


@dataclass(frozen=True, slots=True)
class Group:
    """Items of one cluster, or all items of one metric, and what each model scored on them."""

    name: str
    metric: str
    n: int
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """How a model's generated answers to a cluster were; shares in percent."""

    cluster: str
    model: str
    generated: int
    ended: str
    truncated: str
    empty: str
    off_format: str


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Everything on held-out tasks.

    Attributes:
        models: Names of the evaluations, the base first.
        base: What the others are compared with; "" where nothing was compared.
        notes: What makes the figures less than they look, in sentences.
    """

    models: tuple[str, ...]
    base: str
    overall: tuple[Group, ...]
    clusters: tuple[Group, ...]
    answers: tuple[Answers, ...]
    notes: tuple[str, ...]


def outcomes(evaluations: Mapping[str, Evaluation], compared: Comparison | None) -> Outcomes | None:
    """Put evaluations and their comparison side by side; None where there is neither.

    Args:
        evaluations: By name.
        compared: Of folders with these names.
    """
    comparisons = {one.names[1]: one for one in [compared, *compared.further]} if compared else {}
    base = compared.names[0] if compared else ""
    # Where nothing says which one is the base, it is what has no adapter and was shown no demonstrations.
    simplest = sorted(evaluations, key=lambda name: (evaluations[name].adapter is not None, evaluations[name].shots))
    models = tuple(dict.fromkeys([*filter(None, [base]), *comparisons, *simplest]))
    if not models:
        return None
    return Outcomes(
        models=models,
        base=base,
        overall=tuple(_groups("overall", models, evaluations, comparisons)),
        clusters=tuple(_groups("clusters", models, evaluations, comparisons)),
        answers=tuple(_answers(models, evaluations)),
        notes=tuple(_notes(evaluations, comparisons)),
    )


def _groups(
    kind: Literal["overall", "clusters"],
    models: Sequence[str],
    evaluations: Mapping[str, Evaluation],
    comparisons: Mapping[str, Comparison],
) -> Iterator[Group]:
    scores: dict[str, dict[str, Score]] = {model: getattr(one, kind) for model, one in evaluations.items()}
    changes: dict[str, dict[str, Change]] = {model: getattr(one, kind) for model, one in comparisons.items()}
    for name in dict.fromkeys([*chain(*changes.values()), *chain(*scores.values())]):
        scored = {model: of_model[name] for model, of_model in scores.items() if name in of_model}
        changed = {model: of_model[name] for model, of_model in changes.items() if name in of_model}
        means = {model: change.tuned for model, change in changed.items()}
        if changed:
            means[models[0]] = next(iter(changed.values())).base
        means |= {model: score.mean for model, score in scored.items()}
        metrics = {model: (score.metric, score.n) for model, score in scored.items()}
        metrics |= {model: (change.metric, change.n) for model, change in changed.items()}
        metric_name, n = next(iter(metrics.values()))
        yield Group(
            "all items" if kind == "overall" else name,
            metric(metric_name or name),
            n,
            tuple(
                Outcome(
                    model,
                    number,
                    means[model],
                    scored[model].ci95 if model in scored else None,
                    changed.get(model),
                    limits(changed[model]) if model in changed else "",
                )
                for number, model in enumerate(models)
                if model in means
            ),
        )


def _answers(models: Sequence[str], evaluations: Mapping[str, Evaluation]) -> Iterator[Answers]:
    clusters = {name: one.answers.get("clusters", {}) for name, one in evaluations.items()}
    for cluster in dict.fromkeys(cluster for of_model in clusters.values() for cluster in of_model):
        for model in models:
            figures = clusters.get(model, {}).get(cluster)
            if figures and figures.generated:
                yield Answers(
                    cluster,
                    model,
                    figures.generated,
                    percent(figures.stop_rate or 0.0, 1.0),
                    percent(figures.truncated, figures.generated),
                    percent(figures.empty, figures.generated),
                    percent(figures.off_format, figures.generated),
                )


def _notes(evaluations: Mapping[str, Evaluation], comparisons: Mapping[str, Comparison]) -> Iterator[str]:
    for name, one in evaluations.items():
        if one.truncated:
            yield f"{words.model(name)}: {one.truncated} of {one.n} answers were cut at the token limit."
        if one.unscored:
            yield f"{words.model(name)}: {one.unscored} items did not fit the model's context and are not scored."
    for name, compared in comparisons.items():
        yield from (f"{words.model(name)}: {warning}." for warning in compared.warnings)
        if compared.contamination and (n := len(compared.contamination.items)):
            clean = ", ".join(
                f"{label} {points(change.base)} to {points(change.tuned)}, {change.verdict}"
                for label, change in compared.contamination.clean.items()
                if label.startswith("all ")
            )
            yield (
                f"{words.model(name)}: {n} held-out items stand in the training data too. "
                f"Without them: {clean or 'none are left'}."
            )
