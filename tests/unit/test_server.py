"""The test server itself, seen by the client that the product uses."""

import asyncio
import json
import math
import re
import statistics
import time
from random import Random

import httpx2
import openai
import pytest
from rapidfuzz.distance import Indel

from selfinstruct.files import shipped
from selfinstruct.seeds import read_seeds
from selfinstruct.strategies.alpaca import Alpaca
from selfinstruct.strategies.attributed import Attributed
from selfinstruct.strategies.evol_instruct import EvolInstruct
from selfinstruct.strategies.self_instruct import SelfInstruct
from tests.corpus import SIZE, draw, instruction, kind_of
from tests.proposing import asked, text_of
from tests.server import Behaviour, duration, running_server

CHAT = "/v1/chat/completions"
LIST_PROMPT = "Come up with a series of tasks:\n1. Name the longest river of Asia and its source.\n2."


@pytest.fixture(scope="module")
def server():
    with running_server() as server:
        yield server


@pytest.fixture
def ask(server):
    """Set the behaviour (everything else back to its default), then send one chat message."""
    with openai.OpenAI(base_url=server.base_url, api_key="sk-right", max_retries=0, timeout=2) as client:

        def ask(prompt="Hello", behaviour=None, **parameters):
            server.set(**{**Behaviour().model_dump(), **(behaviour or {})})
            messages = [{"role": "user", "content": prompt}]
            return client.chat.completions.create(model="test-model", messages=messages, **parameters)

        yield ask


def last(server):
    return server.log()[-1]


def test_instructions_are_distinct_and_novel():
    texts = [instruction(index).lower().split() for index in range(0, SIZE, 101)]
    scores = [Indel.normalized_similarity(a, b) for i, a in enumerate(texts) for b in texts[:i]]
    assert max(scores) <= 0.7


def test_answers_are_a_function_of_seed_and_request(ask):
    one, two = (ask(LIST_PROMPT, n=2).choices for _ in range(2))
    assert [c.message.content for c in one] == [c.message.content for c in two]
    assert one[0].message.content != one[1].message.content
    assert ask(LIST_PROMPT, {"seed": 1}, n=2).choices[0].message.content != one[0].message.content


def test_list_has_the_stated_shares(ask):
    behaviour = {"near_duplicates": 0.25, "broken": 0.25, "list_length": 400}
    lines = ask(LIST_PROMPT, behaviour).choices[0].message.content.split("\n")
    assert lines[1].startswith("3. ")
    kinds = [kind_of(line.lstrip("0123456789.").strip()) for line in lines]
    assert kinds.count("near_duplicate") == pytest.approx(100, abs=25)
    assert kinds.count("broken") == pytest.approx(100, abs=25)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (SelfInstruct(), {"endpoint": "chat"}),
        (SelfInstruct(), {"endpoint": "completions"}),
        (SelfInstruct(faithful=True), {}),
        (SelfInstruct(structured=True), {}),
        (SelfInstruct(), {"language": "zh"}),
        (Alpaca(), {}),
        (Alpaca(), {"language": "zh"}),
        (Alpaca(faithful=True), {}),
        (Alpaca(structured=True), {}),
        (Attributed(), {}),
        (EvolInstruct(tasks_per_request=1), {}),
    ],
)
def test_what_is_repeated_is_a_demonstration(strategy, options):
    """Neither a requirement of the prompt nor a numbered line of an input."""
    seeds = read_seeds(shipped("seed_tasks.jsonl"))
    kept = next(iter(asked(strategy, {"": ""}, seeds=seeds, **options).values()))
    drawn = {draw(text_of(kept), Random(n), near_duplicates=1.0, broken=0.0, pool=1) for n in range(300)}
    shown = {task.id: " ".join(task.instruction.split()) for task in seeds}
    assert {f"{shown[id]} please" for id in kept.demonstrations} == drawn


