"""This project's `finetune train`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.trainers.job import Report, job, peak_mib
from finetune import TrainConfig, train


def main() -> None:
    """Train with the defaults of the command, and read its own metrics."""
    given = job()
    out = Path(given.folder) / "out"
    train(
        TrainConfig(
            data=[Path(given.data)], model=given.model, out=out, rank=given.rank, alpha=given.alpha, warmup_ratio=0,
            learning_rate=given.learning_rate, batch_size=given.batch_size, max_steps=given.steps, epochs=1000,
            max_length=given.max_length, seed=given.seed, threads=given.threads, save_steps=10**9,
        )
    )  # fmt: skip
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    first, last = lines[0], lines[-1]
    tokens = last["tokens"] - first["tokens"]
    Report(
        losses=[line["loss"] for line in lines],
        tokens=tokens,
        supervised_tokens=last["supervised_tokens"] - first["supervised_tokens"],
        padded_tokens=tokens,
        elapsed_s=last["elapsed_s"] - first["elapsed_s"],
        peak_mib=peak_mib(given.on_gpu),
    ).print()


if __name__ == "__main__":
    main()
