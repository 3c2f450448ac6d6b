"""Which rows form an optimizer step, and how a step is divided among processes and forward passes.

A step is always the same rows; how they are divided changes the time and the memory that it takes, not the step.
Rows that go through the model together stand one after another in one sequence, without padding, each with its own
positions and without sight of the others.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import torch

from finetune.rows import IGNORED, TrainingRow

# Stands in where a process has no row left and the others have: nothing in it is learnt.
BLANK = TrainingRow((0, 0), ())
# Two short documents of arbitrary tokens.
_PROBE = (TrainingRow(tuple(range(1, 9)), ((1, 8),)), TrainingRow(tuple(range(9, 17)), ((1, 8),)))

Micro = Sequence[TrainingRow]


@dataclass(frozen=True, slots=True)
class Step:
    """The rows of one optimizer step, over all processes."""

    rows: tuple[TrainingRow, ...]

    @property
    def tokens(self) -> int:
        """All tokens of the step."""
        return sum(len(row.input_ids) for row in self.rows)

    @property
    def supervised_tokens(self) -> int:
        """What the loss of the step is divided by."""
        return sum(row.supervised_tokens for row in self.rows)


class Schedule(Sequence[Step]):
    """All optimizer steps of a training, in order: a function of the rows and the seed alone.

    Every epoch takes the rows in an order of its own; its last step may have fewer.

    Args:
        rows: All rows.
        batch_size: Rows in a step.
        steps: Of the whole training.
        seed: Of the orders.
    """

    def __init__(self, rows: Sequence[TrainingRow], batch_size: int, steps: int, seed: int) -> None:
        self._rows, self._batch_size, self._steps = rows, batch_size, steps
        self._order = lru_cache(maxsize=1)(lambda epoch: _order(len(rows), epoch, seed))
        self.steps_per_epoch = math.ceil(len(rows) / batch_size)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._steps:
            raise IndexError(index)
        epoch, place = divmod(index, self.steps_per_epoch)
        chosen = self._order(epoch)[place * self._batch_size : (place + 1) * self._batch_size]
        return Step(tuple(self._rows[i] for i in chosen))

    def __iter__(self) -> Iterator[Step]:
        return (self[index] for index in range(self._steps))


def _order(n_rows: int, epoch: int, seed: int) -> list[int]:
    order = list(range(n_rows))
    Random(f"{seed}/order/{epoch}").shuffle(order)  # noqa: S311
    return order


def share(rows: Sequence[TrainingRow], processes: int) -> list[list[TrainingRow]]:
    """Divide rows among processes so that they have about as many tokens each.

    Longest rows first, each to the process that has least (Graham 1969, LPT): at most a third above the best division.

    Returns:
        One list for each process, in the order of the rows; every row is in exactly one of them.
    """
    shares: list[list[int]] = [[] for _ in range(processes)]
    tokens = [0] * processes
    for index in sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids)):
        least = tokens.index(min(tokens))
        shares[least].append(index)
        tokens[least] += len(rows[index].input_ids)
    return [[rows[index] for index in sorted(chosen)] for chosen in shares]


def pack(rows: Sequence[TrainingRow], pack_length: int) -> list[list[TrainingRow]]:
    """Put rows together, best fit decreasing (Johnson 1973): longest first, each where it leaves the least room.

    Args:
        rows: Any.
        pack_length: Most tokens of a pack; a longer row is a pack by itself. With 0, every row is.

    Returns:
        Packs, the longest rows' first; each keeps its rows in the order given.
    """
    packs: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids)):
        length = len(rows[index].input_ids)
        fitting = [pack for pack, left in enumerate(room) if left >= length]
        if fitting:
            best = min(fitting, key=room.__getitem__)
            packs[best].append(index)
            room[best] -= length
        else:
            packs.append([index])
            room.append(pack_length - length)
    return [[rows[index] for index in sorted(chosen)] for chosen in packs]


def divide(rows: Sequence[TrainingRow], processes: int, pack_length: int) -> list[list[list[TrainingRow]]]:
    """Divide rows among processes and forward passes.

    Returns:
        For each process its packs; all have as many, since under FSDP each takes part in every forward pass.
    """
    packed = [pack(own, pack_length) for own in share(rows, processes)]
    most = max(map(len, packed))
    return [[*packs, *([BLANK] for _ in range(most - len(packs)))] for packs in packed]


def collator(model: torch.nn.Module) -> Callable[[Sequence[TrainingRow]], dict[str, Any]]:
    """What turns a pack into a batch for this model: `collate`, for all logits if the model cannot select any."""
    selects = "logits_to_keep" in inspect.signature(model.forward).parameters
    varlen = "flash" in str(getattr(getattr(model, "config", None), "_attn_implementation", ""))
    return lambda rows: collate(rows, selects, varlen)


def collate(rows: Sequence[TrainingRow], select: bool = True, varlen: bool = False) -> dict[str, Any]:
    """Join rows to one sequence in which each is a document by itself.

    Args:
        rows: One pack.
        select: Ask for logits only where a label is. The projection onto the vocabulary is the largest single product
            and the largest tensor of a training step; the loss is the same.
        varlen: Give the documents' borders as well, in the form of FlashAttention's varlen kernels; each layer would
            find them from the positions otherwise, and wait for the device.

    Returns:
        input_ids, position_ids (from 0 in each document) and labels (1, tokens), the first label of each document
        masked, since nothing before it belongs to it; use_cache, which has to be off or documents see each other; with
        `select` logits_to_keep (kept), the positions before a label, and shift_labels (1, kept), those labels.
    """
    lengths = [len(row.input_ids) for row in rows]
    labels = torch.tensor([label for row in rows for label in (IGNORED, *row.labels[1:])])[None]
    batch: dict[str, Any] = {
        "input_ids": torch.tensor([token for row in rows for token in row.input_ids])[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "labels": labels,
        "use_cache": False,
    }
    if select:
        shifted = labels[0, 1:]
        kept = (shifted != IGNORED).nonzero().squeeze(1)
        if not len(kept):  # of BLANK
            kept = torch.zeros(1, dtype=torch.long)
        batch |= {"logits_to_keep": kept, "shift_labels": shifted[kept][None]}
    if varlen:
        borders = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
        batch |= {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders}
        batch |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
    return batch


@torch.no_grad()
def isolates(model: torch.nn.Module) -> bool:
    """Whether documents of one pack do not see each other in this model with its attention: asked on a probe.

    The logits of a document behind another one must be those that it has alone. What would be wrong is measured as
    well: the logits it has when both are read as one document.
    """
    device = next(model.parameters()).device
    collate_for = collator(model)

    def logits(rows: Sequence[TrainingRow]) -> torch.Tensor:
        batch = {k: v.to(device) if torch.is_tensor(v) else v for k, v in collate_for(rows).items()}
        found: torch.Tensor = model(**{**batch, "labels": None, "shift_labels": None}).logits
        return found[0, -_PROBE[1].supervised_tokens :].float()

    was_training = model.training
    model.eval()
    try:
        alone = logits(_PROBE[1:])
        packed = logits(_PROBE)
        joined = logits([TrainingRow(_PROBE[0].input_ids + _PROBE[1].input_ids, ((9, 16),))])
    finally:
        model.train(was_training)
    # bf16 has 8 bits: its rounding is some hundredths of the logits, a mixture of documents about all of them.
    return bool((packed - alone).abs().max() < 0.1 * (joined - alone).abs().max())