def test_stop_and_limit_and_usage(ask, server):
    reply = ask(LIST_PROMPT, stop=["\n4."])
    assert reply.choices[0].message.content.count("\n") == 1
    assert reply.usage.completion_tokens == last(server)["completion_tokens"] > 0
    short = ask(LIST_PROMPT, max_tokens=5)
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens == 5


@pytest.mark.parametrize(
    ("prompt", "start"),
    [
        ("Task: Classify this fable.\nIs it classification?", " Yes"),
        ("Task: Rewrite this fable.\nIs it classification?", " No"),
        ("Task: Classify this fable.\nClass label:", " "),
        ("Task: Rewrite this fable.\nInput:", " We found"),
        ("Now write tasks 4 to 6.", "Here they are:\n\n4. "),
        ("1. Instruction: Count to ten.\n1. Input:\n<noinput>\n1. Output:\n1 2\n###\n2. Instruction:", " "),
    ],
)
def test_kinds_of_prompt(ask, prompt, start):
    assert ask(prompt).choices[0].message.content.startswith(start)


def test_script_gives_canned_answers_in_turn(ask):
    script = {"^Hello": ["one", "two"]}
    assert [ask(behaviour={"script": script}).choices[0].message.content for _ in range(3)] == ["one", "two", "two"]


def test_completions_endpoint_takes_several_prompts(server, ask):
    with openai.OpenAI(base_url=server.base_url, api_key="any") as client:
        reply = client.completions.create(model="test-model", prompt=[LIST_PROMPT, "Hello"], n=2)
        assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
        assert reply.choices[0].text.count("\n") > 2
        assert [model.id for model in client.models.list()] == ["test-model"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", openai.RateLimitError),
        ("429_retry_after", openai.RateLimitError),
        ("insufficient_quota", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("overloaded", openai.InternalServerError),
        ("529", openai.InternalServerError),
        ("context_length_exceeded", openai.BadRequestError),
        ("hang", openai.APITimeoutError),
        ("reset", openai.APIConnectionError),
        ("truncated", openai.APIConnectionError),
    ],
)
def test_fault_then_recovery(ask, server, fault, error):
    number = len(server.log()) + 1
    behaviour = {"faults": {fault: [number]}, "retry_after_s": 3}
    with pytest.raises((error, httpx2.RemoteProtocolError, httpx2.ReadError)) as caught:
        ask(behaviour=behaviour)
    if isinstance(caught.value, openai.APIStatusError):
        expected = "3" if fault == "429_retry_after" else None
        assert caught.value.response.headers.get("retry-after") == expected
    if fault == "insufficient_quota":
        assert caught.value.code == "insufficient_quota"
    assert last(server)["fault"] == fault
    assert (last(server)["completion_tokens"] > 0) == (fault in ("hang", "reset", "truncated"))
    assert ask(behaviour=behaviour).choices[0].finish_reason == "stop"


@pytest.mark.parametrize("fault", ["length", "content_filter", "empty_choices", "no_usage"])
def test_odd_completions(ask, fault):
    reply = ask(behaviour={"faults": {fault: 1.0}})
    if fault == "empty_choices":
        assert reply.choices == []
    elif fault == "no_usage":
        assert reply.usage is None
    else:
        assert reply.choices[0].finish_reason == fault


def test_malformed_body(ask, server):
    with httpx2.Client(trust_env=False) as client:
        server.set(faults={"malformed": 1.0})
        reply = client.post(f"{server.base_url}/chat/completions", json={"messages": [{"content": "Hello"}]})
    assert reply.status_code == 200
    with pytest.raises(ValueError, match="Expecting value"):
        reply.json()


def test_fault_shares_are_drawn_per_request():
    behaviour = Behaviour(faults={"429": 0.2, "500": 0.1})
    drawn = [behaviour.fault_of(number) for number in range(2000)]
    assert drawn.count("429") == pytest.approx(400, rel=0.2)
    assert drawn.count("500") == pytest.approx(200, rel=0.2)


