"""The teacher against a real server: what is asked again, what is stored, what ends the run, and what never leaks."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from selfinstruct.bootstrap import Bootstrap, Plan, restore
from selfinstruct.budget import Budget
from selfinstruct.dialect import DEFAULT_THINKING_TOKENS
from selfinstruct.endpoint import Server
from selfinstruct.errors import CapReached
from selfinstruct.files import shipped
from selfinstruct.filters.union import USUAL
from selfinstruct.ledger import Ledger
from selfinstruct.seeds import read_seeds
from selfinstruct.strategies.self_instruct import SelfInstruct
from selfinstruct.teacher import DirectTeacher
from tests.generating import FreshServer, data, generate, ledger, rows, start, summary
from tests.server import running_server

CANARY = "sk-canary-5f2d8c1b9a7e4036"
TRANSIENT = ("429", "429_retry_after", "500", "hang", "reset", "truncated", "malformed", "empty_choices")


@pytest.fixture(scope="module")
def calm(shared, tmp_path_factory):
    """The files of a run without any fault: 30 tasks by 4 list requests, of which the first is alone."""
    out = tmp_path_factory.mktemp("calm")
    assert generate(out, FreshServer(shared).base_url, strategy="alpaca") == 0
    return data(out)


def contains(folder: Path, text: str) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def bodies(log):
    return [json.dumps(entry["body"], sort_keys=True) for entry in log]


# -- asked again -----------------------------------------------------------------------------------------------------


def test_transient_errors_are_asked_again_and_change_nothing(server, tmp_path):
    assert generate(tmp_path / "calm", server.base_url, num_instructions=12) == 0
    before = len(server.log())
    server.set(faults={kind: [before + 2 + n] for n, kind in enumerate(TRANSIENT)}, retry_after_s=1.5)
    assert generate(tmp_path / "run", server.base_url, num_instructions=12, timeout_s=2) == 0
    assert data(tmp_path / "run") == data(tmp_path / "calm")

    log = server.log()[before:]
    asked = bodies(log)
    for number, kind in enumerate(TRANSIENT, start=1):
        assert log[number]["fault"] == kind
        again = asked.index(asked[number], number + 1)
        waited = log[again]["received_s"] - log[number]["received_s"]
        assert waited >= (1.5 if kind == "429_retry_after" else 0.5), kind
        assert log[again]["status"] == 200
    failed = [
        outcome for (outcome,) in ledger(tmp_path / "run", "SELECT outcome FROM attempts WHERE outcome <> 'completed'")
    ]
    assert len(failed) == len(TRANSIENT)
    counted = summary(tmp_path / "run")["requests"]
    assert (counted["failed"], counted["retried"]) == (len(TRANSIENT), len(TRANSIENT))
    assert counted["sent"] == len(log)


def test_first_request_goes_alone_and_the_others_together(server, tmp_path):
    server.set(latency_s=0.6)
    flags = {"strategy": "alpaca", "num_instructions": 40, "tasks_per_request": 8, "window": 5}
    assert generate(tmp_path, server.base_url, **flags) == 0
    first, *others = [entry["received_s"] for entry in server.log()]
    assert others[0] - first >= 0.6
    assert sum(received - others[0] < 0.5 for received in others) == 5  # all slots of the window


def test_busy_endpoint_is_not_a_lost_one(server, tmp_path):
    server.set(rate_limit=4, retry_after_s=0.1)
    assert generate(tmp_path, server.base_url, num_instructions=8, concurrency=16, outage_s=2) == 0
    log = server.log()
    asked = bodies(log)
    waits = [log[number]["received_s"] - log[asked.index(asked[number])]["received_s"] for number in range(len(log))]
    assert max(waits) > 2  # some request was asked for longer than an outage may last


def test_wish_to_wait_beyond_patience_ends_at_once(server, tmp_path, capsys):
    server.set(faults={"429_retry_after": 1.0}, retry_after_s=3600)
    assert generate(tmp_path, server.base_url, outage_s=1) == 5
    assert "asks to wait 3600 s" in capsys.readouterr().err
    assert len(server.log()) == 1


def test_outage_keeps_the_work_and_resumes(server, calm, tmp_path, capsys):
    server.set(faults={"500": range(3, 1000)})
    assert generate(tmp_path, server.base_url, strategy="alpaca", outage_s=0.5) == 5
    assert "same command resumes" in capsys.readouterr().err
    assert summary(tmp_path)["closed_by"] == "outage"
    assert calm[0].startswith((tmp_path / "dataset.jsonl").read_bytes())
    answered = sum(entry["status"] == 200 for entry in server.log())
    assert ledger(tmp_path, "SELECT count(*) FROM completions") == [(answered,)] == [(2,)]

    assert generate(tmp_path, server.base_url, strategy="alpaca", outage_s=0.5) == 5  # still away: nothing gets lost
    server.set(faults={})
    before = len(server.log())
    assert generate(tmp_path, server.base_url, strategy="alpaca") == 0
    assert data(tmp_path) == calm
    done = set(bodies(entry for entry in server.log()[:before] if entry["status"] == 200))
    assert not done & set(bodies(server.log()[before:]))


def test_nothing_listens_then_the_server_comes(calm, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = {"strategy": "alpaca", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1, "max_cost_usd": 0.05}
    assert generate(tmp_path, f"http://127.0.0.1:{port}/v1", outage_s=1, **flags) == 5
    assert summary(tmp_path)["cost_usd"] == 0  # what was never sent cannot be billed
    with running_server(port=port) as server:
        assert generate(tmp_path, server.base_url, **flags) == 0
    assert data(tmp_path) == calm


# -- stored ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [True, False], ids=["aborts", "drains"])
def test_every_attempt_has_an_outcome_when_a_cap_ends_the_run(server, tmp_path, local):
    """At a cap a local model is aborted while others have just been let in, whose attempts are on their way to disk."""
    server.set(latency_s=0.02)
    seeds = read_seeds(shipped("seed_tasks.jsonl"))
    plan = Plan(
        strategies=(SelfInstruct(),), filters=USUAL, model="embedded" if local else "m", endpoint="chat", language="en",
        seed=0, request_seed=None, target=500, pause_at=None, window=12, novelty_tokenizer="rouge",
        max_output_tokens=99, saturation_window=200, min_yield=0.0,
    )  # fmt: skip
    endpoint = Server("m", server.base_url, None, "K", "chat", 60.0, 5.0)

    async def run(folder, max_requests):
        with closing(Ledger(folder / "ledger.sqlite")) as kept:
            state = await restore(plan, seeds, kept)
            budget = Budget(None, None, max_requests, 0.0, 0)
            async with DirectTeacher(endpoint, kept, budget, "key", concurrency=12) as teacher:
                await Bootstrap(plan, state, teacher, kept).run()
            assert isinstance(state.error, CapReached)

    for max_requests in range(5, 41, 5):
        folder = tmp_path / str(max_requests)
        folder.mkdir()
        anyio.run(run, folder, max_requests)
        outcomes = [outcome for (outcome,) in ledger(folder, "SELECT outcome FROM attempts")]
        assert len(outcomes) == max_requests
        assert set(outcomes) <= {"completed", "failed"}


@pytest.mark.parametrize("number", [1, 3])
def test_permanent_error_of_one_request_is_its_outcome(server, tmp_path, number):
    server.set(faults={"context_length_exceeded": [number]})
    assert generate(tmp_path, server.base_url, strategy="alpaca") == 0
    (row,) = [row for row in rows(tmp_path / "rejected.jsonl") if row["rule"] == "unparsable"]
    assert "maximum context length" in row["detail"]
    assert row["candidate"] == {"id": row["candidate"]["id"], "instruction": "", "input": "", "output": ""}
    assert ledger(tmp_path, "SELECT count(*) FROM completions WHERE finish_reason = 'error'") == [(1,)]
    before, files = len(server.log()), data(tmp_path)
    assert generate(tmp_path, server.base_url, strategy="alpaca") == 0
    assert (len(server.log()), data(tmp_path)) == (before, files)


def test_content_filter_and_length_are_completions(server, tmp_path):
    server.set(faults={"content_filter": [2], "length": [3]})
    assert generate(tmp_path, server.base_url, strategy="alpaca") == 0
    rejected = rows(tmp_path / "rejected.jsonl")
    assert sum("content filter" in row["detail"] for row in rejected if row["rule"] == "unparsable") == 1
    (cut,) = [row for row in rejected if row["rule"] == "truncated"]
    (kept,) = ledger(
        tmp_path, f"SELECT count(*) FROM candidates WHERE source LIKE '%{cut['source']['completion_key']}%'"
    )
    assert kept[0] > 1  # only the last task of a cut reply is lost
    assert summary(tmp_path)["requests"]["retried"] == 0


def test_content_filter_of_an_instance_rejects_that_task_only(server, tmp_path):
    # Which request asks for what depends on timing; among so many there are some that ask for an instance.
    server.set(faults={"content_filter": list(range(12, 42))})
    assert generate(tmp_path, server.base_url, num_instructions=30) == 0
    asked = [entry["body"]["messages"][0]["content"] for entry in server.log()[11:41]]
    n_instances = sum("form, beginning with" in text for text in asked)
    filtered = [row for row in rows(tmp_path / "rejected.jsonl") if "content filter" in row["detail"]]
    assert {row["rule"] for row in filtered} == {"unparsable"}
    assert 0 < sum(bool(row["candidate"]["instruction"]) for row in filtered) <= n_instances


def test_missing_usage_is_charged_as_reserved(server, tmp_path):
    server.set(faults={"no_usage": 1.0})
    flags = {"input_usd_per_mtok": 3, "output_usd_per_mtok": 15}
    assert generate(tmp_path, server.base_url, strategy="alpaca", **flags) == 0
    ((cost, reserved),) = ledger(tmp_path, "SELECT sum(cost_usd), sum(reserved_usd) FROM attempts")
    assert summary(tmp_path)["cost_usd"] == cost == reserved > 0
    assert summary(tmp_path)["tokens"] == {"prompt": 0, "completion": 0}


@contextmanager
def raw_server(*replies: str):
    """Answers every request with one of these bodies in turn, the last one again and again."""
    count = iter(range(10**6))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            body = replies[min(next(count), len(replies) - 1)].encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()


def reply(content: str, usage: str = "null") -> str:
    return f'{{"choices": [{{"message": {{"content": {content}}}, "finish_reason": "stop"}}], "usage": {usage}}}'


TASK = '"Name three rivers of Asia%s\\n4. Input:\\n<noinput>\\n4. Output:\\nOb, Amur, Lena"'


@pytest.mark.parametrize(
    "odd",
    [
        reply(TASK % " \\ud83d"),  # half an emoji, cut by a token limit
        reply('[{"type": "text", "text": %s}]' % (TASK % "")),
        reply(TASK % "", '{"prompt_tokens": 1e400, "completion_tokens": -1}'),
        reply(TASK % "", f'{{"prompt_tokens": {10**30}, "completion_tokens": "9"}}'),
        reply(TASK % "", "[]"),
    ],
)
def test_odd_replies_are_taken_as_they_are(tmp_path, odd):
    with raw_server(odd) as url:
        assert generate(tmp_path, url, strategy="alpaca", num_instructions=1) == 0
    assert rows(tmp_path / "dataset.jsonl")[0]["output"] == "Ob, Amur, Lena"


def test_reply_without_content_is_unparsable(tmp_path):
    with raw_server(reply("null"), reply(TASK % "")) as url:
        assert generate(tmp_path, url, strategy="alpaca", num_instructions=1) == 0
    assert rows(tmp_path / "rejected.jsonl")[0]["rule"] == "unparsable"


# -- ends the run ----------------------------------------------------------------------------------------------------


def test_spent_quota_keeps_the_work_and_resumes(server, calm, tmp_path, capsys):
    server.set(faults={"insufficient_quota": [3]})
    assert generate(tmp_path, server.base_url, strategy="alpaca") == 5
    assert "out of credit" in capsys.readouterr().err
    assert generate(tmp_path, server.base_url, strategy="alpaca") == 0
    assert data(tmp_path) == calm


@pytest.mark.parametrize("debug", [None, True])
def test_refused_key_is_sent_once_and_shown_nowhere(server, tmp_path, monkeypatch, debug):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    server.set(require_key="sk-another")
    with start(tmp_path, server.base_url, api_key_env="TEACHER_KEY", debug=debug) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert len(server.log()) == 1
    assert "TEACHER_KEY" in err
    assert ("Traceback" in err) == bool(debug)
    assert CANARY not in out + err
    assert contains(tmp_path, CANARY) == []


def test_accepted_key_is_in_no_file(server, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    server.set(require_key=CANARY, faults={"500": [2]})
    assert generate(tmp_path, server.base_url, api_key_env="TEACHER_KEY", strategy="alpaca", debug=True) == 0
    assert all(entry["key_matches"] for entry in server.log())
    assert contains(tmp_path, CANARY) == []
    assert CANARY not in "".join(capsys.readouterr()) + caplog.text


def test_key_refused_on_resume_costs_one_request_and_no_work(server, calm, tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    flags = {"api_key_env": "TEACHER_KEY"}
    assert generate(tmp_path, server.base_url, num_instructions=10, **flags) == 0
    files, before = data(tmp_path), len(server.log())
    server.set(require_key="sk-another")
    assert generate(tmp_path, server.base_url, num_instructions=40, **flags) == 3
    assert len(server.log()) == before + 1
    assert data(tmp_path)[0].startswith(files[0])


def test_missing_key(server, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    assert generate(tmp_path / "run", server.base_url, api_key_env="TEACHER_KEY") == 3
    assert "TEACHER_KEY" in capsys.readouterr().err
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert generate(tmp_path / "run", "https://api.openai.com/v1", api_key_env=None) == 3
    assert not (tmp_path / "run").exists()
    assert server.log() == []


def test_unknown_path(server, tmp_path, capsys):
    assert generate(tmp_path, server.base_url.removesuffix("/v1")) == 2
    assert "--base-url (it usually ends in /v1)" in capsys.readouterr().err
    assert len(server.log()) == 1


def test_request_refused_for_its_form(server, tmp_path, capsys):
    server.set(refused_parameters=["model"])
    assert generate(tmp_path, server.base_url) == 2
    assert "refuses the first request" in capsys.readouterr().err
    assert len(server.log()) == 1


def test_redirect_is_not_followed(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    with running_server() as elsewhere:
        server.set(redirect_to=f"http://127.0.0.1:{elsewhere.port}")
        assert generate(tmp_path, server.base_url, api_key_env="TEACHER_KEY") == 2
        assert elsewhere.log() == []
    assert len(server.log()) == 1


# -- reasoning models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [["reasoning_content"], ["content"], ["content", "reasoning_content"]])
def test_reasoning_model(server, tmp_path, places):
    thought = "What a secret musing\n\nTask: to ponder 9. things."
    server.set(reasoning_model=True, thinking=thought, thinking_in=places)
    assert generate(tmp_path, server.base_url, num_instructions=10) == 0
    log = server.log()
    refused = [entry for entry in log if entry["status"] == 400]
    # Learnt by the first request, but for `stop`, which later prompts bring: each of those in flight finds out.
    assert [entry["status"] for entry in log[:5]] == [400, 400, 400, 400, 200]
    assert len(refused) <= 4 + 8
    for entry in log:
        if entry["status"] == 200:
            assert set(entry["body"]) == {"model", "messages", "max_completion_tokens"}
            assert entry["body"]["max_completion_tokens"] > 2048
    assert summary(tmp_path)["tokens"]["completion"] == sum(entry["completion_tokens"] for entry in log)
    assert contains(tmp_path, "secret musing") == []
    assert len(rows(tmp_path / "dataset.jsonl")) == 10


def test_stop_strings_hold_without_the_endpoint(server, tmp_path):
    server.set(
        reasoning_model=True, script={"beginning with Input:$": "Input: a text\nOutput: an answer\nTask: another"}
    )
    assert generate(tmp_path, server.base_url, num_instructions=5) == 0
    outputs = {row["output"] for row in rows(tmp_path / "dataset.jsonl") if not row["is_classification"]}
    assert outputs == {"an answer"}


def test_thinking_that_eats_the_answer_says_what_to_do(server, tmp_path):
    server.set(reasoning_model=True, thinking="hm " * 5000)
    flags = {"strategy": "alpaca", "saturation_window": 34, "thinking_tokens": 10}
    assert generate(tmp_path, server.base_url, **flags) == 5
    (detail,) = {row["detail"] for row in rows(tmp_path / "rejected.jsonl")}
    assert "--thinking-tokens" in detail
    assert server.log()[-1]["body"]["max_completion_tokens"] == 3072 + 10


def test_endpoint_that_refuses_some_parameters(server, tmp_path):
    server.set(refused_parameters=["presence_penalty", "top_p"])
    assert generate(tmp_path, server.base_url, num_instructions=8) == 0
    answered = [entry["body"] for entry in server.log() if entry["status"] == 200]
    assert all(not {"presence_penalty", "top_p"} & set(body) for body in answered)
    assert all("temperature" in body and "max_tokens" in body for body in answered)


def test_model_that_thinks_without_refusing_anything_gets_room_for_it(server, tmp_path):
    server.set(script={"Is it classification": "<think>Let me think about it for a while.</think>\nYes"})
    assert generate(tmp_path, server.base_url, num_instructions=8) == 0
    assert all(row["is_classification"] for row in rows(tmp_path / "dataset.jsonl"))
    limits = {e["body"]["max_tokens"] for e in server.log() if "classification?" in e["body"]["messages"][0]["content"]}
    assert {3, 3 + DEFAULT_THINKING_TOKENS} == limits


def test_key_that_a_reply_repeats_is_not_kept(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CANARY_KEY", CANARY)
    server.set(script={"Input:$": f"Input: (none)\nOutput: use Bearer {CANARY} for that"})
    assert generate(tmp_path, server.base_url, num_instructions=8, api_key_env="CANARY_KEY") == 0
    assert not contains(tmp_path, CANARY)
    assert contains(tmp_path, "use Bearer [key] for that")


# -- secrets ---------------------------------------------------------------------------------------------------------


@contextmanager
def echoing_server(*statuses: int, wait_s: float = 0.0):
    """Answers with these statuses in turn, the last one again and again; whatever it says repeats the key it got."""
    count = iter(range(10**6))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(wait_s)
            said = f"You sent: {self.headers['authorization']}"
            status = statuses[min(next(count), len(statuses) - 1)]
            choice = {"message": {"content": json.loads(TASK % "") + f"\n{said}"}, "finish_reason": "stop"}
            error = {"message": said, "param": "messages", "code": said}
            body = json.dumps({"choices": [choice]} if status == 200 else {"error": error}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ((200, 500, 429, 503, 400, 200), 5),  # saturated in the end: it has but one task
        ((400,), 5),
        ((422, 404), 2),
        ((401,), 3),
        ((403,), 3),
        ((402,), 5),
        ((500,), 5),
        ((429,), 5),
    ],
)
def test_key_that_an_error_repeats_is_shown_and_kept_nowhere(tmp_path, monkeypatch, capsys, caplog, statuses, code):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    flags = {"api_key_env": "TEACHER_KEY", "strategy": "alpaca", "saturation_window": 34, "debug": True}
    with echoing_server(*statuses) as url:
        assert generate(tmp_path, url, outage_s=3 if len(statuses) > 2 else 1e-6, **flags) == code
    said = "".join(capsys.readouterr()) + caplog.text
    assert "Traceback" in said
    assert CANARY not in said
    assert contains(tmp_path, CANARY) == []
    assert contains(tmp_path, "[key]") or statuses[-1] in (401, 402, 403)
    if statuses[0] == 200:
        assert "You sent: Bearer [key]" in rows(tmp_path / "dataset.jsonl")[0]["output"]


def test_key_is_in_no_title_of_a_process(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    with (
        echoing_server(200, wait_s=0.3) as url,
        start(tmp_path, url, api_key_env="TEACHER_KEY", strategy="alpaca", num_instructions=1, window=1) as process,
    ):
        titles: set[bytes] = set()
        while process.poll() is None:
            with suppress(OSError):  # it may end meanwhile
                titles.add(Path(f"/proc/{process.pid}/cmdline").read_bytes())
                titles |= {name.read_bytes() for name in Path(f"/proc/{process.pid}/task").glob("*/comm")}
            time.sleep(0.05)
        process.communicate()
    assert process.returncode == 0
    assert any(b"TEACHER_KEY" in title for title in titles)
    assert not any(CANARY.encode() in title for title in titles)


@pytest.mark.parametrize("batch", [None, True])
@pytest.mark.parametrize("key", [f"{CANARY}\n{CANARY}", f"\N{LEFT DOUBLE QUOTATION MARK}{CANARY}"])
def test_key_that_cannot_be_sent_is_refused_unseen(server, tmp_path, monkeypatch, capsys, caplog, key, batch):
    monkeypatch.setenv("TEACHER_KEY", key)
    assert generate(tmp_path, server.base_url, api_key_env="TEACHER_KEY", batch=batch, debug=True) == 3
    said = "".join(capsys.readouterr()) + caplog.text
    assert "the key in TEACHER_KEY has characters that no key has" in said
    assert CANARY not in said
    assert contains(tmp_path, CANARY) == []
    assert server.log() == []
