"""The benchmarks of training and of held-out gain still run, compare like with like and print what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from benchmarks.held_out_gain import Pair, read_pairs, sample
from tests.generating import ROOT
from tests.tiny import build_tiny_llama


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{program}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_contenders_train_on_the_same_batches(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    answers = ["no " * n for n in range(1, 25)]
    rows.write_text("".join(json.dumps({"instruction": f"Say {a}", "input": "", "output": a}) + "\n" for a in answers))
    flags = ["--shapes=llama-8b", "--dry-run", "--threads=1", "--contenders=ours,plain-single"]
    printed = run("training", str(rows), *flags, "--out", str(tmp_path / "out.json"))
    figures = json.loads((tmp_path / "out.json").read_text())["llama-8b"]
    ours, plain = (entry["report"] for entry in figures["runs"])
    assert ours["losses"] == pytest.approx(plain["losses"], rel=1e-5)
    for name in ("tokens", "supervised_tokens", "padded_tokens"):
        assert ours[name] == plain[name] > 0
    assert 0 < ours["supervised_tokens"] < ours["tokens"]
    assert min(ours["elapsed_s"], ours["peak_mib"], figures["peak_flops"]) > 0
    assert "times the real tokens/s of Trainer, batches of 1, accumulated" in printed
    assert "| this project |" in printed


def pairs_file(path: Path) -> Path:
    rows = [
        {
            "cluster": cluster, "dataset": "d", "template": f"{cluster}-{template}", "prompt": f"{cluster} {n}: good?",
            "completion": ["yes", "no"][n % 2] if cluster != "prose" else f"text {n}",
        }
        for cluster in ("topic", "feeling", "prose")
        for template in range(2)
        for n in range(template * 20, template * 20 + 20)
    ]  # fmt: skip
    useless = [
        {**rows[0], "prompt": "x", "completion": " "},
        {**rows[0], "template": "always", "prompt": "y", "completion": "yes"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + useless))
    return path


def test_a_sample_takes_templates_and_answers_in_turn(tmp_path: Path) -> None:
    pairs = read_pairs(pairs_file(tmp_path / "pairs.jsonl"), max_prompt=1000)
    assert {pair.template for pair in pairs} == {f"d/{c}-{t}" for c in ("topic", "feeling", "prose") for t in (0, 1)}
    assert {pair.options for pair in pairs} == {("no", "yes"), ()}
    topic = [pair for pair in pairs if pair.cluster == "topic"]
    drawn = sample(topic, 8, Random(1))
    assert sample(topic, 8, Random(1)) == drawn != sample(topic, 8, Random(2))
    assert sorted((p.template, p.completion) for p in drawn) == sorted(
        [(f"d/topic-{t}", answer) for t in (0, 1) for answer in ("yes", "no")] * 2
    )
    uneven = [Pair("c", "t", str(n), "a" if n else "b", ("a", "b")) for n in range(9)]
    assert sorted(p.completion for p in sample(uneven, 9, Random(0))) == ["a", "b"]


def test_answers_that_a_prompt_lists_are_ranked(tmp_path: Path) -> None:
    prompt = "Which one?\n\n- red\n - dark blue \n- none of these\n"
    rows = [
        {"cluster": "c", "dataset": "d", "template": "t", "prompt": prompt + str(n), "completion": completion}
        for n, completion in enumerate(["dark blue", "red", "a story"])
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    listed = ("red", "dark blue", "none of these")
    assert [pair.options for pair in read_pairs(path, max_prompt=len(prompt) + 1)] == [listed, listed, ()]
    assert read_pairs(path, max_prompt=len(prompt)) == []


def test_held_out_clusters_are_tuned_for_and_compared(tmp_path: Path) -> None:
    model = build_tiny_llama(tmp_path / "tiny")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    pairs = pairs_file(tmp_path / "pairs.jsonl")
    flags = ["--model", str(model), "--held-out=topic", "--train-rows=16", "--items=6", "--learning-rate=0.01"]
    printed = run("held_out_gain", str(pairs), "--folder", str(tmp_path / "made"), *flags)
    for row in ("topic (rank)", "topic (written)", "all accuracy", "all exact_match"):
        assert f"\n{row} " in printed
    trained = [json.loads(line) for line in (tmp_path / "made" / "train.jsonl").read_text().splitlines()]
    assert len(trained) == 16
    assert not [row for row in trained if row["instruction"].startswith("topic")]
    zero, few = (
        [json.loads(line) for line in (tmp_path / "made" / name).read_text().splitlines()]
        for name in ("zero-shot.jsonl", "few-shot.jsonl")
    )
    for short, long in zip(zero, few, strict=True):
        assert long["instruction"].endswith("\n\n" + short["instruction"])
        assert long["instruction"].count("good?") == 4
        assert {k: v for k, v in short.items() if k != "instruction"} == {
            k: v for k, v in long.items() if k != "instruction"
        }