def test_wrong_key_is_echoed_and_never_logged(ask, server):
    with pytest.raises(openai.AuthenticationError, match="sk-right"):
        ask(behaviour={"require_key": "sk-other"})
    assert (last(server)["authorization"], last(server)["key_matches"]) == (True, False)
    ask(behaviour={"require_key": "sk-right"})
    assert last(server)["key_matches"]
    assert "sk-right" not in str(server.log())


@pytest.mark.parametrize(
    "parameters",
    [{"max_tokens": 9}, {"temperature": 0.7}, {"stop": ["x"]}, {"presence_penalty": 2}, {"top_p": 0.5}],
)
def test_reasoning_model_refuses(ask, parameters):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(behaviour={"reasoning_model": True}, **parameters)
    assert caught.value.param == next(iter(parameters))
    assert caught.value.code.startswith("unsupported_")


def test_reasoning_model_thinks(ask):
    behaviour = {"reasoning_model": True, "thinking_in": ["content", "reasoning_content"], "thinking": "a b c"}
    reply = ask(behaviour=behaviour, max_completion_tokens=5)
    message = reply.choices[0].message
    assert message.content.startswith("<think>a b c</think>")
    assert message.reasoning_content == "a b c"
    assert reply.usage.completion_tokens_details.reasoning_tokens == 3
    assert reply.usage.completion_tokens == 5
    assert reply.choices[0].finish_reason == "length"


def test_limits_of_context_and_rate(ask):
    with pytest.raises(openai.BadRequestError) as caught:
        ask("one two three", {"context_length": 10}, max_tokens=8)
    assert caught.value.code == "context_length_exceeded"
    behaviour = {"rate_limit": 2}
    ask(behaviour=behaviour)
    ask(behaviour=behaviour)
    with pytest.raises(openai.RateLimitError):
        ask(behaviour=behaviour)


def test_redirect_names_the_other_place(ask, server):
    server.set(**{**Behaviour().model_dump(), "redirect_to": "http://127.0.0.1:1"})
    with httpx2.Client(trust_env=False) as client:
        reply = client.post(f"{server.base_url}/chat/completions", json={"messages": []})
    assert reply.status_code == 302
    assert reply.headers["location"] == "http://127.0.0.1:1/v1/chat/completions"


def test_latency_lets_requests_overlap(server):
    server.set(**{**Behaviour().model_dump(), "latency_s": (0.2, 0.3)})

    async def four():
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any") as client:
            messages = [{"role": "user", "content": "Hello"}]
            ask = client.chat.completions.create
            await asyncio.gather(*(ask(model="test-model", messages=messages) for _ in range(4)))

    start = time.monotonic()
    asyncio.run(four())
    assert 0.2 <= time.monotonic() - start < 0.8
    assert max(entry["in_flight"] for entry in server.log()[-4:]) == 4


def test_long_tail_of_latencies():
    behaviour = Behaviour(latency_s={"median": 2.0, "sigma": 0.5})
    drawn = [behaviour.latency(number) for number in range(4000)]
    assert statistics.median(drawn) == pytest.approx(2.0, rel=0.05)
    assert statistics.stdev(map(math.log, drawn)) == pytest.approx(0.5, rel=0.05)
    assert behaviour.latency(7) == drawn[7]
    assert Behaviour(seed=1, latency_s={"median": 2.0, "sigma": 0.5}).latency(7) != drawn[7]


def test_wrong_usage_is_billed_truly(ask, server):
    true = ask(LIST_PROMPT).usage
    server.set(faults={"wrong_usage": 1.0})
    body = {"model": "test-model", "messages": [{"role": "user", "content": LIST_PROMPT}]}
    with httpx2.Client(trust_env=False) as client:
        told = [client.post(f"{server.base_url}/chat/completions", json=body).json()["usage"] for _ in range(40)]
    for name, count in true.to_dict().items():
        assert {usage[name] for usage in told} == {0, 10 * count, -count, str(count), count + 0.5, None}
    billed = {(entry["prompt_tokens"], entry["completion_tokens"]) for entry in server.log()[-40:]}
    assert billed == {(true.prompt_tokens, true.completion_tokens)}


