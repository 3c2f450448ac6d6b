"""What the options of `finetune train` change, what they leave as it is, and what happens when memory runs out."""

from __future__ import annotations

import functools
import logging
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from finetune.config import TrainConfig
from finetune.folder import TrainSummary
from finetune.training import TrainPlan, describe, train
from selfinstruct.errors import Error, InputError, UsageError
from tests.tiny import build_tiny_llama
from tests.training import EVAL_ROWS, ROOT, ROWS, column, contents, metrics, started, timeless, wait_for, write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", hidden_size=64)


@pytest.fixture
def config(model: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data=[write(tmp_path / "rows.jsonl", ROWS)], model=str(model), out=tmp_path / "out", learning_rate=1e-2,
        batch_size=4, epochs=2, threads=1,
    )  # fmt: skip


def but(config: TrainConfig, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({**config.model_dump(exclude_unset=True), **changes})


def trained(config: TrainConfig, **changes: Any) -> TrainSummary:
    result = train(but(config, **changes))
    assert isinstance(result, TrainSummary)
    return result


def adapter(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter_model.safetensors")


# -- how a step is divided ---------------------------------------------------------------------------------------------


def test_point_8_four_passes_of_a_row_are_one_pass_of_four(config: TrainConfig, tmp_path: Path) -> None:
    # Losses, norms of gradients and adapters: with packs of one row, of two or three, and of all.
    for pack_length in (0, 80, 1000):
        trained(config, out=tmp_path / str(pack_length), pack_length=pack_length)
    for other in ("80", "1000"):
        for name in ("loss", "grad_norm"):
            assert column(tmp_path / other, name) == pytest.approx(column(tmp_path / "0", name), rel=1e-4)
        for name, weight in adapter(tmp_path / other).items():
            torch.testing.assert_close(weight, adapter(tmp_path / "0")[name], rtol=0.05, atol=1e-3)


def forward_passes(monkeypatch: pytest.MonkeyPatch, fails_above: int = 10**9) -> list[int]:
    """Tokens of each forward pass from now on; with more than so many, memory runs out."""
    lengths: list[int] = []
    forward = LlamaForCausalLM.forward

    @functools.wraps(forward)
    def counted(self: Any, input_ids: torch.Tensor, **options: Any) -> Any:
        lengths.append(input_ids.numel())
        if self.training and input_ids.numel() > fails_above and not self.is_activation_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, input_ids=input_ids, **options)

    monkeypatch.setattr(LlamaForCausalLM, "forward", counted)
    return lengths


def test_point_18_short_rows_share_a_pass(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = forward_passes(monkeypatch)
    summary = trained(config, pack_length=1000, out=config.out / "packed")
    assert len(lengths) - 3 == summary.steps == 4  # three of the probe for isolation
    assert sum(lengths[3:]) == summary.tokens  # not one of them padding


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "finetune")
    return caplog


def test_memory_that_runs_out_is_answered_with_shorter_packs_and_the_same_steps(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings_of: pytest.LogCaptureFixture
) -> None:
    trained(config, out=tmp_path / "ample", pack_length=1000)
    lengths = forward_passes(monkeypatch, fails_above=80)
    summary = trained(config, out=tmp_path / "scarce", pack_length=1000)
    for name in ("loss", "grad_norm"):
        assert column(tmp_path / "scarce", name) == pytest.approx(column(tmp_path / "ample", name), rel=1e-4)
    for name in ("tokens", "supervised_tokens"):
        assert column(tmp_path / "scarce", name) == column(tmp_path / "ample", name)
    assert 35 <= summary.pack_length <= 80
    assert not summary.gradient_checkpointing
    failed = [length for length in lengths if length > 80]
    assert 1 <= len(failed) <= 2
    said = [record.message for record in warnings_of.records]
    assert len(said) == len(failed)  # once for each, not for each step
    assert said[-1] == f"out of memory: forward passes of at most {summary.pack_length} tokens from now on"


def test_memory_for_not_even_a_row_is_answered_with_checkpointing(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings_of: pytest.LogCaptureFixture
) -> None:
    trained(config, out=tmp_path / "ample")
    forward_passes(monkeypatch, fails_above=20)
    summary = trained(config, out=tmp_path / "scarce")
    assert summary.gradient_checkpointing
    assert column(tmp_path / "scarce", "loss") == pytest.approx(column(tmp_path / "ample", "loss"), rel=1e-5)
    assert [record.message for record in warnings_of.records] == [
        "out of memory: activations are computed twice from now on, to hold fewer"
    ]


def test_memory_that_never_suffices_is_an_error(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    forward_passes(monkeypatch, fails_above=20)
    with pytest.raises(Error, match=r"out of memory with a single row of \d+ tokens; .* a smaller model need less"):
        # On already, so that nothing is left to try but for the stand-in, which fails as long as it is off.
        monkeypatch.setattr(LlamaForCausalLM, "is_activation_checkpointing", False)
        train(but(config, gradient_checkpointing=True))
    assert not (config.out / "adapter").exists()


def test_point_14_checkpointing_changes_no_loss_and_leaves_no_layer_out(config: TrainConfig, tmp_path: Path) -> None:
    for on in (False, True):
        assert trained(config, out=tmp_path / str(on), gradient_checkpointing=on).gradient_checkpointing is on
    assert column(tmp_path / "True", "loss") == pytest.approx(column(tmp_path / "False", "loss"), rel=1e-5)
    learnt = {name: weight for name, weight in adapter(tmp_path / "True").items() if "lora_B" in name}
    assert len(learnt) == 14  # seven linear layers in each of two
    assert all(weight.any() for weight in learnt.values())


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_point_16_what_is_compiled_is_what_is_trained(config: TrainConfig, tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    trained(config, out=tmp_path / "plain", max_steps=1, warmup_ratio=0)
    torch.compiler.set_default_backend("aot_eager")  # traced and cut into graphs alike, without a minute of C++
    counters.clear()
    try:
        trained(config, out=tmp_path / "compiled", max_steps=1, warmup_ratio=0, compile=True)
    finally:
        torch.compiler.set_default_backend("inductor")
    assert counters["stats"]["calls_captured"] > 10
    assert column(tmp_path / "compiled", "loss") == pytest.approx(column(tmp_path / "plain", "loss"), rel=1e-4)


# -- adapters ----------------------------------------------------------------------------------------------------------


def test_variants_of_lora_are_those_of_peft(config: TrainConfig, tmp_path: Path) -> None:
    from peft import PeftConfig

    for name, changes in {
        "dora": {"dora": True}, "rslora": {"rslora": True, "rank": 64}, "few": {"target_modules": "q_proj, v_proj"}
    }.items():  # fmt: skip
        trained(config, out=tmp_path / name, max_steps=3, **changes)
        settings = PeftConfig.from_pretrained(str(tmp_path / name / "adapter"))
        assert (settings.use_dora, settings.use_rslora) == (name == "dora", name == "rslora")
        layers = {key.split(".")[-3] for key in adapter(tmp_path / name) if "lora_A" in key}
        assert layers == {"q_proj", "v_proj"} if name == "few" else len(layers) == 7
    assert any("magnitude" in key for key in adapter(tmp_path / "dora"))


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.filterwarnings("ignore")
def test_point_10_a_quantised_base_learns(config: TrainConfig) -> None:
    summary = trained(config, quantize="nf4", epochs=60)
    assert metrics(config.out)[-1]["loss"] < 0.5 < summary.train_loss


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.filterwarnings("ignore")
def test_evaluating_a_quantised_base_changes_nothing_of_what_it_learns(config: TrainConfig, tmp_path: Path) -> None:
    held = write(tmp_path / "eval.jsonl", EVAL_ROWS)
    trained(config, quantize="nf4", max_steps=6)
    trained(config, quantize="nf4", max_steps=6, eval_data=held, eval_steps=2, out=tmp_path / "evaluated")
    learnt, with_evaluations = adapter(config.out), adapter(tmp_path / "evaluated")
    assert all(torch.equal(learnt[name], with_evaluations[name]) for name in learnt)
    assert all(learnt[name].any() for name in learnt if "lora_B" in name)


# -- evaluation, stopping, schedule ------------------------------------------------------------------------------------


@pytest.fixture
def evaluated(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    # Fast enough to learn the rows by heart, and so to get worse on others.
    held = write(tmp_path / "eval.jsonl", EVAL_ROWS)
    return but(config, eval_data=held, eval_steps=2, epochs=30, learning_rate=0.1, save_steps=7, warmup_ratio=0)


def test_a_training_that_does_not_get_better_stops(evaluated: TrainConfig) -> None:
    summary = trained(evaluated, patience=3)
    losses = [line["eval_loss"] for line in metrics(evaluated.out) if "eval_loss" in line]
    assert summary.steps == summary.kept_step == metrics(evaluated.out)[-1]["step"] == 2 * len(losses) < 60
    assert losses.index(min(losses)) == len(losses) - 4
    assert summary.eval_loss == losses[-1]


def test_the_best_adapter_is_kept(evaluated: TrainConfig, tmp_path: Path) -> None:
    best = trained(evaluated, patience=3, keep="best")
    logged = {line["step"]: line["eval_loss"] for line in metrics(evaluated.out) if "eval_loss" in line}
    assert best.eval_loss == min(logged.values()) == logged[best.kept_step]
    assert best.kept_step < best.steps
    # It is the adapter of a training that ends there.
    short = trained(evaluated, out=tmp_path / "short", max_steps=best.kept_step)
    assert short.eval_loss == pytest.approx(best.eval_loss, rel=1e-6)
    assert (
        contents(tmp_path / "short" / "adapter")["adapter_model.safetensors"]
        == (evaluated.out / "adapter" / "adapter_model.safetensors").read_bytes()
    )


def test_the_linear_schedule_ends_at_zero(config: TrainConfig) -> None:
    trained(config, schedule="linear", warmup_ratio=0.25)
    rates = column(config.out, "learning_rate")
    assert rates == sorted(rates, reverse=True) or rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] == pytest.approx(1e-2 / 3)


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_gets_the_losses(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(config.out / "tensorboard"))
    trained(config, report_to="tensorboard")
    events = EventAccumulator(str(config.out / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(column(config.out, "loss"))
    assert events.Scalars("train/epoch")[-1].value == 2


# -- checkpoints -------------------------------------------------------------------------------------------------------


def unfinished(config: TrainConfig) -> list[Path]:
    """Train up to the last moment, so that the checkpoints stay; oldest first."""
    config.out.mkdir()
    (config.out / ".adapter.partial").write_text("in the way")
    with pytest.raises(OSError, match=r"adapter\.partial"):
        train(config)
    (config.out / ".adapter.partial").unlink()
    return sorted((config.out / "checkpoints").glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_point_12_a_damaged_checkpoint_gives_way_to_the_one_before(
    config: TrainConfig, tmp_path: Path, damage: str, warnings_of: pytest.LogCaptureFixture
) -> None:
    config = but(config, save_steps=1, dropout=0.1)
    trained(config, out=tmp_path / "whole")
    before, last = unfinished(config)
    file = last / "optimizer.pt"
    if damage == "missing":
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(data[:-100] if damage == "truncated" else bytes([data[0] ^ 1]) + data[1:])
    train(config)
    assert [record.message for record in warnings_of.records] == [
        f"{file} is damaged; going on from an older checkpoint"
    ]
    assert before.name == "step-3"
    assert contents(config.out / "adapter") == contents(tmp_path / "whole" / "adapter")
    assert timeless(config.out) == timeless(tmp_path / "whole")


def test_point_12_without_a_whole_checkpoint_it_is_an_error(config: TrainConfig) -> None:
    config = but(config, save_steps=1)
    for checkpoint in unfinished(config):
        (checkpoint / "adapter_model.safetensors").write_bytes(b"")
    before = contents(config.out)
    with pytest.raises(InputError, match=r"step-3/adapter_model\.safetensors: is damaged, and there is no older"):
        train(config)
    assert contents(config.out) == before


def test_point_12_a_training_killed_while_it_saves_goes_on_to_the_same_bytes(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = but(config, save_steps=2, dropout=0.2, epochs=20)
    trained(config, out=tmp_path / "whole")
    partial, killed = config.out / "checkpoints" / ".partial", 0
    for at in (6, 20):
        process = started(config)
        saving = partial / f"checkpoint-{at}"
        wait_for(lambda saving=saving, process=process: saving.exists() or process.poll() is not None, pause_s=0.0002)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        killed += partial.exists() and any(partial.iterdir())
    assert killed  # in the midst of writing
    train(config)
    assert contents(config.out / "adapter") == contents(tmp_path / "whole" / "adapter")
    assert timeless(config.out) == timeless(tmp_path / "whole")


def test_two_trainings_in_one_folder_exclude_each_other(config: TrainConfig) -> None:
    process = started(but(config, epochs=2000))
    try:
        wait_for(lambda: (config.out / "metrics.jsonl").exists() or process.poll() is not None)
        before = (config.out / "train.toml").read_bytes()
        with pytest.raises(UsageError, match="another process is working on"):
            train(but(config, epochs=2000))
        assert (config.out / "train.toml").read_bytes() == before
    finally:
        process.terminate()
        _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert not (config.out / ".lock").exists()


# -- plan --------------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_it_knows_and_no_more(config: TrainConfig) -> None:
    plan = train(but(config, dry_run=True))
    assert isinstance(plan, TrainPlan)
    assert (plan.tokens_per_s, plan.training_s) == (None, None)
    assert "time unknown; --probe-steps 5 measures it" in describe(plan)
    memory = plan.memory_bytes
    assert memory["weights"] == 4 * plan.parameters
    assert memory["adapter"] == memory["optimizer"] == 8 * plan.trainable_parameters
    assert memory["total"] == sum(memory.values()) - memory["total"]
    assert not config.out.exists()


def test_a_probe_measures_the_pace(config: TrainConfig) -> None:
    plan = train(but(config, dry_run=True, probe_steps=3))
    assert isinstance(plan, TrainPlan)
    assert plan.tokens_per_s
    assert plan.training_s == pytest.approx(2 * plan.tokens / plan.tokens_per_s)
    assert "tokens/s in a probe, so about" in describe(plan)
    assert not config.out.exists()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_estimated_memory_is_near_what_a_training_takes(embedded_folder: Path, checkpointing: bool) -> None:
    # Within 30%: allocators and libraries take some for themselves.
    arguments = ["tests.memory_probe", str(embedded_folder), "200", *(["checkpointing"] if checkpointing else [])]
    done = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    estimate, measured = map(int, done.stdout.split())
    assert 0.7 < estimate / measured < 1.1
