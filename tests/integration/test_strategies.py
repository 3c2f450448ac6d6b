"""Every strategy against a real server: known yields, the same bytes whatever happens, mixtures, lineage."""

from __future__ import annotations

import json
import time
from collections import Counter
from random import Random

import pytest

from selfinstruct.dataset import read_dataset
from selfinstruct.files import read_toml, shipped
from selfinstruct.seeds import read_seeds
from selfinstruct.strategies.evol_instruct import IN_BREADTH, IN_DEPTH
from tests.corpus import kind_of
from tests.generating import data, generate, ledger, rows, start, summary

KINDS = ("self-instruct", "alpaca", "evol-instruct", "attributed")
MIXTURE = ("alpaca:share=0.3", "attributed:share=0.7")


# -- the data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("strategy", KINDS)
def test_yields_are_what_the_server_made_of_them(server, tmp_path, strategy, endpoint):
    """What the server spoiled is rejected by its filter, all else is accepted, and all is accounted for."""
    server.set(broken=0.25, near_duplicates=0.0)
    assert generate(tmp_path, server.base_url, strategy=strategy, endpoint=endpoint, num_instructions=40) == 0
    accepted, rejected = rows(tmp_path / "dataset.jsonl"), rows(tmp_path / "rejected.jsonl")
    assert len(accepted) == 40
    assert {kind_of(row["instruction"]) for row in accepted} == {"fresh"}
    by_filter = [row for row in rejected if row["rule"] in ("too_short", "keyword", "program", "punctuation")]
    assert by_filter
    assert {kind_of(row["candidate"]["instruction"]) for row in by_filter} == {"broken"}
    others = Counter(row["rule"] for row in rejected if row not in by_filter)
    # The server's alpaca blocks have no input at times, whatever their instruction works on.
    assert set(others) <= {"target_reached", "novelty", "duplicate", "missing_input", "truncated", "surplus", "no_gain"}
    closing_slot = max(row["source"]["slot"] for row in accepted)
    equal = "SELECT count(*) FROM completions WHERE step LIKE 'check/%' AND text LIKE 'Yes%' AND slot <= "
    assert [(others["no_gain"],)] == ledger(tmp_path, f"{equal}{closing_slot}")
    assert (others["no_gain"] > 0) == (strategy == "evol-instruct")
    assert all(row["output"] for row in accepted)


@pytest.mark.parametrize("strategy", ["evol-instruct", "attributed", MIXTURE])
def test_timing_faults_and_kills_shape_nothing(server, tmp_path, strategy):
    flags = {"strategy": strategy, "num_instructions": 24, "tasks_per_request": 3}
    assert generate(tmp_path / "1", server.base_url, concurrency=8, **flags) == 0
    server.set(latency_s=(0.0, 0.08), faults={"429_retry_after": 0.15, "no_usage": 0.2}, retry_after_s=0.03)
    assert generate(tmp_path / "2", server.base_url, concurrency=3, **flags) == 0
    assert data(tmp_path / "1") == data(tmp_path / "2")
    server.set(latency_s=(0.05, 0.2), faults={})
    rng, n_killed = Random(0), 0
    for _ in range(2):
        goal = len(server.log()) + rng.randint(1, 3)
        with start(tmp_path / "3", server.base_url, concurrency=4, **flags) as process:
            while len(server.log()) < goal and process.poll() is None:
                time.sleep(0.02)
            n_killed += process.poll() is None
            process.kill()
    assert n_killed == 2
    server.set(latency_s=0)
    assert generate(tmp_path / "3", server.base_url, **flags) == 0
    assert data(tmp_path / "1") == data(tmp_path / "3")
    assert generate(tmp_path / "4", server.base_url, seed=43, **flags) == 0
    assert data(tmp_path / "4") != data(tmp_path / "1")


# -- mixtures --------------------------------------------------------------------------------------------------------


def test_slots_of_a_mixture_go_by_shares(server, tmp_path):
    server.set(near_duplicates=0.0, broken=0.0)
    strategy = ("attributed:share=0.7,tasks_per_request=3", "alpaca:share=0.3,tasks_per_request=3")
    assert generate(tmp_path, server.base_url, strategy=strategy, num_instructions=240) == 0
    slots = dict(ledger(tmp_path, "SELECT strategy, count(*) FROM slots GROUP BY strategy"))
    n = sum(slots.values())
    assert n >= 60
    assert abs(slots["attributed"] / n - 0.7) < 3 * (0.7 * 0.3 / n) ** 0.5
    accepted = Counter(row["source"]["strategy"] for row in rows(tmp_path / "dataset.jsonl"))
    assert 0.5 < accepted["attributed"] / 240 < 0.9
    told = summary(tmp_path)["strategies"]
    assert {name: told[name]["accepted"] for name in accepted} == accepted


def test_a_saturated_strategy_leaves_the_others(server, tmp_path, caplog):
    """Here each rewriting equals its parent, so that evol-instruct yields nothing."""
    server.set(script={"Are the two tasks equal": "Yes"}, near_duplicates=0.0)
    strategy = ("evol-instruct:share=0.8", "alpaca:share=0.2")
    assert generate(tmp_path, server.base_url, strategy=strategy, num_instructions=60, saturation_window=20) == 0
    assert "evol-instruct is saturated" in caplog.text
    assert {row["source"]["strategy"] for row in rows(tmp_path / "dataset.jsonl")} == {"alpaca"}
    assert "fewer than 2% of the last 20 candidates of evol-instruct" in summary(tmp_path)["reason"]
    last = ledger(tmp_path, "SELECT strategy FROM slots ORDER BY number DESC LIMIT 3")
    assert last == [("alpaca",)] * 3