def test_slow_start():
    with running_server(starting_s=1.0) as server, httpx2.Client(trust_env=False, base_url=server.base_url) as client:
        for path in ("models", "files"):
            reply = client.get(path)
            assert reply.status_code == 503
            assert reply.json() == {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
        time.sleep(1.0)
        assert client.get("models").status_code == 200
        assert [entry["status"] for entry in server.log()] == [503, 200]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.12, "120ms"), (0.0001, "1ms"), (0.9999, "1s"), (1.5, "1.5s"), (60, "1m0s"), (360, "6m0s"),
        (86.4, "1m26.4s"), (3600, "1h0m0s"),
    ],
)  # fmt: skip
def test_durations_as_in_headers(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("limit", "kind"), [({"rate_limit": 2}, "requests"), ({"token_rate_limit": 20}, "tokens")], ids=str
)
def test_rate_limit_told_by_resets(ask, server, limit, kind):
    def raw(**parameters):
        messages = [{"role": "user", "content": "Hello"}]
        return client.post(f"{server.base_url}/chat/completions", json={"messages": messages, **parameters})

    def told(reply):
        return [reply.headers.get(f"x-ratelimit-{name}-{kind}") for name in ("limit", "remaining", "reset")]

    most, rest = (2, (1, 0)) if kind == "requests" else (20, (10, 0))
    with httpx2.Client(trust_env=False) as client:
        server.set(**{**Behaviour().model_dump(), **limit, "rate_limit_headers": "reset", "rate_window_s": 400})
        for remaining in rest:
            reply = raw(max_tokens=9)
            assert told(reply) == [str(most), str(remaining), "6m40s"]
        reply = raw(max_tokens=9)
        assert reply.status_code == 429
        assert reply.json()["error"]["type"] == kind
        assert "retry-after" not in reply.headers
        assert told(reply)[:2] == [str(most), "0"]
        assert re.fullmatch(r"6m(40|39(\.\d+)?)s", told(reply)[2])
        other = "tokens" if kind == "requests" else "requests"
        assert f"x-ratelimit-limit-{other}" not in reply.headers

        server.set(rate_window_s=0.3)
        replies = [raw(max_tokens=9) for _ in range(3)]
        time.sleep(int(told(replies[-1])[2].removesuffix("ms")) / 1000)
        assert [reply.status_code for reply in (*replies, raw(max_tokens=9))] == [200, 200, 429, 200]

        for headers, names in (("none", set()), ("retry-after", {"retry-after"})):
            server.set(rate_limit_headers=headers)
            reply = [raw(max_tokens=9) for _ in range(3)][-1]
            assert reply.status_code == 429
            assert {name for name in reply.headers if name.startswith(("x-rate", "retry"))} == names


def test_limit_of_requests_in_flight(server):
    server.set(**{**Behaviour().model_dump(), "latency_s": 0.3, "max_in_flight": 2})

    async def four():
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            messages = [{"role": "user", "content": "Hello"}]
            asked = (client.chat.completions.create(model="test-model", messages=messages) for _ in range(4))
            return await asyncio.gather(*asked, return_exceptions=True)

    refused = [reply for reply in asyncio.run(four()) if isinstance(reply, openai.RateLimitError)]
    assert len(refused) == 2
    assert all(error.code == "overloaded" and "retry-after" not in error.response.headers for error in refused)


