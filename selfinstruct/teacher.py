"""Between a prompt and a completion: the OpenAI client, retries, the budget and the ledger.

`Teacher.ask` is all that strategies see. Errors of the client are converted once, in `_converted`.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlsplit

import anyio
import openai
import stamina

from selfinstruct.budget import Budget, max_prompt_tokens
from selfinstruct.errors import (
    AuthenticationError,
    Error,
    PermanentError,
    StoppedEarly,
    TransientError,
    UsageError,
)
from selfinstruct.files import digest
from selfinstruct.ledger import Ledger
from selfinstruct.parsing import without_thinking
from selfinstruct.records import Completion, Endpoint, Prompt

logger = logging.getLogger(__name__)
stamina.instrumentation.set_on_retry_hooks(())  # the teacher says itself what it asks again, and why

# What a model that refuses max_tokens (a reasoning model) may think a request, unless --thinking-tokens says otherwise.
DEFAULT_THINKING_TOKENS = 2048
_THINKING = "thinking"  # what a request made no room for, in the place of a refused parameter
_OPTIONAL = ("temperature", "top_p", "presence_penalty", "stop", "seed")
_TRANSIENT_STATUS = (408, 409, 425, 429)
_REFUSING_STATUS = (425, 429, 503)  # nothing was done, so nothing is billed
_ABOUT_THE_PROMPT = ("messages", "prompt")  # parameters whose refusal says nothing about the next request
_MIN_WAIT_S, _FIRST_WAIT_S, _MAX_WAIT_S, _JITTER_S = 0.01, 0.5, 30.0, 1.0
_FIRST_ANSWER_S = 60.0  # an endpoint that has never answered is more likely a wrong address than an outage
_MAX_MESSAGE = 500  # characters of what an endpoint says
_MAX_COUNT = 2**40  # tokens; more is no count
_KEY = re.compile(r"\b(sk|pk|key|gsk|hf)[-_][\w*.-]{6,}")
_PARAMETER = re.compile(r"['\"`](max_tokens|temperature|top_p|presence_penalty|stop|seed)['\"`]")


@dataclass(frozen=True, slots=True)
class Server:
    """Where requests go, and how.

    Attributes:
        model: The model's name there.
        base_url: Up to and including "/v1".
        api_key: None for a server that asks for none.
        key_name: Environment variable that holds the key, for error messages.
        endpoint: "chat" or "completions".
        timeout_s: Longest wait for one reply.
        outage_s: How long a request is asked again before the endpoint counts as lost.
        thinking_tokens: Tokens for thinking on top of each answer's; None for `DEFAULT_THINKING_TOKENS` once the
            model turns out to be a reasoning model, 0 before.
        seed: Sent along where the server is known to take it; None to leave it out.
    """

    model: str
    base_url: str
    api_key: str | None = field(repr=False)
    key_name: str
    endpoint: Endpoint
    timeout_s: float
    outage_s: float
    thinking_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class _Reply:
    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    thought: bool = False


class Stopped(Exception):
    """The run is ending: the ledger has no reply to a prompt, and nothing more is sent."""


class Teacher:
    """Answers prompts, from the ledger where it can.

    Args:
        server: Where requests go.
        ledger: Keeps every attempt and completion.
        budget: Bounds requests and money.
        concurrency: Most requests in flight.
        config_key: Identifies the configuration that shapes the data.
    """

    def __init__(self, server: Server, ledger: Ledger, budget: Budget, concurrency: int, config_key: str) -> None:
        self._server, self._ledger, self._budget, self._config_key = server, ledger, budget, config_key
        self._limiter = anyio.CapacityLimiter(concurrency)
        self._dialect = _Dialect(server.thinking_tokens)
        self._first = anyio.Lock()
        self._first_is_in = False  # this process has had its first reply
        self._works = ledger.requests().completed > 0  # the endpoint has replied to this run before
        self._last_reply = time.monotonic()
        self._warned = False
        self._stopped = False
        self._asking: set[anyio.CancelScope] = set()
        self._in_flight: set[anyio.CancelScope] = set()
        # The client would look for OPENAI_API_KEY by itself when none is given.
        self._client = openai.AsyncOpenAI(
            base_url=server.base_url,
            api_key=server.api_key or "none",
            max_retries=0,
            timeout=server.timeout_s,
            # A proxy of the environment is for other machines.
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False, trust_env=not is_loopback(server.base_url)
            ),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return len(self._in_flight)

    def stop(self) -> None:
        """Send nothing new. Requests in flight may have been paid for: they finish and are stored."""
        self._stopped = True
        for scope in self._asking:
            scope.cancel()

    def abort(self) -> None:
        """Send nothing new, and give up the requests in flight."""
        for scope in self._in_flight:
            scope.shield = False
        self.stop()

    async def ask(self, slot: int, step: str, prompt: Prompt) -> Completion:
        """The completion of a prompt: the stored one, else a new one.

        Args:
            slot: The slot that asks.
            step: What is asked within the slot; unique there.

        Returns:
            The completion; one with finish_reason "error" where the endpoint refuses this one request for good.

        Raises:
            AuthenticationError: The key is refused.
            CapReached: A cap could be passed.
            StoppedEarly: The endpoint stayed away for `outage_s`, or the account is out of credit.
            UsageError: The endpoint refuses every request: wrong model, wrong URL.
            Stopped: The run is ending.
        """
        request = asdict(prompt)
        prompt_key = digest([self._config_key, slot, step, request], 24)
        if stored := self._ledger.completion(prompt_key):
            return stored
        if not self._stopped:
            with _scope(self._asking, shield=False):
                async with self._limiter:
                    return await self._ask_in_turn(prompt_key, slot, step, prompt, request)
        raise Stopped

    async def _ask_in_turn(
        self, prompt_key: str, slot: int, step: str, prompt: Prompt, request: Mapping[str, Any]
    ) -> Completion:
        """One request alone shows whether key, model and parameters are right, before many find out."""
        if not self._first_is_in:
            async with self._first:
                if not self._first_is_in:
                    completion = await self._ask_until_answered(prompt_key, slot, step, prompt, request)
                    self._first_is_in = True
                    return completion
        return await self._ask_until_answered(prompt_key, slot, step, prompt, request)

    async def _ask_until_answered(
        self, prompt_key: str, slot: int, step: str, prompt: Prompt, request: Mapping[str, Any]
    ) -> Completion:
        patience_s = self._server.outage_s if self._works else min(self._server.outage_s, _FIRST_ANSWER_S)
        started = time.monotonic()

        def wait_before_retry(error: Exception) -> bool | float:
            """Stamina's hook: True for its own back-off, seconds where the endpoint named them, False to give up."""
            if not isinstance(error, TransientError):
                return False
            # An endpoint that replies to others is busy, not lost.
            away_s = time.monotonic() - max(started, self._last_reply)
            if away_s + (error.retry_after_s or 0.0) > patience_s:
                return False
            return True if error.retry_after_s is None else max(error.retry_after_s, _MIN_WAIT_S)

        try:
            async for attempt in stamina.retry_context(
                on=wait_before_retry, attempts=None, timeout=None,
                wait_initial=_FIRST_WAIT_S, wait_max=_MAX_WAIT_S, wait_jitter=_JITTER_S,
            ):  # fmt: skip
                with attempt:
                    return await self._attempt_in_dialect(prompt_key, slot, step, prompt, request)
        except TransientError as error:
            wish = "" if error.retry_after_s is None else f"; asks to wait {error.retry_after_s:g} s"
            raise StoppedEarly(
                f"{_host(self._server.base_url)} gave no answer for {patience_s:g} s ({error}{wish}); everything so far"
                " is kept, and the same command resumes"
            ) from error
        raise AssertionError("stamina ends with a result or an error")

    async def _attempt_in_dialect(
        self, prompt_key: str, slot: int, step: str, prompt: Prompt, request: Mapping[str, Any]
    ) -> Completion:
        """One attempt, repeated without a parameter that the endpoint turns out to refuse."""
        while True:
            body = self._dialect.body(prompt, self._server)
            try:
                return await self._attempt(prompt_key, slot, step, prompt, request, body)
            except PermanentError as error:
                if self._dialect.has_alternative(error.parameter, body):
                    self._dialect.learn(error.parameter)
                    logger.info("the model takes no %s, or needs room for it; asking otherwise", error.parameter)
                    continue
                if self._is_fatal(error):
                    raise UsageError(
                        f"{_host(self._server.base_url)} refuses the first request: {error}. Check --model, --base-url"
                        " and --endpoint"
                    ) from error
                raise

    def _is_fatal(self, error: PermanentError) -> bool:
        """Whether what is refused is the way of asking, not one prompt: nothing has ever been answered."""
        return not self._works and error.parameter not in _ABOUT_THE_PROMPT

    async def _attempt(
        self, prompt_key: str, slot: int, step: str, prompt: Prompt, request: Mapping[str, Any], body: dict[str, Any]
    ) -> Completion:  # fmt: skip
        if self._stopped:
            raise Stopped
        text = "".join(message["content"] for message in prompt.messages)
        max_completion = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        reserved = self._budget.reserve(max_prompt_tokens(text), max_completion)
        # From here on the request is finished and stored even when the run is stopping: it may cost money already.
        with _scope(self._in_flight, shield=True):
            attempt = await self._ledger.begin_attempt(prompt_key, slot, reserved)
            started = time.monotonic()
            try:
                reply = await self._send(body)
            except PermanentError as error:
                cost = self._budget.release(reserved)
                if self._dialect.has_alternative(error.parameter, body) or self._is_fatal(error):
                    await self._ledger.fail_attempt(attempt, str(error), cost, time.monotonic() - started)
                    raise
                completion = _completion(prompt_key, _Reply("", "error", 0, 0), str(error))
            except TransientError as error:
                cost = self._budget.release(reserved) if error.refused else self._budget.settle(reserved, None, None)
                logger.log(logging.INFO if self._warned else logging.WARNING, "asking again after an error: %s", error)
                self._warned = True
                await self._ledger.fail_attempt(attempt, str(error), cost, time.monotonic() - started)
                raise
            except Error as error:
                cost = self._budget.release(reserved)
                await self._ledger.fail_attempt(attempt, str(error), cost, time.monotonic() - started)
                raise
            except anyio.get_cancelled_exc_class():
                cost = self._budget.settle(reserved, None, None)
                with anyio.CancelScope(shield=True):
                    await self._ledger.fail_attempt(attempt, "aborted", cost, time.monotonic() - started)
                raise
            else:
                cost = self._budget.settle(reserved, reply.prompt_tokens, reply.completion_tokens)
                if self._dialect.was_cut_while_thinking(reply, body, prompt):
                    await self._ledger.fail_attempt(attempt, "cut while thinking", cost, time.monotonic() - started)
                    raise PermanentError("cut while thinking", _THINKING)
                completion = _completion(prompt_key, self._dialect.cut(reply, prompt), None)
            self._works, self._last_reply = True, time.monotonic()
            seconds = self._last_reply - started
            await self._ledger.complete_attempt(attempt, completion, slot, step, request, cost, seconds)
        return completion

    async def _send(self, body: dict[str, Any]) -> _Reply:
        path = "/chat/completions" if self._server.endpoint == "chat" else "/completions"
        try:
            response: Any = await self._client.post(path, body=body, cast_to=_raw_response_type())
        except openai.OpenAIError as error:
            # Not chained: the client's error may echo the key, which a traceback would show.
            raise _converted(error, self._server) from None
        try:
            reply = _parsed(json.loads(response.content))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise TransientError(f"malformed reply ({type(error).__name__})") from error
        key = self._server.api_key
        return replace(reply, text=reply.text.replace(key, "[key]")) if key else reply


