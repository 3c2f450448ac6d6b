"""What a response means: text and counts that can be true, how long to wait, and which error a refusal is."""

from __future__ import annotations

import datetime
import email.utils
import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.endpoint import Server, of_status, read_json, redacted, refused, reply_of
from selfinstruct.errors import (
    AuthenticationError,
    PermanentError,
    StoppedEarly,
    TransientError,
    UsageError,
)
from selfinstruct.records import Usage

KEY = "sk-canary-5f2d8c1b9a7e4036"
SERVER = Server("m", "https://api.example/v1", KEY, "TEACHER_KEY", "chat", 60.0, 600.0)
KEYLESS = Server("m", "http://127.0.0.1:1/v1", None, "--api-key-env", "chat", 60.0, 600.0)


def reply(usage=None, headers=None, **choice):
    choice = {"message": {"role": "assistant", "content": "a reply"}, "finish_reason": "stop", **choice}
    return reply_of({"choices": [choice], "usage": usage}, SERVER, headers)


def error(status, message="so it is", headers=None, server=SERVER, **fields):
    body = {"message": message, **fields}
    return of_status(status, body, json.dumps(body), headers or {}, server)


# -- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "text", "finish_reason", "thought"),
    [
        ({}, "a reply", "stop", False),
        ({"finish_reason": "length"}, "a reply", "length", False),
        ({"finish_reason": None}, "a reply", "stop", False),
        ({"message": {"content": None, "refusal": "no"}}, "", "stop", False),
        ({"message": {"role": "assistant"}, "finish_reason": "length"}, "", "length", False),  # cut while thinking
        (
            {"message": {"content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}},
            "a b",
            "stop",
            False,
        ),
        ({"message": {"content": "a", "reasoning_content": "hm"}}, "a", "stop", True),
        ({"message": {"content": "a", "reasoning": "hm"}}, "a", "stop", True),
        ({"message": {"content": "<think>hm</think>\na"}}, "a", "stop", True),
        ({"message": {"content": "half an emoji \ud83d"}}, "half an emoji ?", "stop", False),
        ({"message": {"content": f"Bearer {KEY}!"}}, "Bearer [key]!", "stop", False),
        ({"message": None, "text": "a continuation"}, "a continuation", "stop", False),
    ],
)
def test_text_of_a_choice(choice, text, finish_reason, thought):
    (found,) = reply(**choice).choices
    assert (found.text.strip(), found.finish_reason, found.thought) == (text, finish_reason, thought)


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        None,
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"content": "half of it"}, "finish_reason": "error"}]},
        {"error": {"code": 502, "message": "no provider"}},
    ],
)
def test_what_is_no_reply_is_asked_again(values):
    with pytest.raises(TransientError):
        reply_of(values, SERVER)


@pytest.mark.parametrize("content", [b"", b"<html>", b"{", b"[" * 100_000, b"\xff"])
def test_no_json_is_a_value_error(content):
    with pytest.raises(ValueError):
        read_json(content)


def test_lenient_json():
    assert read_json(b'["\\ud83d", 1e400]') == ["\ud83d", math.inf]


# -- counts ----------------------------------------------------------------------------------------------------------


def details(n):
    return {"completion_tokens_details": {"reasoning_tokens": n}}


@pytest.mark.parametrize(
    ("usage", "prompt", "completion"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}, 9, 5),
        ({"prompt_tokens": 9, "completion_tokens": 5}, 9, 5),
        (None, None, None),
        ([], None, None),
        ("much", None, None),
        ({}, None, None),
        # What cannot be true is unknown.
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None, None),
        ({"prompt_tokens": -9, "completion_tokens": -5, "total_tokens": -14}, None, None),
        ({"prompt_tokens": "9", "completion_tokens": "5", "total_tokens": "14"}, None, None),
        ({"prompt_tokens": 9.5, "completion_tokens": 5.5, "total_tokens": 14.5}, None, None),
        ({"prompt_tokens": True, "completion_tokens": False}, None, None),
        ({"prompt_tokens": math.inf, "completion_tokens": math.nan}, None, None),
        ({"prompt_tokens": 10**30, "completion_tokens": 2**40}, None, None),
        ({"prompt_tokens": 9, "completion_tokens": None}, 9, None),
        # Thinking that is left out of the completion, with and without a count of its own.
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 44, **details(30)}, 9, 35),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 44}, 9, 35),
        ({"prompt_tokens": 9, "completion_tokens": 35, "total_tokens": 44, **details(30)}, 9, 35),
        ({"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 44, **details(35)}, 9, 35),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 3, **details(30)}, 9, 5),
        ({"prompt_tokens": 9, "completion_tokens": 5, **details("many")}, 9, 5),
        ({"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": "none"}, 9, 5),
    ],
)
def test_counts_that_can_be_true(usage, prompt, completion):
    assert reply(usage).usage == Usage(prompt, completion)


