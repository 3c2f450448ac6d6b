"""`selfinstruct refilter`: other filters on the same candidates, without a request, and never a half-made task."""

from __future__ import annotations

import json

import pytest

from selfinstruct.cli import GROUP
from selfinstruct.command import run_program
from selfinstruct.generation import generate as generate_function
from selfinstruct.run_config import GenerateConfig
from tests.generating import FreshServer, data, generate, ledger, rows, summary


def refilter(run, out, *flags):
    return run_program(GROUP, "selfinstruct", ["refilter", str(run), "--out", str(out), *flags])


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    out = tmp_path_factory.mktemp("refilter") / "run"
    assert generate(out, FreshServer(shared).base_url, num_instructions=40) == 0
    return out


def test_same_filters_give_the_same_verdicts_and_judge_what_the_target_cut_off(run, server, tmp_path):
    assert refilter(run, tmp_path) == 0
    assert server.log() == []
    before, after = rows(run / "dataset.jsonl"), rows(tmp_path / "dataset.jsonl")
    assert after[: len(before)] == before
    cut = [row for row in rows(run / "rejected.jsonl") if row["rule"] == "target_reached"]
    assert len(after) - len(before) + len(rows(tmp_path / "rejected.jsonl")) == len(rows(run / "rejected.jsonl"))
    assert len(after) <= len(before) + len(cut)
    figures = summary(tmp_path)
    assert (figures["closed_by"], figures["requests"]["sent"], figures["cost_usd"]) == ("refiltered", 0, 0)
    assert figures["accepted"] == len(after)


def test_it_can_be_refiltered_again_to_the_same_bytes(run, tmp_path):
    assert refilter(run, tmp_path / "1") == refilter(tmp_path / "1", tmp_path / "2") == 0
    assert data(tmp_path / "1") == data(tmp_path / "2")


def test_stricter_filters_keep_less(run, tmp_path):
    assert refilter(run, tmp_path, "--novelty-threshold", "0.3", "--filter", "length:max_words=12") == 0
    kept = rows(tmp_path / "dataset.jsonl")
    assert 0 < len(kept) < 40
    assert all(len(row["instruction"].split()) <= 12 for row in kept)
    assert all(row["nearest"][0]["score"] <= 0.3 for row in kept if row["nearest"])
    assert {"too_long", "novelty"} <= {row["rule"] for row in rows(tmp_path / "rejected.jsonl")}


def test_what_was_never_completed_is_never_accepted(run, tmp_path):
    """A screened task has no answer, so milder filters must not let it in."""
    screened = {row[0] for row in ledger(run, "SELECT id FROM candidates WHERE screened")}
    assert screened
    assert refilter(run, tmp_path, "--novelty-threshold", "1", "--without", "keyword", "--without", "program",
                    "--without", "start", "--without", "length", "--without", "duplicate") == 0  # fmt: skip
    rejected = {row["candidate"]["id"]: row["rule"] for row in rows(tmp_path / "rejected.jsonl")}
    assert {rejected[id] for id in screened} == {"not_completed"}
    assert all(row["output"] for row in rows(tmp_path / "dataset.jsonl"))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--without", "nonsense"], "'nonsense' is no usual filter"),
        (["--filter", "length:min_word=3"], "min_word"),
        (["--filter", "nonsense"], "--filter: 'nonsense' is none of length, keyword"),
        (["--filter", "judge"], "the run has no grades"),
    ],
)
def test_bad_options(run, tmp_path, capsys, flags, told):
    assert refilter(run, tmp_path / "out", *flags) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out" / "dataset.jsonl").exists()


def test_bad_folders(run, tmp_path, capsys):
    assert refilter(tmp_path, tmp_path / "out") == 2
    assert "is no run" in capsys.readouterr().err
    assert refilter(run, run) == 2
    assert "holds a run already" in capsys.readouterr().err


# -- the judge -------------------------------------------------------------------------------------------------------


GRADES = {"### Your grade": ["5\nFine.", "3.5: one step is wrong", "Grade: 4.5", "no idea", *["5"] * 99]}


