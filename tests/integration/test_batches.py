"""The batch API against a real server: the same data at half the price, whatever happens on the way."""

from __future__ import annotations

import http.server
import json
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from tests.batches import form
from tests.generating import FreshServer, data, generate, ledger, rows, start, summary

CANARY = "sk-canary-5f2d8c1b9a7e4036"
PRICES = {"input_usd_per_mtok": 1000, "output_usd_per_mtok": 2000}
# By the server's clock a batch without a length is over when it is first asked for: the calls of a batch are then
UPLOAD, CREATE, POLL, DOWNLOAD = 1, 2, 3, 4
FOR_EVER = 3600


class BatchServer(FreshServer):
    """A running server as one test sees it, with its calls to files and batches."""

    def __init__(self, server):
        super().__init__(server)
        self._calls_before = len(server.calls())

    def calls(self):
        return self._server.calls()[self._calls_before :]

    def made(self):
        """How many batches were made."""
        return sum((call["method"], call["path"]) == ("POST", "/v1/batches") for call in self.calls())

    def set(self, **behaviour):
        """Faults by number count from the test's first request, or its first call."""
        for kind, when in behaviour.get("batch_api_faults", {}).items():
            shifted = [self._calls_before + number for number in when]
            behaviour["batch_api_faults"] = {**behaviour["batch_api_faults"], kind: shifted}
        super().set(**behaviour)


@pytest.fixture
def server(shared):
    return BatchServer(shared)


def directly(shared, folder, **flags):
    assert generate(folder, BatchServer(shared).base_url, **flags) == 0
    return data(folder)


@pytest.fixture(scope="module")
def direct(shared, tmp_path_factory):
    """The files of a run without batches."""
    return directly(shared, tmp_path_factory.mktemp("direct"), strategy="alpaca")


def batched(out, server, **flags):
    flags = {"strategy": "alpaca", "batch": True, "batch_poll_s": 0.05, **flags}
    return generate(out, server.base_url, **flags)


def batching(out, server, **flags):
    """The same as a process of its own."""
    return start(out, server.base_url, strategy="alpaca", batch=True, batch_poll_s=0.05, **flags)


def wait_until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def billed(log):
    return sum(entry["prompt_tokens"] * 1e-3 + entry["completion_tokens"] * 2e-3 for entry in log) / 2


def files_with(text, folder):
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def assert_nothing_was_asked_twice(server):
    bodies = Counter(json.dumps(entry["body"], sort_keys=True) for entry in server.log())
    assert bodies
    assert max(bodies.values()) == 1


# -- the data and the price ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "endpoint"), [("self-instruct", "chat"), ("alpaca", "completions")])
def test_same_bytes_at_half_the_price(shared, server, tmp_path, strategy, endpoint):
    flags = {"strategy": strategy, "endpoint": endpoint, "num_instructions": 16}
    expected = directly(shared, tmp_path / "direct", **flags)
    server = BatchServer(shared)
    assert batched(tmp_path / "run", server, **flags, **PRICES) == 0
    assert data(tmp_path / "run") == expected
    log, counted = server.log(), summary(tmp_path / "run")
    assert all(entry["batch"] for entry in log)
    assert_nothing_was_asked_twice(server)
    assert counted["cost_usd"] == pytest.approx(billed(log), rel=1e-12)
    assert counted["tokens"]["prompt"] == sum(entry["prompt_tokens"] for entry in log)
    assert counted["tokens"]["completion"] == sum(entry["completion_tokens"] for entry in log)
    assert counted["requests"]["sent"] == counted["requests"]["completed"] == len(log)
    # All that is asked at a time is one batch: the slots of a window together, step by step.
    assert server.made() <= (2 if strategy == "alpaca" else 6)


def test_run_may_change_between_batches_and_single_requests(server, direct, tmp_path):
    assert generate(tmp_path, server.base_url, strategy="alpaca", max_requests=2) == 4
    assert batched(tmp_path, server, max_requests=4) == 4
    assert generate(tmp_path, server.base_url, strategy="alpaca") == 0
    assert data(tmp_path) == direct
    assert_nothing_was_asked_twice(server)
    assert {bool(entry["batch"]) for entry in server.log()} == {True, False}


