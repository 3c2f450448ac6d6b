"""What stands beside a score so that it can be believed: how answers ended and how long they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field

from finetune.metrics import normalized
from finetune.predictions import Prediction, grouped


class AnswerFigures(BaseModel):
    """How the answers to some items were; shares are 0 to 1. Prompts are never cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    generated: int = Field(description="Items whose answer was generated; all below is of these.")
    stop_rate: float | None = Field(description="Share of answers that the model ended by itself.")
    truncated: int = Field(description="Answers cut at the token limit.")
    empty: int = Field(description="Answers without text.")
    off_format: int = Field(description="Answers to be matched exactly that hold a reference among other words.")
    mean_answer_characters: float | None
    mean_reference_characters: float | None = Field(description="Of the first reference.")


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
        empty=sum(not p.prediction.strip() for p in generated),
        off_format=sum(p.metric == "exact_match" and not p.score and _holds_reference(p) for p in generated),
        mean_answer_characters=_mean([len(p.prediction) for p in generated]),
        mean_reference_characters=_mean([len(p.references[0]) for p in generated]),
    )


def _holds_reference(prediction: Prediction) -> bool:
    answer = f" {normalized(prediction.prediction)} "
    return any(f" {text} " in answer for reference in prediction.references if (text := normalized(reference)))


def _mean(values: Sequence[float]) -> float | None:
    return round(fmean(values), 4) if values else None
