"""transformers' Trainer with PEFT and nothing else: batches of one, accumulated, or padded ones grouped by length."""

from __future__ import annotations

import torch
from peft import get_peft_model
from transformers import Trainer, TrainingArguments

from benchmarks.trainers.job import common_arguments, job, load, lora, measured, padded, read_rows


def main() -> None:
    """Train as the job says."""
    given = job()
    torch.set_num_threads(given.threads)
    grouped = given.mode == "grouped"
    options = common_arguments(given, given.batch_size if grouped else 1)
    if grouped:
        options["train_sampling_strategy"] = "group_by_length"
    arguments = TrainingArguments(**options, remove_unused_columns=False)
    torch.manual_seed(given.seed)
    trainer = measured(Trainer, given.on_gpu)(
        model=get_peft_model(load(given), lora(given)), args=arguments, train_dataset=read_rows(given.rows),
        data_collator=padded,
    )  # fmt: skip
    trainer.train()
    trainer.report().print()


if __name__ == "__main__":
    main()
