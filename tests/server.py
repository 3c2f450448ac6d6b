"""A real OpenAI-compatible HTTP server with a corpus of known yield and with every fault a real one shows.

`running_server(**behaviour)` starts it in a process of its own; by hand: `python -m tests.server --config '{...}'`,
which prints its port first. It listens on loopback only. Tokens are words between white space, everywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel

from tests.batches import Batch, Batches, Refused
from tests.corpus import SIZE, answer, draw

Fault = Literal[
    "429",  # without Retry-After
    "429_retry_after",
    "500",
    "overloaded",  # 503 without Retry-After
    "529",  # another way to say the same
    "hang",  # no answer until the client goes away; billed all the same
    "reset",  # TCP reset in mid-body
    "truncated",  # the connection ends in mid-body
    "malformed",  # a complete body that is not JSON
    "empty_choices",
    "length",  # cut in half, finish_reason "length"
    "content_filter",
    "no_usage",
    "wrong_usage",  # figures that are nonsense; billed are the true ones
    "insufficient_quota",
    "context_length_exceeded",
]
TRANSPORT_FAULTS = ("hang", "reset", "truncated", "malformed")
API_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models")
CALL_PATHS = ("/v1/files", "/v1/batches")
# What "wrong_usage" makes of each figure: one of these for all figures of an answer.
WRONG: tuple[Callable[[int], Any], ...] = (
    lambda count: 0,
    lambda count: 10 * count,
    lambda count: -count,
    str,
    lambda count: count + 0.5,
    lambda count: None,
)
# Status, text, type, parameter and code as OpenAI's; what stands in braces is filled in.
ERRORS: dict[str, tuple[int, str, str, str | None, str | None]] = {
    "429": (429, "Rate limit reached for requests.", "requests", None, "rate_limit_exceeded"),
    "429_tokens": (429, "Rate limit reached for tokens.", "tokens", None, "rate_limit_exceeded"),
    "in_flight": (429, "Too many requests are in flight.", "overloaded", None, "overloaded"),
    "500": (500, "The server had an error while processing your request.", "server_error", None, None),
    "overloaded": (503, "The engine is currently overloaded.", "server_error", None, None),
    "529": (529, "Overloaded", "overloaded_error", None, None),
    "insufficient_quota": (
        429, "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota", None, "insufficient_quota",
    ),
    "context_length_exceeded": (
        400, "This model's maximum context length is {limit} tokens. However, you requested {asked} tokens.",
        "invalid_request_error", "messages", "context_length_exceeded",
    ),
    "invalid_api_key": (401, "Incorrect API key provided: {key}.", "invalid_request_error", None, "invalid_api_key"),
    "not_found": (404, "Unknown request URL: {path}.", "invalid_request_error", None, "unknown_url"),
    "unsupported_parameter": (
        400, "Unsupported parameter: '{name}' is not supported with this model.{instead}",
        "invalid_request_error", "{name}", "unsupported_parameter",
    ),
    "unsupported_value": (
        400, "Unsupported value: '{name}' does not support {value} with this model. Only the default is supported.",
        "invalid_request_error", "{name}", "unsupported_value",
    ),
    "no_such_file": (404, "No such File object: {name}", "invalid_request_error", "id", None),
    "no_such_batch": (404, "No batch found with id '{name}'.", "invalid_request_error", None, None),
    "not_cancellable": (409, "Cannot cancel a batch with status '{status}'.", "invalid_request_error", None, None),
    "missing_parameter": (
        400, "Missing required parameter: '{name}'.", "invalid_request_error", "{name}", "missing_required_parameter",
    ),
    "invalid_value": (
        400, "Invalid value: '{value}'. Supported values are: {accepted}.",
        "invalid_request_error", "{name}", "invalid_value",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no completion."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()


# What llama.cpp's server says while it loads a model.
LOADING = Refusal(503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}})


class LongTail(BaseModel):
    """A log-normal distribution: half of all values lie below the median; sigma is the deviation of their logarithm."""

    model_config = {"extra": "forbid"}

    median: float
    sigma: float


class Behaviour(BaseModel):
    """What the server does; every field may be changed while it runs.

    Attributes:
        seed: Of answers, faults and latencies.
        script: Answers by regular expression in the last message; of a list the k-th for the k-th match, or the last.
        near_duplicates, broken: Shares of instructions that repeat a demonstration, or that break a filter.
        pool: Number of different fresh instructions.
        list_length: Most entries of a list of tasks.
        latency_s: Seconds before an answer, or their range, or their long-tailed distribution.
        faults: By kind, the share of received requests, or which of them (the first is 1). A line of a batch counts as
            a request when the batch ends, and has no fault of the transport.
        starting_s: Seconds from the start of the process in which every request gets 503.
        retry_after_s: What Retry-After says.
        rate_limit: Requests within the window; beyond, 429.
        token_rate_limit: Tokens within the window, those of the prompt and those that max_tokens allows; beyond, 429.
        rate_window_s: Length of the sliding window; changed limits begin with an empty one.
        rate_limit_headers: What tells of the limits: Retry-After with 429, or, with 429 and answers alike, OpenAI's
            x-ratelimit headers (a reset is when the window is empty), or nothing.
        max_in_flight: Requests at once; beyond, 429 without Retry-After.
        require_key: The key to be sent; another one, or none, gets 401 with an echo of it.
        context_length: Most tokens of prompt and answer; beyond, 400.
        reasoning_model: Thinks, and refuses the parameters that such models refuse.
        thinking: Text of a thought.
        thinking_in: Where it appears; in the content it stands between <think> tags.
        refused_parameters: Further parameters that get 400.
        redirect_to: Scheme, host and port that requests are sent on to with 302.
        models: What /v1/models lists.
        batch_s: Seconds from the creation of a batch to its end.
        batch_lines: Most lines of a batch.
        batch_expires_after: The share of lines answered when every batch ends as expired.
        batch_fails: Whether no batch is validated.
        batch_api_faults: Like `faults`, for the calls to files and batches, which count by themselves. After a fault of
            the transport a call has had its effect all the same.
    """

    model_config = {"extra": "forbid"}

    seed: int = 0
    script: dict[str, str | list[str]] = {}
    near_duplicates: float = 0.1
    broken: float = 0.1
    pool: int = SIZE
    list_length: int = 8
    latency_s: float | tuple[float, float] | LongTail = 0.0
    faults: dict[Fault, float | list[int]] = {}
    starting_s: float = 0.0
    retry_after_s: float = 1.0
    rate_limit: int | None = None
    token_rate_limit: int | None = None
    rate_window_s: float = 1.0
    rate_limit_headers: Literal["retry-after", "reset", "none"] = "retry-after"
    max_in_flight: int | None = None
    require_key: str | None = None
    context_length: int | None = None
    reasoning_model: bool = False
    thinking: str = "Let me think about that for a while."
    thinking_in: list[Literal["reasoning_content", "content"]] = ["reasoning_content"]
    refused_parameters: list[str] = []
    redirect_to: str | None = None
    models: list[str] = ["test-model"]
    batch_s: float = 0.0
    batch_lines: int = 50_000
    batch_expires_after: float | None = None
    batch_fails: bool = False
    batch_api_faults: dict[Fault, float | list[int]] = {}

    def fault_of(self, number: int) -> Fault | None:
        """The fault of the number-th request, drawn per request, so that a repeated one can go well."""
        return self._drawn(self.faults, "fault", number)

    def call_fault_of(self, number: int) -> Fault | None:
        """The same for the number-th call to files and batches."""
        return self._drawn(self.batch_api_faults, "call", number)

    def _drawn(self, faults: dict[Fault, float | list[int]], purpose: str, number: int) -> Fault | None:
        share = Random(f"{self.seed}/{purpose}/{number}").random() if faults else 1.0
        for kind, when in faults.items():
            if isinstance(when, list):
                if number in when:
                    return kind
            elif (share := share - when) < 0:
                return kind
        return None

    def limits(self) -> dict[str, int]:
        """Most requests and tokens within the window, where they are limited."""
        limits = {"requests": self.rate_limit, "tokens": self.token_rate_limit}
        return {kind: limit for kind, limit in limits.items() if limit}

    def latency(self, number: int) -> float:
        """Seconds before the answer to the number-th request."""
        if isinstance(self.latency_s, float):
            return self.latency_s
        rng = Random(f"{self.seed}/latency/{number}")
        if isinstance(self.latency_s, LongTail):
            return rng.lognormvariate(math.log(self.latency_s.median), self.latency_s.sigma)
        return rng.uniform(*self.latency_s)


class Window:
    """What was let through within the last so many seconds."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, int]] = deque()
        self._used = 0

    def used(self, now: float, span: float) -> int:
        while self._kept and self._kept[0][0] <= now - span:
            self._used -= self._kept.popleft()[1]
        return self._used

    def add(self, now: float, amount: int) -> None:
        self._kept.append((now, amount))
        self._used += amount

    def empty_in(self, now: float, span: float) -> float:
        """Seconds until nothing of it is left."""
        return max(0.0, self._kept[-1][0] + span - now) if self._kept else 0.0


