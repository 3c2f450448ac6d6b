"""What is sent for a prompt, what is left out once it was refused, and what is made of a reply."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfinstruct.dialect import DEFAULT_THINKING_TOKENS, Dialect, WastedReply
from selfinstruct.endpoint import Choice, Reply, Server
from selfinstruct.records import Prompt, Usage
from selfinstruct.strategies.schemas import tasks_schema

PLAIN = Prompt(({"role": "user", "content": "Hello"},), max_tokens=40, temperature=0.5)
RICH = Prompt(
    ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}),
    max_tokens=40,
    temperature=0.5,
    top_p=0.9,
    presence_penalty=1.0,
    stop=("\n\n", "Task:"),
    n=3,
    seed=7,
    logit_bias={"1234": -100.0},
    json_schema={"type": "object"},
)
SAMPLING = {
    "temperature": 0.5, "top_p": 0.9, "presence_penalty": 1.0, "stop": ["\n\n", "Task:"], "n": 3, "seed": 7,
    "logit_bias": {"1234": -100.0},
}  # fmt: skip
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "reply", "schema": {"type": "object"}, "strict": True},
}


def dialect(endpoint="chat", thinking_tokens=None):
    return Dialect(Server("m", "http://127.0.0.1:1/v1", None, "K", endpoint, 60.0, 600.0, thinking_tokens))


def test_chat_gets_messages():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    expected = {"model": "m", "messages": messages, "max_tokens": 40, **SAMPLING, "response_format": FORMAT}
    assert dialect().body(RICH) == expected


def test_plain_endpoint_gets_the_text_and_no_schema():
    assert dialect("completions").body(RICH) == {"model": "m", "prompt": "Hello", "max_tokens": 40, **SAMPLING}


def test_what_a_prompt_leaves_open_is_not_sent():
    assert set(dialect().body(PLAIN)) == {"model", "messages", "max_tokens", "temperature"}
    zero = Prompt(PLAIN.messages, max_tokens=3, temperature=0.0, seed=0)
    assert dialect().body(zero).items() >= {"temperature": 0.0, "seed": 0}.items()  # zero is a wish too


@pytest.mark.parametrize("name", [*SAMPLING, "response_format"])
def test_refused_parameter_is_left_out_and_nothing_else(name):
    taught = dialect()
    before = taught.body(RICH)
    assert taught.has_alternative(name, before)
    taught.learn(name, taught.body(RICH))
    assert taught.body(RICH) == {k: v for k, v in before.items() if k != name}
    assert not taught.has_alternative(name, taught.body(RICH))


def test_bound_of_a_list_goes_before_the_schema():
    """Some endpoints take a schema, but no "maxItems" in it."""
    taught = dialect()
    bounded = replace(RICH, json_schema=tasks_schema({"type": "string"}, 4))
    sent = taught.body(bounded)
    schema = sent["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["tasks"] == {"type": "array", "items": {"type": "string"}, "maxItems": 4}
    for _ in range(2):  # two requests that were under way together are refused for the same reason
        assert taught.has_alternative("response_format", sent)
        taught.learn("response_format", sent)
    sent = taught.body(bounded)
    schema = sent["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["tasks"] == {"type": "array", "items": {"type": "string"}}
    taught.learn("response_format", sent)
    assert "response_format" not in taught.body(bounded)


@pytest.mark.parametrize("name", ["model", "messages", "tools", "top_p", None])
def test_nothing_can_be_done_about_other_parameters(name):
    assert not dialect().has_alternative(name, dialect().body(PLAIN))


def test_what_another_request_has_learnt_meanwhile_is_an_alternative_too():
    taught = dialect()
    sent = taught.body(RICH)
    taught.learn("top_p", taught.body(RICH))
    assert taught.has_alternative("top_p", sent)


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize(
    ("thinking_tokens", "first", "then"), [(None, 40, 40 + DEFAULT_THINKING_TOKENS), (0, 40, 40), (500, 540, 540)]
)
def test_model_that_refuses_max_tokens_thinks(endpoint, thinking_tokens, first, then):
    taught = dialect(endpoint, thinking_tokens)
    assert taught.body(PLAIN)["max_tokens"] == first
    taught.learn("max_tokens", taught.body(RICH))
    body = taught.body(PLAIN)
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == then


def test_all_replies_together_are_reserved_for():
    taught = dialect()
    assert taught.max_completion_tokens(taught.body(PLAIN)) == 40
    assert taught.max_completion_tokens(taught.body(RICH)) == 120
    taught.learn("max_tokens", taught.body(RICH))
    assert taught.max_completion_tokens(taught.body(RICH)) == 3 * (40 + DEFAULT_THINKING_TOKENS)
    taught.learn("n", taught.body(RICH))
    assert taught.max_completion_tokens(taught.body(RICH)) == 40 + DEFAULT_THINKING_TOKENS


# -- room for thinking -----------------------------------------------------------------------------------------------


def reply(*choices):
    return Reply(choices, Usage(9, 40))


CUT = Choice(" ", "length", thought=True)


def test_reply_that_is_nothing_but_thinking_is_asked_for_again_with_room():
    taught = dialect()
    with pytest.raises(WastedReply) as caught:
        taught.check_thinking(reply(CUT, CUT), taught.body(PLAIN), PLAIN)
    assert caught.value.usage == Usage(9, 40)
    assert taught.has_alternative(caught.value.parameter, taught.body(PLAIN))
    taught.learn(caught.value.parameter, taught.body(PLAIN))
    assert taught.body(PLAIN)["max_tokens"] == 40 + DEFAULT_THINKING_TOKENS
    taught.check_thinking(reply(CUT), taught.body(PLAIN), PLAIN)  # there was room: that is the outcome


@pytest.mark.parametrize(
    "choice",
    [
        Choice("Yes", "length", thought=True),
        Choice("", "stop", thought=True),
        Choice("", "length", thought=False),
        Choice("", "content_filter", thought=True),
    ],
)
def test_other_replies_are_taken_as_they_are(choice):
    dialect().check_thinking(reply(choice, CUT), dialect().body(PLAIN), PLAIN)


def test_room_that_the_user_set_is_enough():
    for thinking_tokens in (0, 10):
        set_by_hand = dialect(thinking_tokens=thinking_tokens)
        set_by_hand.check_thinking(reply(CUT), set_by_hand.body(PLAIN), PLAIN)


# -- stops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept", "finish_reason"),
    [
        ("one\n\ntwo", "one", "stop"),
        ("one Task: two\n\nthree", "one ", "stop"),
        ("Task: one", "", "stop"),
        ("one\ntwo", "one\ntwo", "length"),
        ("", "", "length"),
    ],
)
def test_reply_ends_at_the_first_of_its_stops(text, kept, finish_reason):
    assert dialect().cut(Choice(text, "length", True), RICH) == Choice(kept, finish_reason, True)


def test_prompt_without_stops_cuts_nothing():
    assert dialect().cut(Choice("one\n\ntwo", "length"), PLAIN) == Choice("one\n\ntwo", "length")
