"""`finetune inspect`, and training with conversations, weights and a template file, on a real tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.cli import GROUP
from finetune.config import TrainConfig
from finetune.evaluation import EvaluateConfig, evaluate
from finetune.folder import TrainSummary
from finetune.inspection import InspectConfig, inspect
from finetune.training import TrainPlan, train
from selfinstruct.command import run_program
from selfinstruct.errors import UsageError
from selfinstruct.files import read_toml
from tests.tiny import CHAT_TEMPLATE, build_tiny_llama

ROOT = Path(__file__).resolve().parents[2]
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi \x1b[31m"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Ciao, é"},
    ]
}
ROWS = [{"instruction": f"Say {n}.", "input": "", "output": n} for n in ("one", "two", "three", "four")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def data(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "chats.jsonl", tmp_path / "rows.jsonl"]
    paths[0].write_text(json.dumps(CHAT) + "\n")
    paths[1].write_text("".join(f"{json.dumps(row)}\n" for row in [*ROWS, {**ROWS[0], "output": ""}]))
    return paths


def test_tokens_labels_drops_lengths_and_layers(model: Path, data: list[Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = inspect(InspectConfig(data=data, model=str(model), rows=2, rank=4))
    assert [row.place for row in result.rows] == [f"{data[0]}:1", f"{data[1]}:1"]
    tokens = result.rows[0].tokens
    assert "".join(token.text for token in tokens if token.label == "learnt").startswith("Hello<|im_end|>Ciao, ")
    assert all(token.special == token.text.startswith("<|") for token in tokens)
    assert (result.rows_used, result.rows_dropped) == (5, {"empty_output": 1})
    assert result.lengths["max"] == len(tokens)
    assert sum(n for _, n in result.length_counts) == 5
    plan = train(TrainConfig(data=data, model=str(model), out=tmp_path / "out", rank=4, dry_run=True))
    assert isinstance(plan, TrainPlan)
    assert (result.tokens, result.supervised_tokens) == (plan.tokens, plan.supervised_tokens)
    assert result.trainable_parameters == plan.trainable_parameters == sum(layer.trainable for layer in result.layers)
    assert result.template_sha256 == plan.template_sha256
    by_name = {layer.name: layer for layer in result.layers}
    queries = by_name["model.layers.*.self_attn.q_proj"]
    assert (queries.n, queries.parameters, queries.trainable) == (2, 2 * 32 * 32, 2 * 4 * (32 + 32))
    assert by_name["model.embed_tokens"].trainable == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pipe_gets_the_same_in_plain_text(model: Path, data: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["inspect", "--data", *map(str, data), "--model", str(model)]
    assert run_program(GROUP, "finetune", command) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out  # neither colours nor what a row holds
    assert f"--- row 1: {data[0]}:1, " in out
    assert "\nlearnt  H│el│l│o│«<|im_end|>»\ngiven   ⏎\n        «<|im_start|>»│u│s│e│r│⏎\n" in out
    assert "Hi"[0] + "│i│ │\\x1b│[│3│1│m" in out
    assert "5 rows to train on, 1 dropped (empty_output)" in out
    assert "model.layers.*.mlp.down_proj" in out
    assert run_program(GROUP, "finetune", [*command, "--json", "--rows", "1"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 1


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_colours_unless_it_wants_none(
    model: Path, data: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_color: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")  # counts as a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    command = ["inspect", "--data", str(data[1]), "--model", str(model), "--rows", "1"]
    assert run_program(GROUP, "finetune", command) == 0
    out = capsys.readouterr().out
    assert ("\x1b[32mlearnt" in out) != no_color  # green
    assert ("\x1b[1;35m«<|im_end|>»" in out) != no_color  # bold magenta
    assert "learnt" in out


def test_held_out_tasks_are_reported_by_place(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = json.loads((ROOT / "data" / "heldout" / "topic.jsonl").read_text().splitlines()[0])
    leak = {"instruction": task["instruction"], "input": task["input"], "output": task["references"][0]}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(ROWS[0])}\n{json.dumps(leak)}\n")
    command = ["inspect", "--data", str(tmp_path / "rows.jsonl"), "--model", str(model), "--rows", "0"]
    command += ["--held-out", str(ROOT / "data" / "heldout")]
    assert run_program(GROUP, "finetune", command) == 2
    assert "rows.jsonl:2: 1 rows have something in common" in capsys.readouterr().err
    assert run_program(GROUP, "finetune", [*command, "--contamination", "drop"]) == 0
    out = capsys.readouterr().out
    assert "1 rows to train on, 1 dropped (contaminated)" in out
    assert f"held out: {tmp_path}/rows.jsonl:2: the instruction shares" in out


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
def test_a_template_file_goes_along_from_training_to_evaluation(model: Path, data: list[Path], tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text(CHAT_TEMPLATE.replace("<|im_start|>", "# "))
    config = TrainConfig(
        data=data, weights=[1, 1], model=str(model), out=tmp_path / "out", template=str(template), max_steps=2
    )
    summary = train(config)
    assert isinstance(summary, TrainSummary)
    assert summary.rows_used == 5
    record = read_toml(tmp_path / "out" / "train.toml")
    assert [(file["rows"], file["used"]) for file in record["files"]] in ([(1, 2), (5, 3)], [(1, 3), (5, 2)])
    assert record["template"]["sha256"] == summary.template_sha256
    with pytest.raises(UsageError, match=r"--weights was \[1\.0, 1\.0\], now"):
        train(config.model_copy(update={"weights": [1.0, 2.0]}))

    adapter = tmp_path / "out" / "adapter"
    assert (adapter / "chat_template.jinja").read_text() == template.read_text()
    assert json.loads((adapter / "selfinstruct.json").read_text())["template"] == "chat"
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(
        json.dumps({"task": "t", "cluster": "c", "instruction": "Say it.", "input": "", "references": ["a"]}) + "\n"
    )
    hashes = {}
    for name, options in {"adapter": {"adapter": adapter}, "file": {"template": str(template)}, "model": {}}.items():
        out = tmp_path / f"evaluate-{name}"
        result = evaluate(
            EvaluateConfig.model_validate(
                {"model": str(model), "tasks": [tasks], "out": out, "max_new_tokens": 2, **options}
            )
        )
        hashes[name] = result.model_dump()["template_sha256"]
        prompt = json.loads((out / "predictions.jsonl").read_text())["prompt"]
        assert prompt.startswith("<|im_start|>user" if name == "model" else "# user")
    assert hashes["adapter"] == hashes["file"] == summary.template_sha256 != hashes["model"]
