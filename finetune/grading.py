"""From answers to predictions: each answer scored by its item's metric, the wordings of an item brought together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from finetune.answers import Answer
from finetune.metrics import SCORE, best_option, is_off_format, option_match
from finetune.predictions import Prediction, Reworded
from finetune.questions import Question


def refused(answers: Sequence[tuple[Question, Answer]]) -> dict[str, str]:
    """Why an endpoint refused to answer an item, in any of its wordings, by the item's id."""
    reasons: dict[str, str] = {}
    for question, answer in answers:
        if answer.error is not None:
            reasons.setdefault(question.item.id, f"was refused: {answer.error}")
    return reasons


def graded(answers: Sequence[tuple[Question, Answer]]) -> list[Prediction]:
    """One prediction an item, in the order of the items; those of `refused` are left out."""
    left_out = refused(answers)
    of_item: dict[str, list[Prediction]] = {}
    for question, answer in answers:
        if question.item.id not in left_out:
            of_item.setdefault(question.item.id, []).append(_prediction(question, answer))
    return [_joined(predictions) for predictions in of_item.values()]


def _prediction(question: Question, answer: Answer) -> Prediction:
    item = question.item
    if question.is_ranked:
        text = item.options[best_option(item.metric, item.options, answer.option_scores, answer.option_tokens)]
        score = float(text in item.references)
    elif item.metric == "option_match":
        text, score = answer.text, option_match(answer.text, item.references, item.options)
    else:
        text, score = answer.text, SCORE[item.metric](answer.text, item.references)
    return Prediction(
        item=item.id, task=item.task, cluster=item.cluster, prompt=question.prompt, prediction=text,
        references=item.references, options=item.options, option_scores=answer.option_scores, metric=item.metric,
        score=score, stop=answer.stop, truncated=answer.stop == "length", option_tokens=answer.option_tokens,
        wording=question.wording, prompt_tokens=answer.prompt_tokens, answer_tokens=answer.answer_tokens,
        empty=not text, off_format=is_off_format(item.metric, text, item.options),
    )  # fmt: skip


def _joined(predictions: Sequence[Prediction]) -> Prediction:
    """The wordings of one item as one prediction, whose score is their mean."""
    first = predictions[0]
    if len(predictions) == 1:
        return first
    reworded = tuple(
        Reworded(p.wording, p.prompt, p.prediction, p.option_scores, p.score, p.stop, p.off_format) for p in predictions
    )
    return replace(first, score=math.fsum(p.score for p in predictions) / len(predictions), wordings=reworded)
