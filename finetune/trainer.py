"""The training itself: a LoRA adapter on a frozen model, with transformers' Trainer.

What differs from the plain Trainer: one batch is the rows of one optimizer step, divided here into forward passes
without padding; memory that runs out is answered with smaller ones; only supervised positions go through the output
projection; the evaluation loss is weighted by tokens; a checkpoint appears whole or not at all; and a signal ends a run
after the current step.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import DistributedType
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from peft import PeftModel
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import (
    BitsAndBytesConfig,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)  # fmt: skip
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.utils import is_flash_attn_2_available

from finetune.adapters import adapter_weights, check_vocabulary, check_weights, decoder_layers, n_trainable, with_adapter
from finetune.config import TrainConfig
from finetune.folder import BatchingRecord, TrainingFolder
from finetune.models import ModelSource, load_model
from finetune.packing import Schedule, Step, collator, divide, isolates
from finetune.rows import TrainingData, TrainingRow
from selfinstruct.errors import Error, Interrupted, UsageError
from selfinstruct.progress import Progress

# Floating-point operations for each parameter and token: 2 forward, 2 backward to the activations; the frozen weights
# need no gradient of their own.
FLOPS_PER_PARAMETER_TOKEN = 4
# Dense bf16 peaks from the makers' data sheets, in FLOP/s, by a part of the device's name.
PEAK_FLOPS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12, "L40S": 362e12, "A10G": 70e12, "RTX 4090": 165.2e12}
SMALLER = "--gradient-checkpointing, --quantize nf4, a smaller --max-length or a smaller model need less"

T = TypeVar("T")
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
    arguments = _arguments(config, folder, steps, evaluates=bool(data.eval_rows), resumes=bool(checkpoint))
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
        bnb_4bit_compute_dtype=torch.bfloat16 if _has_bf16() else torch.float32,
    )


def _has_bf16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


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
        if _has_bf16() and is_flash_attn_2_available():
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or beside it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error)


def _arguments(
    config: TrainConfig, folder: TrainingFolder, steps: int, *, evaluates: bool, resumes: bool
) -> TrainingArguments:
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
        UsageError: When they are asked for and cannot be had.
    """
    lacks = [
        what
        for what, there in (("a GPU", torch.cuda.is_available()), ("liger-kernel", bool(find_spec("liger_kernel"))))
        if not there
    ]
    if config.liger == "on" and lacks:
        raise UsageError(f"--liger on needs {' and '.join(lacks)}")
    return config.liger != "off" and not lacks


