"""Training rows to a padded, masked batch, and the loss that a real model gives for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune.rows import TrainingRow
from finetune.packing import collate
from finetune.rows import IGNORED
from tests.tiny import build_tiny_llama

EOS = 1  # <|im_end|>, which is the padding token of the tiny model as well
ROWS = [
    TrainingRow((5, 6, 7, 8, EOS), ((3, 5),)),
    TrainingRow((9, 10, 11, 12, 13, 14, 15, EOS), ((2, 8),)),
    TrainingRow((4, EOS), ((1, 2),)),
]


def test_labels_are_masked_by_length_not_by_token() -> None:
    batch = collate(ROWS)
    labels = batch["labels"]
    assert labels.tolist() == [
        [IGNORED] * 3 + [8, EOS] + [IGNORED] * 3,
        [IGNORED] * 2 + [11, 12, 13, 14, 15, EOS],
        [IGNORED, EOS] + [IGNORED] * 6,
    ]
    assert batch["attention_mask"].sum(dim=1).tolist() == [5, 8, 2]


def test_one_row_alone_has_no_padding_and_no_mask() -> None:
    batch = collate(ROWS[1:2])
    assert batch["input_ids"].tolist() == [list(ROWS[1].input_ids)]
    assert "attention_mask" not in batch


def test_kept_positions_carry_every_label_once() -> None:
    batch = collate(ROWS)
    labels, kept, shifted = batch["labels"], batch["logits_to_keep"], batch["shift_labels"]
    assert (shifted == labels[:, kept + 1]).all()
    assert (shifted != IGNORED).sum() == (labels != IGNORED).sum() == sum(row.supervised_tokens for row in ROWS)
    assert collate(ROWS[:1])["logits_to_keep"].tolist() == [2, 3]


def test_the_loss_is_the_same_with_all_logits_and_row_by_row(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(build_tiny_llama(tmp_path))
    with torch.no_grad():
        selected = model(**collate(ROWS)).loss
        whole = model(**collate(ROWS, select=False)).loss
        by_row = sum(model(**collate([row])).loss * row.supervised_tokens for row in ROWS)
    assert selected.item() == pytest.approx(whole.item(), rel=1e-6)
    assert selected.item() == pytest.approx(by_row.item() / sum(row.supervised_tokens for row in ROWS), rel=1e-5)
