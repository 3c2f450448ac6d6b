"""transformers' Trainer for adapters.

What differs from the plain one: a batch is the rows of one whole optimizer step, divided here into forward passes
without padding; memory that runs out is answered with smaller passes; only supervised positions go through the output
projection; the evaluation loss is weighted by tokens.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_callback import TrainerControl

from finetune.adapters import adapter_weights
from finetune.packing import Step, divide
from finetune.rows import TrainingRow
from selfinstruct.errors import Error

# Floating-point operations for each parameter and token: 2 forward, 2 backward to the activations; the frozen weights
# need no gradient of their own.
FLOPS_PER_PARAMETER_TOKEN = 4
SMALLER = "--gradient-checkpointing, --quantize nf4, a smaller --max-length or a smaller model need less"

T = TypeVar("T")
logger = logging.getLogger(__name__)


def has_bf16() -> bool:
    """Whether there is a GPU that computes in bf16."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or beside it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error)


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

    def _prepare_for_training(self, *arguments: Any) -> Any:
        with warnings.catch_warnings():
            # accelerate has no other name for it yet.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return super()._prepare_for_training(*arguments)

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
        return int(FLOPS_PER_PARAMETER_TOKEN * self.model.num_parameters() * inputs.tokens)

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
        if self.args.world_size > 1 and not self.is_fsdp_enabled:
            self._average_gradients()
        return loss

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> Any:
        """bf16 where the device has it; accelerate's own would copy all logits to fp32 in addition."""
        return torch.autocast("cuda", torch.bfloat16) if has_bf16() else contextlib.nullcontext()

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

    def _within_memory(self, rows: Sequence[TrainingRow], run: Callable[[Sequence[Sequence[TrainingRow]]], T]) -> T:
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