class AdapterTrainer(Trainer):  # type: ignore[misc]
    """Takes whole optimizer steps, divides them, weighs the evaluation loss by tokens and saves the adapter alone.

    The loss of a step is the sum over its supervised tokens, divided by their number in all passes of all devices.

    Args:
        pack_length: Most tokens of a forward pass (see `finetune.packing.pack`); less from when memory runs out.
        options: Of transformers' Trainer; the training data set is a `Schedule`.
    """

    control: TrainerControl

    def __init__(self, *, pack_length: int, **options: Any) -> None:
        super().__init__(**options)
        self.pack_length = pack_length
        self.gradient_checkpointing = False
        self.tokens = self.supervised_tokens = 0

    def get_train_dataloader(self) -> DataLoader[Step]:
        """One step an item, the same on all processes: each takes its share in `training_step`."""
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=itemgetter(0))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Step], num_batches: int, device: torch.device
    ) -> tuple[list[Step], torch.Tensor]:
        """The next step, and the number of supervised tokens in it."""
        step = next(epoch_iterator)
        self.tokens += step.tokens
        self.supervised_tokens += step.supervised_tokens
        return [step], torch.tensor(step.supervised_tokens, device=device)

    def floating_point_ops(self, inputs: Step) -> int:
        """Of one step, without recomputation."""
        return FLOPS_PER_PARAMETER_TOKEN * self.model.num_parameters() * inputs.tokens

    def training_step(
        self, model: torch.nn.Module, inputs: Step, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Add up the gradients of a whole step, in as few passes as fit."""

        def run(passes: Sequence[Sequence[TrainingRow]]) -> torch.Tensor:
            model.zero_grad()
            total = torch.zeros((), device=self.args.device)
            for index, rows in enumerate(passes):
                # DDP would exchange gradients within the last backward pass, where a process that is out of memory
                # leaves the others waiting; FSDP cannot do without.
                waits = index < len(passes) - 1 if self.is_fsdp_enabled else True
                with self.accelerator.no_sync(model) if waits else contextlib.nullcontext():
                    total += super(AdapterTrainer, self).training_step(model, self._batch(rows), num_items_in_batch)
            return total

        loss = self._within_memory(inputs.rows, run)
        if self.accelerator.distributed_type in (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
            self._average_gradients()
        return loss

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> Any:
        """bf16 where the device has it; accelerate's own would copy all logits to fp32 in addition."""
        return torch.autocast("cuda", torch.bfloat16) if _has_bf16() else contextlib.nullcontext()

    def _batch(self, rows: Sequence[TrainingRow]) -> dict[str, Any]:
        """A pack on the device; the copy does not wait for the passes that are still running."""
        batch: dict[str, Any] = self.data_collator(rows)
        if self.args.device.type != "cuda":
            return batch
        return {
            name: value.pin_memory().to(self.args.device, non_blocking=True) if torch.is_tensor(value) else value
            for name, value in batch.items()
        }

    def _average_gradients(self) -> None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        joined = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
        for gradient, part in zip(gradients, joined.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _within_memory(
        self, rows: Sequence[TrainingRow], run: Callable[[Sequence[Sequence[TrainingRow]]], T]
    ) -> T:
        """Run this process's passes over some rows; where memory runs out on any process, on all again with less.

        Raises:
            Error: When nothing less is left to try.
        """
        while True:
            passes = divide(rows, self.args.world_size, self.pack_length)
            try:
                result, failed = run(passes[self.args.process_index]), False
            except (RuntimeError, MemoryError) as error:
                if self.is_fsdp_enabled or not is_out_of_memory(error):
                    raise
                failed = True
            if not self.is_anywhere(failed):
                return result
            self.model.zero_grad()
            clear_device_cache(garbage_collection=True)
            self._need_less(passes)

    def _need_less(self, passes: Sequence[Sequence[Sequence[TrainingRow]]]) -> None:
        """Halve the longest pack that holds several rows; where all hold one, compute activations twice."""
        lengths = [sum(len(row.input_ids) for row in rows) for own in passes for rows in own if len(rows) > 1]
        if lengths:
            self.pack_length = max(lengths) // 2
            logger.warning("out of memory: forward passes of at most %d tokens from now on", self.pack_length)
        elif not self.gradient_checkpointing:
            self.checkpoint_gradients()
            logger.warning("out of memory: activations are computed twice from now on, to hold fewer")
        else:
            longest = max(len(row.input_ids) for own in passes for rows in own for row in rows)
            raise Error(f"out of memory with a single row of {longest} tokens; {SMALLER}")

    def checkpoint_gradients(self) -> None:
        """Compute activations twice (Chen et al. 2016), not reentrantly: that leaves layers over frozen ones out."""
        base = self.model.get_base_model()
        enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        self.gradient_checkpointing = True

    def is_anywhere(self, flag: bool) -> bool:
        """Whether something holds for any process."""
        if self.args.world_size == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(int(flag), device=self.args.device), "sum"))

    def evaluate(self, **_: Any) -> dict[str, float]:
        """The mean loss over the supervised tokens of the evaluation rows; Trainer's own is the mean over batches."""
        rows: Sequence[TrainingRow] = self.eval_dataset

        def run(passes: Sequence[Sequence[TrainingRow]]) -> torch.Tensor:
            total = torch.zeros((), dtype=torch.float64, device=self.args.device)
            self.model.eval()
            with torch.no_grad(), self.compute_loss_context_manager():
                for some in passes:
                    total += self.model(**self._batch(some), num_items_in_batch=1).loss
            return total

        total = self.accelerator.reduce(self._within_memory(rows, run), "sum")
        metrics = {"eval_loss": float(total) / sum(row.supervised_tokens for row in rows)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter, on the main process."""
        weights = adapter_weights(self.model)
        if self.args.should_save:
            # Not "auto", which asks the hub whether the vocabulary has changed.
            self.model.save_pretrained(output_dir, state_dict=weights, save_embedding_layers=False)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            # torch and safetensors write from other languages and tell the system's reason in their text at most.
            raise Error(
                f"the checkpoint of step {self.state.global_step} cannot be written to {self.args.output_dir} "
                f"({str(error).splitlines()[0]}); see that there is room, then the same command resumes"
            ) from error


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Writes metrics, publishes checkpoints, shows progress and ends the training early when it should end.

    Args:
        trainer: The one that calls back.
        folder: Where to write.
        config: Says when to end and what to keep.
        lines: Steps logged by earlier calls; new ones are added.
        progress: Where to show.
        stop: Set when the training should end after the current step.
    """

    def __init__(
        self,
        trainer: AdapterTrainer,
        folder: TrainingFolder,
        config: TrainConfig,
        lines: list[dict[str, Any]],
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self.lines = lines
        self._trainer, self._folder, self._config = trainer, folder, config
        self._progress, self._stop = progress, stop
        self._before = lines[-1] if lines else {"step": 0, "tokens": 0, "supervised_tokens": 0, "elapsed_s": 0.0}
        self._elapsed_s = float(self._before["elapsed_s"])
        self._unfinished: dict[str, Any] | None = None
        self._mark = 0.0

    def is_finished(self, step: int) -> bool:
        """Whether nothing is left to train after a step: a function of what is logged, so that resuming knows it."""
        patience = self._config.patience
        return step == self._trainer.args.max_steps or bool(patience and has_stalled(self._eval_losses(), patience))

    def _eval_losses(self) -> list[float]:
        return [line["eval_loss"] for line in self.lines if "eval_loss" in line]

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._mark = time.perf_counter()

    def on_step_end(self, _args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Trainer sees one long epoch; trackers are told the real ones.
        state.epoch = state.global_step / self._trainer.train_dataset.steps_per_epoch
        if self._trainer.is_anywhere(self._stop.is_set()):  # all have to agree on the last step
            control.should_save = control.should_training_stop = True
        # A checkpoint or an evaluation closes a line of metrics, so that a resumed run goes on from a whole one.
        control.should_log = control.should_log or control.should_save or control.should_evaluate

    def on_log(
        self, _args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise Error(f"the loss is {logs['loss']} at step {state.global_step}; try a lower --learning-rate")
        now = time.perf_counter()
        last_s = now - self._mark
        self._elapsed_s += last_s
        self._mark = now
        tokens = self._before["tokens"] + self._trainer.tokens
        last_tokens = self.lines[-1]["tokens"] if self.lines else 0
        line = {
            "step": state.global_step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs["grad_norm"],
            "tokens": tokens,
            "supervised_tokens": self._before["supervised_tokens"] + self._trainer.supervised_tokens,
            "tokens_per_s": (tokens - last_tokens) / last_s,
            "elapsed_s": self._elapsed_s,
        }
        self._progress.update(state.global_step, f"loss {line['loss']:.4f}  {line['tokens_per_s']:.0f} tokens/s")
        if control.should_evaluate:
            self._unfinished = line
        else:
            self._add(line)

    def on_evaluate(self, _args: Any, _state: Any, control: TrainerControl, metrics: dict[str, float], **_: Any) -> None:
        if self._unfinished:
            self._add({**self._unfinished, "eval_loss": metrics["eval_loss"]})
            self._unfinished = None
            losses = self._eval_losses()
            if self._config.keep == "best" and losses.index(min(losses)) == len(losses) - 1:
                control.should_save = True
            if self._config.patience and has_stalled(losses, self._config.patience):
                control.should_save = control.should_training_stop = True
        self._mark = time.perf_counter()

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        self._trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            partial = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            best = self._folder.best_step(self.lines) if self._config.keep == "best" else None
            self._folder.publish_checkpoint(partial, state.global_step, best)
        self._trainer.accelerator.wait_for_everyone()
        self._mark = time.perf_counter()

    def _add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self._trainer.is_world_process_zero():
            self._folder.log(line)


def has_stalled(losses: Sequence[float], patience: int) -> bool:
    """Whether none of the last so many losses is below all before it."""
    return len(losses) - 1 - losses.index(min(losses)) >= patience if losses else False


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
