"""Rows to steps, shares, packs and batches; and packs in real models: what a document sees, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, BloomConfig, BloomForCausalLM

from finetune.packing import BLANK, Schedule, collate, collator, divide, isolates, pack, share
from finetune.rows import IGNORED, TrainingRow
from tests.tiny import build_tiny_llama

EOS = 1  # <|im_end|>, which is the padding token of the tiny model as well
ROWS = [
    TrainingRow((5, 6, 7, 8, EOS), ((3, 5),)),
    TrainingRow((9, 10, 11, 12, 13, 14, 15, EOS), ((2, 4), (6, 8))),
    TrainingRow((4, EOS), ((1, 2),)),
]
LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=40)


def rows_of(lengths: list[int]) -> list[TrainingRow]:
    """Rows that can be told apart: each of one token of its own."""
    return [TrainingRow((index,) * length, ((1, length),)) for index, length in enumerate(lengths)]


def tokens(rows: list[TrainingRow]) -> int:
    return sum(len(row.input_ids) for row in rows)


@given(n_rows=st.integers(1, 50), batch_size=st.integers(1, 9), seed=st.integers(0, 3))
def test_every_epoch_takes_every_row_once(n_rows: int, batch_size: int, seed: int) -> None:
    rows = rows_of([2] * n_rows)
    per_epoch = -(-n_rows // batch_size)
    steps = list(Schedule(rows, batch_size, 2 * per_epoch, seed))
    for epoch in (steps[:per_epoch], steps[per_epoch:]):
        assert sorted(row.input_ids for step in epoch for row in step.rows) == [row.input_ids for row in rows]
        assert [len(step.rows) for step in epoch[:-1]] == [batch_size] * (per_epoch - 1)


def test_the_order_is_that_of_seed_and_epoch_wherever_one_begins() -> None:
    rows = rows_of([2] * 30)
    steps = list(Schedule(rows, 4, 20, seed=1))
    assert [Schedule(rows, 4, 20, seed=1)[index] for index in range(19, -1, -1)] == steps[::-1]
    assert steps != list(Schedule(rows, 4, 20, seed=2))
    assert {row for step in steps[:8] for row in step.rows} == set(rows)
    assert steps[:8] != steps[8:16]


@given(lengths=LENGTHS, processes=st.integers(1, 5), pack_length=st.integers(0, 100))
def test_dividing_loses_and_doubles_no_row(lengths: list[int], processes: int, pack_length: int) -> None:
    rows = rows_of(lengths)
    divided = divide(rows, processes, pack_length)
    assert len(divided) == processes
    assert len({len(packs) for packs in divided}) == 1  # all take part in every pass
    placed = [row for packs in divided for rows in packs for row in rows if row is not BLANK]
    assert sorted(row.input_ids[0] for row in placed) == list(range(len(rows)))
    for some in (some for packs in divided for some in packs):
        assert tokens(some) <= pack_length or len(some) == 1


@given(lengths=LENGTHS, processes=st.integers(1, 5))
def test_shares_are_balanced(lengths: list[int], processes: int) -> None:
    loads = [tokens(some) for some in share(rows_of(lengths), processes)]
    assert max(loads) - min(loads) <= max(lengths)


@given(lengths=LENGTHS, pack_length=st.integers(60, 120))
def test_packs_are_few(lengths: list[int], pack_length: int) -> None:
    packs = pack(rows_of(lengths), pack_length)
    assert len(packs) <= 11 / 9 * -(-sum(lengths) // pack_length) + 4 or len(packs) == len(lengths)
    # No two of them would fit into one.
    loads = sorted(map(tokens, packs))
    assert len(loads) == 1 or loads[0] + loads[1] > pack_length


def test_best_fit_decreasing() -> None:
    assert [[len(row.input_ids) for row in some] for some in pack(rows_of([3, 6, 4, 7]), 10)] == [[3, 7], [6, 4]]
    assert [len(some) for some in pack(rows_of([3, 6, 4]), 0)] == [1, 1, 1]


def test_point_4_and_7_labels_are_masked_by_place_and_the_first_of_each_document_always() -> None:
    whole = TrainingRow((4, 5, EOS), ((0, 3),))
    batch = collate([ROWS[0], ROWS[1], whole])
    assert batch["labels"].tolist() == [
        [IGNORED] * 3 + [8, EOS] + [IGNORED] * 2 + [11, 12, IGNORED, IGNORED, 15, EOS] + [IGNORED, 5, EOS]
    ]
    assert batch["position_ids"].tolist() == [[*range(5), *range(8), *range(3)]]
    assert "attention_mask" not in batch  # packs are not recognised beside one


def test_kept_positions_carry_every_label_once() -> None:
    batch = collate(ROWS)
    labels, kept, shifted = batch["labels"], batch["logits_to_keep"], batch["shift_labels"]
    assert (shifted == labels[:, kept + 1]).all()
    assert (shifted != IGNORED).sum() == sum(row.supervised_tokens for row in ROWS)


def test_borders_for_varlen_kernels() -> None:
    batch = collate(ROWS, varlen=True)
    assert batch["cu_seq_lens_q"].tolist() == [0, 5, 13, 15]
    assert (batch["max_length_k"], batch["cu_seq_lens_k"].dtype) == (8, torch.int32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", hidden_size=64)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_point_7_packed_logits_and_gradients_equal_unpacked_ones(folder: Path, attention: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
    supervised = sum(row.supervised_tokens for row in ROWS)

    def run(*packs: list[TrainingRow]) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        outputs = [model(**collate(some), num_items_in_batch=supervised) for some in packs]
        sum(output.loss for output in outputs).backward()
        return torch.cat([output.logits[0] for output in outputs]), model.model.embed_tokens.weight.grad.clone()

    packed_logits, packed_gradients = run(ROWS)
    logits, gradients = run(*([row] for row in ROWS))
    torch.testing.assert_close(packed_logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed_gradients, gradients, rtol=1e-3, atol=1e-4)
    # The comparison can tell: as one document the logits are others.
    joined = model(**{**collate(ROWS), "position_ids": torch.arange(15)[None]}).logits[0]
    assert (joined - logits).abs().max() > 1


def test_point_7_with_a_cache_documents_would_see_each_other(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert collate(ROWS)["use_cache"] is False
    with torch.no_grad():
        isolated, mixed = (model(**{**collate(ROWS), "use_cache": cache}).logits for cache in (False, True))
    assert (isolated - mixed).abs().max() > 1


def test_point_7_a_model_is_asked_whether_it_isolates(folder: Path) -> None:
    for attention in ("sdpa", "eager"):
        assert isolates(AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention))
        assert isolates(
            AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype=torch.bfloat16)
        )
    assert not isolates(tiny_bloom())


def tiny_bloom() -> BloomForCausalLM:
    """A model whose attention goes by distance and knows no positions."""
    torch.manual_seed(0)
    return BloomForCausalLM(BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.3))


def test_the_loss_is_the_same_with_all_logits_and_row_by_row(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        selected = model(**collator(model)(ROWS)).loss
        whole = model(**collate(ROWS, select=False)).loss
        by_row = sum(model(**collate([row])).loss * row.supervised_tokens for row in ROWS)
        blank = model(**collate([BLANK]), num_items_in_batch=1).loss
    assert selected.item() == pytest.approx(whole.item(), rel=1e-6)
    assert selected.item() == pytest.approx(by_row.item() / sum(row.supervised_tokens for row in ROWS), rel=1e-5)
    assert blank.item() == 0
