import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from finetune.answers import Answer, partial_answers
from finetune.cli import GROUP
from finetune.comparison import CompareConfig, compare
from finetune.evaluation import EvaluateConfig, describe, evaluate
from finetune.merging import MergeConfig, merge
from finetune.predictions import read_predictions
from finetune.questions import Setting, ask
from finetune.transformers_engine import TransformersEngine
from selfinstruct.command import run_program
from selfinstruct.errors import Error, InputError, UsageError
from selfinstruct.files import read_toml, write_json, write_jsonl
from selfinstruct.tasks import read_tasks
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


def test_an_adapter_and_what_it_is_merged_into_score_alike(model, adapter, tasks, tmp_path):
    whole = tmp_path / "merged"
    merge(MergeConfig(model=str(model), adapter=adapter, out=whole, dtype="float32"))
    loaded = evaluate(settings(model, tasks, tmp_path / "as-adapter", adapter=adapter))
    merged = evaluate(settings(whole, tasks, tmp_path / "as-merged"))
    assert loaded.overall == merged.overall
    plain = evaluate(settings(model, tasks, tmp_path / "plain", template="alpaca"))
    folders = (tmp_path / name for name in ("as-adapter", "as-merged", "plain"))
    for one, other, untuned in zip(*(read_predictions(folder).values() for folder in folders), strict=True):
        assert (one.prompt, one.prediction, one.score) == (other.prompt, other.prediction, other.score)
        assert one.option_scores == pytest.approx(other.option_scores, abs=1e-3)
        assert one.prompt == untuned.prompt
        assert not one.options or one.option_scores != pytest.approx(untuned.option_scores, abs=1e-1)
    assert plain.adapter is None


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
        ({"wordings": 2}, "prompts was"),
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
    assert 2 <= partial.read_bytes().count(b"\n") < 16
    assert not (cut / "predictions.jsonl").exists()
    with open(partial, "ab") as file:
        file.write(b'{"item": "torn')
    evaluate(settings(model, tasks, cut, **how))
    evaluate(settings(model, tasks, whole, **how))
    assert (cut / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()


def test_what_is_kept_is_not_asked_again(model, tasks, tmp_path):
    rows = [json.loads(line) for line in tasks.read_text().splitlines()]
    once = [row for row in rows if row["metric" if "metric" in row else "task"] != "rouge_l"]  # no question twice
    write_jsonl(tmp_path / "once.jsonl", once)
    config = settings(model, tmp_path / "once.jsonl", tmp_path / "out", batch_tokens=1)
    evaluate(config)
    for name in ("summary.json", "predictions.jsonl"):
        (tmp_path / "out" / name).unlink()
    engine = TransformersEngine(str(model), None, "auto", 6, 1, 1)
    items = read_tasks([tmp_path / "once.jsonl"])
    keys = [question.key(6) for question in ask(items, items, engine.renderer, Setting())]
    with partial_answers(tmp_path / "out" / "predictions.partial.jsonl") as (_, keep):
        keep({key: Answer("kept", stop="eos") for key in keys[9:15]})
    summary = evaluate(config)
    answers = [prediction.prediction for prediction in read_predictions(tmp_path / "out").values()]
    assert answers[9:15] == ["kept"] * 6
    assert "kept" not in (*answers[:9], *answers[15:])
    assert summary.reused == 6


def test_two_processes_may_not_write_into_one_folder(model, tasks, tmp_path):
    config = settings(model, tasks, tmp_path / "out")
    evaluate(config)
    for name in ("summary.json", "predictions.jsonl"):
        (tmp_path / "out" / name).unlink()
    with (
        partial_answers(tmp_path / "out" / "predictions.partial.jsonl"),
        pytest.raises(UsageError, match="another process"),
    ):
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


# -- wordings ----------------------------------------------------------------------------------------------------------


def test_an_item_asked_in_several_wordings_scores_their_mean_and_the_spread_is_told(model, tasks, tmp_path):
    summary = evaluate(settings(model, tasks, tmp_path / "out", wordings=3))
    predictions = read_predictions(tmp_path / "out")
    assert summary.n == len(predictions) == 24
    for prediction in predictions.values():
        assert [r.wording for r in prediction.wordings] == ["as written", "polite", "labelled"]
        assert len({r.prompt for r in prediction.wordings}) == 3
        assert prediction.score == pytest.approx(sum(r.score for r in prediction.wordings) / 3)
        assert (prediction.prompt, prediction.prediction) == (
            prediction.wordings[0].prompt,
            prediction.wordings[0].prediction,
        )
    spread = summary.spread["sentiment"]
    of_polite = [p.wordings[1].score for p in predictions.values() if p.cluster == "sentiment"]
    assert spread.means["polite"] == sum(of_polite) / 8
    assert spread.lowest == min(spread.means.values()) <= spread.mean <= spread.highest == max(spread.means.values())
    assert spread.sd >= 0
    assert "by wording" in describe(summary)
    once = evaluate(settings(model, tasks, tmp_path / "once"))
    assert once.spread == {}
    alone = read_predictions(tmp_path / "once")
    assert all(alone[i].prediction == predictions[i].prediction and not alone[i].wordings for i in alone)


def test_templates_of_a_task_are_told_apart(model, tmp_path):
    rows = [
        {"cluster": "nli", "dataset": "rte", "template": template, "prompt": f"{template}: {word}?", "completion": word}
        for template in ("plain", "polite") for word in WORDS[:2]
    ]  # fmt: skip
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    summary = evaluate(settings(model, tmp_path / "pairs.jsonl", tmp_path / "out"))
    assert set(summary.spread["rte"].means) == {"plain", "polite"}
    assert summary.clusters["nli"].n == 4


# -- figures -----------------------------------------------------------------------------------------------------------


def test_figures_stand_beside_the_scores(model, tmp_path):
    rows = [
        {"task": "sum", "cluster": "sums", "instruction": "Add.", "input": f"{i} + 1", "references": [str(i + 1)],
         "metric": "numeric"} for i in range(4)
    ]  # fmt: skip
    rows += [{**row, "cluster": "json", "metric": "json_schema", "references": [{"type": "object"}]} for row in rows]
    write_jsonl(tmp_path / "sums.jsonl", rows)
    summary = evaluate(settings(model, tmp_path / "sums.jsonl", tmp_path / "out"))
    predictions = read_predictions(tmp_path / "out").values()
    assert all(p.off_format for p in predictions if p.metric == "json_schema")
    assert summary.answers["overall"]["numeric"] == summary.answers["clusters"]["sums"]
    assert summary.answers["tasks"]["sum"].n == 8
    for name, figures in summary.answers["clusters"].items():
        own = [p for p in predictions if p.cluster == name]
        assert (figures.n, figures.generated) == (4, 4)
        assert figures.stop_rate == sum(p.stop == "eos" for p in own) / 4
        assert figures.truncated == sum(p.truncated for p in own)
        assert figures.empty == sum(not p.prediction for p in own)
        assert figures.off_format == sum(p.off_format for p in own)
        assert figures.mean_answer_tokens == sum(p.answer_tokens for p in own) / 4
        assert figures.mean_prompt_tokens > 10
    assert "off format" in describe(summary)


def test_references_that_a_metric_cannot_use_are_named_before_anything_is_computed(model, tmp_path):
    row = {"task": "t", "cluster": "c", "instruction": "Do it.", "input": "x"}
    for metric, reference, problem in (
        ("regex", "(", "'\\(' is no regular expression"),
        ("numeric", "seven", "'seven' has no number"),
        ("json_schema", "{", "no JSON Schema"),
        ("json_schema", {"type": 7}, "no JSON Schema"),
    ):
        write_jsonl(tmp_path / "bad.jsonl", [{**row, "id": "a", "metric": metric, "references": [reference]}])
        with pytest.raises(InputError, match=f"item 'a': .*{problem}"):
            evaluate(settings(model, tmp_path / "bad.jsonl", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# -- memory ------------------------------------------------------------------------------------------------------------


class Narrow(TransformersEngine):
    """An engine on a device with room for so many tokens at once."""

    room = 0

    def load(self):
        model = super().load()

        def check(_, __, given):
            if given["input_ids"].numel() > self.room:
                raise torch.OutOfMemoryError("no room")

        model.register_forward_pre_hook(check, with_kwargs=True)
        return model


def collected(engine, questions):
    answers = {}
    engine.answer(dict(enumerate(questions)), answers.update)
    return [answers[index] for index in range(len(questions))]


def test_a_batch_for_which_memory_does_not_suffice_is_halved_with_the_same_answers(model, tasks):
    wide = TransformersEngine(str(model), None, "chat", 6, 4096, 1)
    questions = ask(items := read_tasks([tasks]), items, wide.renderer, Setting())
    expected = collected(wide, questions)
    narrow = Narrow(str(model), None, "chat", 6, 4096, 1)
    narrow.room = 200
    for answer, same in zip(collected(narrow, questions), expected, strict=True):
        assert (answer.text, answer.stop, answer.answer_tokens) == (same.text, same.stop, same.answer_tokens)
        assert answer.option_scores == pytest.approx(same.option_scores, abs=1e-4)
    narrow.room = 3
    with pytest.raises(Error, match="does not suffice for one item"):
        collected(narrow, questions)


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_an_evaluation_with_further_tasks_reuses_what_is_there(model, tasks, adapter, tmp_path):
    first = evaluate(settings(model, tasks, tmp_path / "one", cache=tmp_path / "cache", limit=3))
    assert first.reused == 0
    second = evaluate(settings(model, tasks, tmp_path / "two", cache=tmp_path / "cache"))
    assert second.reused >= first.n
    assert (tmp_path / "two" / "predictions.jsonl").read_bytes().count(b"\n") == 24
    fresh = evaluate(settings(model, tasks, tmp_path / "fresh"))
    assert fresh.clusters == second.clusters
    again = evaluate(settings(model, tasks, tmp_path / "three", cache=tmp_path / "cache"))
    assert again.reused == 24
    assert (tmp_path / "three" / "predictions.jsonl").read_bytes() == (
        tmp_path / "two" / "predictions.jsonl"
    ).read_bytes()


@pytest.mark.parametrize("change", ["adapter", "max_new_tokens", "template"])
def test_the_cache_tells_apart_what_answers_differently(model, tasks, adapter, tmp_path, change):
    evaluate(settings(model, tasks, tmp_path / "one", cache=tmp_path / "cache", template="chat"))
    changes = {
        "adapter": {"adapter": adapter},
        "max_new_tokens": {"max_new_tokens": 5},
        "template": {"template": "alpaca"},
    }
    other = {"template": "chat", **changes[change], "cache": tmp_path / "cache"}
    summary = evaluate(settings(model, tasks, tmp_path / "two", **other))
    assert summary.reused == (8 if change == "max_new_tokens" else 0)  # options know no such limit


def test_an_adapter_of_other_weights_is_refused(model, tasks, adapter, tmp_path):
    copy = shutil.copytree(adapter, tmp_path / "adapter")
    record = json.loads((copy / "selfinstruct.json").read_text())
    (copy / "selfinstruct.json").write_text(
        json.dumps({**record, "base": {"name": "tiny", "weights_sha256": "0" * 64}})
    )
    with pytest.raises(InputError, match="was trained on other weights than those of"):
        evaluate(settings(model, tasks, tmp_path / "out", adapter=copy))
    assert not (tmp_path / "out").exists()
