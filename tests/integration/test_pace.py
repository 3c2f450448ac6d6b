"""The teacher's pace against a real server: how many requests at once, how fast, and what survives a bad day."""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter

import pytest

from tests.generating import FreshServer, data, generate, start, summary
from tests.server import running_server

PRICES = {"input_usd_per_mtok": 1000, "output_usd_per_mtok": 2000}
SIZE = {"num_instructions": 50, "window": 12, "concurrency": 32, "outage_s": 30}


@pytest.fixture(scope="module")
def calm(shared, tmp_path_factory):
    """The files of a run of that size on a good day."""
    out = tmp_path_factory.mktemp("calm")
    assert generate(out, FreshServer(shared).base_url, **SIZE) == 0
    return data(out)


def refused(log):
    return [entry for entry in log if entry["status"] != 200]


# -- how many at once ------------------------------------------------------------------------------------------------


def test_ceiling_is_reached_and_never_passed(server, calm, tmp_path):
    server.set(latency_s=0.03)
    assert generate(tmp_path, server.base_url, **{**SIZE, "concurrency": 5}) == 0
    log = server.log()
    assert max(entry["in_flight"] for entry in log) == 5
    assert log[0]["in_flight"] == log[1]["in_flight"] == 1  # the first went alone
    assert data(tmp_path) == calm


