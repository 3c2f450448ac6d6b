"""Pilots and forecasts, several strategies, several replies to a request, and runs taken up again at any point."""

from __future__ import annotations

import json
import random
import time
from collections import Counter

import pytest

from selfinstruct.cli import GROUP
from selfinstruct.command import run_program
from selfinstruct.generation import GenerateConfig
from selfinstruct.generation import generate as generate_function
from tests.generating import DATA, FreshServer, arguments, data, generate, ledger, rows, start, summary
from tests.server import running_server

PRICES = {"input_usd_per_mtok": 1000, "output_usd_per_mtok": 2000}
# A model that lists the same two tasks whenever it is asked Alpaca's way.
MONOTONOUS = {
    r"Instruction:$": " Name three long rivers of Asia.\n4. Input:\n<noinput>\n4. Output:\nOb, Amur, Lena\n"
    "###\n5. Instruction: Sing a song about the sea.\n5. Input:\n<noinput>\n5. Output:\nLa la la"
}


@pytest.fixture(scope="module")
def reference(shared, tmp_path_factory):
    """The files of an uninterrupted run of 30 tasks."""
    out = tmp_path_factory.mktemp("reference")
    assert generate(out, FreshServer(shared).base_url) == 0
    return data(out)


def both(out, server, **flags):
    """Run with two strategies, Alpaca's first."""
    flags = {"strategy": "alpaca", "saturation_window": 20, **flags}
    return run_program(
        GROUP, "selfinstruct", [*arguments(out, server.base_url, **flags), "--strategy", "self-instruct"]
    )


def in_steps(run, out, most, step, **flags):
    """Run again and again, each time with a few more requests, until it closes; gives its exit code."""
    for cap in range(step, most, step):
        if (code := run(out, max_requests=cap, **flags)) != 4:
            return code
    return run(out, **flags)


def assert_nothing_was_asked_twice(server):
    bodies = Counter(json.dumps(entry["body"], sort_keys=True) for entry in server.log())
    assert max(bodies.values()) == 1


# -- pilots ----------------------------------------------------------------------------------------------------------


def test_pilot_rests_at_the_first_slot_that_has_enough_and_goes_on(server, reference, tmp_path, capsys):
    assert generate(tmp_path, server.base_url, pilot=12) == 0
    out = capsys.readouterr().out
    assert "the pilot is done; the same command without --pilot goes on." in out
    rested = summary(tmp_path)
    assert f"For the {30 - rested['accepted']} tasks still wanted" in out
    assert (rested["closed_by"], rested["reason"]) == ("pilot", "the pilot's 12 tasks are accepted")
    accepted = rows(tmp_path / "dataset.jsonl")
    last = max(row["source"]["slot"] for name in DATA for row in rows(tmp_path / name))
    assert sum(row["source"]["slot"] < last for row in accepted) < 12 <= len(accepted) == rested["accepted"] < 30
    assert reference[0].startswith((tmp_path / "dataset.jsonl").read_bytes())

    before = len(server.log())
    assert generate(tmp_path, server.base_url, pilot=12) == 0  # it goes on resting
    assert len(server.log()) == before
    assert generate(tmp_path, server.base_url) == 0
    assert summary(tmp_path)["closed_by"] == "target"
    assert data(tmp_path) == reference
    assert_nothing_was_asked_twice(server)


def test_pilot_as_json_has_the_summary_and_the_forecast(server, tmp_path, capsys):
    assert generate(tmp_path, server.base_url, pilot=10, json=True, **PRICES) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"summary", "forecast"}
    assert printed["summary"].items() >= summary(tmp_path).items()
    expected = printed["forecast"]
    assert (expected["accepted"], expected["target"]) == (printed["summary"]["accepted"], 30)
    assert all(0 <= expected[name][0] <= expected[name][1] for name in ("requests", "prompt_tokens", "cost_usd"))