def test_several_replies_to_a_request(shared, tmp_path):
    flags = {"replies_per_request": 3, "num_instructions": 40}
    expected = directly(shared, tmp_path / "direct", strategy="alpaca", **flags)
    server = BatchServer(shared)
    assert batched(tmp_path / "run", server, **flags) == 0
    assert data(tmp_path / "run") == expected
    assert {entry["body"]["n"] for entry in server.log()} == {3}


# -- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [UPLOAD, CREATE, POLL, DOWNLOAD])
def test_killed_in_a_call_asks_nothing_twice(server, direct, tmp_path, call, caplog):
    """The call has its effect at the endpoint, and its reply is never heard."""
    server.set(batch_api_faults={"hang": [call]})
    with batching(tmp_path, server, **PRICES) as process:
        wait_until(lambda: len(server.calls()) == call)
        process.kill()
    made = server.made()
    assert made == (call > UPLOAD)
    assert batched(tmp_path, server, **PRICES) == 0
    assert data(tmp_path) == direct
    assert_nothing_was_asked_twice(server)
    counted = summary(tmp_path)
    assert counted["requests"]["lost"] == 0
    assert counted["requests"]["completed"] == len(server.log())
    assert counted["cost_usd"] == pytest.approx(billed(server.log()), rel=1e-12)
    assert "were in flight when" not in caplog.text
    assert ("of an earlier process: collecting its" in caplog.text) == bool(made)


def test_killed_again_and_again_ends_with_the_same_bytes(server, direct, tmp_path):
    server.set(batch_s=0.3)
    for calls in (3, 5):
        goal = len(server.calls()) + calls
        with batching(tmp_path, server) as process:
            wait_until(lambda goal=goal, process=process: len(server.calls()) >= goal or process.poll() is not None)
            process.kill()
    server.set(batch_s=0.0)
    assert batched(tmp_path, server) == 0
    assert data(tmp_path) == direct
    assert_nothing_was_asked_twice(server)
    assert summary(tmp_path)["requests"]["lost"] == 0


def test_lost_reply_to_the_making_of_a_batch_makes_no_second_one(server, direct, tmp_path):
    server.set(batch_api_faults={"reset": [CREATE]}, batch_s=0.1)
    assert batched(tmp_path, server) == 0
    assert data(tmp_path) == direct
    assert_nothing_was_asked_twice(server)
    made = [(call["method"], call["path"]) for call in server.calls()[:4]]
    assert made[1:3] == [("POST", "/v1/batches"), ("GET", "/v1/batches")]  # it looks before it makes another


def test_interrupt_leaves_the_batch_to_the_next_command(server, direct, tmp_path, capsys):
    server.set(batch_s=FOR_EVER)
    with batching(tmp_path, server) as process:
        wait_until(lambda: len(server.calls()) > POLL)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
    assert process.returncode == 130
    asked = ledger(tmp_path, "SELECT count(*) FROM attempts")[0][0]
    assert f"{asked} request(s) go on as a batch at 127.0.0.1:{server.port}; the same command collects them" in err
    assert "Traceback" not in err
    assert summary(tmp_path)["closed_by"] == "interrupted"
    assert summary(tmp_path)["requests"] == {
        "sent": asked, "completed": 0, "retried": 0, "failed": 0, "lost": 0, "unused": 0,
    }  # fmt: skip

    # Directly its requests would be paid for twice.
    assert generate(tmp_path, server.base_url, strategy="alpaca") == 2
    assert "give --batch to collect it" in capsys.readouterr().err
    assert server.log() == []

    server.set(batch_s=0.0)
    assert batched(tmp_path, server) == 0
    assert data(tmp_path) == direct
    assert_nothing_was_asked_twice(server)


def test_interrupt_ends_the_waiting_for_another_try(server, direct, tmp_path):
    server.set(batch_api_faults={"429_retry_after": range(1, 999)}, retry_after_s=30)
    with batching(tmp_path, server, outage_s=100) as process:
        wait_until(lambda: server.calls())
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
    assert process.returncode == 130
    assert "go on as a batch" not in err  # there is none
    server.set(batch_api_faults={})
    assert batched(tmp_path, server) == 0
    assert data(tmp_path) == direct