def test_empty_reply_may_have_taken_no_tokens():
    nothing = {"message": {"content": ""}}
    assert reply({"prompt_tokens": 9, "completion_tokens": 0}, **nothing).usage == Usage(9, 0)


@pytest.mark.parametrize(
    ("usage", "thought"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}, False),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, **details(0)}, False),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, **details(3)}, True),
        ({"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 44}, True),
    ],
)
def test_counts_tell_of_thinking(usage, thought):
    assert reply(usage).choices[0].thought == thought


# -- waiting ---------------------------------------------------------------------------------------------------------


def iso(seconds):
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return moment.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "-3"}, 0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"retry-after": lambda: email.utils.formatdate(time.time() + 40, usegmt=True)}, 40),
        ({"retry-after": lambda: email.utils.formatdate(time.time() - 40, usegmt=True)}, 0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        # Where Retry-After says nothing, a limit of which nothing is left does.
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
        ({"retry-after": "soon", "ratelimit-remaining": "0", "ratelimit-reset": "8"}, 8),
        ({"retry-after": "2", "ratelimit-remaining": "0", "ratelimit-reset": "8"}, 2),
        ({"ratelimit-remaining": "1", "ratelimit-reset": "8"}, None),
    ],
)
def test_retry_after(headers, seconds):
    headers = {name: value() if callable(value) else value for name, value in headers.items()}
    assert error(429, headers=headers).retry_after_s == (None if seconds is None else pytest.approx(seconds, abs=1.5))


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1.5", 1.5),
        ("0", 0),
        ("-5", 0),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("1h", 3600),
        ("2m", 120),
        ("120ms", 0.12),
        ("1s500ms", 1.5),
        ("1m500ms", 60.5),
        ("59.998s", 59.998),
        (lambda: iso(90), 90),
        (lambda: iso(-90), 0),
        (lambda: f"{time.time() + 30:.0f}", 30),
        (lambda: f"{time.time() * 1000 + 30_000:.0f}", 30),
        (lambda: f"{time.time() - 30:.0f}", 0),
        # What means nothing asks for nothing.
        ("", 0),
        ("soon", 0),
        ("inf", 0),
        ("nan", 0),
        ("1.2.3s", 0),
        (".s", 0),
        ("s", 0),
        ("9" * 400 + "h", 0),
        ("2026-02-31T00:00:00Z", 0),
    ],
)
@pytest.mark.parametrize(
    ("remaining", "name"),
    [
        ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
        ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ],
)
def test_reset_of_a_limit(remaining, name, reset, seconds):
    reset = reset() if callable(reset) else reset
    for left, expected in (("0", seconds), ("1", 0)):
        assert reply(headers={remaining: left, name: reset}).wait_s == pytest.approx(
            expected, abs=0.002 + expected / 50
        )


def test_longest_of_several_limits_counts():
    headers = {
        "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "9s",
    }  # fmt: skip
    assert reply(headers=headers).wait_s == 9
    assert reply(headers={**headers, "x-ratelimit-remaining-tokens": "17"}).wait_s == 2


HEADER = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"[0-9]{1,400}(\.[0-9]*)?(ms|s|m|h)?", fullmatch=True),
    st.from_regex(r"([0-9.]{1,9}[hms]){1,4}", fullmatch=True),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.datetimes().map(email.utils.format_datetime),
    st.floats().map(str),
)


