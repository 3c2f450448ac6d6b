"""Runs lm-evaluation-harness on local tasks, offline, in an environment of its own; for `benchmarks.evaluation`.

Its only argument is JSON: model (folder), tasks (folder of YAML files), names, batch_size, threads, out (file).
The time of a task is that of its requests, from texts to log-likelihoods or answers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def main() -> None:
    """Evaluate each task by itself and write what it found."""
    import torch
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    model = HFLM(pretrained=given["model"], dtype="float32", device="cpu", batch_size=given["batch_size"])
    manager = TaskManager(include_path=given["tasks"], include_defaults=False)
    found: dict[str, Any] = {}
    for name in given["names"]:
        seconds = [0.0]
        for method in ("loglikelihood", "generate_until"):
            setattr(model, method, _timed(getattr(type(model), method).__get__(model), seconds))
        results = evaluator.simple_evaluate(
            model=model, tasks=[name], task_manager=manager, bootstrap_iters=0, log_samples=True
        )
        samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
        found[name] = {
            "seconds": seconds[0],
            "samples": [
                {"responses": s["filtered_resps"], **{k: s[k] for k in ("acc", "acc_norm", "exact_match") if k in s}}
                for s in samples
            ],
        }
    Path(given["out"]).write_text(json.dumps(found))


def _timed(method: Any, seconds: list[float]) -> Any:
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds[0] += time.perf_counter() - started

    return timed


if __name__ == "__main__":
    main()