def test_pilots_of_growing_size(server, reference, tmp_path):
    sizes = []
    for pilot in (5, 15, 25, 99):  # the last is beyond the target, at which the run closes
        assert generate(tmp_path, server.base_url, pilot=pilot) == 0
        sizes.append(summary(tmp_path)["accepted"])
    assert sizes == sorted(set(sizes))
    assert summary(tmp_path)["closed_by"] == "target"
    assert data(tmp_path) == reference
    assert_nothing_was_asked_twice(server)


def test_dry_run_of_a_run_uses_its_figures(server, tmp_path, capsys):
    assert generate(tmp_path, server.base_url, pilot=15, **PRICES) == 0
    capsys.readouterr()
    before, files = len(server.log()), data(tmp_path)
    assert generate(tmp_path, server.base_url, dry_run=True, json=True, **PRICES) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["accepted"] == summary(tmp_path)["accepted"]
    assert "accepted of" in measured["basis"]
    assert generate(tmp_path / "none", server.base_url, dry_run=True, json=True, **PRICES) == 0
    assumed = json.loads(capsys.readouterr().out)
    assert assumed["accepted"] == 0
    assert measured["prompt_tokens"] != assumed["prompt_tokens"]
    assert (len(server.log()), data(tmp_path)) == (before, files)


@pytest.mark.parametrize("strategy", ["self-instruct", "alpaca"])
def test_forecast_of_a_pilot_is_what_the_rest_takes(server, tmp_path, strategy):
    for seed in range(4):
        options = {
            "out": tmp_path / str(seed), "model": "m", "base_url": server.base_url, "api_key_env": "", "seed": seed,
            "strategy": [strategy], "num_instructions": 130, "concurrency": 16, "window": 8, **PRICES,
        }  # fmt: skip
        pilot = generate_function(GenerateConfig(**options, pilot=40))
        whole = generate_function(GenerateConfig(**options))
        taken = {
            "requests": whole.requests["completed"] - pilot.summary.requests["completed"],
            "prompt_tokens": whole.tokens["prompt"] - pilot.summary.tokens["prompt"],
            "completion_tokens": whole.tokens["completion"] - pilot.summary.tokens["completion"],
            "cost_usd": whole.cost_usd - pilot.summary.cost_usd,
        }
        for name, true in taken.items():
            low, high = getattr(pilot.forecast, name)
            assert low <= true <= high, (seed, name)
            assert high - low < 1.2 * true, (seed, name)  # and it says something


# -- several strategies ----------------------------------------------------------------------------------------------


def test_next_strategy_takes_over_from_a_saturated_one(server, tmp_path, capsys, caplog):
    server.set(script=MONOTONOUS)
    assert both(tmp_path, server) == 0
    ended = summary(tmp_path)
    few = "fewer than 2% of the last 20 candidates of alpaca were accepted"
    assert ended["closed_by"] == "target"
    assert ended["reason"] == f"30 tasks are accepted; {few}"
    assert "alpaca is saturated" in caplog.text
    assert list(ended["strategies"]) == ["alpaca", "self-instruct"]
    assert [s["accepted"] for s in ended["strategies"].values()] == [1, 29]
    assert sum(s["accepted"] for s in ended["strategies"].values()) == ended["accepted"]
    judged = sum(s["judged"] for s in ended["strategies"].values())
    assert judged == ended["accepted"] + sum(ended["rejected"].values())
    slots = {}
    for row in rows(tmp_path / "dataset.jsonl") + rows(tmp_path / "rejected.jsonl"):
        slots.setdefault(row["source"]["strategy"], set()).add(row["source"]["slot"])
    assert max(slots["alpaca"]) < min(slots["self-instruct"])


def test_change_of_strategy_depends_on_no_timing(server, tmp_path):
    server.set(script=MONOTONOUS)
    assert both(tmp_path / "1", server) == 0
    server.set(latency_s=(0.0, 0.06))
    assert both(tmp_path / "2", server, concurrency=2) == 0
    server.set(latency_s=(0.0, 0.02), faults={"429_retry_after": 0.1}, retry_after_s=0.02)
    assert both(tmp_path / "3", server, concurrency=32) == 0
    assert data(tmp_path / "1") == data(tmp_path / "2") == data(tmp_path / "3")


