"""Whatever is wrong with a training: one clear error, and everything left as it was."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

from finetune.config import TrainConfig
from finetune.training import train
from selfinstruct.errors import UsageError
from tests.tiny import build_tiny_llama
from tests.training import ROWS, contents, metrics, started, write


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


def weights(model: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change a model's weights."""
    file = model / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def settings(model: Path, **changes: Any) -> None:
    """Change a model's config.json."""
    file = model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def nan(model: Path) -> None:
    weights(model, lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"][3, 5].fill_(float("nan")))


def infinite(model: Path) -> None:
    weights(model, lambda tensors: tensors["model.norm.weight"][0].fill_(float("inf")))


def lacking(model: Path) -> None:
    weights(model, lambda tensors: tensors.pop("model.norm.weight"))


def truncated(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def pickled(model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def misshapen(model: Path) -> None:
    settings(model, hidden_size=48)


def unknown(model: Path) -> None:
    settings(model, model_type="llamoid", architectures=["Llamoid"])


def extended(model: Path) -> None:
    """Special tokens in the tokenizer that the (tied) embeddings do not have; the template uses one."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<|user|>"], special_tokens=True)
    tokenizer.chat_template = "<|user|>" + tokenizer.chat_template
    tokenizer.save_pretrained(model)


def adapter_only(model: Path) -> None:
    (model / "config.json").rename(model / "adapter_config.json")


def blind_to_positions(model: Path) -> None:
    torch.manual_seed(0)
    bloom = BloomForCausalLM(BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.3))
    bloom.save_pretrained(model)


REFUSED: list[Any] = [
    # What is wrong with the model, with the settings, and what is said.
    (nan, {}, r"layers\.1\.mlp\.up_proj\.weight hold values that are not finite. Get the model again"),
    (infinite, {}, r"model\.norm\.weight hold values that are not finite"),
    (lacking, {}, r"lacks 1 weights, model\.norm\.weight among them"),
    (truncated, {}, r"the model cannot be used"),
    (pickled, {}, r"the model cannot be used"),
    (misshapen, {}, r"has not the shape that config\.json asks for"),
    (unknown, {}, r"llamoid"),
    (extended, {}, r"the tokenizer gives token \d+, but the model has embeddings for \d+ only"),
    (adapter_only, {}, r"This is an adapter: give it with --adapter"),
    (blind_to_positions, {"pack_length": 100}, r"--pack-length 100: BloomForCausalLM lets the rows of a pack see"),
    (None, {"target_modules": "q_proj,lm_head"}, r"--target-modules lm_head: this model has one matrix for input and"),
    (None, {"target_modules": "embed_tokens"}, r"--target-modules embed_tokens: this model has one matrix"),
    (None, {"target_modules": "attention"}, r"--target-modules attention: .*not found"),
    (None, {"liger": "on"}, r"--liger on needs"),
    (None, {"report_to": "trackio"}, r"--report-to trackio needs the package trackio"),
]


@pytest.mark.parametrize(
    ("spoil", "changes", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", None) or str(value)[:40]
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    tiny: Path, tmp_path: Path, spoil: Callable[[Path], None] | None, changes: dict[str, Any], message: str
) -> None:
    model = Path(shutil.copytree(tiny, tmp_path / "model"))
    if spoil:
        spoil(model)
    rows, out = write(tmp_path / "rows.jsonl", ROWS), tmp_path / "out"
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=message):
        train(TrainConfig.model_validate({"data": [rows], "model": str(model), "out": out, **changes}))
    assert contents(tmp_path) == before
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "greater than or equal to 1"),
        ({"dropout": 1.0}, "less than 1"),
        ({"learning_rate": 0}, "greater than 0"),
        ({"alpha": float("nan")}, "greater than 0"),
        ({"pack_length": -1}, "greater than or equal to 0"),
        ({"quantize": "int3"}, "'none' or 'nf4'"),
        ({"schedule": "exponential"}, "'constant', 'linear' or 'cosine'"),
        ({"target_modules": ""}, "at least 1 character"),
        ({"patience": 2}, "--patience and --keep best need --eval-steps"),
        ({"keep": "best"}, "--patience and --keep best need --eval-steps"),
        ({"eval_steps": 2}, "--eval-steps needs --eval-data or --eval-fraction"),
        ({"eval_data": "a", "eval_fraction": 0.1}, "exclude each other"),
        ({"probe_steps": 3}, "--probe-steps needs --dry-run"),
        ({"micro_batch_size": 3}, "Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate({"data": ["rows.jsonl"], "out": "out", **changes})


@pytest.fixture
def config(tiny: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data=[write(tmp_path / "rows.jsonl", ROWS)], model=str(tiny), out=tmp_path / "out", threads=1, warmup_ratio=0
    )


def test_a_quantised_base_needs_its_package(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.training.find_spec", lambda name: None)  # as where it is not installed
    with pytest.raises(UsageError, match="--quantize nf4 needs the package bitsandbytes: pip install bitsandbytes"):
        train(config.model_copy(update={"quantize": "nf4"}))


def test_fewer_rows_than_processes_are_refused(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="--batch-size 3 is less than the 4 processes"):
        train(config.model_copy(update={"batch_size": 3}))


def test_the_folder_of_another_base_is_left_alone(config: TrainConfig, tmp_path: Path) -> None:
    train(config.model_copy(update={"max_steps": 1}))
    before = contents(config.out)
    other = build_tiny_llama(tmp_path / "tiny", seed=1)
    with pytest.raises(UsageError, match=r"weights of the base model was \w+, now \w+"):
        train(config.model_copy(update={"model": str(other), "max_steps": 1}))
    assert contents(config.out) == before


def limited(kind: int, n_bytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (n_bytes, n_bytes))


def test_a_full_disk_during_a_save_is_an_error_and_what_was_saved_goes_on(config: TrainConfig, tmp_path: Path) -> None:
    config = config.model_copy(update={"epochs": 8, "save_steps": 2})
    train(config.model_copy(update={"out": tmp_path / "whole"}))
    # An adapter takes 80 kB, its optimizer twice that: the first is written and the second is not.
    process = started(config, preexec_fn=limited(resource.RLIMIT_FSIZE, 100_000))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "the checkpoint of step 2 cannot be written to" in errors
    assert "see that there is room, then the same command resumes" in errors
    assert "Traceback" not in errors
    assert not list((config.out / "checkpoints").glob("step-*"))
    train(config)
    assert contents(config.out / "adapter") == contents(tmp_path / "whole" / "adapter")
    assert [line["step"] for line in metrics(config.out)] == list(range(1, 9))


def test_too_little_memory_is_an_error(config: TrainConfig, tmp_path: Path) -> None:
    # The process may have 2 GB more than its libraries, and the embeddings alone take 3.
    model = Path(shutil.copytree(config.model, tmp_path / "wide"))
    settings(model, vocab_size=24_000_000)
    process = started(
        config.model_copy(update={"model": str(model)}), preexec_fn=limited(resource.RLIMIT_AS, 4 << 30),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "error: out of memory" in errors
    assert "Traceback" not in errors
    assert not config.out.exists()
