"""The training itself: a LoRA adapter on a frozen model, with transformers' Trainer.

What differs from the plain Trainer: only supervised positions go through the output projection, the evaluation loss is
weighted by tokens, a checkpoint appears whole or not at all, and a signal ends a run after the current step.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)  # fmt: skip
from transformers.trainer_callback import TrainerControl, TrainerState

from finetune.config import TrainConfig
from finetune.folder import BatchingRecord, TrainingFolder
from finetune.models import ModelSource, load_model
from finetune.rows import IGNORED, TrainingData, TrainingRow
from selfinstruct.errors import Error, Interrupted, UsageError
from selfinstruct.progress import Progress

# Floating-point operations for each parameter and token: 2 forward, 2 backward to the activations; the frozen weights
# need no gradient of their own.
FLOPS_PER_PARAMETER_TOKEN = 4
# Dense bf16 peaks from the makers' data sheets, in FLOP/s, by a part of the device's name.
PEAK_FLOPS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12, "L40S": 362e12, "A10G": 70e12, "RTX 4090": 165.2e12}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training.

    Attributes:
        model: The tuned model.
        lines: The logged steps, as in metrics.jsonl.
        eval_loss_before: Of the base model; None without evaluation rows.
    """

    model: PeftModel
    lines: Sequence[dict[str, Any]]
    eval_loss_before: float | None
    trainable_parameters: int
    mfu: float | None

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
        Error: When the loss is not finite.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    model = load_model(source)
    _check_vocabulary(data, model.get_input_embeddings().num_embeddings)
    set_seed(config.seed)
    peft_model = with_adapter(model, config)

    checkpoint = folder.last_checkpoint()
    done = checkpoint[0] if checkpoint else 0
    # Making the arguments joins the processes, so that all have looked at the folder when the first one writes.
    arguments = _arguments(config, folder, batching, steps, evaluates=bool(data.eval_rows), resumes=bool(checkpoint))
    is_main = arguments.process_index == 0
    if is_main:
        begin()
        folder.clear_partial()
    lines = folder.keep_metrics(done, write=is_main)
    trainer = _AdapterTrainer(
        model=peft_model,
        args=arguments,
        train_dataset=data.rows,
        eval_dataset=data.eval_rows or None,
        data_collator=collator(model),
    )
    trainer.remove_callback(PrinterCallback)
    with Progress("step", steps, done, shown=is_main) as progress, _stop_on_signals() as stop:
        recorder = _Recorder(trainer, folder, lines, progress, stop)
        trainer.add_callback(recorder)
        if checkpoint and done == steps:  # stopped between the last step and the end
            trainer.restore(checkpoint[1])
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint[1]) if checkpoint else None)
    if trainer.state.global_step < steps:
        raise Interrupted(f"stopped after step {trainer.state.global_step} of {steps}; the same command resumes")
    history = trainer.state.log_history
    base_parameters = sum(p.numel() for p in peft_model.parameters() if not p.requires_grad)
    return Training(
        model=peft_model,
        lines=recorder.lines,
        eval_loss_before=next((entry["eval_loss"] for entry in history if "eval_loss" in entry), None),
        trainable_parameters=_trainable(peft_model),
        mfu=_mfu(base_parameters, recorder.lines[-1], batching.processes),
    )


def with_adapter(model: torch.nn.Module, config: TrainConfig) -> PeftModel:
    """Freeze a model and put new adapters on all its linear layers but the output projection."""
    adapters = LoraConfig(
        task_type="CAUSAL_LM",
        target_modules="all-linear",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
    )
    with warnings.catch_warnings():
        # PEFT still asks for a property that transformers has renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted = get_peft_model(model, adapters)
    # A set in PEFT; sorted, adapter_config.json is the same whenever the training is.
    adapted.peft_config["default"].target_modules = sorted(adapted.peft_config["default"].target_modules)
    return adapted


def trainable_parameters(config: TrainConfig, source: ModelSource) -> int:
    """How many parameters a training would train, without loading any weight."""
    return _trainable(with_adapter(empty_model(source), config))


