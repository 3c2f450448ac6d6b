"""`finetune train` with a real tiny model: what is learnt, written, resumed and refused."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.cli import GROUP
from finetune.config import TrainConfig
from finetune.folder import TrainSummary
from finetune.models import RECORD
from finetune.training import TrainPlan, describe, train
from selfinstruct.command import run_program
from selfinstruct.errors import Error, InputError, Interrupted, UsageError
from selfinstruct.files import read_json, read_toml
from selfinstruct.render import renderer_for
from tests.tiny import build_tiny_llama
from tests.training import EVAL_ROWS, ROOT, ROWS, TIMES, contents, metrics, started, timeless, wait_for, write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", hidden_size=64)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


def mean_loss(model: torch.nn.Module, tokenizer: Any, rows: list[dict[str, Any]]) -> float:
    """Mean cross-entropy over the answers' tokens, computed from the logits of one row at a time."""
    renderer = renderer_for(tokenizer, "chat")
    losses = []
    for row in rows:
        prompt = renderer.prompt(row["instruction"], row["input"])
        completion = renderer.completion(row["instruction"], row["input"], row["output"])
        start = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        ids = tokenizer(prompt + completion, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            log_probs = model(ids).logits[0].log_softmax(-1)
        losses += [-log_probs[i - 1, ids[0, i]].item() for i in range(start, ids.shape[1])]
    return sum(losses) / len(losses)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
def test_learns_eight_rows_and_their_ends_and_writes_what_it_promises(model: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    held = write(tmp_path / "eval.jsonl", EVAL_ROWS)
    summary = train(TrainConfig(data=[rows], eval_data=held, model=str(model), out=out, epochs=60, learning_rate=1e-2))
    assert isinstance(summary, TrainSummary)
    assert summary.steps == 60
    assert metrics(out)[-1]["loss"] < 0.05
    assert sorted(path.name for path in out.iterdir()) == [
        "adapter", "metrics.jsonl", "summary.json", "tokens.json", "train.toml",
    ]  # fmt: skip
    assert json.loads((out / "summary.json").read_text()) == summary.model_dump()
    first = json.loads((out / "tokens.json").read_text())["rows"][0]
    assert first["place"] == f"{rows}:1"
    learnt = "".join(token["text"] for token in first["tokens"] if token["label"] == "learnt")
    assert learnt.startswith("Paris")
    assert {"step", "loss", "learning_rate", "tokens", "supervised_tokens", "tokens_per_s"} <= metrics(out)[0].keys()
    assert summary.train_loss == pytest.approx(sum(line["loss"] for line in metrics(out)) / 60)
    assert "evaluation loss" in describe(summary)

    # The adapter works with PEFT alone.
    tokenizer = AutoTokenizer.from_pretrained(out / "adapter")
    base = AutoModelForCausalLM.from_pretrained(model)
    assert mean_loss(base, tokenizer, EVAL_ROWS) == pytest.approx(summary.eval_loss_before, rel=1e-5)
    tuned = PeftModel.from_pretrained(base, str(out / "adapter"))
    assert mean_loss(tuned, tokenizer, EVAL_ROWS) == pytest.approx(summary.eval_loss, rel=1e-4)
    assert mean_loss(tuned, tokenizer, ROWS) < 0.05
    messages = [{"role": "user", "content": "Capital of Peru?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = tuned.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "Lima<|im_end|>"

    # Nothing in it leads back to this machine.
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert all(str(tmp_path.parent).encode() not in text for text in contents(out / "adapter").values())
    record = read_toml(out / "train.toml")
    assert record["base"]["location"] == str(model)
    assert read_json(out / "adapter" / RECORD)["template"] == "chat"
    card = (out / "adapter" / "README.md").read_text()
    for fact in ("rows.jsonl", record["files"][0]["sha256"], summary.template_sha256, record["base"]["weights_sha256"]):
        assert fact in card


def test_a_step_is_the_same_however_it_is_divided(model: Path, rows: Path, tmp_path: Path) -> None:
    # 8 rows in steps of 3: the last step of an epoch has 2 rows; the answers differ in length, so rows do not weigh
    # the same.
    summaries = {}
    for pack_length in (0, 512):
        out = tmp_path / str(pack_length)
        config = TrainConfig(
            data=[rows], model=str(model), out=out, batch_size=3, pack_length=pack_length, epochs=2, learning_rate=1e-2
        )
        summaries[pack_length] = train(config)
    one, three = metrics(tmp_path / "0"), metrics(tmp_path / "512")
    assert [line["step"] for line in one] == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in one] == pytest.approx([line[name] for line in three], rel=1e-4)
    for name in ("tokens", "supervised_tokens"):
        assert [line[name] for line in one] == [line[name] for line in three]


def test_the_loss_of_a_step_is_the_mean_over_all_its_answer_tokens(model: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # A warm-up: the first step has a learning rate of 0, and the second still sees the base model.
    config = TrainConfig(data=[rows], model=str(model), out=out, epochs=4, warmup_ratio=0.5)
    train(config)
    expected = mean_loss(AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model), ROWS)
    assert [line["loss"] for line in metrics(out)][:2] == pytest.approx([expected, expected], rel=1e-5)


def resumable(model: Path, rows: Path, out: Path, log_steps: int = 1) -> TrainConfig:
    # Dropout needs the random state, 8 rows in steps of 3 the place in the epoch, cosine the state of the schedule.
    return TrainConfig(
        data=[rows], eval_data=rows.parent / "eval.jsonl", model=str(model), out=out, batch_size=3, epochs=20,
        dropout=0.2, schedule="cosine", save_steps=7, eval_steps=10, log_steps=log_steps,
        threads=1,  # sums over threads are rounded by how the threads divide them
    )  # fmt: skip


def signal_at(out: Path, lines: int) -> threading.Thread:
    """Send this process a SIGINT once so many steps are logged."""

    def watch() -> None:
        path = out / "metrics.jsonl"
        wait_for(lambda: path.exists() and path.read_text().count("\n") >= lines)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_an_interrupted_training_goes_on_to_the_same_bytes(model: Path, rows: Path, tmp_path: Path) -> None:
    write(tmp_path / "eval.jsonl", EVAL_ROWS)
    whole = train(resumable(model, rows, tmp_path / "whole"))
    out = tmp_path / "parts"
    for lines in (2, 25):
        watcher = signal_at(out, lines)
        with pytest.raises(Interrupted, match=r"stopped after step \d+ of 60; the same command resumes"):
            train(resumable(model, rows, out))
        watcher.join()
        assert not (out / "summary.json").exists()
    parts = train(resumable(model, rows, out))
    assert contents(out / "adapter") == contents(tmp_path / "whole" / "adapter")
    assert timeless(out) == timeless(tmp_path / "whole")
    assert parts.eval_loss_before == whole.eval_loss_before

    # Finished: said, and not done again.
    before = contents(out)
    assert train(resumable(model, rows, out)) == parts
    assert contents(out) == before


def test_a_killed_training_goes_on_to_the_same_bytes(model: Path, rows: Path, tmp_path: Path) -> None:
    write(tmp_path / "eval.jsonl", EVAL_ROWS)
    train(resumable(model, rows, tmp_path / "whole", log_steps=4))
    out = tmp_path / "killed"
    config = resumable(model, rows, out, log_steps=4)
    process = started(config)
    path = out / "metrics.jsonl"
    wait_for(lambda: process.poll() is not None or (path.exists() and path.read_text().count("\n") >= 8))
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    step = max(int(folder.name.removeprefix("step-")) for folder in (out / "checkpoints").glob("step-*"))
    assert 14 <= step < 60
    with open(path, "a") as file:
        file.write('{"step": 99, "lo')  # a line that was being written
    train(config)
    assert contents(out / "adapter") == contents(tmp_path / "whole" / "adapter")
    assert timeless(out) == timeless(tmp_path / "whole")


def test_other_settings_and_other_data_are_refused_by_name(model: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = TrainConfig(data=[rows], model=str(model), out=out, max_steps=1)
    train(config)
    before = contents(out)
    with pytest.raises(UsageError, match=r"--rank was 16, now 8; --learning-rate was 0.0002, now 0.001"):
        train(config.model_copy(update={"rank": 8, "learning_rate": 1e-3}))
    with pytest.raises(UsageError, match=r"--max-steps was 1, now not set"):
        train(config.model_copy(update={"max_steps": None}))
    train(config.model_copy(update={"threads": torch.get_num_threads(), "report_to": "none"}))
    write(rows, ROWS[:-1])
    with pytest.raises(UsageError, match=r"train file 1 \(rows.jsonl\) was"):
        train(config)
    assert contents(out) == before


@pytest.mark.parametrize(
    ("files", "flags", "message"),
    [
        ({}, {"data": ["missing.jsonl"]}, r"missing\.jsonl: no such file"),
        ({"a.jsonl": '{"instruction": "x"}\n'}, {"data": ["a.jsonl"]}, r"a\.jsonl:1: field 'output'"),
        ({"a.jsonl": "{}\n", "b.jsonl": "{"}, {"data": ["b.jsonl"]}, r"b\.jsonl:1: is not valid JSON"),
        ({"a.jsonl": ""}, {"data": ["a.jsonl"]}, r"a\.jsonl: holds no row"),
        ({"run/ledger.sqlite": ""}, {"data": ["run"]}, r"run: holds no dataset\.jsonl"),
        ({}, {"eval_data": "none.jsonl"}, r"none\.jsonl: no such file"),
        ({}, {"include_seeds": True, "seeds": "none.jsonl"}, r"none\.jsonl: no such file"),
        ({}, {"model": "no/such/model"}, "no/such/model"),
        ({}, {"max_length": 8}, "no row is left to train on: 8 too_long"),
        ({}, {"report_to": "trackio"}, "needs the package trackio"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_leaves_everything_as_it_was(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Any, flags: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=message):
        train(TrainConfig.model_validate({"data": [rows], "model": str(model), "out": "out", **flags}))
    assert contents(tmp_path) == before
    assert not Path("out").exists()


def test_a_folder_with_other_files_is_left_alone(model: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds other files"):
        train(TrainConfig(data=[rows], model=str(model), out=tmp_path))
    assert list(contents(tmp_path)) == ["rows.jsonl"]
    with pytest.raises(UsageError, match="is a file"):
        train(TrainConfig(data=[rows], model=str(model), out=rows))


def test_a_broken_record_is_named(model: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.toml").write_text("[config]\nrank = 16\n")
    with pytest.raises(InputError, match=r"train\.toml: field 'base': is missing"):
        train(TrainConfig(data=[rows], model=str(model), out=out))


def test_a_diverging_training_says_so_and_writes_no_adapter(model: Path, rows: Path, tmp_path: Path) -> None:
    config = TrainConfig(data=[rows], model=str(model), out=tmp_path / "out", learning_rate=1e30, warmup_ratio=0)
    with pytest.raises(Error, match="try a lower --learning-rate"):
        train(config)
    assert not (tmp_path / "out" / "adapter").exists()


def test_a_training_that_changes_nothing_is_an_error(model: Path, rows: Path, tmp_path: Path) -> None:
    # The only step is one of the warm-up, with a learning rate of 0.
    config = TrainConfig(data=[rows], model=str(model), out=tmp_path / "out", max_steps=1, warmup_ratio=0.9)
    with pytest.raises(Error, match="left the adapter as it was at the start"):
        train(config)
    assert not (tmp_path / "out" / "adapter").exists()


def test_a_dry_run_tells_what_a_run_does_and_writes_nothing(model: Path, rows: Path, tmp_path: Path) -> None:
    config = TrainConfig(data=[rows], model=str(model), out=tmp_path / "out", eval_fraction=0.25, epochs=2)
    plan = train(config.model_copy(update={"dry_run": True}))
    assert isinstance(plan, TrainPlan)
    assert not (tmp_path / "out").exists()
    assert describe(plan).startswith("would train on 6 rows; 2 steps; ")
    summary = train(config)
    assert (summary.rows_used, summary.eval_rows, summary.steps) == (plan.rows_used, plan.eval_rows, plan.steps)
    assert (summary.tokens, summary.supervised_tokens) == (2 * plan.tokens, 2 * plan.supervised_tokens)
    assert summary.trainable_parameters == plan.trainable_parameters
    assert summary.template_sha256 == plan.template_sha256


def test_a_model_without_a_chat_template_gets_alpacas(rows: Path, tmp_path: Path) -> None:
    base = build_tiny_llama(tmp_path / "base", chat_template=None)
    out = tmp_path / "out"
    train(TrainConfig(data=[rows], model=str(base), out=out, max_steps=1))
    assert read_json(out / "adapter" / RECORD)["template"] == "alpaca"


def test_a_training_stopped_after_its_last_step_is_not_trained_again(model: Path, rows: Path, tmp_path: Path) -> None:
    write(tmp_path / "eval.jsonl", EVAL_ROWS)
    whole, out = tmp_path / "whole", tmp_path / "out"
    summary = train(resumable(model, rows, whole))
    out.mkdir()
    (out / ".adapter.partial").write_text("a file in the way of the folder that is to be written")
    with pytest.raises(OSError):
        train(resumable(model, rows, out))
    logged = (out / "metrics.jsonl").read_bytes()
    (out / ".adapter.partial").unlink()
    again = train(resumable(model, rows, out))
    assert (out / "metrics.jsonl").read_bytes() == logged
    assert contents(out / "adapter") == contents(whole / "adapter")
    assert again.model_dump(exclude={*TIMES, "supervised_tokens_per_s"}) == summary.model_dump(
        exclude={*TIMES, "supervised_tokens_per_s"}
    )


def test_a_pipe_gets_plain_lines_and_quiet_nothing(
    model: Path, rows: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", str(rows), "--model", str(model), "--max-steps=1"]
    said = {}
    for out, flags in (("spoken", []), ("quiet", ["--quiet"])):
        assert run_program(GROUP, "finetune", [*arguments, "--out", str(tmp_path / out), *flags]) == 0
        printed = capfd.readouterr()
        assert printed.out.startswith("trained on 8 rows; 1 steps")
        said[out] = printed.err.splitlines()
    for name in ("selfinstruct", "finetune"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    assert [line.split("  ")[0] for line in said["spoken"]] == ["step 1/1"]
    assert said["quiet"] == []


def test_importing_the_command_loads_no_torch() -> None:
    code = "import sys, finetune.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
