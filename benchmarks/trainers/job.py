"""What every contender of the training benchmark is given, and what it says when it is done.

Standard library only: contenders run in environments of their own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one contender.

    Attributes:
        model: Folder with safetensors and tokenizer.
        data: Alpaca JSON lines, for what reads and renders them itself.
        rows: JSON lines with input_ids and labels, the very tokens of `data`, for what does not.
        mode: How batches are made: "single", "padded", "grouped" or "packed"; "" for the contender's own default.
        folder: Where it may write; empty at first.
        batch_size: Rows in an optimizer step.
        max_length: Most tokens of a row or a pack.
    """

    model: str
    data: str
    rows: str
    mode: str
    folder: str
    rank: int
    alpha: float
    learning_rate: float
    batch_size: int
    steps: int
    max_length: int
    seed: int
    threads: int
    on_gpu: bool = False


@dataclass(slots=True)
class Report:
    """What a contender measured, from the end of its first step, which warms up, to the end of its last.

    Attributes:
        losses: Of each step.
        tokens, supervised_tokens, padded_tokens: Trained on in that time; the last counts padding as well.
        elapsed_s: That time.
        peak_mib: Largest resident set of the process; on a GPU, the most memory that tensors took there.
    """

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    supervised_tokens: int = 0
    padded_tokens: int = 0
    elapsed_s: float = 0.0
    peak_mib: float = 0.0

    def print(self) -> None:
        """Say it, as the last line of standard output."""
        print(json.dumps(asdict(self)), flush=True)


def job() -> Job:
    """The job in this process's only argument."""
    return Job(**json.loads(sys.argv[1]))


def read_rows(path: str) -> list[dict[str, list[int]]]:
    """Rows with input_ids and labels."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def peak_mib(on_gpu: bool) -> float:
    """The most memory that this process took so far."""
    if on_gpu:
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(trainer_class: Any, on_gpu: bool) -> Any:
    """A trainer of transformers that counts what it trains on and how long each step takes.

    Returns:
        A subclass, whose `report` says what it measured.
    """
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[float] = []
            self.losses: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if on_gpu:
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                self.losses.append(logs["loss"])

    class Measured(trainer_class):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.clock = Clock()
            self.add_callback(self.clock)
            self.counts: list[tuple[int, int, int, int]] = []

        def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
            mask, ids = inputs.get("attention_mask"), inputs["input_ids"]
            real = ids.numel() if mask is None else int(mask.sum())
            self.counts.append((self.state.global_step, real, int((inputs["labels"] != -100).sum()), ids.numel()))
            return super().training_step(model, inputs, *args, **options)

        def report(self) -> Report:
            ends = self.clock.ends
            late = [count for count in self.counts if count[0] > 0]
            real, supervised, padded = (sum(count[i] for count in late) for i in (1, 2, 3))
            return Report(self.clock.losses, real, supervised, padded, ends[-1] - ends[0], peak_mib(on_gpu))

    return Measured


def common_arguments(job: Job, per_device: int) -> dict[str, Any]:
    """What every trainer of transformers is told alike."""
    return {
        "output_dir": job.folder,
        "max_steps": job.steps,
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": max(1, job.batch_size // per_device),
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": job.seed,
        "data_seed": job.seed,
        "train_sampling_strategy": "sequential",
        "use_cpu": not job.on_gpu,
        "bf16": job.on_gpu,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def lora(job: Job) -> Any:
    """The adapter that every contender trains."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM", target_modules="all-linear", r=job.rank, lora_alpha=job.alpha, lora_dropout=0.0
    )


def load(job: Job, **options: Any) -> Any:
    """The base model: fp32 on a CPU, bf16 on a GPU."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if job.on_gpu else torch.float32
    return AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype, use_safetensors=True, **options)


def padded(rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
    """Rows as one batch, padded on the right; (batch, seq)."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def filled(name: str, value: int) -> Any:
        return torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])

    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    return {"input_ids": filled("input_ids", 0), "labels": filled("labels", -100), "attention_mask": mask}
