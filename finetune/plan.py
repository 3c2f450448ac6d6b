"""What a training would take, before it runs: parameters, memory, and the time by a short probe."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AttentionInterface, TrainerCallback

from finetune.adapters import decoder_layers, empty_model, n_trainable, with_adapter
from finetune.config import TrainConfig
from finetune.fitting import make_arguments, make_trainer
from finetune.folder import BatchingRecord, TrainingFolder
from finetune.models import ModelSource
from finetune.packing import Schedule, divide
from finetune.rows import TrainingData, TrainingRow
from finetune.trainer import has_bf16

# QLoRA, Dettmers et al. 2023, section 3: 4 bits, 8 for each block of 64, 32 for each 256 blocks.
NF4_BYTES = 4 / 8 + 8 / 8 / 64 + 32 / 8 / (64 * 256)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device at the peak of a step, without what the libraries take for themselves.

    Attributes:
        weights: The frozen base: 4 bytes a parameter in fp32, 2 in bf16; in nf4 `NF4_BYTES` for linear layers.
        adapter: Trained parameters and their gradients, fp32: 8 bytes each.
        optimizer: AdamW's two moments, fp32: 8 bytes each trained parameter (Loshchilov and Hutter 2019).
        activations: What the longest forward pass keeps for the backward pass, and the logits, with their gradient.
    """

    weights: int
    adapter: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Their sum."""
        return self.weights + self.adapter + self.optimizer + self.activations


@dataclass(frozen=True, slots=True)
class Probe:
    """What a few steps showed.

    Attributes:
        tokens_per_s: Over all devices, without the first step, which warms up.
        training_s: Seconds that all steps would take at that pace, without loading, evaluation and checkpoints.
    """

    steps: int
    tokens_per_s: float
    training_s: float


@dataclass(frozen=True, slots=True)
class Size:
    """Parameters of a model and memory of its training."""

    parameters: int
    trainable_parameters: int
    memory: Memory


def size(config: TrainConfig, source: ModelSource, data: TrainingData, batching: BatchingRecord, steps: int) -> Size:
    """Parameters and memory, without loading any weight."""
    rows = longest_pass(Schedule(data.rows, config.batch_size, steps, config.seed), batching)
    model = empty_model(source)
    if has_bf16():
        model.to(torch.bfloat16)
    linear = sum(m.weight.numel() for layer in decoder_layers(model) for m in _linears(layer))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    model = with_adapter(model, config)
    activations = _activations(model, rows, config.gradient_checkpointing)
    each = 2 if has_bf16() else 4
    weights = parameters * each - (linear * (each - NF4_BYTES) if config.quantize == "nf4" else 0)
    trained = n_trainable(model)
    return Size(parameters, trained, Memory(int(weights), 8 * trained, 8 * trained, activations))


def _linears(layer: torch.nn.Module) -> list[torch.nn.Linear]:
    return [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]


def longest_pass(schedule: Schedule, batching: BatchingRecord) -> list[TrainingRow]:
    """The rows of the forward pass with the most tokens, in the first epoch."""
    passes = (
        rows
        for index in range(min(len(schedule), schedule.steps_per_epoch))
        for own in divide(schedule[index].rows, batching.processes, batching.pack_length)
        for rows in own
    )
    return max(passes, key=lambda rows: sum(len(row.input_ids) for row in rows))


class _Fused(torch.autograd.Function):
    """What a fused attention keeps, and nothing of what it computes: its inputs and its output (Dao et al. 2022)."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output)
        return output


def _fused(
    _module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _mask: Any, **_: Any
) -> tuple[torch.Tensor, None]:
    output: torch.Tensor = _Fused.apply(query, key, value)  # type: ignore[no-untyped-call]
    return output.transpose(1, 2), None


AttentionInterface.register("counted", _fused)


def _activations(model: Any, rows: Sequence[TrainingRow], checkpointing: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass, counted while it runs without any content.

    With checkpointing, what stays is the input of each layer, and one layer's activations are there at a time
    (Chen et al. 2016). The loss holds the logits in fp32, their log-probabilities and their gradient at once.
    """
    kept: dict[int, int] = {}
    held: list[torch.Tensor] = []  # so that no two of them get the same address
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            held.append(tensor)
        return tensor

    model.config._attn_implementation = "counted"
    tokens = sum(len(row.input_ids) for row in rows)
    ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    model.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cuda", torch.bfloat16, enabled=has_bf16()):
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    n_layers = len(decoder_layers(model))
    n_bytes = sum(kept.values())
    if checkpointing:
        n_bytes = n_bytes // n_layers + n_layers * hidden.numel() * hidden.element_size()
    supervised = sum(row.supervised_tokens for row in rows)
    return n_bytes + 3 * 4 * supervised * int(model.config.vocab_size)


class _Clock(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def probe(
    config: TrainConfig, source: ModelSource, data: TrainingData, batching: BatchingRecord, steps: int
) -> Probe | None:
    """Train some steps for their time; nothing of it is kept.

    Returns:
        None unless the configuration asks for it and there are at least two steps.
    """
    n_steps = min(config.probe_steps or 0, steps)
    if n_steps < 2:
        return None
    quiet = config.model_copy(update={"report_to": "none", "save_steps": n_steps + 1, "log_steps": n_steps + 1})
    schedule = Schedule(data.rows, config.batch_size, steps, config.seed)
    with tempfile.TemporaryDirectory() as folder:
        arguments = make_arguments(quiet, TrainingFolder(Path(folder)), n_steps, evaluates=False, resumes=False)
        trainer = make_trainer(config, source, data, batching, n_steps, arguments)
        clock = _Clock()
        trainer.add_callback(clock)
        trainer.train()
    timed = sum(schedule[index].tokens for index in range(1, n_steps))
    tokens_per_s = timed / (clock.ends[-1] - clock.ends[0])
    return Probe(n_steps, tokens_per_s, sum(step.tokens for step in schedule) / tokens_per_s)
