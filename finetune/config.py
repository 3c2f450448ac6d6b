"""The settings of `finetune train`; its fields are the command's flags."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from selfinstruct.command import Config
from selfinstruct.render import TemplateName


class TrainConfig(Config):
    """What to train on, which model, and how.

    The defaults are those of low-rank adaptation (LoRA, Hu et al. 2021) on small instruction sets: adapters on all
    linear layers, as QLoRA (Dettmers et al. 2023, section 4) found necessary to match full fine-tuning, and a learning
    rate about ten times that of full fine-tuning.
    """

    data: list[Path] = Field(
        min_length=1,
        description="Training rows: a run folder, a file (JSON, JSONL, CSV, Parquet) of instructions, chats or "
        "completions, or a data set's name, such as org/name:split.",
    )
    weights: list[float] = Field(
        [], description="For each --data, in order, its share of the rows of an epoch; by default each row comes once."
    )
    out: Path = Field(description="Folder for adapter, metrics and summary; the same command resumes.")
    include_seeds: bool = Field(False, description="Train on the seed tasks as well, one row for each instance.")
    seeds: Path | None = Field(None, description="Seed tasks of --include-seeds, instead of the shipped ones.")
    eval_data: Path | None = Field(None, description="Rows kept out of training, for the evaluation loss.")
    eval_fraction: float = Field(0.0, ge=0, lt=1, description="Share of the rows kept out instead of --eval-data.")
    held_out: list[Path] = Field([], description="Held-out tasks that the rows must have nothing in common with.")
    contamination: Literal["refuse", "report", "drop"] = Field(
        "refuse", description="What to do about rows that the tasks of --held-out have too."
    )

    model: str = Field("embedded", description="Base model: embedded, a folder, a GGUF file, or a name on the hub.")
    template: TemplateName = Field(
        "auto",
        description="How rows become text: chat (the model's template), alpaca, plain (prompt and completion as they "
        "stand) or a Jinja file; auto is chat, or alpaca where the model has no template.",
    )
    max_length: int = Field(1024, ge=8, description="Most tokens of a row; longer rows are dropped, never cut.")

    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: float = Field(32, gt=0, description="Scale of the adapters; they are multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapters.")
    target_modules: str = Field(
        "all-linear", min_length=1, description="Layers with adapters: all-linear, or names such as q_proj,v_proj."
    )
    rslora: bool = Field(False, description="Multiply the adapters by alpha / sqrt(rank) (rsLoRA, for high ranks).")
    dora: bool = Field(False, description="Learn magnitudes apart from directions (DoRA; slower).")
    quantize: Literal["none", "nf4"] = Field(
        "none", description="Hold the base model in 4 bits (QLoRA); needs bitsandbytes. Saves memory, costs time."
    )

    epochs: float = Field(3, gt=0, description="Passes over the rows.")
    max_steps: int | None = Field(None, ge=1, description="Most optimizer steps, if the epochs take more.")
    batch_size: int = Field(8, ge=1, description="Rows in an optimizer step, over all devices.")
    pack_length: int | None = Field(
        None,
        ge=0,
        description="Most tokens in a forward pass, in which rows stand together without seeing each other; 0 is one "
        "row at a time. Less is tried by itself where memory runs out. Default on a CPU 0, on a GPU 4096.",
    )
    learning_rate: float = Field(2e-4, gt=0, description="Highest learning rate.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Learning rate after the warm-up: as it is, or down to 0."
    )
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="Share of the steps in which the rate rises from 0.")
    seed: int = Field(0, ge=0, description="Seed of initialisation, order, dropout and --eval-fraction.")

    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice to hold fewer; done by itself where memory runs out."
    )
    compile: bool = Field(False, description="Compile the layers: a minute at the start, then some percent faster.")
    liger: Literal["auto", "on", "off"] = Field(
        "auto", description="Liger's kernels; auto is wherever they are installed and know the model."
    )

    log_steps: int = Field(1, ge=1, description="Write a line of metrics every N steps.")
    save_steps: int = Field(50, ge=1, description="Write a checkpoint every N steps.")
    eval_steps: int | None = Field(None, ge=1, description="Evaluate every N steps, not only before and after.")
    patience: int | None = Field(
        None, ge=1, description="Stop after N evaluations in a row without a lower loss than before."
    )
    keep: Literal["last", "best"] = Field("last", description="Which adapter is the result; best by evaluation loss.")
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = Field(
        "none", description="Tracker that gets the metrics as well."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; default as many as there are cores.")
    dry_run: bool = Field(False, description="Check all inputs, say what would be trained, and end.")
    probe_steps: int | None = Field(
        None, ge=2, description="With --dry-run: train N steps without keeping them, to say how long all would take."
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.eval_data and self.eval_fraction:
            raise ValueError("--eval-data and --eval-fraction exclude each other; give one of them")
        if self.eval_steps and not (self.eval_data or self.eval_fraction):
            raise ValueError("--eval-steps needs --eval-data or --eval-fraction")
        if (self.patience or self.keep == "best") and not self.eval_steps:
            raise ValueError("--patience and --keep best need --eval-steps")
        if self.probe_steps and not self.dry_run:
            raise ValueError("--probe-steps needs --dry-run")
        if self.seeds and not self.include_seeds:
            raise ValueError("--seeds needs --include-seeds")
        if self.weights and len(self.weights) != len(self.data):
            raise ValueError(f"--weights are {len(self.weights)}, but --data are {len(self.data)}; give one for each")
        if not all(0 < weight < inf for weight in self.weights):
            raise ValueError("--weights must be larger than 0, and finite")
        return self
