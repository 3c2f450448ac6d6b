"""`finetune train`: instruction data to a LoRA adapter.

The order of things: read and check everything, compare with what the folder holds, and only then write and train.
"""

from __future__ import annotations

import logging
import math
import os
import platform
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from finetune.card import card
from finetune.config import TrainConfig
from finetune.folder import (
    BaseRecord,
    BatchingRecord,
    TemplateRecord,
    TrainingFolder,
    TrainRecord,
    TrainSummary,
    publish,
)  # fmt: skip
from finetune.models import ModelSource, load_tokenizer, resolve
from finetune.rows import TrainingData, prepare
from finetune.tokens import inspected
from selfinstruct.errors import UsageError
from selfinstruct.files import write_json, write_text
from selfinstruct.render import Renderer, renderer_for

GPU_PACK_LENGTH = 4096
N_INSPECTED = 3  # rows that the folder has token by token
VERSIONED = ("selfinstruct", "torch", "transformers", "peft", "accelerate", "tokenizers")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """What --dry-run found: everything was read and checked, nothing was trained or written.

    Attributes:
        steps: Optimizer steps, over all epochs.
        tokens, supervised_tokens: Of one epoch.
        parameters: Of the base model.
        memory_bytes: Estimate for one device (see `finetune.plan.Memory`): weights, adapter, optimizer, activations,
            total.
        tokens_per_s, training_s: From a probe of a few steps; None without one.
    """

    rows_used: int
    rows_dropped: dict[str, int]
    eval_rows: int
    eval_rows_dropped: dict[str, int]
    steps: int
    tokens: int
    supervised_tokens: int
    parameters: int
    trainable_parameters: int
    memory_bytes: dict[str, int]
    tokens_per_s: float | None
    training_s: float | None
    template: str
    template_sha256: str


def train(config: TrainConfig) -> TrainSummary | TrainPlan:
    """Train a LoRA adapter on instruction data.

    The same command resumes what was interrupted; with a finished training it gives that summary again.

    Returns:
        What the training came to; with `dry_run` what it would be.

    Raises:
        InputError: For a file or a row that cannot be used.
        UsageError: For settings that cannot work, and for a folder with other files or another training.
        Interrupted: After SIGINT or SIGTERM; a checkpoint is kept.
        Error: When the training diverged, or left the adapter as it was.
    """
    _check_packages(config)
    folder = TrainingFolder(config.out)
    folder.check_place()
    batching = _batching(config)
    source = resolve(config.model)
    tokenizer = load_tokenizer(source)
    has_no_chat_template = config.template == "auto" and not tokenizer.chat_template
    renderer = renderer_for(tokenizer, "alpaca" if has_no_chat_template else config.template)
    data = prepare(config, renderer, tokenizer)
    steps = _steps(config, len(data.rows))

    if config.dry_run:
        return _plan(config, source, renderer, data, batching, steps)
    record = _record(config, source, renderer, batching, data)
    folder.check(record)
    if summary := folder.finished():
        logger.warning("%s holds this training already, finished", config.out)
        return summary

    from finetune.adapters import save_adapter
    from finetune.fitting import fit

    with ExitStack() as stack:

        def begin() -> None:
            stack.enter_context(folder.held())
            folder.check(record)  # again, now that no other process can write
            folder.start(record, [inspected(row, tokenizer) for row in data.rows[:N_INSPECTED]])

        training = fit(config, source, data, batching, steps, folder, begin)
        last = training.lines[-1]
        evaluated = {line["step"]: line["eval_loss"] for line in training.lines if "eval_loss" in line}
        summary = TrainSummary(
            rows_used=len(data.rows),
            rows_dropped=dict(data.dropped),
            eval_rows=len(data.eval_rows),
            eval_rows_dropped=dict(data.eval_dropped),
            steps=last["step"],
            kept_step=training.step,
            tokens=last["tokens"],
            supervised_tokens=last["supervised_tokens"],
            trainable_parameters=training.trainable_parameters,
            train_loss=training.train_loss,
            eval_loss_before=folder.eval_loss_before(last["step"]),
            eval_loss=evaluated.get(training.step),
            tokens_per_s=last["tokens"] / last["elapsed_s"],
            supervised_tokens_per_s=last["supervised_tokens"] / last["elapsed_s"],
            mfu=training.mfu,
            elapsed_s=last["elapsed_s"],
            pack_length=training.pack_length,
            gradient_checkpointing=training.gradient_checkpointing,
            template_sha256=renderer.sha256,
        )
        if _is_main_process():
            partial = folder.path / ".adapter.partial"
            save_adapter(training.checkpoint, tokenizer, partial)
            write_json(
                partial / "selfinstruct.json",
                {
                    "template": renderer.name,
                    "template_sha256": renderer.sha256,
                    "base": {"name": record.base.public_name, "weights_sha256": record.base.weights_sha256},
                },
            )
            write_text(partial / "README.md", card(record, summary))
            publish(partial, folder.adapter)
            folder.finish(summary)
    return summary


