"""`accelerate launch` with the shipped configurations, on two CPU processes: the same steps as with one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finetune.config import TrainConfig
from finetune.training import train
from selfinstruct.files import read_toml
from tests.tiny import build_tiny_llama
from tests.training import EVAL_ROWS, ROOT, ROWS, column, flags, write


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    # 7 rows in steps of 4: neither an epoch nor its last step divides evenly; one evaluation row for two processes.
    folder = tmp_path_factory.mktemp("processes")
    return TrainConfig(
        data=[write(folder / "rows.jsonl", ROWS[:7])], eval_data=write(folder / "eval.jsonl", EVAL_ROWS[:1]),
        model=str(build_tiny_llama(folder / "tiny", hidden_size=64)), batch_size=4, epochs=3, learning_rate=1e-2,
        save_steps=2, out=folder / "one",
    )  # fmt: skip


@pytest.fixture(scope="module")
def one(config: TrainConfig) -> Path:
    train(config)
    return config.out


def launch(config: TrainConfig, configuration: str, script: str) -> subprocess.CompletedProcess[str]:
    accelerate = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--main_process_port=0"]
    accelerate += ["--config_file", str(ROOT / "scripts" / "accelerate" / configuration)]
    return subprocess.run(
        [*accelerate, str(ROOT / script), *flags(config)], capture_output=True, text=True, check=False, timeout=180,
        cwd=ROOT,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("configuration", "script"), [("ddp.yaml", "scripts/finetune.py"), ("fsdp.yaml", "tests/fsdp_on_cpu.py")]
)
def test_point_8_two_processes_train_like_one(config: TrainConfig, one: Path, configuration: str, script: str) -> None:
    out = one.parent / configuration
    result = launch(config.model_copy(update={"out": out}), configuration, script)
    assert result.returncode == 0, result.stderr
    assert read_toml(out / "train.toml")["batching"]["processes"] == 2
    for name in ("loss", "grad_norm"):
        assert column(out, name) == pytest.approx(column(one, name), rel=1e-4)
    for name in ("tokens", "supervised_tokens"):  # no row twice
        assert column(out, name) == column(one, name)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (out, one)]
    for name in ("eval_loss_before", "eval_loss"):
        assert summaries[0][name] == pytest.approx(summaries[1][name], rel=1e-4)
    adapters = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (out, one)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, weight in adapters[0].items():
        assert (weight - adapters[1][name]).abs().max() < 1e-3, name