def test_judge_keeps_its_grades_and_rejects_by_them(server, tmp_path):
    server.set(script=GRADES)
    flags = {"strategy": "alpaca", "num_instructions": 12, "filter": "judge:min_score=4.5", "concurrency": 1}
    assert generate(tmp_path / "run", server.base_url, **flags) == 0
    rejected = rows(tmp_path / "run" / "rejected.jsonl")
    assert [row["detail"] for row in rejected if row["rule"] == "judge"] == ["3.5 of 5, at least 4.5 wanted"]
    assert sum(row["rule"] == "unjudged" for row in rejected) == 1
    kept = rows(tmp_path / "run" / "dataset.jsonl")
    assert {row["scores"]["judge"] for row in kept} == {4.5, 5.0}
    before, files = len(server.log()), data(tmp_path / "run")
    assert generate(tmp_path / "run", server.base_url, **flags) == 0
    assert (len(server.log()), data(tmp_path / "run")) == (before, files)
    # What a filter rejects without a judge is not graded.
    graded = sum("### Your grade" in entry["body"]["messages"][0]["content"] for entry in server.log())
    ungraded = sum(row["rule"] not in ("judge", "unjudged", "target_reached", "novelty") for row in rejected)
    assert ungraded > 0
    assert graded <= len(kept) + len(rejected) - ungraded

    assert refilter(tmp_path / "run", tmp_path / "milder", "--filter", "judge:min_score=3") == 0
    assert 3.5 in {row["scores"]["judge"] for row in rows(tmp_path / "milder" / "dataset.jsonl")}


def test_judge_elsewhere_has_its_own_price_in_the_same_budget(server, tmp_path):
    from tests.server import running_server

    def billed(log, usd_per_mtok):
        return sum(entry["prompt_tokens"] + entry["completion_tokens"] for entry in log) * usd_per_mtok / 1e6

    with running_server(script={"### Your grade": "5"}) as other:
        judge = f"judge:model=big,base_url={other.base_url},input_usd_per_mtok=1000,output_usd_per_mtok=1000"
        flags = {"strategy": "alpaca", "filter": judge, "input_usd_per_mtok": 10, "output_usd_per_mtok": 10}
        assert generate(tmp_path / "run", server.base_url, max_cost_usd=100, **flags) == 0
        assert {entry["body"]["model"] for entry in other.log()} == {"big"}
        assert {entry["body"]["model"] for entry in server.log()} == {"m"}
        bill = billed(server.log(), 10) + billed(other.log(), 1000)
        assert summary(tmp_path / "run")["cost_usd"] == pytest.approx(bill)
        before = len(other.log())
        assert generate(tmp_path / "capped", server.base_url, max_cost_usd=2, **flags) == 4
        assert 0 < billed(other.log()[before:], 1000) <= 2
        assert summary(tmp_path / "capped")["cost_usd"] <= 2


def test_price_of_the_judge_has_to_be_known_under_a_cap(server, tmp_path, capsys):
    flags = {"filter": "judge:model=unknown", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1, "max_cost_usd": 1}
    assert generate(tmp_path, server.base_url, **flags) == 2
    assert "the price of the judge 'unknown' is unknown" in capsys.readouterr().err
    assert server.log() == []


def test_filters_of_a_run_are_part_of_it(server, tmp_path, capsys):
    assert generate(tmp_path, server.base_url, num_instructions=8, filter="length:max_words=90") == 0
    assert generate(tmp_path, server.base_url, num_instructions=8) == 2
    assert "filter: length:max_words=90 in the run" in capsys.readouterr().err


def test_filters_from_python(server, tmp_path):
    config = GenerateConfig(
        out=tmp_path, model="m", base_url=server.base_url, api_key_env="", num_instructions=8,
        filter=["length:max_words=90", {"kind": "repetition", "max_ratio": 0.1}], without=["program"],
    )  # fmt: skip
    assert generate_function(config).accepted == 8
    recorded = json.loads(json.dumps(config.model_dump(mode="json")))["filter"]
    assert recorded == [
        {"kind": "length", "min_words": 4, "max_words": 90}, {"kind": "repetition", "max_ratio": 0.1},
    ]  # fmt: skip