def empty_model(source: ModelSource) -> Any:
    """A model without weights, on the meta device."""
    model_config = AutoConfig.from_pretrained(
        source.location, revision=source.revision, local_files_only=source.is_local, trust_remote_code=False
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(model_config)


def _trainable(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _check_vocabulary(data: TrainingData, num_embeddings: int) -> None:
    """Refuse tokens that the model has no embedding for, as when a tokenizer was extended and the model was not."""
    highest = max(max(row.input_ids) for row in (*data.rows, *data.eval_rows))
    if highest >= num_embeddings:
        raise UsageError(
            f"the tokenizer gives token {highest}, but the model has embeddings for {num_embeddings} only; use the "
            "tokenizer that belongs to the model"
        )


def collator(model: torch.nn.Module) -> Callable[[Sequence[TrainingRow]], dict[str, torch.Tensor]]:
    """What turns rows into a batch for this model: `collate`, for all logits if the model cannot select any."""
    selects = "logits_to_keep" in inspect.signature(model.forward).parameters
    return lambda rows: collate(rows, selects)


def collate(rows: Sequence[TrainingRow], select: bool = True) -> dict[str, torch.Tensor]:
    """Pad rows on the right and mask prompts and padding, both by length.

    Args:
        rows: One micro-batch.
        select: Ask for logits only where a label is. The projection onto the vocabulary is the largest single product
            and the largest tensor of a training step; the loss is the same.

    Returns:
        input_ids and labels (batch, seq); attention_mask (batch, seq) only if there is padding; with `select`
        logits_to_keep (kept), the positions of which some row has a label at the next one, and shift_labels (batch,
        kept), the labels of those next ones.
    """
    lengths = torch.tensor([len(row.input_ids) for row in rows])
    # Any token serves as padding: attention and labels go by length.
    input_ids = pad_sequence([torch.tensor(row.input_ids) for row in rows], batch_first=True, padding_value=0)
    labels = pad_sequence([torch.tensor(row.labels) for row in rows], batch_first=True, padding_value=IGNORED)
    is_real = torch.arange(input_ids.shape[1]) < lengths[:, None]
    batch = {"input_ids": input_ids, "labels": labels}
    if not is_real.all():
        batch["attention_mask"] = is_real.long()
    if select:
        shifted = labels[:, 1:]
        kept = (shifted != IGNORED).any(dim=0).nonzero().squeeze(1)
        batch |= {"logits_to_keep": kept, "shift_labels": shifted[:, kept]}
    return batch


def _arguments(
    config: TrainConfig, folder: TrainingFolder, batching: BatchingRecord, steps: int, *, evaluates: bool, resumes: bool
) -> TrainingArguments:
    on_gpu = torch.cuda.is_available()
    if config.report_to == "tensorboard":
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder.path / "tensorboard"))
    arguments = TrainingArguments(
        output_dir=str(folder.partial),
        max_steps=steps,
        per_device_train_batch_size=batching.micro_batch_size,
        gradient_accumulation_steps=batching.accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=round(config.warmup_ratio * steps),
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=config.seed,
        data_seed=config.seed,
        use_cpu=not on_gpu,
        bf16=on_gpu and torch.cuda.is_bf16_supported(including_emulation=False),
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
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
    )
    if arguments.n_gpu > 1:
        logger.warning("training on one of %d GPUs; `accelerate launch scripts/finetune.py` uses all", arguments.n_gpu)
        # Trainer would wrap the model in DataParallel, which cuts a batch's positions to keep apart.
        arguments._n_gpu = 1
    return arguments