def describe(result: TrainSummary | TrainPlan) -> str:
    """The result of `train` in words."""
    dropped = "".join(f", {n} dropped ({reason})" for reason, n in result.rows_dropped.items())
    rows = (
        f"{result.rows_used} rows{dropped}; {result.steps} steps; {result.trainable_parameters:,} trainable parameters"
    )
    if isinstance(result, TrainPlan):
        memory = ", ".join(f"{name} {n / 1e9:.2f}" for name, n in result.memory_bytes.items())
        pace = (
            "time unknown; --probe-steps 5 measures it"
            if result.training_s is None
            else f"{result.tokens_per_s:.0f} tokens/s in a probe, so about {result.training_s / 60:.1f} minutes"
        )
        return (
            f"would train on {rows}\n"
            f"{result.tokens:,} tokens an epoch, {result.supervised_tokens:,} of them supervised; "
            f"{result.eval_rows} evaluation rows; template {result.template} ({result.template_sha256[:16]})\n"
            f"base model of {result.parameters:,} parameters; about, in GB: {memory}\n{pace}"
        )
    evaluation = (
        ""
        if result.eval_loss_before is None or result.eval_loss is None
        else f"evaluation loss {result.eval_loss_before:.4f} -> {result.eval_loss:.4f} on {result.eval_rows} rows\n"
    )
    return (
        f"trained on {rows}\n{evaluation}"
        f"training loss {result.train_loss:.4f}; {result.tokens_per_s:.0f} tokens/s, {result.elapsed_s:.0f} s"
    )


def _check_packages(config: TrainConfig) -> None:
    """Make sure that what the settings need beyond the usual is installed.

    Raises:
        UsageError: Naming the package.
    """
    needed = {
        f"--report-to {config.report_to}": config.report_to if config.report_to != "none" else None,
        f"--quantize {config.quantize}": "bitsandbytes" if config.quantize != "none" else None,
        f"--liger {config.liger}": "liger_kernel" if config.liger == "on" else None,
    }
    for option, package in needed.items():
        if package and find_spec(package) is None:
            raise UsageError(f"{option} needs the package {package}: pip install {package.replace('_', '-')}")


def _batching(config: TrainConfig) -> BatchingRecord:
    """How an optimizer step is divided."""
    import torch

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if config.batch_size < processes:
        raise UsageError(f"--batch-size {config.batch_size} is less than the {processes} processes; give at least that")
    # Large enough for a GPU's matrix products; a CPU is as quick with one row, and needs less memory.
    default = GPU_PACK_LENGTH if torch.cuda.is_available() else 0
    return BatchingRecord(
        processes=processes, pack_length=default if config.pack_length is None else config.pack_length
    )


def _steps(config: TrainConfig, n_rows: int) -> int:
    """Optimizer steps of the whole training; the last one of an epoch may have fewer rows."""
    steps = math.ceil(config.epochs * math.ceil(n_rows / config.batch_size))
    return min(steps, config.max_steps or steps)


def _plan(
    config: TrainConfig,
    source: ModelSource,
    renderer: Renderer,
    data: TrainingData,
    batching: BatchingRecord,
    steps: int,
) -> TrainPlan:
    from finetune.plan import probe, size

    sizes = size(config, source, data, batching, steps)
    probed = probe(config, source, data, batching, steps)
    return TrainPlan(
        rows_used=len(data.rows),
        rows_dropped=dict(data.dropped),
        eval_rows=len(data.eval_rows),
        eval_rows_dropped=dict(data.eval_dropped),
        steps=steps,
        tokens=sum(len(row.input_ids) for row in data.rows),
        supervised_tokens=sum(row.supervised_tokens for row in data.rows),
        parameters=sizes.parameters,
        trainable_parameters=sizes.trainable_parameters,
        memory_bytes={**asdict(sizes.memory), "total": sizes.memory.total},
        tokens_per_s=probed.tokens_per_s if probed else None,
        training_s=probed.training_s if probed else None,
        template=renderer.name,
        template_sha256=renderer.sha256,
    )


def _record(
    config: TrainConfig, source: ModelSource, renderer: Renderer, batching: BatchingRecord, data: TrainingData
) -> TrainRecord:
    return TrainRecord(
        config=config.model_dump(mode="json", exclude_none=True),
        base=BaseRecord(
            name=source.name,
            location=source.location,
            public_name=source.public_name,
            revision=source.revision,
            weights_sha256=source.weights_sha256,
        ),
        template=TemplateRecord(name=renderer.name, sha256=renderer.sha256),
        batching=batching,
        versions={"python": platform.python_version(), **{name: _version(name) for name in VERSIONED}},
        files=list(data.files),
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"
