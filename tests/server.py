"""A real OpenAI-compatible HTTP server with a corpus of known yield and with every fault a real one shows.

`running_server(**behaviour)` starts it in a process of its own; by hand: `python -m tests.server --config '{...}'`,
which prints its port first. It listens on loopback only. Tokens are words between white space, everywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import BaseModel

from tests.corpus import SIZE, answer, draw

Fault = Literal[
    "429",  # without Retry-After
    "429_retry_after",
    "500",
    "hang",  # no answer until the client goes away; billed all the same
    "reset",  # TCP reset in mid-body
    "truncated",  # the connection ends in mid-body
    "malformed",  # a complete body that is not JSON
    "empty_choices",
    "length",  # cut in half, finish_reason "length"
    "content_filter",
    "no_usage",
    "insufficient_quota",
    "context_length_exceeded",
]
API_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models")
# Status, text, type, parameter and code as OpenAI's; what stands in braces is filled in.
ERRORS: dict[str, tuple[int, str, str, str | None, str | None]] = {
    "429": (429, "Rate limit reached for requests.", "requests", None, "rate_limit_exceeded"),
    "500": (500, "The server had an error while processing your request.", "server_error", None, None),
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
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no completion."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Behaviour(BaseModel):
    """What the server does; every field may be changed while it runs.

    Attributes:
        seed: Of answers, faults and latencies.
        script: Answers by regular expression in the last message; of a list the k-th for the k-th match, or the last.
        near_duplicates, broken: Shares of instructions that repeat a demonstration, or that break a filter.
        pool: Number of different fresh instructions.
        list_length: Most entries of a list of tasks.
        latency_s: Seconds before an answer, or their range.
        faults: By kind, the share of received requests, or which of them (the first is 1).
        retry_after_s: What Retry-After says.
        rate_limit: Requests within one second; beyond, 429 with Retry-After.
        require_key: The key to be sent; another one, or none, gets 401 with an echo of it.
        context_length: Most tokens of prompt and answer; beyond, 400.
        reasoning_model: Thinks, and refuses the parameters that such models refuse.
        thinking: Text of a thought.
        thinking_in: Where it appears; in the content it stands between <think> tags.
        refused_parameters: Further parameters that get 400.
        redirect_to: Scheme, host and port that requests are sent on to with 302.
        models: What /v1/models lists.
    """

    model_config = {"extra": "forbid"}

    seed: int = 0
    script: dict[str, str | list[str]] = {}
    near_duplicates: float = 0.1
    broken: float = 0.1
    pool: int = SIZE
    list_length: int = 8
    latency_s: float | tuple[float, float] = 0.0
    faults: dict[Fault, float | list[int]] = {}
    retry_after_s: float = 1.0
    rate_limit: int | None = None
    require_key: str | None = None
    context_length: int | None = None
    reasoning_model: bool = False
    thinking: str = "Let me think about that for a while."
    thinking_in: list[Literal["reasoning_content", "content"]] = ["reasoning_content"]
    refused_parameters: list[str] = []
    redirect_to: str | None = None
    models: list[str] = ["test-model"]

    def fault_of(self, number: int) -> Fault | None:
        """The fault of the number-th request, drawn per request, so that a repeated one can go well."""
        share = Random(f"{self.seed}/fault/{number}").random()
        for kind, when in self.faults.items():
            if isinstance(when, list):
                if number in when:
                    return kind
            elif (share := share - when) < 0:
                return kind
        return None

    def latency(self, number: int) -> float:
        if isinstance(self.latency_s, tuple):
            return Random(f"{self.seed}/latency/{number}").uniform(*self.latency_s)
        return self.latency_s


def words(text: str) -> int:
    return len(text.split())


def _refusal(error: str, retry_after_s: float | None = None, **values: Any) -> Refusal:
    status, message, kind, parameter, code = ERRORS[error]
    parameter = parameter and parameter.format(**values)
    body = {"message": message.format(**values), "type": kind, "param": parameter, "code": code}
    headers = () if retry_after_s is None else (("retry-after", f"{retry_after_s:g}"),)
    return Refusal(status, json.dumps({"error": body}).encode(), headers)


class Service:
    """The application: one plain ASGI callable, since two of the faults need the connection itself."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.log: list[dict[str, Any]] = []
        self._recent: deque[float] = deque()
        self._in_flight = 0
        self._matches: dict[str, int] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["path"]
        if path == "/health":
            await _send(send, 200, b'{"status": "ok"}')
        elif path == "/log":
            await _send(send, 200, json.dumps(self.log).encode())
        elif path == "/control":
            self.behaviour = Behaviour.model_validate({**self.behaviour.model_dump(), **json.loads(body)})
            await _send(send, 200, b"{}")
        else:
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            self._in_flight += 1
            try:
                await self._answer(path, headers, body, receive, send)
            finally:
                self._in_flight -= 1

    async def _answer(self, path: str, headers: dict[str, str], raw: bytes, receive: Any, send: Any) -> None:
        """One logged request: refuse it, or answer it with or without a fault."""
        behaviour = self.behaviour
        number = len(self.log) + 1
        authorization = headers.get("authorization", "")
        sent_key = authorization.removeprefix("Bearer ")
        entry: dict[str, Any] = {
            "number": number, "path": path, "authorization": bool(authorization),
            "key_matches": sent_key == behaviour.require_key, "body": json.loads(raw) if raw else None, "status": None,
            "fault": None, "prompt_tokens": 0, "completion_tokens": 0, "in_flight": self._in_flight,
            "received_s": time.monotonic(),
        }  # fmt: skip
        self.log.append(entry)
        fault = entry["fault"] = behaviour.fault_of(number)
        if refusal := self._refusal(path, sent_key, entry):
            entry["status"] = refusal.status
            await _send(send, refusal.status, refusal.body, refusal.headers)
            return
        if path == "/v1/models":
            entry["status"] = 200
            listed = [{"id": name, "object": "model"} for name in behaviour.models]
            await _send(send, 200, json.dumps({"object": "list", "data": listed}).encode())
            return
        reply = self._reply(entry["body"], "chat" in path, fault)
        entry["prompt_tokens"] = reply["usage"]["prompt_tokens"]
        entry["completion_tokens"] = reply["usage"]["completion_tokens"]
        if fault == "no_usage":
            reply["usage"] = None
        if fault == "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        if delay := behaviour.latency(number):
            await asyncio.sleep(delay)
        entry["status"] = 200
        body = json.dumps(reply).encode()
        if fault in ("reset", "truncated"):
            await _send(send, 200, body[: len(body) // 2], length=len(body))
            if fault == "reset":
                _reset(send.__self__.transport)
            return  # uvicorn closes a connection whose response is incomplete
        await _send(send, 200, b"<html>Bad gateway" if fault == "malformed" else body)

    def _refusal(self, path: str, sent_key: str, entry: dict[str, Any]) -> Refusal | None:
        """What is said to a request that gets no completion."""
        behaviour, body, fault = self.behaviour, entry["body"] or {}, entry["fault"]
        if behaviour.redirect_to:
            return Refusal(302, headers=(("location", f"{behaviour.redirect_to}{path}"),))
        if behaviour.require_key and not entry["key_matches"]:
            return _refusal("invalid_api_key", key=sent_key)
        if path not in API_PATHS:
            return _refusal("not_found", path=path)
        if fault == "429_retry_after":
            return _refusal("429", behaviour.retry_after_s)
        if fault in ERRORS:
            return _refusal(fault, limit=behaviour.context_length, asked=0)
        if behaviour.rate_limit:
            while self._recent and self._recent[0] < entry["received_s"] - 1:
                self._recent.popleft()
            if len(self._recent) >= behaviour.rate_limit:
                return _refusal("429", behaviour.retry_after_s)
            self._recent.append(entry["received_s"])
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
        if behaviour.context_length and body:
            asked = sum(map(words, _prompts(body))) + (_limit(body) or 0)
            if asked > behaviour.context_length:
                return _refusal("context_length_exceeded", limit=behaviour.context_length, asked=asked)
        return None

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
        """Every request to an API path, answered or refused, in the order in which they came."""
        log: list[dict[str, Any]] = self._ask("/log")
        return log

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
