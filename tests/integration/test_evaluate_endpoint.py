"""Evaluation through an endpoint, and a judge behind one."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from finetune.cli import GROUP
from finetune.evaluation import EvaluateConfig, EvaluationPlan, evaluate
from finetune.judging import JudgeConfig, describe, judge, read_verdict
from finetune.predictions import Prediction, read_predictions
from selfinstruct.command import run_program
from selfinstruct.errors import AuthenticationError, CapReached, InputError, UsageError
from selfinstruct.files import write_jsonl
from tests.generating import ROOT

COUNTRIES = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Poland": "Warsaw"}


@pytest.fixture
def tasks(tmp_path):
    rows = [
        {"task": "capital", "cluster": "capitals", "instruction": "Name the capital.", "input": country,
         "references": [city], "metric": "exact_match"} for country, city in COUNTRIES.items()
    ]  # fmt: skip
    rows += [
        {"task": "mood", "cluster": "sentiment", "instruction": "How is it?", "input": word,
         "references": [mood], "options": ["positive", "negative"]}
        for word, mood in (("lovely", "positive"), ("dull", "negative"), ("odd", "negative"))
    ]  # fmt: skip
    path = tmp_path / "items.jsonl"
    write_jsonl(path, rows)
    return path


SCRIPT = {"France": " Paris.\n", "Italy": "Milan", "Spain": "", "Poland": "It is Warsaw", "lovely": "Positive, I think",
          "dull": "either positive or negative", "odd": "The mood is NEGATIVE!"}  # fmt: skip


def settings(server, tasks, out, **more):
    return EvaluateConfig(
        model="m", base_url=server.base_url, tasks=[tasks], out=out, max_new_tokens=9, outage_s=5,
        **{"api_key_env": "", **more},
    )  # fmt: skip


def test_an_endpoint_answers_and_is_scored(server, tasks, tmp_path):
    server.set(script=SCRIPT)
    summary = evaluate(settings(server, tasks, tmp_path / "out", input_usd_per_mtok=1.0, output_usd_per_mtok=2.0))
    predictions = read_predictions(tmp_path / "out")
    by_input = {p.prompt.split("\n\n")[1].split("\n")[0]: p for p in predictions.values()}
    assert {name: p.score for name, p in by_input.items()} == {
        "France": 1, "Italy": 0, "Spain": 0, "Poland": 0, "lovely": 1, "dull": 0, "odd": 1,
    }  # fmt: skip
    assert by_input["Spain"].empty
    assert by_input["dull"].off_format
    assert by_input["odd"].metric == "option_match"
    assert by_input["odd"].prompt.endswith("odd\nOPTIONS:\n- positive\n- negative")
    assert (summary.model, summary.model_path, summary.template) == ("m", server.base_url, "chat")
    assert (summary.requests, summary.n, summary.unscored) == (7, 7, 0)
    assert summary.cost_usd > 0
    assert set(summary.overall) == {"exact_match", "option_match"}
    bodies = [entry["body"] for entry in server.log() if entry["path"].endswith("completions")]
    assert all(body["temperature"] == 0 and body["max_tokens"] == 9 for body in bodies)


def test_the_same_command_asks_for_what_is_missing_only(server, tasks, tmp_path):
    server.set(script=SCRIPT)
    with pytest.raises(CapReached, match="--max-requests 3"):
        evaluate(settings(server, tasks, tmp_path / "out", max_requests=3))
    assert not (tmp_path / "out" / "summary.json").exists()
    # What was paid for is in the ledger, also where a kill came before it was written here.
    partial = tmp_path / "out" / "predictions.partial.jsonl"
    kept = partial.read_bytes().splitlines(keepends=True)
    partial.write_bytes(kept[-1])
    summary = evaluate(settings(server, tasks, tmp_path / "out"))
    assert (summary.reused, summary.requests, summary.n) == (1, 7, 7)
    assert len(server.log()) == 7
    whole = evaluate(settings(server, tasks, tmp_path / "whole"))
    assert whole.clusters == summary.clusters


def test_an_interrupted_evaluation_keeps_what_was_asked_for(server, tasks, tmp_path):
    server.set(script=SCRIPT, latency_s=0.3)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "finetune", "evaluate", "--model", "m", "--base-url", server.base_url, "--tasks",
               str(tasks), "--out", str(out), "--max-new-tokens", "9", "--concurrency", "1",
               "--api-key-env", ""]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(server.log()) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "the same command goes on" in errors
    sent = len(server.log())
    assert 3 <= sent < 7
    summary = evaluate(settings(server, tasks, out))
    assert (summary.n, summary.requests, len(server.log())) == (7, 7, 7)


def test_an_unknown_price_cannot_be_capped(server, tasks, tmp_path):
    with pytest.raises(UsageError, match="price of 'm' is or was unknown"):
        evaluate(settings(server, tasks, tmp_path / "out", max_cost_usd=1.0))
    assert not server.log()


def test_a_cap_on_money_holds(server, tasks, tmp_path):
    server.set(script=SCRIPT)
    prices = {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 1000.0}
    with pytest.raises(CapReached, match="--max-cost-usd"):
        evaluate(settings(server, tasks, tmp_path / "out", max_cost_usd=0.16, concurrency=1, **prices))
    assert len(server.log()) < 7


def test_a_question_that_the_endpoint_refuses_is_unscored_and_listed(server, tasks, tmp_path):
    rows = [json.loads(line) for line in tasks.read_text().splitlines()]
    rows[1]["input"] = "Italy " * 400
    write_jsonl(tasks, rows)
    server.set(script=SCRIPT, context_length=300)
    summary = evaluate(settings(server, tasks, tmp_path / "out", concurrency=1))
    assert (summary.n, summary.unscored) == (6, 1)
    assert summary.unscored_items[0].item == "items/2"
    assert "maximum context length" in summary.unscored_items[0].reason
    assert summary.unscored_items[0].reason.count("was refused") == 1


def test_an_evaluation_in_which_everything_is_refused_has_no_score(server, tasks, tmp_path):
    server.set(script=SCRIPT)
    rows = [json.loads(line) for line in tasks.read_text().splitlines()]
    write_jsonl(tasks, [{**rows[0], "input": "Italy " * 400}])
    server.set(script=SCRIPT, context_length=300)
    with pytest.raises(UsageError, match="no item was answered; the first, 'items/1', was refused"):
        evaluate(settings(server, tasks, tmp_path / "out"))
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.parametrize(("template", "end"), [("alpaca", "### Response:"), ("plain", "")])
def test_templates_for_plain_completions(server, tasks, tmp_path, template, end):
    server.set(script=SCRIPT)
    summary = evaluate(settings(server, tasks, tmp_path / "out", template=template))
    assert summary.template == template
    assert all(p.prompt.endswith(end) for p in read_predictions(tmp_path / "out").values())
    assert {entry["path"] for entry in server.log()} == {"/v1/completions"}


def test_the_key_comes_from_the_environment_and_is_written_nowhere(server, tasks, tmp_path, monkeypatch):
    server.set(script=SCRIPT, require_key="sk-canary-123456")
    with pytest.raises(AuthenticationError, match="TEST_KEY"):
        evaluate(settings(server, tasks, tmp_path / "none", api_key_env="TEST_KEY"))
    monkeypatch.setenv("TEST_KEY", "sk-canary-123456")
    assert evaluate(settings(server, tasks, tmp_path / "out", api_key_env="TEST_KEY")).n == 7
    assert not any(b"canary" in file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())


def test_what_an_endpoint_cannot_do_is_refused(server, tasks, tmp_path):
    with pytest.raises(UsageError, match="--adapter: an endpoint has its own models"):
        evaluate(settings(server, tasks, tmp_path / "out", adapter=tmp_path))
    config = settings(server, tasks, tmp_path / "out").model_copy(update={"base_url": "ftp://x"})
    with pytest.raises(UsageError, match="must start with https"):
        evaluate(config)
    with pytest.raises(UsageError, match="--template: an endpoint applies the model's own"):
        evaluate(settings(server, tasks, tmp_path / "out", template="own.jinja"))
    assert not (tmp_path / "out").exists()
    plan = evaluate(settings(server, tasks, tmp_path / "plan", dry_run=True))
    assert isinstance(plan, EvaluationPlan)
    assert plan.clusters["sentiment"] == {"option_match": 3}
    assert not server.log()


# -- the judge ---------------------------------------------------------------------------------------------------------


def evaluation(folder, answers, cluster="c"):
    folder.mkdir()
    rows = [
        Prediction(f"i{n}", "t", cluster, f"<|im_start|>user\nTask {n}.", answer, ("right",), (), (), "rouge_l", 0.0,
                   stop="eos")
        for n, answer in enumerate(answers)
    ]  # fmt: skip
    write_jsonl(folder / "predictions.jsonl", map(asdict, rows))
    return folder


@pytest.fixture
def two(tmp_path):
    base = evaluation(tmp_path / "base", ["worse 0", "fine 1", "worse 2", "same", "worse 4", "worse 5"])
    tuned = evaluation(tmp_path / "tuned", ["fine 0", "worse 1", "fine 2", "same", "fine 4", "fine 5"])
    return base, tuned


# By what the judge sees: of items 0 and 1 the fine one in both orders; of item 2 always the first; of item 4 the fine
# one once and a tie once; of item 5 nothing that is a verdict.
VERDICTS = {
    r"(?s)Task 5": "Hard to say.",
    r"(?s)Task 2": "FIRST. It came first.",
    r"(?s)First reply\nworse 4": "TIE",
    r"(?s)First reply\nfine": "**FIRST**\nIt is fine.",
    r"(?s)Second reply\nfine": "Verdict: SECOND, since it is fine.",
}


def judging(server, two, out, **more):
    return JudgeConfig(
        base=two[0], tuned=two[1], out=out, judge_model="j", base_url=server.base_url, api_key_env="", outage_s=5,
        input_usd_per_mtok=1.0, output_usd_per_mtok=1.0, **more,
    )  # fmt: skip


def test_a_judge_sees_each_pair_in_both_orders(server, two, tmp_path):
    server.set(script=VERDICTS)
    summary = judge(judging(server, two, tmp_path / "out"))
    rows = [json.loads(line) for line in (tmp_path / "out" / "judgements.jsonl").read_text().splitlines()]
    assert {row["item"]: (row["outcome"], row["score"]) for row in rows} == {
        "i0": ("tuned", 1), "i1": ("base", 0), "i2": ("tie", 0.5), "i3": ("tie", 0.5), "i4": ("tuned", 0.75),
        "i5": (None, None),
    }  # fmt: skip
    overall = summary.overall
    assert (overall.n, overall.wins, overall.losses, overall.ties) == (5, 2, 1, 2)
    assert (overall.contradictory, overall.same_answers, summary.unjudged) == (1, 1, 1)
    assert overall.win_rate == pytest.approx((1 + 0 + 0.5 + 0.5 + 0.75) / 5)
    assert overall.first_preferred == pytest.approx(5 / 7)  # of i0 and i1 once in two, of i2 twice, of i4 once in one
    assert summary.requests == 10
    assert summary.cost_usd > 0
    assert "contradictions between the two orders" in describe(summary)
    asked = [entry["body"]["messages"][0]["content"] for entry in server.log()]
    assert len(asked) == 10
    assert all("Right answers" in text and "<|im_start|>" not in text for text in asked)


def test_a_judge_with_a_cap_goes_on_where_it_stopped(server, two, tmp_path):
    server.set(script=VERDICTS)
    with pytest.raises(CapReached):
        judge(judging(server, two, tmp_path / "out", max_requests=4))
    summary = judge(judging(server, two, tmp_path / "out"))
    assert summary.requests == 10
    assert len(server.log()) == 10
    assert judge(judging(server, two, tmp_path / "out")) == summary
    assert len(server.log()) == 10
    with pytest.raises(UsageError, match="other settings \\(show_references\\)"):
        judge(judging(server, two, tmp_path / "out", show_references=False))


def test_what_cannot_be_judged_is_refused(server, two, tmp_path, capsys):
    other = evaluation(tmp_path / "other", ["only one"])
    with pytest.raises(InputError, match="holds other items"):
        judge(judging(server, (two[0], other), tmp_path / "out"))
    server.set(script={"Task": "No idea."})
    with pytest.raises(UsageError, match="no verdict on any"):
        judge(judging(server, (two[0], evaluation(tmp_path / "all", list("abcdef"))), tmp_path / "none"))
    assert (
        run_program(GROUP, "finetune", ["judge", str(two[0]), str(tmp_path / "x"), "--judge-model", "j", "--out", "o"])
        == 2
    )
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("FIRST\nIt is right.", "first"),
        ("**Second** reply, since", "second"),
        ("Verdict: tie", "tie"),
        ("Let me see.\nTIE", "tie"),
        ("The first reply is better", None),
        ("Tied", None),
        ("", None),
    ],
)
def test_verdicts_are_read_from_the_beginning_of_a_line(reply, verdict):
    assert read_verdict(reply) == verdict
