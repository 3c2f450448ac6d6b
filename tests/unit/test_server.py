"""The test server itself, seen by the client that the product uses."""

import asyncio
import time

import httpx2
import openai
import pytest
from rapidfuzz.distance import Indel

from tests.corpus import SIZE, instruction, kind_of
from tests.server import Behaviour, running_server

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
    if fault == "429_retry_after":
        assert caught.value.response.headers["retry-after"] == "3"
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
