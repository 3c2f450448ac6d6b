"""Predictions with given scores, and folders of evaluations that hold them."""

from __future__ import annotations

from dataclasses import asdict

from finetune.predictions import Prediction
from selfinstruct.files import write_jsonl


def predictions(scores, cluster="topic", metric="accuracy", prompt="Which?", task="t", prefix=""):
    return [
        Prediction(
            item=f"{prefix}{cluster}-{metric}-{i}", task=task, cluster=cluster, prompt=f"{prompt} {i}", prediction="a",
            references=("a",), options=("a", "b"), option_scores=(-1.0, -2.0), metric=metric, score=float(score),
            stop=None, truncated=False,
        )
        for i, score in enumerate(scores)
    ]  # fmt: skip


def write(folder, rows):
    write_jsonl(folder / "predictions.jsonl", map(asdict, rows))
    return folder