@pytest.mark.parametrize("most", [6, 20])
def test_concurrency_finds_what_the_endpoint_bears(server, calm, tmp_path, most):
    server.set(max_in_flight=most, latency_s=0.05)
    assert generate(tmp_path, server.base_url, **SIZE) == 0
    assert data(tmp_path) == calm
    log = server.log()
    assert len(refused(log)) < 0.4 * len(log)
    early, late = (log[: len(log) // 2], log[len(log) // 2 :])
    assert len(refused(late)) < 0.1 * len(late)
    # What remains is not less than it could be: the endpoint is kept busy while there is enough to ask.
    assert max(entry["in_flight"] for entry in late if entry["status"] == 200) >= 0.5 * most
    assert len(refused(early)) >= len(refused(late))


# -- the endpoint's limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", ["retry-after", "reset", "none"])
def test_rate_limit_slows_the_run_and_changes_nothing(server, calm, tmp_path, headers):
    server.set(rate_limit=60, rate_limit_headers=headers, retry_after_s=0.3)
    assert generate(tmp_path, server.base_url, **SIZE) == 0
    assert data(tmp_path) == calm
    log = server.log()
    assert refused(log)
    assert len(refused(log)) < 0.6 * len(log)
    assert summary(tmp_path)["requests"]["completed"] == len(log) - len(refused(log))


def test_told_wait_is_kept_by_all(server, calm, tmp_path):
    server.set(faults={"429_retry_after": [20]}, retry_after_s=1.0)
    assert generate(tmp_path, server.base_url, **SIZE) == 0
    log = server.log()
    (at,) = [entry["received_s"] for entry in refused(log)]
    later = [entry["received_s"] - at for entry in log if entry["received_s"] > at]
    assert not [seconds for seconds in later if 0.1 < seconds < 1.0]
    assert sum(seconds >= 1.0 for seconds in later) > 10
    assert data(tmp_path) == calm


def test_limit_that_is_used_up_is_waited_for_without_being_refused(server, calm, tmp_path):
    """A reply says that nothing is left: none is sent before there is."""
    server.set(rate_limit=20, rate_limit_headers="reset", rate_window_s=0.3)
    assert generate(tmp_path, server.base_url, **{**SIZE, "concurrency": 1}) == 0
    assert refused(server.log()) == []
    assert data(tmp_path) == calm


def test_token_limit(server, calm, tmp_path):
    server.set(token_rate_limit=40_000, rate_limit_headers="reset")
    assert generate(tmp_path, server.base_url, **SIZE) == 0
    assert refused(server.log())
    assert data(tmp_path) == calm


def test_server_that_is_still_loading_is_waited_for(calm, tmp_path):
    with running_server(starting_s=1.5) as server:
        assert generate(tmp_path, server.base_url, **SIZE) == 0
        log = server.log()
    assert 1 <= len(refused(log)) < 10
    assert {entry["status"] for entry in refused(log)} == {503}
    assert data(tmp_path) == calm


def test_endpoint_that_stays_overloaded_is_given_up_after_few_requests(server, tmp_path, capsys):
    server.set(faults={"529": 1.0})
    started = time.monotonic()
    assert generate(tmp_path, server.base_url, **{**SIZE, "outage_s": 1}) == 5
    assert "529: Overloaded" in capsys.readouterr().err
    assert time.monotonic() - started < 10
    assert len(server.log()) < 15


# -- the user's limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reasoning_model", [False, True])
def test_requests_per_minute(server, tmp_path, reasoning_model):
    """All of them count: those that were refused, and those that were asked otherwise after that."""
    server.set(faults={"500": [4], "429_retry_after": [7]}, retry_after_s=0.01, reasoning_model=reasoning_model)
    assert generate(tmp_path, server.base_url, num_instructions=10, requests_per_minute=900) == 0
    received = [entry["received_s"] for entry in server.log()]
    assert len(received) > 20
    gap_s = 60 / 900
    for early, late in zip(received, received[10:], strict=False):
        assert late - early > 10 * gap_s - 0.15  # what a request takes to get there varies
    assert received[-1] - received[0] < 2 * gap_s * len(received)


def test_tokens_per_minute(server, tmp_path):
    cap = 20_000
    with start(tmp_path, server.base_url, tokens_per_minute=cap, num_instructions=200, concurrency=32) as process:
        counts: list[int] = []
        while len(counts) < 8 or len(set(counts[-8:])) > 1 or not counts[-1]:  # until it waits for the next minute
            time.sleep(0.25)
            assert len(counts) < 100
            counts.append(len(server.log()))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=5)
    assert process.returncode == 130
    taken = sum(entry["prompt_tokens"] + entry["completion_tokens"] for entry in server.log())
    # A request is let through if its worst case fits, which is far above what it takes.
    assert 0.75 * cap < taken <= cap


# -- a bad day -------------------------------------------------------------------------------------------------------

MIXED = (
    "429", "429_retry_after", "500", "overloaded", "529", "hang", "reset", "truncated", "malformed", "empty_choices",
    "no_usage", "wrong_usage",
)  # fmt: skip


def test_a_third_of_mixed_faults_changes_nothing(calm, tmp_path):
    faults = dict.fromkeys(MIXED, 0.3 / len(MIXED))
    # A server of its own: which request has which fault depends on how many came before.
    with running_server(faults=faults, retry_after_s=0.05, latency_s=(0.0, 0.05)) as server:
        assert generate(tmp_path, server.base_url, **SIZE, timeout_s=0.6, **PRICES) == 0
        log, counted = server.log(), summary(tmp_path)
    assert data(tmp_path) == calm
    happened = Counter(entry["fault"] for entry in log)
    assert 0.2 < 1 - happened[None] / len(log) < 0.4
    assert set(happened) == {None, *MIXED}
    assert counted["requests"]["sent"] == len(log)
    assert counted["requests"]["failed"] == sum(happened[kind] for kind in MIXED[:-2])
    # What may have been billed is charged: never less than it was, save where the endpoint itself said less.
    true = sum(entry["prompt_tokens"] * 1e-3 + entry["completion_tokens"] * 2e-3 for entry in log)
    assert counted["cost_usd"] >= true


def test_order_of_replies_shapes_nothing(server, calm, tmp_path):
    server.set(latency_s={"median": 0.02, "sigma": 1.2})
    assert generate(tmp_path, server.base_url, **SIZE) == 0
    assert data(tmp_path) == calm
    asked = [entry["body"]["messages"][0]["content"] for entry in server.log()]
    lists = [place for place, text in enumerate(asked) if "Go on with the list" in text]
    assert any(late - early > 1 for early, late in itertools.pairwise(lists))  # steps of several slots were mixed
