"""The report of real runs: from the ledger alone, of a run judged again, and without a ledger that can be read."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from selfinstruct.cli import GROUP
from selfinstruct.command import run_program
from selfinstruct.errors import InputError
from tests.generating import FreshServer, generate, ledger, rows, summary
from tests.reporting import packed, written

RESULTS = ("summary.json", "dataset.jsonl", "rejected.jsonl")


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "run"
    server = FreshServer(shared)
    server.set(near_duplicates=0.3)
    prices = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
    assert generate(out, server.base_url, num_instructions=40, strategy="self-instruct", **prices) == 0
    return out


def copy_of(run, tmp_path, *without):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for name in without:
        (copy / name).unlink()
    return copy


def test_every_row_is_there_with_what_made_it(run, tmp_path):
    page, html, _ = written(tmp_path, run)
    accepted, rejected = rows(run / "dataset.jsonl"), rows(run / "rejected.jsonl")
    assert [row["title"] for row in packed(html, 'rows="accepted"')] == [row["instruction"] for row in accepted]
    assert [row["rule"] for row in packed(html, 'rows="rejected"')] == [row["rule"] for row in rejected]
    for row, steps in zip(accepted, packed(html, 'steps-of="accepted"'), strict=True):
        labels = [label for label, _ in steps]
        # The list, then whether the task is classification, then its instance: each leads to the next.
        assert labels[:3] == ["Shown in the prompt", "Asked (instructions)", "Reply (stop)"]
        assert [label.split("/")[0] for label in labels[3::2]] == ["Asked (classification", "Asked (instance"]
        shown, listed, last = steps[0][1], steps[2][1], steps[-1][1]
        assert all(f" {id}: " in shown for id in row["source"]["demonstrations"])
        assert row["instruction"] in listed
        assert row["output"] in last
    assert "How it was made Id self-instruct-" in page.text


def test_run_under_way_is_shown_from_its_ledger(run, tmp_path):
    closed = summary(run)
    copy = copy_of(run, tmp_path, *RESULTS)
    page, html, _ = written(tmp_path, copy)
    n = closed["accepted"] + sum(closed["rejected"].values())
    assert f"Of {n} candidate tasks 40 were accepted" in page.text
    assert "The run has not ended; these are the figures so far." in page.text
    assert "of 40 wanted; " in page.text
    assert "As of 20" in page.text
    assert len(packed(html, 'rows="accepted"')) == 40
    # A run that goes on after its end has left its summary behind.
    with closing(sqlite3.connect(copy / "ledger.sqlite")) as connection, connection:
        connection.execute("INSERT INTO attempts (prompt_key, slot) VALUES ('new', 99)")
    shutil.copy(run / "summary.json", copy)
    (tmp_path / "report.html").unlink()
    assert "The run has not ended" in written(tmp_path, copy)[0].text


def test_run_judged_again_has_the_prompts_of_the_first(run, tmp_path):
    again = tmp_path / "again"
    assert (
        run_program(GROUP, "selfinstruct", ["refilter", str(run), "--out", str(again), "--novelty-threshold", "1"]) == 0
    )
    assert ledger(again, "SELECT count(*) FROM completions") == [(0,)]
    page, html, _ = written(tmp_path, again)
    assert "The candidates of another run were judged again." in page.text
    assert all(any(label == "Asked (instructions)" for label, _ in s) for s in packed(html, 'steps-of="accepted"'))


def test_older_ledger_is_said_and_done_without(run, tmp_path):
    copy = copy_of(run, tmp_path)
    with closing(sqlite3.connect(copy / "ledger.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 1")
    _, html, shown = written(tmp_path, copy)
    assert any(sentence.startswith("Prompts, replies and times are not shown") for sentence in shown.missing)
    assert len(packed(html, 'rows="accepted"')) == 40
    assert {label for steps in packed(html, 'steps-of="accepted"') for label, _ in steps} == {"Shown in the prompt"}
    for name in RESULTS:
        (copy / name).unlink()
    (tmp_path / "report.html").unlink()
    with pytest.raises(InputError, match="older version"):
        written(tmp_path, copy)


def test_same_run_gives_the_same_page(run, tmp_path):
    first = written(tmp_path, run)[1]
    (tmp_path / "report.html").unlink()
    assert written(tmp_path, run)[1] == first


def test_command_line_says_what_is_missing(run, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert run_program(GROUP, "selfinstruct", ["report", str(run), "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["path"] == str(out)
    assert len(printed["missing"]) == 2
    assert run_program(GROUP, "selfinstruct", ["report", str(run), "--out", str(out), "--watch", "soon"]) == 2
    assert "'soon' is not a valid float" in capsys.readouterr().err
