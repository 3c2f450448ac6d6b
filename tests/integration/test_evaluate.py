import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from finetune.cli import GROUP
from finetune.comparison import CompareConfig, compare
from finetune.evaluation import EvaluateConfig, describe, evaluate
from finetune.predictions import partial_file, read_predictions
from selfinstruct.command import run_program
from selfinstruct.errors import Error, InputError, UsageError
from selfinstruct.files import read_toml, write_json, write_jsonl
from tests.tiny import build_tiny_llama

# peft asks a model for an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

WORDS = ("review", "country", "sentence", "capital", "instruction", "task", "request", "response")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "items.jsonl"
    rows = [
        {"task": "mood", "cluster": "sentiment", "instruction": "Positive or negative?",
         "input": f"A {word}. " * (i + 1),
         "references": ["positive"], "options": ["positive", "negative"],
         "demonstrations": [{"input": "Fine.", "output": "positive"}]}
        for i, word in enumerate(WORDS)
    ]  # fmt: skip
    rows += [
        {"task": "name", "cluster": "naming", "instruction": "Name the capital.", "input": word, "references": [word],
         "metric": metric}
        for word in WORDS for metric in ("exact_match", "rouge_l")
    ]  # fmt: skip
    write_jsonl(path, rows)
    return path


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    """An adapter that changes every answer, in the format that training writes."""
    folder = tmp_path_factory.mktemp("adapter")
    base = AutoModelForCausalLM.from_pretrained(model)
    base.name_or_path = base.config._name_or_path = "tiny"
    tuned = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    tuned.save_pretrained(folder, save_embedding_layers=False)
    write_json(folder / "selfinstruct.json", {"template": "alpaca"})
    return folder


def settings(model, tasks, out, **more):
    return EvaluateConfig(model=str(model), tasks=[tasks], out=out, **{"max_new_tokens": 6, "threads": 1, **more})


def test_predictions_and_summary(model, tasks, tmp_path):
    summary = evaluate(settings(model, tasks, tmp_path / "out"))
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["item"] for row in rows] == [f"items/{line}" for line in range(1, 25)]
    promised = {"item", "task", "cluster", "prompt", "prediction", "references", "options", "option_scores", "metric",
                "score"}  # fmt: skip
    assert all(promised <= row.keys() for row in rows)

    ranked, generated = rows[:8], rows[8:]
    for row in ranked:
        assert row["prediction"] == row["options"][row["option_scores"].index(max(row["option_scores"]))]
        assert row["score"] == (row["prediction"] == "positive")
        assert row["prompt"].endswith("<|im_start|>assistant\n")
        assert row["stop"] is None
    assert all(row["option_scores"] == [] and row["stop"] in ("eos", "length") for row in generated)

    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written == json.loads(summary.model_dump_json())
    assert (written["n"], written["unscored"], written["adapter"]) == (24, 0, None)
    assert written["truncated"] == sum(row["truncated"] for row in rows)
    sentiment = written["clusters"]["sentiment"]
    assert (sentiment["metric"], sentiment["n"]) == ("accuracy", 8)
    assert sentiment["mean"] == sum(row["score"] for row in ranked) / 8
    assert sentiment["ci95"][0] <= sentiment["mean"] <= sentiment["ci95"][1]
    assert written["clusters"]["naming"]["metric"] == "exact_match + rouge_l"
    assert set(written["overall"]) == {"accuracy", "exact_match", "rouge_l"}
    assert set(written["tasks"]) == {"mood", "name"}
    assert read_toml(tmp_path / "out" / "evaluate.toml")["config"]["max_new_tokens"] == 6
    assert not (tmp_path / "out" / "predictions.partial.jsonl").exists()
    assert "sentiment" in describe(summary)


def test_batch_size_changes_no_score(model, tasks, tmp_path):
    large = evaluate(settings(model, tasks, tmp_path / "large"))
    small = evaluate(settings(model, tasks, tmp_path / "small", batch_tokens=1))
    assert large.clusters == small.clusters
    one, other = (read_predictions(tmp_path / name) for name in ("large", "small"))
    assert one.keys() == other.keys()
    for item in one:
        assert one[item].prediction == other[item].prediction
        assert one[item].option_scores == pytest.approx(other[item].option_scores, abs=1e-4)