@contextlib.contextmanager
def _scope(scopes: set[anyio.CancelScope], *, shield: bool) -> Iterator[None]:
    """A cancel scope that is in a set while it is open."""
    with anyio.CancelScope(shield=shield) as scope:
        scopes.add(scope)
        try:
            yield
        finally:
            scopes.discard(scope)


def _raw_response_type() -> Any:
    """The class that makes the client hand over the reply as it came, without building models of it."""
    import httpx2

    return httpx2.Response


class _Dialect:
    """What an endpoint turned out not to take. Reasoning models want max_completion_tokens and refuse sampling."""

    def __init__(self, thinking_tokens: int | None) -> None:
        self._thinking_tokens = thinking_tokens
        self._refused: set[str] = set()

    @property
    def _allowance(self) -> int:
        """Tokens for thinking on top of each answer's."""
        if self._thinking_tokens is not None:
            return self._thinking_tokens
        return DEFAULT_THINKING_TOKENS if {"max_tokens", _THINKING} & self._refused else 0

    def was_cut_while_thinking(self, reply: _Reply, body: Mapping[str, Any], prompt: Prompt) -> bool:
        """Whether a reply is nothing but thinking, because its request made no room for any."""
        cut = reply.thought and reply.finish_reason == "length" and not reply.text.strip()
        return cut and self._thinking_tokens is None and body.get("max_tokens") == prompt.max_tokens

    def body(self, prompt: Prompt, server: Server) -> dict[str, Any]:
        """The request for a prompt."""
        body: dict[str, Any] = {"model": server.model}
        if server.endpoint == "chat":
            body["messages"] = list(prompt.messages)
        else:
            body["prompt"] = prompt.messages[-1]["content"]
        if "max_tokens" in self._refused:
            body["max_completion_tokens"] = prompt.max_tokens + self._allowance
        else:
            body["max_tokens"] = prompt.max_tokens + self._allowance
        optional = {
            "temperature": prompt.temperature,
            "top_p": prompt.top_p if prompt.top_p < 1 else None,
            "presence_penalty": prompt.presence_penalty or None,
            "stop": list(prompt.stop) or None,
            "seed": server.seed,
        }
        return body | {k: v for k, v in optional.items() if v is not None and k not in self._refused}

    def has_alternative(self, parameter: str | None, body: Mapping[str, Any]) -> bool:
        """Whether a request can be made without a parameter that was refused in it, or with room for thinking."""
        return parameter == _THINKING or (parameter in body and parameter in (*_OPTIONAL, "max_tokens"))

    def learn(self, parameter: str | None) -> None:
        """Leave a parameter out from now on."""
        if parameter:
            self._refused.add(parameter)

    def cut(self, reply: _Reply, prompt: Prompt) -> _Reply:
        """End a reply where its stop strings would have ended it, if the endpoint refuses them."""
        if "stop" not in self._refused:
            return reply
        ends = [reply.text.find(stop) for stop in prompt.stop if stop in reply.text]
        if not ends:
            return reply
        return _Reply(reply.text[: min(ends)], "stop", reply.prompt_tokens, reply.completion_tokens)


