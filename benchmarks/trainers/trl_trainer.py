"""TRL's SFTTrainer on the same tokens: padded, packed, or batches of one with accumulation; unsloth's model with it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from benchmarks.trainers.job import Job, common_arguments, job, load, lora, measured, read_rows

UNSLOTH = "unsloth" in sys.argv[2:]


def model_of(given: Job) -> Any:
    """The model, with the fastest attention that is there."""
    if UNSLOTH:
        from unsloth import FastLanguageModel

        model, _ = FastLanguageModel.from_pretrained(given.model, max_seq_length=given.max_length, load_in_4bit=False)
        return FastLanguageModel.get_peft_model(
            model, r=given.rank, lora_alpha=given.alpha, random_state=given.seed, use_gradient_checkpointing="unsloth"
        )
    has_flash = given.on_gpu and find_spec("flash_attn") is not None
    return load(given, attn_implementation="flash_attention_2" if has_flash else "sdpa")


def main() -> None:
    """Train as the job says."""
    if UNSLOTH:
        import unsloth  # noqa: F401  it changes what is imported after it
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    given = job()
    torch.set_num_threads(given.threads)
    rows = read_rows(given.rows)
    per_device = given.batch_size if given.mode == "padded" else 1
    options = common_arguments(given, per_device)
    if given.mode == "packed":
        # As many packs as hold the tokens of one step of whole rows.
        mean = sum(len(row["input_ids"]) for row in rows) / len(rows)
        options["gradient_accumulation_steps"] = max(1, round(given.batch_size * mean / given.max_length))
    arguments = SFTConfig(
        **options,
        max_length=given.max_length,
        packing=given.mode == "packed",
        gradient_checkpointing=False,
        use_liger_kernel=given.on_gpu and find_spec("liger_kernel") is not None,
    )
    torch.manual_seed(given.seed)
    trainer = measured(SFTTrainer, given.on_gpu)(
        model=model_of(given), args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(given.model),
        peft_config=None if UNSLOTH else lora(given),
    )  # fmt: skip
    trainer.train()
    trainer.report().print()


if __name__ == "__main__":
    main()
