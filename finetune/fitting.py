"""A whole training: base model, adapters, trainer and folder put together, begun or resumed, and brought to an end."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PrinterCallback, TrainingArguments, set_seed
from transformers.utils import is_flash_attn_2_available

from finetune.adapters import check_vocabulary, check_weights, decoder_layers, n_trainable, with_adapter
from finetune.config import TrainConfig
from finetune.folder import BatchingRecord, TrainingFolder
from finetune.models import ModelSource, load_model
from finetune.packing import Schedule, collator, isolates
from finetune.recorder import Recorder
from finetune.rows import TrainingData
from finetune.trainer import FLOPS_PER_PARAMETER_TOKEN, SMALLER, AdapterTrainer, has_bf16, is_out_of_memory
from selfinstruct.errors import Error, Interrupted, UsageError
from selfinstruct.progress import Progress

# Dense bf16 peaks from the makers' data sheets, in FLOP/s, by a part of the device's name.
PEAK_FLOPS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12, "L40S": 362e12, "A10G": 70e12, "RTX 4090": 165.2e12}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training.

    Attributes:
        checkpoint: Folder with the adapter that is the result.
        step: Optimizer steps behind that adapter.
        lines: The logged steps, as in metrics.jsonl.
        pack_length: Most tokens of a pack, as it was at the end.
        gradient_checkpointing: Whether it was on at the end.
    """

    checkpoint: Path
    step: int
    lines: Sequence[dict[str, Any]]
    trainable_parameters: int
    mfu: float | None
    pack_length: int
    gradient_checkpointing: bool

    @property
    def train_loss(self) -> float:
        """Mean over all steps of the loss at each."""
        starts = [0, *(line["step"] for line in self.lines)]
        total = sum(line["loss"] * (line["step"] - start) for line, start in zip(self.lines, starts, strict=False))
        return float(total / starts[-1])


def fit(
    config: TrainConfig,
    source: ModelSource,
    data: TrainingData,
    batching: BatchingRecord,
    steps: int,
    folder: TrainingFolder,
    begin: Callable[[], None],
) -> Training:
    """Train an adapter, from the last complete checkpoint if there is one.

    Args:
        config: All settings.
        source: The base model.
        data: Rows to train and evaluate on.
        batching: How an optimizer step is divided.
        steps: Optimizer steps of the whole training.
        folder: Where checkpoints and metrics go.
        begin: Called once, on the main process, when all processes are ready and before anything is written.

    Raises:
        Interrupted: After SIGINT or SIGTERM; a checkpoint holds everything up to then.
        Error: When the loss is not finite, the memory does not suffice or a checkpoint cannot be written.
    """
    checkpoint = folder.last_checkpoint()
    done = checkpoint[0] if checkpoint else 0
    # Making the arguments joins the processes, so that all have looked at the folder when the first one writes.
    arguments = make_arguments(config, folder, steps, evaluates=bool(data.eval_rows), resumes=bool(checkpoint))
    with _memory_errors():
        trainer = make_trainer(config, source, data, batching, steps, arguments)
    is_main = arguments.process_index == 0
    if is_main:
        begin()
        folder.clear_partial()
    lines = folder.keep_metrics(done, write=is_main)
    with _memory_errors(), Progress("step", steps, done, shown=is_main) as progress, _stop_on_signals() as stop:
        recorder = Recorder(trainer, folder, config, lines, progress, stop)
        trainer.add_callback(recorder)
        if not recorder.is_finished(done):
            trainer.train(resume_from_checkpoint=str(checkpoint[1]) if checkpoint else None)
            done = trainer.state.global_step
    if not recorder.is_finished(done):
        raise Interrupted(f"stopped after step {done} of {steps}; the same command resumes")
    best = folder.best_step(recorder.lines)
    step = best if config.keep == "best" and best else done
    base_parameters = sum(p.numel() for p in trainer.model.parameters() if not p.requires_grad)
    return Training(
        checkpoint=folder.checkpoint(step),
        step=step,
        lines=recorder.lines,
        trainable_parameters=n_trainable(trainer.model),
        mfu=_mfu(base_parameters, recorder.lines[-1], batching.processes),
        pack_length=trainer.pack_length,
        gradient_checkpointing=trainer.gradient_checkpointing,
    )


