"""The whole job on the embedded model, at its smallest: all stages, all files, and a second call that does nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STAGES = ("generate", "train", "evaluate-base", "evaluate-tuned", "compare", "lineage", "report")


def selfinstruct(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the program as a user would."""
    command = [sys.executable, "-m", "selfinstruct", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("demo") / "runs" / "demo"
    done = selfinstruct("demo", "--smoke", "--out", out, check=False)
    assert done.returncode == 0, done.stderr
    return out, done


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_everything_is_made_and_said(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = demo
    for name in (
        "recipe.toml",
        "manifest.json",
        "compare.json",
        "report.html",
        "generate/run.toml",
        "train/train.toml",
    ):
        assert (out / name).stat().st_size > 0
    manifest = json.loads((out / "manifest.json").read_text())["stages"]
    assert list(manifest) == list(STAGES)
    for stage in manifest.values():
        assert stage["state"] == "done"
        for path, sha256 in stage["outputs"].items():
            assert hashlib.sha256((out / path).read_bytes()).hexdigest() == sha256
    assert "no significant change" in done.stdout.lower()
    assert str(out / "report.html") in done.stdout
    assert "OPENAI_API_KEY" in done.stdout


def test_every_candidate_is_accounted_for(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run = demo[0] / "generate"
    accepted, rejected = rows(run / "dataset.jsonl"), rows(run / "rejected.jsonl")
    summary = json.loads((run / "summary.json").read_text())
    with sqlite3.connect(run / "ledger.sqlite") as ledger:
        assert ledger.execute("PRAGMA user_version").fetchone()[0] >= 1
        n_candidates = ledger.execute("SELECT count(*) FROM candidates").fetchone()[0]
        completed = ledger.execute("SELECT count(*) FROM attempts WHERE outcome = 'completed'").fetchone()[0]
    assert summary["accepted"] == len(accepted) == 6
    assert len(accepted) + len(rejected) == n_candidates
    assert sum(summary["rejected"].values()) == len(rejected)
    assert all(row["rule"] for row in rejected)
    assert summary["requests"]["completed"] == completed
    assert summary["cost_usd"] == 0
    assert summary["closed_by"] == "target"


def test_the_adapter_learned_from_hand_written_rows(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    summary = json.loads((demo[0] / "train" / "summary.json").read_text())
    assert summary["eval_loss"] < summary["eval_loss_before"]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_adapter_loads_with_plain_peft_and_answers(
    demo: tuple[Path, subprocess.CompletedProcess[str]], embedded_folder: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = demo[0] / "train" / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(embedded_folder), adapter)
    question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    reply = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(reply[0, inputs["input_ids"].shape[1] :])


def test_scores_have_intervals_and_honest_verdicts(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    comparison = json.loads((demo[0] / "compare.json").read_text())
    assert len(comparison["clusters"]) >= 8
    for cluster in comparison["clusters"].values():
        assert cluster["n"] == 4
        low, high = cluster["ci95"]
        assert low <= cluster["delta"] <= high
        # Four items can never be significant at 5% in a paired sign-flip test.
        assert cluster["verdict"] == "no significant change"
    for name in ("evaluate-base", "evaluate-tuned"):
        predictions = rows(demo[0] / name / "predictions.jsonl")
        assert len(predictions) == json.loads((demo[0] / name / "summary.json").read_text())["n"] == 32
        assert all(0 <= row["score"] <= 1 for row in predictions)


def test_export_is_alpaca_json(demo: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    selfinstruct("export", demo[0] / "generate", "--format", "alpaca", "--out", tmp_path / "alpaca.json")
    exported = json.loads((tmp_path / "alpaca.json").read_text(encoding="utf-8"))
    assert [set(row) for row in exported] == [{"instruction", "input", "output"}] * 6


def test_again_keeps_every_stage(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = demo
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = json.loads(selfinstruct("demo", "--smoke", "--out", out, "--json").stdout)
    assert again["stages"] == dict.fromkeys(STAGES, "kept")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_lost_output_is_made_again(demo: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    out, _ = demo
    saved = shutil.copy(out / "report.html", tmp_path / "report.html")
    (out / "report.html").unlink()
    again = json.loads(selfinstruct("demo", "--smoke", "--out", out, "--json").stdout)
    assert again["stages"] == {**dict.fromkeys(STAGES, "kept"), "report": "done"}
    assert (out / "report.html").stat().st_size == Path(saved).stat().st_size


def test_a_changed_recipe_makes_its_stages_anew_and_keeps_what_was_there(
    demo: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out = tmp_path / "moved"
    shutil.copytree(demo[0], out)
    recipe = (out / "recipe.toml").read_text()
    (tmp_path / "recipe.toml").write_text(recipe.replace("limit = 4", "limit = 1"))
    stages = json.loads(selfinstruct("run", tmp_path / "recipe.toml", "--out", out, "--json").stdout)["stages"]
    assert [name for name, state in stages.items() if state == "kept"] == ["generate", "train"]
    assert len(rows(out / "evaluate-tuned" / "predictions.jsonl")) == 8
    assert len(rows(out / "evaluate-tuned.1" / "predictions.jsonl")) == 32