def test_a_finished_evaluation_returns_at_once(model, tasks, tmp_path):
    first = evaluate(settings(model, tasks, tmp_path))
    written = (tmp_path / "predictions.jsonl").stat()
    assert evaluate(settings(model, tasks, tmp_path, batch_tokens=1, threads=2)) == first
    assert (tmp_path / "predictions.jsonl").stat().st_mtime_ns == written.st_mtime_ns


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"template": "alpaca"}, "template was chat"),
        ({"limit": 2}, "items was 24"),
        ({"max_new_tokens": 7}, "max_new_tokens was 6, now 7"),
        ({"shots": 1}, "shots was 0, now 1"),
    ],
)
def test_other_settings_are_refused_with_a_diff(model, tasks, tmp_path, change, named):
    if change == {"shots": 1}:
        rows = [json.loads(line) for line in tasks.read_text().splitlines()][:8]
        write_jsonl(tmp_path / "few.jsonl", rows)
        tasks = tmp_path / "few.jsonl"
    out = tmp_path / "out"
    evaluate(settings(model, tasks, out))
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(UsageError, match=f"other settings: .*{named}"):
        evaluate(settings(model, tasks, out, **change))
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_folder_with_other_files_is_left_alone(model, tasks, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds other files"):
        evaluate(settings(model, tasks, tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_an_evaluation_that_was_killed_goes_on_to_identical_predictions(model, tasks, tmp_path, blow, code):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    how = {"batch_tokens": 150, "max_new_tokens": 200}
    command = [sys.executable, "-m", "finetune.cli", "evaluate", "--model", str(model), "--tasks", str(tasks), "--out",
               str(cut), "--batch-tokens", "150", "--max-new-tokens", "200", "--threads", "1"]  # fmt: skip
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    partial = cut / "predictions.partial.jsonl"
    deadline = time.monotonic() + 100
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(blow)
    assert process.wait(30) == code
    assert 2 <= partial.read_bytes().count(b"\n") < 24
    assert not (cut / "predictions.jsonl").exists()
    with open(partial, "ab") as file:
        file.write(b'{"item": "torn')
    evaluate(settings(model, tasks, cut, **how))
    evaluate(settings(model, tasks, whole, **how))
    assert (cut / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()


def test_what_is_kept_is_not_asked_again(model, tasks, tmp_path):
    config = settings(model, tasks, tmp_path / "out", batch_tokens=1)
    evaluate(config)
    predictions = read_predictions(tmp_path / "out").values()
    for name in ("summary.json", "predictions.jsonl"):
        (tmp_path / "out" / name).unlink()
    kept = [{**asdict(prediction), "prediction": "kept"} for prediction in list(predictions)[:23]]
    write_jsonl(tmp_path / "out" / "predictions.partial.jsonl", kept)
    evaluate(config)
    answers = [prediction.prediction for prediction in read_predictions(tmp_path / "out").values()]
    assert answers[:23] == ["kept"] * 23
    assert answers[23] != "kept"


def test_two_processes_may_not_write_into_one_folder(model, tasks, tmp_path):
    config = settings(model, tasks, tmp_path / "out")
    evaluate(config)
    for name in ("summary.json", "predictions.jsonl"):
        (tmp_path / "out" / name).unlink()
    with partial_file(tmp_path / "out"), pytest.raises(UsageError, match="another process"):
        evaluate(config)


def test_an_adapter_is_evaluated_with_its_own_template(model, tasks, adapter, tmp_path):
    evaluate(settings(model, tasks, tmp_path / "base", template="alpaca"))
    summary = evaluate(settings(model, tasks, tmp_path / "tuned", adapter=adapter))
    assert (summary.template, summary.adapter) == ("alpaca", str(adapter))
    base, tuned = (read_predictions(tmp_path / name) for name in ("base", "tuned"))
    assert all(base[item].prompt == tuned[item].prompt for item in base)
    assert all(
        base[i].option_scores != pytest.approx(tuned[i].option_scores, abs=1e-3) for i in base if base[i].options
    )
    comparison = compare(CompareConfig(base=tmp_path / "base", tuned=[tmp_path / "tuned"]))
    assert comparison.warnings == ()


def test_the_template_of_a_model_without_chat_template_is_alpaca(tasks, tmp_path):
    model = build_tiny_llama(tmp_path / "plain", chat_template=None)
    plan = evaluate(settings(model, tasks, tmp_path / "out", dry_run=True))
    assert plan.template == "alpaca"


def test_what_does_not_fit_is_left_out_and_listed(model, tasks, tmp_path, caplog):
    rows = [json.loads(line) for line in tasks.read_text().splitlines()]
    rows[0]["input"] = rows[-1]["input"] = "a very long text " * 100
    write_jsonl(tmp_path / "long.jsonl", rows)
    summary = evaluate(settings(model, tmp_path / "long.jsonl", tmp_path / "out"))
    assert (summary.n, summary.unscored) == (22, 2)
    assert [left.item for left in summary.unscored_items] == ["long/1", "long/24"]
    assert "the model's context is 512" in summary.unscored_items[0].reason
    assert "2 of 24 items do not fit" in caplog.text
    assert not {"long/1", "long/24"} & read_predictions(tmp_path / "out").keys()
    assert "2 items were left out; the first, long/1, takes" in describe(summary)


def test_an_evaluation_of_nothing_is_an_error(model, tasks, tmp_path):
    generated = [json.loads(line) for line in tasks.read_text().splitlines()][8:]
    write_jsonl(tmp_path / "generated.jsonl", generated)
    with pytest.raises(UsageError, match=r"no item fits the model; the first, 'generated/1', takes"):
        evaluate(settings(model, tmp_path / "generated.jsonl", tmp_path / "out", max_new_tokens=600))
    assert not (tmp_path / "out").exists()


def test_dry_run_counts_and_writes_nothing(model, tasks, tmp_path):
    plan = evaluate(settings(model, tasks, tmp_path / "out", dry_run=True, limit=6))
    assert plan.clusters == {"sentiment": {"accuracy": 6}, "naming": {"exact_match": 3, "rouge_l": 3}}
    assert plan.n == 12
    assert not (tmp_path / "out").exists()
    assert "rouge_l" in describe(plan)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--adapter", "nowhere"], "nowhere: no such folder"),
        (["--adapter", "."], "so it is no adapter"),
        (["--shots", "2"], "item 'items/1' has 1 demonstrations, --shots asks for 2"),
        (["--limit", "0"], "--limit"),
        (["--template", "vicuna"], "vicuna"),
        (["--model", "./nowhere"], "./nowhere"),
        (["--taks", "x"], "--tasks"),
    ],
)
def test_bad_input_is_named_and_nothing_written(model, tasks, tmp_path, capsys, flags, problem):
    given = [] if "--model" in flags else ["--model", str(model)]
    arguments = ["evaluate", *given, "--tasks", str(tasks), "--out", str(tmp_path / "out"), *flags]
    assert run_program(GROUP, "finetune", arguments) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("error:") == 1
    assert not (tmp_path / "out").exists()


def test_broken_weights_are_an_error_not_a_score(tasks, tmp_path):
    model = build_tiny_llama(tmp_path / "model")
    broken = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    broken.save_pretrained(model)
    with pytest.raises(Error, match="no finite numbers"):
        evaluate(settings(model, tasks, tmp_path / "out"))
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


def test_an_unknown_architecture_is_named(tasks, tmp_path):
    model = build_tiny_llama(tmp_path / "model")
    values = json.loads((model / "config.json").read_text())
    write_json(model / "config.json", {**values, "model_type": "wibble"})
    with pytest.raises(UsageError, match="wibble"):
        evaluate(settings(model, tasks, tmp_path / "out"))


def test_an_unreadable_adapter_is_named(model, tasks, adapter, tmp_path):
    broken = tmp_path / "adapter"
    broken.mkdir()
    (broken / "adapter_model.safetensors").write_bytes(b"junk")
    (broken / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    with pytest.raises(InputError, match="adapter"):
        evaluate(settings(model, tasks, tmp_path / "out", adapter=broken))


def test_an_adapter_of_other_weights_is_refused(model, tasks, adapter, tmp_path):
    copy = shutil.copytree(adapter, tmp_path / "adapter")
    record = json.loads((copy / "selfinstruct.json").read_text())
    (copy / "selfinstruct.json").write_text(
        json.dumps({**record, "base": {"name": "tiny", "weights_sha256": "0" * 64}})
    )
    with pytest.raises(InputError, match="was trained on other weights than those of"):
        evaluate(settings(model, tasks, tmp_path / "out", adapter=copy))
    assert not (tmp_path / "out").exists()
