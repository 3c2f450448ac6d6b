"""What stands beside a score so that it can be believed: how answers ended, and what the wording of prompts does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, pstdev

from pydantic import BaseModel, ConfigDict, Field

from finetune.predictions import Prediction, grouped


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AnswerFigures(_Figures):
    """How the answers to some items were; shares are 0 to 1. Prompts are never cut."""

    n: int
    generated: int = Field(description="Items whose answer was generated; the shares below are of these.")
    stop_rate: float | None = Field(description="Share of answers that the model ended by itself.")
    truncated: int = Field(description="Answers cut at the token limit.")
    empty: int = Field(description="Answers without text.")
    off_format: int = Field(description="Answers in which the metric found nothing to compare.")
    mean_prompt_tokens: float | None
    mean_answer_tokens: float | None
    mean_answer_characters: float | None
    mean_reference_characters: float | None = Field(description="Of the first reference.")


class Spread(_Figures):
    """Mean scores of the same items in different wordings, or of a task's templates; all 0 to 1."""

    means: dict[str, float] = Field(description="Mean by wording.")
    mean: float
    lowest: float
    highest: float
    sd: float = Field(description="Standard deviation of the means, of these wordings and no others.")


def answer_figures(predictions: Iterable[Prediction], key: Callable[[Prediction], str]) -> dict[str, AnswerFigures]:
    """Figures of the answers by a name."""
    return {name: _figures(group) for name, group in grouped(predictions, key).items()}


def _figures(group: Sequence[Prediction]) -> AnswerFigures:
    generated = [p for p in group if p.stop is not None]
    return AnswerFigures(
        n=len(group),
        generated=len(generated),
        stop_rate=_mean([float(p.stop == "eos") for p in generated]),
        truncated=sum(p.truncated for p in generated),
        empty=sum(p.empty for p in generated),
        off_format=sum(p.off_format for p in generated),
        mean_prompt_tokens=_mean([p.prompt_tokens for p in group if p.prompt_tokens is not None]),
        mean_answer_tokens=_mean([p.answer_tokens for p in generated if p.answer_tokens is not None]),
        mean_answer_characters=_mean([len(p.prediction) for p in generated]),
        mean_reference_characters=_mean([len(p.references[0]) for p in generated]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return round(math.fsum(values) / len(values), 4) if values else None


def spreads(predictions: Iterable[Prediction], key: Callable[[Prediction], str]) -> dict[str, Spread]:
    """How far scores depend on the wording, by a name; only where there are several wordings to compare.

    Items that were asked in several wordings are compared with themselves. Otherwise items are compared by the template
    that made them, so that chance in their drawing is part of the spread.
    """
    found = {}
    for name, group in grouped(predictions, key).items():
        scores: dict[str, list[float]] = {}
        for prediction in group:
            for wording, score in _scores(prediction):
                scores.setdefault(wording, []).append(score)
        if len(scores) > 1:
            means = {wording: fmean(values) for wording, values in scores.items()}
            found[name] = Spread(
                means=means, mean=fmean(means.values()), lowest=min(means.values()), highest=max(means.values()),
                sd=pstdev(means.values()),
            )  # fmt: skip
    return found


def _scores(prediction: Prediction) -> list[tuple[str, float]]:
    if prediction.wordings:
        return [(reworded.wording, reworded.score) for reworded in prediction.wordings]
    return [(prediction.wording, prediction.score)]