def test_second_interrupt_gives_up_a_call_that_hangs(server, direct, tmp_path):
    server.set(batch_api_faults={"hang": [CREATE]})
    with batching(tmp_path, server) as process:
        wait_until(lambda: len(server.calls()) == CREATE)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None  # what makes a batch is waited for
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert batched(tmp_path, server) == 0
    assert data(tmp_path) == direct
    assert_nothing_was_asked_twice(server)


# -- what becomes of a batch -----------------------------------------------------------------------------------------


def test_rest_of_an_expired_batch_is_asked_again(server, direct, tmp_path):
    server.set(batch_expires_after=0.6)
    assert batched(tmp_path, server, **PRICES) == 0
    assert data(tmp_path) == direct
    assert_nothing_was_asked_twice(server)
    counted = summary(tmp_path)
    assert counted["requests"]["retried"] == counted["requests"]["failed"] > 0
    assert counted["cost_usd"] == pytest.approx(billed(server.log()), rel=1e-12)  # what was not asked costs nothing


def test_batches_that_bring_nothing_end_the_run(server, direct, tmp_path, capsys):
    server.set(batch_expires_after=0.0)
    assert batched(tmp_path, server) == 5
    assert (
        "3 batches in a row brought no reply (the last: This request could not be executed" in capsys.readouterr().err
    )
    assert server.made() == 3
    assert summary(tmp_path)["closed_by"] == "outage"
    server.set(batch_expires_after=None)
    assert batched(tmp_path, server) == 0
    assert data(tmp_path) == direct


def test_batch_that_is_refused_says_why(server, direct, tmp_path, capsys):
    server.set(batch_fails=True)
    assert batched(tmp_path, server, **PRICES) == 2
    assert "refuses the batch: Enqueued token limit reached" in capsys.readouterr().err
    assert server.made() == 1
    assert summary(tmp_path)["cost_usd"] == 0
    server.set(batch_fails=False)
    assert batched(tmp_path, server, **PRICES) == 0
    assert data(tmp_path) == direct


def test_too_many_lines_are_refused(server, tmp_path, capsys):
    server.set(batch_lines=2)
    assert batched(tmp_path, server) == 2
    assert "A batch takes at most 2." in capsys.readouterr().err


def test_empty_replies_are_replies(server, tmp_path):
    server.set(script={"": ""})
    assert batched(tmp_path, server, saturation_window=34) == 5
    assert {row["rule"] for row in rows(tmp_path / "rejected.jsonl")} == {"unparsable"}
    assert summary(tmp_path)["closed_by"] == "saturated"
    assert_nothing_was_asked_twice(server)


# -- what becomes of one of its requests -----------------------------------------------------------------------------


def test_transient_errors_of_lines_are_asked_again(server, direct, tmp_path):
    server.set(faults={"429": [1], "500": [2], "empty_choices": [3], "overloaded": [4]})
    assert batched(tmp_path, server) == 0
    assert data(tmp_path) == direct
    counted, log = summary(tmp_path)["requests"], server.log()
    assert [entry["fault"] for entry in log[:4]] == ["429", "500", "empty_choices", "overloaded"]
    assert (counted["sent"], counted["failed"], counted["retried"]) == (len(log), 4, 4)


@pytest.mark.parametrize("line", [1, 2])
def test_permanent_error_of_a_line_is_its_outcome(server, tmp_path, line):
    server.set(faults={"context_length_exceeded": [line]})
    assert batched(tmp_path, server) == 0
    (row,) = [row for row in rows(tmp_path / "rejected.jsonl") if row["rule"] == "unparsable"]
    assert "maximum context length" in row["detail"]
    assert_nothing_was_asked_twice(server)


def test_spent_quota_keeps_the_other_replies(server, direct, tmp_path, capsys):
    server.set(faults={"insufficient_quota": [2]})
    assert batched(tmp_path, server) == 5
    assert "out of credit" in capsys.readouterr().err
    answered = sum(entry["status"] == 200 for entry in server.log())
    assert ledger(tmp_path, "SELECT count(*) FROM completions") == [(answered,)]
    assert answered > 0
    assert batched(tmp_path, server) == 0
    assert data(tmp_path) == direct
    bodies = Counter(json.dumps(entry["body"]) for entry in server.log() if entry["status"] == 200)
    assert max(bodies.values()) == 1