@given(HEADER, HEADER)
def test_whatever_a_header_says_is_a_time_or_nothing(retry_after, reset):
    headers = {"retry-after": retry_after, "ratelimit-remaining": "0", "ratelimit-reset": reset}
    wait_s = error(429, headers=headers).retry_after_s
    assert wait_s is None or (math.isfinite(wait_s) and wait_s >= 0)
    assert math.isfinite(reply(headers=headers).wait_s)
    assert reply(headers=headers).wait_s >= 0


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fields", "kind"),
    [
        (400, {}, PermanentError),
        (401, {}, AuthenticationError),
        (402, {}, StoppedEarly),
        (403, {}, AuthenticationError),
        (403, {"message": "Your input was flagged", "code": 403}, PermanentError),
        (403, {"code": "content_policy_violation"}, PermanentError),
        (404, {}, UsageError),
        (408, {}, TransientError),
        (409, {}, TransientError),
        (422, {}, PermanentError),
        (425, {}, TransientError),
        (429, {}, TransientError),
        (429, {"code": "insufficient_quota"}, StoppedEarly),
        (429, {"code": "billing_hard_limit_reached"}, StoppedEarly),
        (429, {"code": 429}, TransientError),
        (500, {}, TransientError),
        (502, {}, TransientError),
        (503, {}, TransientError),
        (529, {}, TransientError),
        (302, {}, UsageError),
    ],
)
def test_status(status, fields, kind):
    found = error(status, **fields)
    assert type(found) is kind
    assert "api.example" in str(found) or str(status) in str(found)


@pytest.mark.parametrize(
    ("status", "refused", "overload"),
    [
        (408, False, False),
        (409, False, False),
        (425, True, False),
        (429, True, True),
        (500, False, False),
        (502, False, False),
        (503, True, True),
        (529, True, True),
    ],
)
def test_what_is_refused_costs_nothing_and_overload_asks_for_less(status, refused, overload):
    found = error(status)
    assert (found.refused, found.overload) == (refused, overload)


def test_remedies():
    assert "set a valid key in TEACHER_KEY" in str(error(401))
    assert "no key was sent: set --api-key-env" in str(error(403, server=KEYLESS))
    assert "check --model, --base-url (it usually ends in /v1) and --endpoint" in str(error(404))
    assert "out of credit" in str(error(402))
    assert "redirects" in str(error(302))


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"param": "temperature"}, "temperature"),
        ({"param": "response_format.json_schema"}, "response_format"),
        ({"param": "messages"}, "messages"),
        ({"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}, "max_tokens"),
        ({"message": 'Unknown field "logit_bias"'}, "logit_bias"),
        ({"message": "`response_format.schema` is not supported"}, "response_format"),
        ({"message": "this model takes no temperature", "param": None}, None),
        ({}, None),
    ],
)
def test_refused_parameter(fields, parameter):
    assert error(400, **fields).parameter == parameter


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"error": {"message": "busy now"}}', "503: busy now"),
        (b'{"message": "busy now"}', "503: busy now"),
        (b'{"error": "busy now"}', '503: {"error": "busy now"}'),
        (b'{"error": null}', '503: {"error": null}'),
        (b"[1]", "503: [1]"),
        (b"<h1>busy</h1>", "503: <h1>busy</h1>"),
        (b"\xff", "503: \N{REPLACEMENT CHARACTER}"),
        (b"[" * 3000, "503: " + "[" * 495),
        (b'{"message": "\\ud83d"}', "503: ?"),
        (b"", "503: "),
    ],
)
def test_words_of_a_refusal(content, said):
    assert str(refused(503, content, {}, SERVER)) == said


# -- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 429, 500])
def test_no_refusal_repeats_a_key(status):
    for said in (f"Incorrect API key provided: {KEY}.", "x" * 490 + KEY, f"{KEY[:7]}********{KEY[-4:]} is wrong"):
        text = str(error(status, said, code=f"{KEY}"))
        assert KEY not in text
        assert KEY[:7] not in text
        assert KEY[-4:] not in text


def test_redaction():
    assert redacted(f"{KEY} and {KEY}", SERVER) == "[key] and [key]"
    odd = Server("m", "https://api.example/v1", "0123456789abcdef", "K", "chat", 60.0, 600.0)
    assert redacted("Bearer 0123456789abcdef!", odd) == "Bearer [key]!"  # a key of any form, if it is ours
    assert redacted("gsk_0123456789 hf_abcdefghi", KEYLESS) == "[key] [key]"  # and that of another
    assert redacted("the task is risky-business", KEYLESS) == "the task is risky-business"
    assert len(redacted("x" * 10_000, SERVER)) == 500
    assert KEY not in repr(SERVER)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(429, TransientError), (400, PermanentError), (401, AuthenticationError), (None, TransientError)],
)
def test_error_object_with_the_status_of_a_success_says_what_it_means(code, expected):
    with pytest.raises(expected, match="no provider is free"):
        reply_of({"error": {"message": "no provider is free", "code": code}}, SERVER)