class _AdapterTrainer(Trainer):  # type: ignore[misc]
    """Counts the tokens it trains on, weighs the evaluation loss by tokens and saves the adapter alone.

    The loss of a step is the sum over its supervised tokens, divided by their number in all micro-batches of all
    devices; Trainer counts them in `shift_labels` or `labels` and hands the number to the model's loss.
    """

    control: TrainerControl

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._tokens = torch.zeros((), dtype=torch.long, device=self.args.device)
        self._supervised_tokens = torch.zeros((), dtype=torch.long, device=self.args.device)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, torch.Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
        """The micro-batches of one step, and the number of supervised tokens in them, over all devices."""
        batches, supervised_tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            mask = batch.get("attention_mask")
            self._tokens += batch["input_ids"].numel() if mask is None else mask.sum()
        self._supervised_tokens += supervised_tokens.long()
        return batches, supervised_tokens

    def token_counts(self) -> tuple[int, int]:
        """(tokens, supervised tokens) trained on by this call so far, over all devices."""
        return int(self.accelerator.reduce(self._tokens, "sum")), int(self._supervised_tokens)

    def evaluate(self, **_: Any) -> dict[str, float]:
        """The mean loss over the supervised tokens of the evaluation rows; Trainer's own is the mean over batches."""
        rows = self.eval_dataset[self.args.process_index :: self.args.world_size]
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        self.model.eval()
        with torch.no_grad():
            for start in range(0, len(rows), self.args.per_device_train_batch_size):
                micro_batch = rows[start : start + self.args.per_device_train_batch_size]
                batch = self._prepare_inputs(self.data_collator(micro_batch))
                tokens = sum(row.supervised_tokens for row in micro_batch)
                loss = self.model(**batch).loss
                total += torch.tensor([float(loss) * tokens, tokens], dtype=torch.float64, device=total.device)
        loss_sum, n_tokens = self.accelerator.reduce(total, "sum").tolist()
        metrics = {"eval_loss": loss_sum / n_tokens}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter, on the main process."""
        if self.args.should_save:
            # Not "auto", which asks the hub whether the vocabulary has changed.
            self.model.save_pretrained(output_dir, save_embedding_layers=False)

    def restore(self, checkpoint: Path) -> None:
        """Take adapter and state from a checkpoint, to go on after the last step."""
        self.model.load_adapter(str(checkpoint), "default", is_trainable=True)
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


class _Recorder(TrainerCallback):  # type: ignore[misc]
    """Writes metrics, publishes checkpoints, shows progress and ends the training when a signal came.

    Args:
        trainer: The one that calls back.
        folder: Where to write.
        lines: Steps logged by earlier calls; new ones are added.
        progress: Where to show.
        stop: Set when the training should end after the current step.
    """

    def __init__(
        self,
        trainer: _AdapterTrainer,
        folder: TrainingFolder,
        lines: list[dict[str, Any]],
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self.lines = lines
        self._trainer, self._folder, self._progress, self._stop = trainer, folder, progress, stop
        self._before = lines[-1] if lines else {"step": 0, "tokens": 0, "supervised_tokens": 0, "elapsed_s": 0.0}
        self._elapsed_s = float(self._before["elapsed_s"])
        self._unfinished: dict[str, Any] | None = None
        self._mark = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._mark = time.perf_counter()

    def on_step_end(self, _args: Any, _state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._is_stopped():
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
        tokens, supervised_tokens = self._trainer.token_counts()
        last_tokens = self.lines[-1]["tokens"] if self.lines else 0
        line = {
            "step": state.global_step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs["grad_norm"],
            "tokens": self._before["tokens"] + tokens,
            "supervised_tokens": self._before["supervised_tokens"] + supervised_tokens,
            "tokens_per_s": (self._before["tokens"] + tokens - last_tokens) / last_s,
            "elapsed_s": self._elapsed_s,
        }
        self._progress.update(state.global_step, f"loss {line['loss']:.4f}  {line['tokens_per_s']:.0f} tokens/s")
        if control.should_evaluate:
            self._unfinished = line
        else:
            self._add(line)

    def on_evaluate(self, *_: Any, metrics: dict[str, float], **__: Any) -> None:
        if self._unfinished:
            self._add({**self._unfinished, "eval_loss": metrics["eval_loss"]})
            self._unfinished = None
        self._mark = time.perf_counter()

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        self._trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            partial = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self._folder.publish_checkpoint(partial, state.global_step)
        self._mark = time.perf_counter()

    def _add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self._trainer.is_world_process_zero():
            self._folder.log(line)

    def _is_stopped(self) -> bool:
        """Whether any process was asked to stop: all have to agree on the last step."""
        if self._trainer.args.world_size == 1:
            return self._stop.is_set()
        asked = torch.tensor(int(self._stop.is_set()), device=self._trainer.args.device)
        return bool(self._trainer.accelerator.reduce(asked, "sum"))


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


def save_adapter(model: PeftModel, tokenizer: Any, folder: Path) -> None:
    """Write adapter and tokenizer.

    Args:
        model: Tuned.
        tokenizer: Of the base model; its chat template goes along.
        folder: Where to write; replaced if it is there.

    Raises:
        Error: When the training left no trace in the adapter, or the adapter is not finite.
    """
    weights = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise Error("the trained adapter holds values that are not finite; try a lower --learning-rate")
    # LoRA's B starts at zero (Hu et al. 2021, section 4.1), so that an untrained adapter changes nothing.
    if not any(bool(weight.any()) for name, weight in weights.items() if "lora_B" in name):
        raise Error("the training left the adapter as it was at the start; try a higher --learning-rate or more steps")
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    tokenizer.save_pretrained(str(folder))


def _mfu(base_parameters: int, last_line: dict[str, Any], processes: int) -> float | None:
    """Model FLOPs utilisation (Chowdhery et al. 2022, appendix B), without recomputation."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    if peak is None:
        return None
    tokens_per_s = float(last_line["tokens"]) / float(last_line["elapsed_s"])
    return FLOPS_PER_PARAMETER_TOKEN * base_parameters * tokens_per_s / (peak * processes)