def test_reasoning_model(server, tmp_path):
    server.set(reasoning_model=True)
    assert batched(tmp_path, server, strategy="self-instruct", num_instructions=8) == 0
    answered = [entry["body"] for entry in server.log() if entry["status"] == 200]
    assert all(set(body) == {"model", "messages", "max_completion_tokens"} for body in answered)
    assert len(rows(tmp_path / "dataset.jsonl")) == 8


def test_request_refused_for_its_form(server, tmp_path, capsys):
    server.set(refused_parameters=["model"])
    assert batched(tmp_path, server) == 2
    assert "refuses the first request" in capsys.readouterr().err
    assert server.made() == 1


@contextmanager
def odd_endpoint(*odd_lines):
    """Ends every batch at once; the first lines of the results are these instead of replies, None for none at all."""
    inputs: list[list[str]] = []
    left = list(odd_lines)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            raw = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/files":
                lines = form(self.headers["content-type"], raw)["file"][1].splitlines()
                inputs.append([json.loads(line)["custom_id"] for line in lines])
            self.answer({"id": str(len(inputs)), "object": "batch", "status": "validating"})

        def do_GET(self):
            if not self.path.startswith("/v1/files"):
                self.answer({"id": str(len(inputs)), "status": "completed", "output_file_id": "results"})
                return
            results = []
            for key in inputs[-1]:
                odd = left.pop(0) if left else {"response": {"status_code": 200, "body": TASKS}}
                results += [] if odd is None else [{"custom_id": key, **odd}]
            self.answer(*results)

        def answer(self, *values):
            body = b"".join(json.dumps(value).encode() + b"\n" for value in values)
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", inputs
        finally:
            server.shutdown()


TASKS = {
    "choices": [{
        "message": {"content": "Name three rivers of Asia.\n4. Input:\n<noinput>\n4. Output:\nOb, Amur, Lena"},
        "finish_reason": "stop",
    }],
}  # fmt: skip


def test_refusal_of_one_prompt_ends_no_run_whose_others_are_answered(tmp_path):
    """Not even when it is the first of all, and the endpoint does not say what it has against it."""
    refusal = {"response": {"status_code": 400, "body": {"error": {"message": "I do not like it"}}}}
    with odd_endpoint(refusal) as (url, _):
        flags = {"strategy": "alpaca", "num_instructions": 3, "tasks_per_request": 1, "saturation_window": 3}
        assert generate(tmp_path, url, batch=True, batch_poll_s=0.05, **flags) == 5  # it has but one task
    assert len(rows(tmp_path / "dataset.jsonl")) == 1
    assert "I do not like it" in rows(tmp_path / "rejected.jsonl")[0]["detail"]


@pytest.mark.parametrize(
    "odd",
    [
        None,
        {"response": "no"},
        {"response": None, "error": "no"},
        {"response": {"status_code": "no", "body": {"a": "no"}}},
    ],
)
def test_odd_line_of_the_results_is_asked_again(tmp_path, odd):
    with odd_endpoint(odd) as (url, inputs):
        flags = {"strategy": "alpaca", "num_instructions": 1}
        assert generate(tmp_path, url, batch=True, batch_poll_s=0.05, **flags) == 0
    assert inputs[0][0] == inputs[1][0]
    assert len(rows(tmp_path / "dataset.jsonl")) == 1


# -- the calls of the API itself -------------------------------------------------------------------------------------