def test_change_of_strategy_survives_interruptions(server, tmp_path):
    server.set(script=MONOTONOUS)
    assert both(tmp_path / "whole", server) == 0
    before = len(server.log())
    assert in_steps(lambda out, **flags: both(out, server, **flags), tmp_path / "steps", 120, 3) == 0
    assert data(tmp_path / "steps") == data(tmp_path / "whole")
    for name in ("strategies", "reason", "rejected"):
        assert summary(tmp_path / "steps")[name] == summary(tmp_path / "whole")[name]
    assert len(server.log()) - before <= summary(tmp_path / "steps")["requests"]["completed"]


def test_saturated_last_strategy_ends_the_run(server, tmp_path, capsys):
    server.set(pool=12, near_duplicates=0.0)
    assert both(tmp_path, server, num_instructions=100) == 5
    ended = summary(tmp_path)
    assert ended["closed_by"] == "saturated"
    assert ended["reason"] == "the pool is saturated; " + "; ".join(
        f"fewer than 2% of the last 20 candidates of {name} were accepted" for name in ("alpaca", "self-instruct")
    )
    assert ended["reason"] in capsys.readouterr().err
    assert all(strategy["judged"] >= 20 for strategy in ended["strategies"].values())
    before, files = len(server.log()), data(tmp_path)
    assert both(tmp_path, server, num_instructions=100) == 5
    assert (len(server.log()), data(tmp_path)) == (before, files)


def test_strategies_belong_to_the_run(server, tmp_path, capsys):
    assert both(tmp_path, server, num_instructions=5) == 0
    assert generate(tmp_path, server.base_url, strategy="alpaca", num_instructions=5) == 2
    assert "strategy: alpaca self-instruct in the run, alpaca now" in capsys.readouterr().err
    assert both(tmp_path / "twice", server, strategy="self-instruct") == 2
    assert "--strategy: each one at most once" in capsys.readouterr().err


# -- several replies to a request ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["self-instruct", "alpaca"])
def test_one_request_brings_several_lists(server, tmp_path, strategy):
    flags = {"strategy": strategy, "replies_per_request": 3, "num_instructions": 50}
    assert generate(tmp_path / "whole", server.base_url, **flags) == 0
    log, counted = server.log(), summary(tmp_path / "whole")
    lists = [entry for entry in log if "n" in entry["body"]]
    assert {entry["body"]["n"] for entry in lists} == {3}
    assert len(lists) < len(log) if strategy == "self-instruct" else len(lists) == len(log)
    assert counted["tokens"]["prompt"] == sum(entry["prompt_tokens"] for entry in log)  # of each prompt once
    assert counted["tokens"]["completion"] == sum(entry["completion_tokens"] for entry in log)
    assert counted["requests"]["completed"] == len(log)
    per_prompt = "SELECT count(*), count(DISTINCT completion_key) FROM completions GROUP BY prompt_key"
    assert set(ledger(tmp_path / "whole", per_prompt)) <= {(1, 1), (3, 3)}
    accepted = rows(tmp_path / "whole" / "dataset.jsonl")
    replies = {}
    for row in accepted:
        replies.setdefault(row["source"]["prompt_key"], set()).add(row["source"]["completion_key"])
    assert max(len(keys) for keys in replies.values()) == 3
    assert len({row["id"] for row in accepted}) == 50

    def run(out, **caps):
        return generate(out, server.base_url, **flags, **caps)

    before = len(server.log())
    assert in_steps(run, tmp_path / "steps", len(log), 2 if strategy == "alpaca" else 25) == 0
    assert data(tmp_path / "steps") == data(tmp_path / "whole")
    assert len(server.log()) - before == summary(tmp_path / "steps")["requests"]["completed"]


def test_endpoint_that_gives_one_reply_only(server, tmp_path):
    server.set(refused_parameters=["n"])
    assert generate(tmp_path, server.base_url, strategy="alpaca", replies_per_request=3) == 0
    assert len(rows(tmp_path / "dataset.jsonl")) == 30
    assert sum(entry["status"] == 400 for entry in server.log()) == 1