def _completion(prompt_key: str, reply: _Reply, error: str | None) -> Completion:
    key = digest([prompt_key, reply.text, reply.finish_reason], 24)
    tokens = reply.prompt_tokens or 0, reply.completion_tokens or 0
    return Completion(prompt_key, key, reply.text, reply.finish_reason, *tokens, error)


def _parsed(values: Any) -> _Reply:
    choice = values["choices"][0]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    if isinstance(text, list):
        text = "".join(part.get("text", "") for part in text)
    usage = values.get("usage") or {}
    answer = without_thinking(_storable(text or ""))
    details = usage.get("completion_tokens_details") or {}
    thinking = choice.get("message", {}).get("reasoning_content") or details.get("reasoning_tokens")
    return _Reply(
        answer,
        str(choice.get("finish_reason") or "stop"),
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        thought=bool(thinking) or (text or "").strip() != answer.strip(),
    )


def _storable(text: str) -> str:
    """Text without lone surrogates, which JSON can hold and UTF-8 cannot: half an emoji, cut by a token limit."""
    return text.encode("utf-8", "replace").decode()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value < _MAX_COUNT else None


def _converted(error: openai.OpenAIError, server: Server) -> Error:
    """An error of the client as one of ours, without secrets."""
    if isinstance(error, openai.APITimeoutError | openai.APIConnectionError):
        timed_out = isinstance(error, openai.APITimeoutError)
        said = f"no reply within {server.timeout_s:g} s" if timed_out else f"{error} {error.__cause__ or ''}".strip()
        return TransientError(_redacted(said, server), refused=_was_never_sent(error))
    if not isinstance(error, openai.APIStatusError):
        return TransientError(_redacted(str(error), server))
    message = _redacted(f"{error.status_code}: {_said(error)}", server)
    code = str(error.code or "")
    if error.status_code in (401, 403):
        remedy = (
            f"set a valid key in {server.key_name}" if server.api_key else f"no key was sent: set {server.key_name}"
        )
        return AuthenticationError(f"{_host(server.base_url)} refuses the key ({message}); {remedy}")
    if error.status_code == 404:
        return UsageError(
            f"{_host(server.base_url)} knows no model '{server.model}' or no such path ({message}); check --model,"
            " --base-url (it usually ends in /v1) and --endpoint"
        )
    if "quota" in code or "billing" in code or error.status_code == 402:
        return StoppedEarly(f"the account at {_host(server.base_url)} is out of credit ({message}); top up and resume")
    if error.status_code in _TRANSIENT_STATUS or error.status_code >= 500:
        retry_after_s = _retry_after(error.response.headers)
        return TransientError(message, retry_after_s, refused=error.status_code in _REFUSING_STATUS)
    if 300 <= error.status_code < 400:
        return UsageError(f"{_host(server.base_url)} redirects, which is not followed with a key; check --base-url")
    return PermanentError(message, _refused_parameter(error))


def _was_never_sent(error: openai.APIConnectionError) -> bool:
    import httpx2

    return isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return str(said or error.response.text or error.response.reason_phrase)


def _refused_parameter(error: openai.APIStatusError) -> str | None:
    if error.param:
        return str(error.param)
    named = _PARAMETER.search(_said(error))
    return named[1] if named else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110: seconds or a date), or None."""
    with contextlib.suppress(KeyError, ValueError):
        return float(headers["retry-after-ms"]) / 1000
    value = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(float(value), 0.0)
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return None


def _redacted(text: str, server: Server) -> str:
    if server.api_key:
        text = text.replace(server.api_key, "[key]")
    return _storable(_KEY.sub("[key]", text)[:_MAX_MESSAGE])


def is_loopback(base_url: str) -> bool:
    """Whether an endpoint is on this machine."""
    return urlsplit(base_url).hostname in ("localhost", "127.0.0.1", "::1")


def _host(base_url: str) -> str:
    return urlsplit(base_url).netloc.rpartition("@")[2]


def default_endpoint(model: str) -> Literal["chat", "completions"]:
    """The endpoint that suits a model: the embedded one, small as it is, continues a list better than it chats."""
    return "completions" if model == "embedded" else "chat"