@contextmanager
def plain_server(status, content):
    """Gives every call the same answer; yields its base URL and the paths that were asked for."""
    paths = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            paths.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", "application/json" if content.startswith("{") else "text/html")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", paths
        finally:
            server.shutdown()


def test_endpoint_without_a_batch_api(tmp_path, capsys):
    with plain_server(404, '{"detail": "Not Found"}') as (url, paths):
        assert generate(tmp_path, url, strategy="alpaca", batch=True) == 2
    assert "has no batch API, it seems; go on without --batch (" in capsys.readouterr().err
    assert paths == ["/v1/files"]


@pytest.mark.parametrize("content", ["<h1>Welcome</h1>", '{"object": "file"}', "{"])
def test_endpoint_that_is_none(tmp_path, capsys, content):
    with plain_server(200, content) as (url, _):
        assert generate(tmp_path, url, strategy="alpaca", batch=True, outage_s=1e-6) == 5
    err = capsys.readouterr().err
    assert "malformed reply" in err
    assert "defect" not in err


def test_embedded_model_has_none(tmp_path, capsys):
    assert generate(tmp_path / "run", "https://api.example/v1", model="embedded", batch=True) == 2
    assert "--batch" in capsys.readouterr().err


def test_refused_key_ends_at_once_and_is_shown_nowhere(server, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    server.set(require_key="sk-another")
    assert batched(tmp_path, server, api_key_env="TEACHER_KEY", debug=True) == 3
    assert len(server.calls()) == 1
    said = "".join(capsys.readouterr()) + caplog.text
    assert "TEACHER_KEY" in said
    assert "Traceback" in said
    assert CANARY not in said
    assert files_with(CANARY, tmp_path) == []


def test_accepted_key_is_in_no_file(server, direct, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    server.set(require_key=CANARY, faults={"500": [2]})
    assert batched(tmp_path, server, api_key_env="TEACHER_KEY", debug=True) == 0
    assert data(tmp_path) == direct
    assert all(call["key_matches"] for call in server.calls())
    assert files_with(CANARY, tmp_path) == []
    assert CANARY not in "".join(capsys.readouterr()) + caplog.text


def test_transient_errors_of_calls_are_asked_again(server, direct, tmp_path):
    kinds = ("500", "malformed", "429_retry_after", "truncated", "hang")
    server.set(batch_api_faults={kind: [2 * n + 1] for n, kind in enumerate(kinds)}, retry_after_s=0.01, batch_s=0.3)
    assert batched(tmp_path, server, timeout_s=1) == 0
    assert data(tmp_path) == direct
    assert [call["fault"] for call in server.calls()[: 2 * len(kinds) : 2]] == list(kinds)
    assert_nothing_was_asked_twice(server)


def test_lost_endpoint_keeps_the_batch(server, direct, tmp_path, capsys):
    server.set(batch_api_faults={"500": range(DOWNLOAD, 99)})
    assert batched(tmp_path, server, outage_s=1e-6) == 5
    assert "the same command resumes" in capsys.readouterr().err
    assert summary(tmp_path)["requests"]["completed"] == 0
    server.set(batch_api_faults={})
    assert batched(tmp_path, server) == 0
    assert data(tmp_path) == direct
    assert_nothing_was_asked_twice(server)


# -- caps ------------------------------------------------------------------------------------------------------------


def test_caps_are_never_passed_and_a_later_run_goes_on(server, direct, tmp_path, capsys):
    for cap in (1, 3):
        assert batched(tmp_path, server, max_requests=cap, **PRICES) == 4
        assert f"--max-requests {cap} is reached" in capsys.readouterr().err
        assert len(server.log()) == cap
        assert direct[0].startswith((tmp_path / "dataset.jsonl").read_bytes())
    spent = summary(tmp_path)["cost_usd"]
    cap = spent + 5
    assert batched(tmp_path, server, max_cost_usd=cap, **PRICES) in (0, 4)
    assert spent < summary(tmp_path)["cost_usd"] <= cap
    assert summary(tmp_path)["cost_usd"] == pytest.approx(billed(server.log()))
    assert batched(tmp_path, server, **PRICES) == 0
    assert data(tmp_path) == direct
    assert_nothing_was_asked_twice(server)


def test_cap_on_money_counts_the_batch_under_way(server, direct, tmp_path, capsys):
    server.set(batch_s=FOR_EVER)
    with batching(tmp_path, server, max_cost_usd=6, **PRICES) as process:
        wait_until(lambda: len(server.calls()) > POLL)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=5)
    reserved = summary(tmp_path)["cost_usd"]
    assert 0 < reserved <= 6
    server.set(batch_s=0.0)
    assert batched(tmp_path, server, max_cost_usd=6, **PRICES) in (0, 4)
    assert summary(tmp_path)["cost_usd"] == pytest.approx(billed(server.log()))
    assert summary(tmp_path)["cost_usd"] <= 6
    # Two at a time could have passed it.
    assert set(Counter(entry["batch"] for entry in server.log()).values()) == {1}
    assert batched(tmp_path, server, **PRICES) == 0
    assert data(tmp_path) == direct