def test_seed_is_sent_where_it_is_wanted(server, tmp_path, capsys):
    assert generate(tmp_path / "none", server.base_url, num_instructions=5) == 0
    assert all("seed" not in entry["body"] for entry in server.log())
    before = len(server.log())
    assert generate(tmp_path / "some", server.base_url, num_instructions=5, send_seed=True, seed=7) == 0
    assert {entry["body"]["seed"] for entry in server.log()[before:]} == {7}
    assert generate(tmp_path / "some", server.base_url, num_instructions=5, seed=7) == 2
    assert "send_seed: True in the run, False now" in capsys.readouterr().err


# -- taken up again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4])
def test_run_in_steps_is_the_uninterrupted_one(server, reference, tmp_path, step):
    server.set(latency_s=(0.0, 0.01))
    rng = random.Random(step)

    def run(out, **caps):
        return generate(out, server.base_url, concurrency=rng.choice([1, 3, 16]), **caps)

    assert in_steps(run, tmp_path, 24 if step == 1 else 100, step) == 0
    assert data(tmp_path) == reference
    assert_nothing_was_asked_twice(server)


def test_target_that_grows_in_steps(server, reference, tmp_path):
    for target in (11, 17, 30):
        assert generate(tmp_path, server.base_url, num_instructions=target) == 0
        assert len(rows(tmp_path / "dataset.jsonl")) == target
        assert reference[0].startswith((tmp_path / "dataset.jsonl").read_bytes())
    assert data(tmp_path) == reference
    assert_nothing_was_asked_twice(server)


def test_saturation_is_measured_across_interruptions(server, tmp_path):
    server.set(pool=40, near_duplicates=0.0)
    flags = {"strategy": "alpaca", "num_instructions": 100, "saturation_window": 30, "min_yield": 0.1}

    def run(out, **caps):
        return generate(out, server.base_url, **flags, **caps)

    assert run(tmp_path / "whole") == 5
    assert in_steps(run, tmp_path / "steps", 200, 1) == 5
    assert data(tmp_path / "steps") == data(tmp_path / "whole")
    assert summary(tmp_path / "steps")["closed_by"] == "saturated"
    closing = "SELECT value FROM facts WHERE name = 'closing'"
    assert ledger(tmp_path / "steps", closing) == ledger(tmp_path / "whole", closing)


def test_saturated_run_with_a_larger_target_stays_what_it_is(server, tmp_path):
    server.set(pool=15, near_duplicates=0.0)
    flags = {"strategy": "alpaca", "saturation_window": 40}
    assert generate(tmp_path, server.base_url, num_instructions=100, **flags) == 5
    files = data(tmp_path)
    assert generate(tmp_path, server.base_url, num_instructions=200, **flags) == 5
    assert data(tmp_path) == files
    assert summary(tmp_path)["closed_by"] == "saturated"


# -- status ----------------------------------------------------------------------------------------------------------


def test_status_of_a_run_at_work_shows_its_throughput(tmp_path, capsys):
    with running_server(latency_s=0.05) as server, start(tmp_path, server.base_url, num_instructions=500) as process:
        deadline = time.monotonic() + 30
        while len(server.log()) < 40:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert run_program(GROUP, "selfinstruct", ["status", str(tmp_path)]) == 0
        assert run_program(GROUP, "selfinstruct", ["status", str(tmp_path), "--json"]) == 0
        process.kill()
    *words, values = capsys.readouterr().out.splitlines()
    status = json.loads(values)
    assert status["state"] == "unfinished"
    assert 0 < status["requests"]["completed"] <= status["requests"]["sent"]
    assert status["throughput"]["requests_per_s"] * 60 >= 20
    assert status["throughput"]["tokens_per_s"] > status["throughput"]["requests_per_s"]
    assert any("requests/s" in line and "tokens/s" in line for line in words)