@pytest.mark.parametrize(
    ("strategy", "n_replies"),
    [("evol-instruct", 20), ("evol-instruct:tasks_per_request=10", 20), ("attributed", 5),
     ("attributed:tasks_per_request=2", 10), ("alpaca:tasks_per_request=10", 2)],
)  # fmt: skip
def test_a_reply_without_any_task_counts_for_those_that_it_was_asked_for(server, tmp_path, strategy, n_replies):
    """A list that failed is as many failures as it was to have tasks, a rewriting that failed is one."""
    server.set(script={".": ""})
    assert generate(tmp_path, server.base_url, strategy=strategy, saturation_window=20, window=1) == 5
    assert summary(tmp_path)["closed_by"] == "saturated"
    assert summary(tmp_path)["rejected"] == {"unparsable": n_replies}


# -- elimination and lineage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "rule"),
    [
        ({"Are the two tasks equal": ["No", "Yes"]}, "no_gain"),
        ({"task, in the same form": ["Take the #Given Task# and go on.", "Peel two pears."]}, "copied_prompt"),
        ({"task, in the same form, with": ["", "Peel two kinds of pears."]}, "unparsable"),
        ({r"\.\n\nWe found": ["Sorry, I do not know.", "It reads well."]}, "refusal"),
        ({r"\.\n\nWe found ": [" ... ", "It reads well."]}, "no_content"),
    ],
)  # fmt: skip
def test_eliminated_tasks_are_rejected_rows(server, tmp_path, script, rule):
    server.set(script=script, near_duplicates=0.0, broken=0.0)
    generate(tmp_path, server.base_url, strategy="evol-instruct", num_instructions=3, max_requests=40)
    found = [row for row in rows(tmp_path / "rejected.jsonl") if row["rule"] == rule]
    assert found
    for row in found:
        assert len(row["source"]["demonstrations"]) == 1
        assert row["source"]["attributes"]["operation"] in {*IN_DEPTH, IN_BREADTH}
    judged = ledger(tmp_path, "SELECT count(*) FROM candidates JOIN slots ON slots.number = source ->> 'slot'")
    assert judged == [(len(rows(tmp_path / "dataset.jsonl")) + len(rows(tmp_path / "rejected.jsonl")),)]


def test_lineage_can_be_followed_to_the_seeds(server, tmp_path):
    server.set(near_duplicates=0.0)
    strategy = "evol-instruct:generations=2,seed_share=0.1"
    assert generate(tmp_path, server.base_url, strategy=strategy, num_instructions=80) == 0
    generations = {seed.id: 0 for seed in read_seeds(shipped("seed_tasks.jsonl"))}
    read = {example.id: example for example in read_dataset(tmp_path / "dataset.jsonl")}
    for row in rows(tmp_path / "dataset.jsonl"):  # parents come before their children
        (parent,) = row["source"]["demonstrations"]
        operation, generation = row["source"]["attributes"].values()
        assert int(generation) == generations[parent] + (operation != IN_BREADTH)
        generations[row["id"]] = int(generation)
        assert read[row["id"]].source.attributes == row["source"]["attributes"]
    assert set(generations.values()) == {0, 1, 2}


def test_what_was_drawn_is_kept_and_covers_the_table(server, tmp_path):
    server.set(near_duplicates=0.0, broken=0.0)
    assert generate(tmp_path, server.base_url, strategy="attributed", num_instructions=99) == 0
    kept = [row["source"]["attributes"] for row in rows(tmp_path / "dataset.jsonl")]
    table = read_toml(shipped("attributes.toml"))
    assert len({row["topic"] for row in kept}) > 0.9 * len(table["topics"])  # some were lost to the novelty filter
    assert {row["task_type"] for row in kept} == set(table["task_types"])
    assert list(kept[0]) == ["topic", "persona", "task_type", "difficulty", "format", "length"]


# -- options ---------------------------------------------------------------------------------------------------------


def test_a_changed_table_is_refused_on_resuming(server, tmp_path, capsys):
    table, run = tmp_path / "table.toml", tmp_path / "run"
    text = shipped("attributes.toml").read_text("utf-8")
    table.write_text(text, "utf-8")
    flags = {"strategy": f"attributed:table={table}", "num_instructions": 6}
    assert generate(run, server.base_url, **flags) == 0
    assert generate(run, server.base_url, **flags) == 0
    table.write_text(text.replace('"choosing gifts",', ""), "utf-8")
    assert generate(run, server.base_url, **flags) == 2
    assert "strategy: attributed:table=" in capsys.readouterr().err
    table.write_text(text.replace("topics = [", "topics = [ 3,", 1), "utf-8")
    assert generate(run, server.base_url, **flags) == 2
    err = capsys.readouterr().err
    assert f"{table}: field 'topics.0'" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("strategy", ["evol-instruct", "attributed"])
def test_a_run_takes_about_what_was_forecast(server, tmp_path, capsys, strategy):
    flags = {"strategy": strategy, "num_instructions": 120, "concurrency": 16, "window": 16}
    assert generate(tmp_path, server.base_url, dry_run=True, json=True, **flags) == 0
    forecast = json.loads(capsys.readouterr().out)
    assert generate(tmp_path, server.base_url, **flags) == 0
    low, high = forecast["requests"]
    assert 0.8 * low <= summary(tmp_path)["requests"]["completed"] <= 1.1 * high