def duration(seconds: float) -> str:
    """A time as OpenAI's headers write it: 120ms, 1.5s, 6m0s; no shorter than it is."""
    milliseconds = math.ceil(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if hours or minutes else ''}{rest / 1000:g}s"


def words(text: str) -> int:
    return len(text.split())


def _refusal(error: str, headers: tuple[tuple[str, str], ...] = (), **values: Any) -> Refusal:
    status, message, kind, parameter, code = ERRORS[error]
    parameter = parameter and parameter.format(**values)
    body = {"message": message.format(**values), "type": kind, "param": parameter, "code": code}
    return Refusal(status, {"error": body}, headers)


class Service:
    """The application: one plain ASGI callable, since two of the faults need the connection itself."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.log: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self._started = time.monotonic()
        self._batches = Batches(self._answer_line)
        self._windows = {"requests": Window(), "tokens": Window()}
        self._in_flight = 0
        self._matches: dict[str, int] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        parts = []
        while (message := await receive())["type"] == "http.request":
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        body, path = b"".join(parts), scope["path"]
        self._batches.settle(self.behaviour)
        if path == "/health":
            await _send(send, 200, b'{"status": "ok"}')
        elif path == "/log":
            await _send(send, 200, json.dumps(self.log).encode())
        elif path == "/calls":
            await _send(send, 200, json.dumps(self.calls).encode())
        elif path == "/control":
            before = self.behaviour
            self.behaviour = Behaviour.model_validate({**before.model_dump(), **json.loads(body)})
            if before.limits() != self.behaviour.limits() or before.rate_window_s != self.behaviour.rate_window_s:
                self._windows = {kind: Window() for kind in self._windows}
            await _send(send, 200, b"{}")
        elif path.startswith(CALL_PATHS):
            await self._call(scope, body, receive, send)
        else:
            self._in_flight += 1
            try:
                await self._answer(scope, body, receive, send)
            finally:
                self._in_flight -= 1

    async def _answer(self, scope: Any, raw: bytes, receive: Any, send: Any) -> None:
        """One logged request: refuse it, or answer it with or without a fault."""
        behaviour, path = self.behaviour, scope["path"]
        sent_key, sender = self._sender(scope)
        entry = self._entry(path, json.loads(raw) if raw else None, sender)
        entry["in_flight"] = self._in_flight
        refusal = (
            self._unavailable(path)
            or self._denied(path, sent_key, sender)
            or self._failed(entry["fault"])
            or self._limited(entry)
            or self._unfit(entry["body"] or {})
        )
        if refusal:
            await _refuse(send, entry, refusal)
        elif path == "/v1/models":
            entry["status"] = 200
            listed = [{"id": name, "object": "model"} for name in behaviour.models]
            await _send(send, 200, json.dumps({"object": "list", "data": listed}).encode())
        else:
            headers = self._rate_headers(entry["received_s"])
            body = json.dumps(self._completion(entry)).encode()
            await _deliver(entry, body, receive, send, headers, behaviour.latency(entry["number"]))

    async def _call(self, scope: Any, raw: bytes, receive: Any, send: Any) -> None:
        """One call to files or batches, in a log of its own."""
        path, behaviour, number = scope["path"], self.behaviour, len(self.calls) + 1
        sent_key, sender = self._sender(scope)
        entry: dict[str, Any] = {
            "number": number, "method": scope["method"], "path": path, **sender, "status": None,
            "fault": behaviour.call_fault_of(number), "received_s": time.monotonic(),
        }  # fmt: skip
        self.calls.append(entry)
        if refusal := self._unavailable(path) or self._denied(path, sent_key, sender) or self._failed(entry["fault"]):
            await _refuse(send, entry, refusal)
            return
        query = dict(parse_qsl(scope["query_string"].decode()))
        content_type = _header(scope, b"content-type")
        try:
            reply = self._batches.call(
                scope["method"], path, query, content_type, raw, sender=sender, behaviour=behaviour
            )
        except Refused as refused:
            await _refuse(send, entry, _refusal(refused.error, **refused.values))
            return
        body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        await _deliver(entry, body, receive, send)

    def _answer_line(self, line: dict[str, Any], batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
        """(Log entry, reply) of one line of a batch."""
        entry = self._entry(line["url"], line["body"], batch.sender, batch.id)
        if entry["fault"] in TRANSPORT_FAULTS:
            entry["fault"] = None
        if refusal := self._failed(entry["fault"]) or self._unfit(entry["body"]):
            entry["status"] = refusal.status
            return entry, refusal.body
        entry["status"] = 200
        return entry, self._completion(entry)

    def _sender(self, scope: Any) -> tuple[str, dict[str, Any]]:
        """(Key sent, what the log says of it)."""
        authorization = _header(scope, b"authorization")
        sent_key = authorization.removeprefix("Bearer ")
        return sent_key, {
            "authorization": bool(authorization), "key_matches": sent_key == self.behaviour.require_key,
        }  # fmt: skip

    def _entry(
        self, path: str, body: dict[str, Any] | None, sender: dict[str, Any], batch: str | None = None
    ) -> dict[str, Any]:
        """A new entry of the log."""
        number = len(self.log) + 1
        entry = {
            "number": number, "path": path, **sender, "body": body, "status": None,
            "fault": self.behaviour.fault_of(number), "prompt_tokens": 0, "completion_tokens": 0, "in_flight": 0,
            "received_s": time.monotonic(), "batch": batch,
        }  # fmt: skip
        self.log.append(entry)
        return entry

    def _unavailable(self, path: str) -> Refusal | None:
        """What is said to everyone."""
        if time.monotonic() < self._started + self.behaviour.starting_s:
            return LOADING
        if self.behaviour.redirect_to:
            return Refusal(302, headers=(("location", f"{self.behaviour.redirect_to}{path}"),))
        return None

    def _denied(self, path: str, sent_key: str, sender: dict[str, Any]) -> Refusal | None:
        """What is said to a wrong key, or at a wrong place."""
        if self.behaviour.require_key and not sender["key_matches"]:
            return _refusal("invalid_api_key", key=sent_key)
        if path not in API_PATHS and not path.startswith(CALL_PATHS):
            return _refusal("not_found", path=path)
        return None

    def _failed(self, fault: Fault | None) -> Refusal | None:
        """What a fault says in place of an answer."""
        if fault == "429_retry_after":
            return _refusal("429", (("retry-after", f"{self.behaviour.retry_after_s:g}"),))
        return _refusal(fault, limit=self.behaviour.context_length, asked=0) if fault in ERRORS else None

    def _limited(self, entry: dict[str, Any]) -> Refusal | None:
        """What is said to a request beyond a limit; one within the limits is counted."""
        behaviour, now = self.behaviour, entry["received_s"]
        if behaviour.max_in_flight and entry["in_flight"] > behaviour.max_in_flight:
            return _refusal("in_flight")
        if not (limits := behaviour.limits()):
            return None
        amounts = {"requests": 1, "tokens": _asked(entry["body"] or {})}
        for kind, limit in limits.items():
            if self._windows[kind].used(now, behaviour.rate_window_s) + amounts[kind] > limit:
                headers = self._rate_headers(now)
                if behaviour.rate_limit_headers == "retry-after":
                    headers = (("retry-after", f"{behaviour.retry_after_s:g}"),)
                return _refusal("429" if kind == "requests" else "429_tokens", headers)
        for kind in limits:
            self._windows[kind].add(now, amounts[kind])
        return None

    def _rate_headers(self, now: float) -> tuple[tuple[str, str], ...]:
        """What is left of the limits, if that is told."""
        if self.behaviour.rate_limit_headers != "reset":
            return ()
        headers: list[tuple[str, str]] = []
        for kind, limit in self.behaviour.limits().items():
            window, span = self._windows[kind], self.behaviour.rate_window_s
            headers += [
                (f"x-ratelimit-limit-{kind}", str(limit)),
                (f"x-ratelimit-remaining-{kind}", str(max(0, limit - window.used(now, span)))),
                (f"x-ratelimit-reset-{kind}", duration(window.empty_in(now, span))),
            ]
        return tuple(headers)

    def _unfit(self, body: dict[str, Any]) -> Refusal | None:
        """What is said to a request that cannot be served as it is."""
        behaviour = self.behaviour
        for name in behaviour.refused_parameters:
            if name in body:
                return _refusal("unsupported_parameter", name=name, instead="")
        if behaviour.reasoning_model:
            if "max_tokens" in body:
                return _refusal(
                    "unsupported_parameter", name="max_tokens", instead=" Use 'max_completion_tokens' instead."
                )
            if body.get("stop"):
                return _refusal("unsupported_parameter", name="stop", instead="")
            for name, default in (("temperature", 1), ("top_p", 1), ("presence_penalty", 0), ("frequency_penalty", 0)):
                if body.get(name, default) != default:
                    return _refusal("unsupported_value", name=name, value=body[name])
        if behaviour.context_length and body and (asked := _asked(body)) > behaviour.context_length:
            return _refusal("context_length_exceeded", limit=behaviour.context_length, asked=asked)
        return None

    def _completion(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The answer to an entry of the log, which bills it truly."""
        fault = entry["fault"]
        reply = self._reply(entry["body"], "chat" in entry["path"], fault)
        usage = reply["usage"]
        entry["prompt_tokens"], entry["completion_tokens"] = usage["prompt_tokens"], usage["completion_tokens"]
        if fault == "no_usage":
            reply["usage"] = None
        elif fault == "wrong_usage":
            wrong = Random(f"{self.behaviour.seed}/usage/{entry['number']}").choice(WRONG)
            reply["usage"] = {name: wrong(count) for name, count in usage.items() if isinstance(count, int)}
        return reply

    def _reply(self, body: dict[str, Any], chat: bool, fault: Fault | None) -> dict[str, Any]:
        """The JSON of an answer; its text is a function of seed and body, except for lists in the script."""
        behaviour = self.behaviour
        prompts, n, limit = _prompts(body), body.get("n") or 1, _limit(body)
        asked = prompts[-1:] if chat else prompts
        thinks = chat and behaviour.reasoning_model
        thought = _first_words(behaviour.thinking, limit) if thinks else ""
        key = hashlib.sha256(f"{behaviour.seed}/{json.dumps(body, sort_keys=True)}".encode()).hexdigest()
        choices: list[dict[str, Any]] = []
        completion_tokens = 0
        for index in range(n * len(asked)):
            text = self._text(asked[index // n], Random(f"{key}/{index}"))
            text, reason = _cut(text, body.get("stop"), limit, words(thought))
            if fault == "length":
                text, reason = _first_words(text, words(text) // 2), "length"
            elif fault == "content_filter":
                text, reason = "", "content_filter"
            completion_tokens += words(text) + words(thought)
            content = f"<think>{thought}</think>\n{text}" if thinks and "content" in behaviour.thinking_in else text
            choice: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": None}
            if chat:
                choice["message"] = {"role": "assistant", "content": content}
                if thinks and "reasoning_content" in behaviour.thinking_in:
                    choice["message"]["reasoning_content"] = thought
            else:
                choice["text"] = content
            choices.append(choice)
        prompt_tokens = sum(map(words, prompts))
        usage: dict[str, Any] = {
            "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }  # fmt: skip
        if thinks:
            usage["completion_tokens_details"] = {"reasoning_tokens": words(thought) * len(choices)}
        return {
            "id": f"cmpl-{key[:12]}", "object": "chat.completion" if chat else "text_completion", "created": 0,
            "model": body.get("model"), "choices": [] if fault == "empty_choices" else choices, "usage": usage,
        }  # fmt: skip

    def _text(self, prompt: str, rng: Random) -> str:
        behaviour = self.behaviour
        for pattern, canned in behaviour.script.items():
            if re.search(pattern, prompt):
                nth = self._matches[pattern] = self._matches.get(pattern, 0) + 1
                return canned if isinstance(canned, str) else canned[min(nth, len(canned)) - 1]
        shares = (behaviour.near_duplicates, behaviour.broken, behaviour.pool)
        return answer(prompt, partial(draw, prompt, rng, *shares), behaviour.list_length)


def _prompts(body: dict[str, Any]) -> list[str]:
    """Texts of all messages, or all prompts of the plain endpoint."""
    if "messages" in body:
        return [message["content"] for message in body["messages"]]
    prompt = body.get("prompt", "")
    return prompt if isinstance(prompt, list) else [prompt]


def _limit(body: dict[str, Any]) -> int | None:
    return body.get("max_completion_tokens") or body.get("max_tokens")


def _asked(body: dict[str, Any]) -> int:
    """Tokens that a request may cost: those of the prompt, and its limit."""
    return sum(map(words, _prompts(body))) + (_limit(body) or 0)


def _header(scope: Any, name: bytes) -> str:
    return dict(scope["headers"]).get(name, b"").decode()


def _first_words(text: str, count: int | None) -> str:
    return "".join(re.findall(r"\s*\S+", text)[:count])


def _cut(text: str, stop: str | list[str] | None, limit: int | None, thought: int) -> tuple[str, str]:
    """(text, finish reason) after the stop strings, then the limit, which thinking eats into."""
    for mark in [stop] if isinstance(stop, str) else stop or []:
        text = text.split(mark)[0]
    if limit is None or words(text) + thought <= limit:
        return text, "stop"
    return _first_words(text, limit - thought), "length"


async def _send(
    send: Any, status: int, body: bytes, headers: tuple[tuple[str, str], ...] = (), length: int | None = None
) -> None:
    """Send a response; with a length beyond the body it stays incomplete."""
    length = len(body) if length is None else length
    headers = (("content-type", "application/json"), ("content-length", str(length)), *headers)
    pairs = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body, "more_body": len(body) < length})


async def _deliver(
    entry: dict[str, Any], body: bytes, receive: Any, send: Any, headers: tuple[tuple[str, str], ...] = (),
    delay: float = 0.0,
) -> None:  # fmt: skip
    """Send a good answer, or what a fault of the transport makes of it."""
    fault = entry["fault"]
    if fault == "hang":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    if delay:
        await asyncio.sleep(delay)
    entry["status"] = 200
    if fault in ("reset", "truncated"):
        await _send(send, 200, body[: len(body) // 2], headers, length=len(body))
        if fault == "reset":
            _reset(send.__self__.transport)
        return  # uvicorn closes a connection whose response is incomplete
    await _send(send, 200, b"<html>Bad gateway" if fault == "malformed" else body, headers)


async def _refuse(send: Any, entry: dict[str, Any], refusal: Refusal) -> None:
    entry["status"] = refusal.status
    body = json.dumps(refusal.body).encode() if refusal.body else b""
    await _send(send, refusal.status, body, refusal.headers)


def _reset(transport: Any) -> None:
    """Close a connection with a TCP reset: no lingering, then close."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class RunningServer:
    """A server in a process of its own, as tests see it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _ask(self, path: str, values: dict[str, Any] | None = None) -> Any:
        data = None if values is None else json.dumps(values).encode()
        with self._opener.open(f"http://127.0.0.1:{self.port}{path}", data, timeout=10) as reply:
            return json.load(reply)

    def log(self) -> list[dict[str, Any]]:
        """Every request for a completion, answered or refused, in the order in which they came.

        Lines of a batch came when it ended.
        """
        log: list[dict[str, Any]] = self._ask("/log")
        return log

    def calls(self) -> list[dict[str, Any]]:
        """Every call to files and batches, in the order in which they came."""
        calls: list[dict[str, Any]] = self._ask("/calls")
        return calls

    def set(self, **behaviour: Any) -> None:
        """Change behaviour from the next request on."""
        self._ask("/control", behaviour)


@contextmanager
def running_server(port: int = 0, **behaviour: Any) -> Iterator[RunningServer]:
    """Start a server, by default on a free port, and end it when the block ends.

    Args:
        port: A fixed port lets a test bring back a server that was lost.
        behaviour: Fields of `Behaviour`.
    """
    config = Behaviour(**behaviour).model_dump_json()
    command = [sys.executable, "-m", "tests.server", "--port", str(port), "--config", config, "--with-parent"]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            server = RunningServer(int(process.stdout.readline()))
            server._ask("/health")
            yield server
        finally:
            process.kill()


def main() -> None:
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="{}", help="fields of Behaviour as JSON")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    args = parser.parse_args()
    service = Service(Behaviour.model_validate_json(args.config))
    listener = socket.create_server(("127.0.0.1", args.port), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    if args.with_parent:
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    config = uvicorn.Config(service, log_level="critical", access_log=False, lifespan="off", timeout_keep_alive=60)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