def make_trainer(
    config: TrainConfig,
    source: ModelSource,
    data: TrainingData,
    batching: BatchingRecord,
    steps: int,
    arguments: TrainingArguments,
) -> AdapterTrainer:
    """Load the base model, put adapters on it and hand both to a trainer.

    Raises:
        UsageError: When model, data and settings do not fit one another.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    model = load_model(source, quantization=_quantization(config))
    _keep_weights_differentiable(model)
    check_vocabulary(data, model.get_input_embeddings().num_embeddings)
    check_weights(model, source)
    pack_length = _pack_length(config, batching, model, arguments)
    to_batch = collator(model)
    set_seed(config.seed)
    peft_model = with_adapter(model, config)
    if config.compile:
        # Layer by layer: as much faster as the whole, and compiled once for all of them. Before the trainer wraps the
        # model, which would otherwise go on calling what is not compiled.
        for layer in decoder_layers(peft_model):
            layer.compile(dynamic=True)
    trainer = AdapterTrainer(
        model=peft_model,
        args=arguments,
        train_dataset=Schedule(data.rows, config.batch_size, steps, config.seed),
        eval_dataset=data.eval_rows or None,
        data_collator=to_batch,
        pack_length=pack_length,
    )
    trainer.remove_callback(PrinterCallback)
    if not trainer.model_accepts_loss_kwargs:
        raise UsageError(f"{source.name} does not say the sum of its losses, which a step over several passes needs")
    if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise UsageError("adapters need fsdp_version: 2 in accelerate's configuration")
    if config.gradient_checkpointing:
        trainer.checkpoint_gradients()
    return trainer


def _quantization(config: TrainConfig) -> BitsAndBytesConfig | None:
    """QLoRA's: 4-bit NormalFloat, the constants of its blocks quantised as well (Dettmers et al. 2023, section 3)."""
    if config.quantize == "none":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if has_bf16() else torch.float32,
    )


def _keep_weights_differentiable(model: torch.nn.Module) -> None:
    """Keeps bitsandbytes from packing 4-bit weights for inference, which it does at the first pass without gradients.

    On CPUs with AVX512-BF16; through packed weights no gradient passes, in whichever mode, so that nothing below would
    be learnt after an evaluation (bitsandbytes 0.50, nn/modules.py, Linear4bit.forward).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - no attribute of every module


def _pack_length(
    config: TrainConfig, batching: BatchingRecord, model: torch.nn.Module, arguments: TrainingArguments
) -> int:
    """How long packs may be, once the model has shown that documents in them do not see each other.

    Raises:
        UsageError: When packs are asked for and they do.
    """
    if not batching.pack_length:
        return 0
    fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false") == "true"
    if not fsdp:  # there a device may not hold the whole model
        model.to(arguments.device)
        if has_bf16() and is_flash_attn_2_available():
            model.set_attn_implementation("flash_attention_2")  # type: ignore[operator]
    if isolates(model):
        return batching.pack_length
    if config.pack_length:
        raise UsageError(
            f"--pack-length {config.pack_length}: {type(model).__name__} lets the rows of a pack see each other; leave "
            "it out, or give 0 for one row at a time"
        )
    logger.warning("%s lets the rows of a pack see each other, so they go one at a time", type(model).__name__)
    return 0


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Put into words what is left of an error of memory after smaller passes were tried."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise Error(f"out of memory; {SMALLER}") from error


def make_arguments(
    config: TrainConfig, folder: TrainingFolder, steps: int, *, evaluates: bool, resumes: bool
) -> TrainingArguments:
    """Trainer's own settings.

    Args:
        config: All settings.
        folder: Where to write.
        steps: Optimizer steps of the whole training.
        evaluates: Whether there are evaluation rows.
        resumes: Whether the base model was evaluated before.

    Raises:
        UsageError: When something that is asked for cannot be had here.
    """
    on_gpu = torch.cuda.is_available()
    if config.report_to == "tensorboard":
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder.path / "tensorboard"))
    arguments = TrainingArguments(
        output_dir=str(folder.partial),
        max_steps=steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=round(config.warmup_ratio * steps),
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=config.seed,
        use_cpu=not on_gpu,
        use_liger_kernel=_uses_liger(config),
        logging_steps=config.log_steps,
        # Otherwise a step with a loss of NaN would be logged with the mean of those before.
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.save_steps,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=config.eval_steps or steps,
        eval_on_start=evaluates and not resumes,
        report_to=config.report_to,
        run_name=folder.path.resolve().name,
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        # They are constants (rotary frequencies), and would be exchanged within a forward pass.
        ddp_broadcast_buffers=False,
    )
    if arguments.n_gpu > 1:
        logger.warning("training on one of %d GPUs; `accelerate launch scripts/finetune.py` uses all", arguments.n_gpu)
        # Trainer would wrap the model in DataParallel, which cuts a batch's positions to keep apart.
        arguments._n_gpu = 1
    return arguments


def _uses_liger(config: TrainConfig) -> bool:
    """Whether Liger's kernels are to be used; Trainer leaves models alone that they do not know.

    Raises:
        UsageError: When they are asked for and there is no GPU.
    """
    if config.liger == "on" and not torch.cuda.is_available():
        raise UsageError("--liger on needs a GPU; leave it out")
    return config.liger != "off" and torch.cuda.is_available() and find_spec("liger_kernel") is not None


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event; a second one ends the process at once."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        logger.warning("stopping after this step; again to stop at once")

    if threading.current_thread() is not threading.main_thread():  # where Python delivers no signals
        yield stop
        return
    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _mfu(base_parameters: int, last_line: dict[str, Any], processes: int) -> float | None:
    """Model FLOPs utilisation (Chowdhery et al. 2022, appendix B), without recomputation."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    if peak is None:
        return None
    tokens_per_s = float(last_line["tokens"]) / float(last_line["elapsed_s"])
    return FLOPS_PER_PARAMETER_TOKEN * base_parameters * tokens_per_s / (peak * processes)
