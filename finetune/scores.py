"""Scores of items summed up by task, cluster or metric, each mean with its interval and what that interval is by."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import BaseModel, ConfigDict, Field

from finetune.predictions import Prediction, grouped, metric_of
from finetune.statistics import Interval, Unit, Units, mean_interval


class Score(BaseModel):
    """A mean of scores, 0 to 1; there is none of no items.

    The metric of a cluster with items of several is, for example, "accuracy + exact_match": see `metric_of`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    n: int = Field(description="Items.")
    n_tasks: int
    mean: float
    standard_error: float | None = Field(description="Null for a single item.")
    ci95: Interval | None = Field(description="Null for a single item.")
    unit: Unit = Field(description="What error and interval are by: tasks where there are many, else items.")


def scores(predictions: Iterable[Prediction], key: Callable[[Prediction], str]) -> dict[str, Score]:
    """The mean scores of predictions by a name, in the order in which the names first come."""
    return {name: _score(group) for name, group in grouped(predictions, key).items()}


def _score(group: list[Prediction]) -> Score:
    tasks = [prediction.task for prediction in group]
    units = Units.of([prediction.score for prediction in group], tasks)
    return Score(
        metric=metric_of(group),
        n=units.n,
        n_tasks=len(set(tasks)),
        mean=units.mean,
        standard_error=units.standard_error,
        ci95=mean_interval(units),
        unit=units.unit,
    )