def request_line(number, **changes):
    body = {"model": "test-model", "messages": [{"role": "user", "content": f"Hello number {number}"}]}
    return {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": body, **changes}


def jsonl(lines):
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


class Batcher:
    """The client's files and batches, against the server with default behaviour except for what `set` changes."""

    def __init__(self, server, client):
        self.server, self.client = server, client

    def set(self, **behaviour):
        self.server.set(**{**Behaviour().model_dump(), **behaviour})

    def create(self, content, **parameters):
        file = self.client.files.create(file=("in.jsonl", content), purpose="batch")
        values = {"endpoint": CHAT, "completion_window": "24h", **parameters}
        return self.client.batches.create(input_file_id=file.id, **values)

    def run(self, content):
        return self.client.batches.retrieve(self.create(content).id)

    def rows(self, file_id):
        return [json.loads(line) for line in self.client.files.content(file_id).text.splitlines()]


@pytest.fixture
def batcher(server):
    with openai.OpenAI(base_url=server.base_url, api_key="sk-right", max_retries=0, timeout=2) as client:
        batcher = Batcher(server, client)
        batcher.set()
        yield batcher


def test_files(batcher):
    files = batcher.client.files
    content = '{"text": "naïve \u2028 😀"}\r\n--\n\nno newline at the end'.encode()
    file, other = (files.create(file=("a b.jsonl", content), purpose="batch") for _ in range(2))
    assert (file.filename, file.bytes, file.purpose, file.status) == ("a b.jsonl", len(content), "batch", "processed")
    assert files.content(file.id).content == content
    assert files.retrieve(file.id) == file
    page = files.list(limit=1, purpose="batch")
    assert (page.data, page.has_more) == ([other], True)
    assert {file.id, other.id} <= {listed.id for listed in page}
    assert files.delete(file.id).deleted
    for gone in (files.retrieve, files.content, files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File"):
            gone(file.id)
    with pytest.raises(openai.BadRequestError, match="'file'"):
        batcher.client.post("/files", body={}, cast_to=object)


def test_batch_from_validation_to_its_files(batcher, server):
    batcher.set(batch_s=0.6)
    before = len(server.log())
    lines = [request_line(number) for number in range(20)]
    batch = batcher.create(jsonl(lines), metadata={"run": "7"})
    seen = [batch]
    while seen[-1].status != "completed":
        time.sleep(0.02)
        seen.append(batcher.client.batches.retrieve(batch.id))
    assert list(dict.fromkeys(state.status for state in seen)) == [
        "validating",
        "in_progress",
        "finalizing",
        "completed",
    ]
    progress = [state.request_counts.completed for state in seen]
    assert progress == sorted(progress)
    assert len(set(progress)) > 3
    done = seen[-1]
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at < done.expires_at
    assert (done.metadata, done.model, done.error_file_id) == ({"run": "7"}, "test-model", None)
    assert done.request_counts.to_dict() == {"total": 20, "completed": 20, "failed": 0}

    rows = batcher.rows(done.output_file_id)
    names = [row["custom_id"] for row in rows]
    assert sorted(names) == sorted(line["custom_id"] for line in lines) != names
    assert all(row["error"] is None and row["response"]["status_code"] == 200 for row in rows)
    bodies = {row["custom_id"]: row["response"]["body"] for row in rows}
    direct = batcher.client.chat.completions.create(**lines[3]["body"])
    assert direct.to_dict() == bodies["line-3"]
    *entries, last = server.log()[before:]
    assert [entry["body"] for entry in entries] == [line["body"] for line in lines]
    assert {(entry["path"], entry["batch"], entry["status"]) for entry in entries} == {(CHAT, batch.id, 200)}
    assert last["batch"] is None
    told = sum(body["usage"]["completion_tokens"] for body in bodies.values())
    assert sum(entry["completion_tokens"] for entry in entries) == told == done.usage.output_tokens


def test_batch_is_billed_once_though_nobody_asks(batcher, server):
    batcher.set(batch_s=0.1)
    before = len(server.log())
    batch = batcher.create(jsonl([request_line(1)]))
    assert len(server.log()) == before
    time.sleep(0.15)
    assert [entry["batch"] for entry in server.log()[before:]] == [batch.id]
    batcher.client.batches.retrieve(batch.id)
    assert len(server.log()) == before + 1


def test_faults_of_lines(batcher, server):
    kinds = [
        "429", "429_retry_after", "500", "529", "context_length_exceeded", "insufficient_quota", "length",
        "content_filter", "no_usage", "empty_choices", "wrong_usage", "hang", "reset", "truncated", "malformed",
    ]  # fmt: skip
    before = len(server.log())
    batcher.set(faults={kind: [before + place] for place, kind in enumerate(kinds, 1)})
    batch = batcher.run(jsonl(request_line(kind) for kind in kinds))
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 9, 6)
    failed = {row["custom_id"].removeprefix("line-"): row["response"] for row in batcher.rows(batch.error_file_id)}
    assert [failed[kind]["status_code"] for kind in kinds[:6]] == [429, 429, 500, 529, 400, 429]
    assert failed["insufficient_quota"]["body"]["error"]["code"] == "insufficient_quota"
    answered = {row["custom_id"]: row["response"]["body"] for row in batcher.rows(batch.output_file_id)}
    assert [answered[f"line-{kind}"]["choices"][0]["finish_reason"] for kind in kinds[6:8]] == kinds[6:8]
    assert answered["line-no_usage"]["usage"] is None
    assert answered["line-empty_choices"]["choices"] == []
    entries = {entry["body"]["messages"][0]["content"].split()[-1]: entry for entry in server.log()[before:]}
    assert answered["line-wrong_usage"]["usage"]["prompt_tokens"] != entries["wrong_usage"]["prompt_tokens"] == 3
    assert [entries[kind]["fault"] for kind in kinds] == kinds[:11] + [None] * 4
    assert [entries[kind]["prompt_tokens"] for kind in kinds] == [0] * 6 + [3] * 9


def test_parameters_refused_in_lines(batcher):
    batcher.set(reasoning_model=True)
    line = request_line(1)
    batch = batcher.run(jsonl([{**line, "body": {**line["body"], "max_tokens": 9}}]))
    assert batch.output_file_id is None
    (row,) = batcher.rows(batch.error_file_id)
    assert (row["response"]["status_code"], row["response"]["body"]["error"]["param"]) == (400, "max_tokens")


def test_batch_that_expires(batcher, server):
    batcher.set(batch_expires_after=0.25)
    before = len(server.log())
    batch = batcher.run(jsonl(request_line(number) for number in range(8)))
    assert batch.status == "expired"
    assert batch.expired_at
    assert batch.request_counts.to_dict() == {"total": 8, "completed": 2, "failed": 6}
    unasked = batcher.rows(batch.error_file_id)
    assert [(row["response"], row["error"]["code"]) for row in unasked] == [(None, "batch_expired")] * 6
    answered = batcher.rows(batch.output_file_id)
    assert len({row["custom_id"] for row in unasked + answered}) == 8
    assert len(server.log()) == before + 2


def test_batch_that_is_cancelled_bills_what_was_answered(batcher, server):
    batcher.set(batch_s=1.0)
    before = len(server.log())
    batches = batcher.client.batches
    name = batcher.create(jsonl(request_line(number) for number in range(20))).id
    while not batches.retrieve(name).request_counts.completed:
        time.sleep(0.01)
    batch = batches.cancel(name)
    assert batch.status == "cancelling"
    while (batch := batches.retrieve(name)).status == "cancelling":
        time.sleep(0.01)
    assert batch.status == "cancelled"
    assert 0 < batch.request_counts.completed < 20
    assert batch.cancelling_at <= batch.cancelled_at
    assert {row["error"]["code"] for row in batcher.rows(batch.error_file_id)} == {"batch_cancelled"}
    assert len(server.log()) - before == len(batcher.rows(batch.output_file_id)) == batch.request_counts.completed
    with pytest.raises(openai.ConflictError, match="cancelled"):
        batches.cancel(name)


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (b"", "empty_file", None),
        (jsonl([request_line(1)]) + b"\n{]\n", "invalid_json_line", 3),
        (jsonl([request_line(1), request_line(1)]), "duplicate_custom_id", 2),
        (jsonl([request_line(1), request_line(2, url="/v1/completions")]), "url_mismatch", 2),
        (jsonl([request_line(1), request_line(2, body={"model": "other"})]), "model_mismatch", 2),
        (jsonl([request_line(1, body=None)]), "missing_required_parameter", 1),
        (jsonl([request_line(1, method="GET")]), "invalid_method", 1),
        (jsonl(request_line(number) for number in range(5)), "too_many_tasks", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_input_that_fails_validation(batcher, server, content, code, line):
    batcher.set(batch_lines=4)
    before = len(server.log())
    batch = batcher.run(content)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert [(error.code, error.line) for error in batch.errors.data] == [(code, line)]
    assert len(server.log()) == before


def test_batch_that_fails_though_its_input_is_good(batcher):
    batcher.set(batch_fails=True)
    batch = batcher.run(jsonl([request_line(1)]))
    assert (batch.status, batch.errors.data[0].code) == ("failed", "token_limit_exceeded")
    assert batch.failed_at


def test_batches_are_listed_newest_first(batcher):
    made = [batcher.create(jsonl([request_line(1)])).id for _ in range(3)]
    page = batcher.client.batches.list(limit=2)
    assert [batch.id for batch in page.data] == made[:0:-1]
    assert (page.has_more, page.first_id, page.last_id) == (True, made[2], made[1])
    assert batcher.client.batches.list(limit=2, after=made[1]).first_id == made[0]
    assert [batch.id for batch in page][:3] == made[::-1]


def test_calls_that_are_refused(batcher):
    client = batcher.client
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    for wrong in ({"endpoint": "/v1/nothing"}, {"completion_window": "1h"}):
        with pytest.raises(openai.BadRequestError, match=next(iter(wrong.values()))):
            batcher.create(b"", **wrong)
    for path in ("batches/batch_none", "batches/batch_none/nothing", "files/file-none/nothing"):
        with pytest.raises(openai.NotFoundError):
            client.get(f"/{path}", cast_to=object)


def test_calls_have_a_log_and_need_the_key(batcher, server):
    batcher.set(require_key="sk-other")
    requests, calls = len(server.log()), len(server.calls())
    with pytest.raises(openai.AuthenticationError):
        batcher.client.batches.list()
    batcher.set(require_key="sk-right")
    name = batcher.create(jsonl([request_line(1)])).id
    assert [(call["method"], call["path"], call["status"], call["key_matches"]) for call in server.calls()[calls:]] == [
        ("GET", "/v1/batches", 401, False), ("POST", "/v1/files", 200, True), ("POST", "/v1/batches", 200, True),
    ]  # fmt: skip
    (entry,) = server.log()[requests:]
    assert (entry["batch"], entry["key_matches"]) == (name, True)
    assert "sk-right" not in str(server.calls())


@pytest.mark.parametrize(
    ("fault", "error", "effect"),
    [
        ("429_retry_after", openai.RateLimitError, False),
        ("500", openai.InternalServerError, False),
        ("hang", openai.APITimeoutError, True),
        ("reset", openai.APIConnectionError, True),
        ("truncated", openai.APIConnectionError, True),
        ("malformed", json.JSONDecodeError, True),
    ],
)
def test_faults_of_calls(batcher, server, fault, error, effect):
    batcher.client.timeout = 0.5
    batcher.set(batch_api_faults={fault: [len(server.calls()) + 2]})
    with pytest.raises((error, httpx2.RemoteProtocolError, httpx2.ReadError)):
        batcher.create(jsonl([request_line(1)]), metadata={"fault": fault})
    assert server.calls()[-1]["fault"] == fault
    listed = [batch for batch in batcher.client.batches.list() if batch.metadata == {"fault": fault}]
    assert len(listed) == effect
