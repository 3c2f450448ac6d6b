"""One request to an OpenAI-compatible endpoint and its reply; what goes wrong becomes one of our errors here, once."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import json
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import orjson

from selfinstruct.address import is_loopback
from selfinstruct.characters import storable
from selfinstruct.errors import (
    AuthenticationError,
    Error,
    PermanentError,
    StoppedEarly,
    TransientError,
    UsageError,
)
from selfinstruct.parsing import without_thinking
from selfinstruct.records import Endpoint, Usage

_TRANSIENT_STATUS = (408, 409, 425, 429)
_REFUSING_STATUS = (425, 429, 503, 529)  # nothing was done, so nothing is billed
_OVERLOAD_STATUS = (429, 503, 529)
_KEEP_ALIVE_S = 4.5  # many servers close a connection that idles for 5
_MAX_MESSAGE = 500  # characters of what an endpoint says
_MAX_COUNT = 2**40  # tokens; more is no count
_MAX_RELATIVE_S = 1e9  # a reset time above it is a date
_KEY = re.compile(r"\b(sk|pk|key|gsk|hf)[-_][\w*.-]{6,}")
_PARAMETERS = "max_tokens|temperature|top_p|presence_penalty|stop|seed|n|logit_bias|response_format"
_PARAMETER = re.compile(rf"['\"`]({_PARAMETERS})(?:\.[\w.]+)?['\"`]")
_MODERATED = re.compile(r"(?i)moderat|flagged|content.?(filter|policy|management)|safety")
_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9}(?:\.\d*)?)s)?(?:(\d{1,9}(?:\.\d*)?)ms)?")
# Headers that say what is left of a limit and when it is whole again: of OpenAI, Groq, Anthropic, the IETF draft.
_LIMITS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
)


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
        thinking_tokens: Tokens for thinking on top of each answer's; None for `dialect.DEFAULT_THINKING_TOKENS` once
            the model turns out to be a reasoning model, 0 before.

    Raises:
        AuthenticationError: When the key cannot be sent.
    """

    model: str
    base_url: str
    api_key: str | None = field(repr=False)
    key_name: str
    endpoint: Endpoint
    timeout_s: float
    outage_s: float
    thinking_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.api_key and not (self.api_key.isascii() and self.api_key.isprintable()):
            # The HTTP libraries would say so by showing it.
            raise AuthenticationError(f"the key in {self.key_name} has characters that no key has; copy it again")

    @property
    def host(self) -> str:
        """The endpoint's name for messages."""
        return urlsplit(self.base_url).netloc.rpartition("@")[2]

    @property
    def path(self) -> str:
        """Where completions are asked for, below the base URL."""
        return "/chat/completions" if self.endpoint == "chat" else "/completions"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the replies to a request.

    Attributes:
        text: Without thinking text.
        finish_reason: "stop", "length" or "content_filter".
        thought: Whether there was thinking text.
    """

    text: str
    finish_reason: str
    thought: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request brought.

    Attributes:
        choices: At least one.
        usage: Tokens of all of them.
        wait_s: Seconds in which the endpoint would refuse a further request, by its own figures.
    """

    choices: tuple[Choice, ...]
    usage: Usage
    wait_s: float = 0.0


class Connections:
    """Open connections to an endpoint, by which completions are asked for; use it as a context.

    They are aiohttp's: it takes a fifth of the processor time that the openai package takes for a request.

    Args:
        server: The endpoint.
        concurrency: Most connections; each request has its own, kept open for the next.
    """

    def __init__(self, server: Server, concurrency: int) -> None:
        self._server, self._concurrency = server, concurrency
        self._url = server.base_url.rstrip("/") + server.path
        named = {
            "Authorization": server.api_key and f"Bearer {server.api_key}",
            "Content-Type": "application/json",
            "User-Agent": f"selfinstruct/{version('selfinstruct')}",
        }
        if server.host == "api.openai.com":  # as the openai package does
            named |= {
                "OpenAI-Organization": os.environ.get("OPENAI_ORG_ID"),
                "OpenAI-Project": os.environ.get("OPENAI_PROJECT_ID"),
            }
        self._headers = {name: value for name, value in named.items() if value}

    async def __aenter__(self) -> Connections:
        remote = not is_loopback(self._server.base_url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._concurrency,
                keepalive_timeout=_KEEP_ALIVE_S,
                ssl=httpx2.create_ssl_context() if remote else True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._server.timeout_s),
            trust_env=remote,  # a proxy of the environment is for other machines
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, body: Mapping[str, Any]) -> Reply:
        """Send one request.

        Raises:
            Error: One of ours, without secrets.
        """
        server = self._server
        try:
            async with self._session.post(self._url, data=orjson.dumps(body), allow_redirects=False) as response:
                content = await response.read()
        except (TimeoutError, asyncio.TimeoutError) as error:
            never_sent = isinstance(error, aiohttp.ConnectionTimeoutError)
            raise TransientError(f"no reply within {server.timeout_s:g} s", refused=never_sent, overload=True) from None
        except aiohttp.ClientConnectorError as error:
            raise TransientError(redacted(f"no connection ({error.os_error})", server), refused=True) from None
        except aiohttp.ClientError as error:
            said = f"connection lost ({str(error) or type(error).__name__})"
            raise TransientError(redacted(said, server)) from None
        if response.status != 200:
            raise refused(response.status, content, response.headers, server)
        try:
            values = read_json(content)
        except ValueError as error:
            raise TransientError("malformed reply (no JSON)") from error
        return reply_of(values, server, response.headers)


def read_json(content: bytes) -> Any:
    """The value of a JSON text, also where only the standard library is lenient enough: half an emoji, huge numbers.

    Raises:
        ValueError: When it is no JSON, or nested beyond all reason.
    """
    try:
        return orjson.loads(content)
    except ValueError:
        with contextlib.suppress(RecursionError):
            return json.loads(content)
        raise


def reply_of(values: Any, server: Server, headers: Mapping[str, str] | None = None) -> Reply:
    """The reply in the JSON of a response.

    Raises:
        TransientError: When there is none, or the endpoint broke it off.
        Error: What an error object in its place means; gateways send one with the status of a success.
    """
    said = values.get("error") if isinstance(values, dict) and not values.get("choices") else None
    if isinstance(said, dict):
        code = said.get("code")
        status = code if type(code) is int and 400 <= code < 600 else 502
        raise of_status(status, said, str(said), headers or {}, server)
    try:
        usage = values.get("usage")
        thought = _thought(usage)
        choices = tuple(_choice(choice, thought, server) for choice in values["choices"])
        if not choices:
            raise IndexError("no choice")
        if any(choice.finish_reason == "error" for choice in choices):
            raise TransientError("broken off by an error at the endpoint")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise TransientError(f"malformed reply ({type(error).__name__})") from error
    return Reply(choices, _usage(usage, choices), _wait_for_limits(headers or {}))


def _choice(values: Any, thought: bool, server: Server) -> Choice:
    message = values.get("message") or {}
    text = message.get("content") if message else values["text"]
    if isinstance(text, list):
        text = "".join(part.get("text", "") for part in text)
    text = storable(text or "")
    if server.api_key:
        text = text.replace(server.api_key, "[key]")
    answer = without_thinking(text)
    thought = thought or bool(message.get("reasoning_content") or message.get("reasoning"))
    return Choice(answer, str(values.get("finish_reason") or "stop"), thought or text.strip() != answer.strip())


def _usage(values: Any, choices: tuple[Choice, ...]) -> Usage:
    """The counts where they can be true: a prompt has tokens, and so has a text."""
    prompt, completion, total = _counts(values)
    if prompt and completion is not None and total:
        completion = max(completion, total - prompt)  # some endpoints leave thinking out of the completion
    if completion == 0 and any(choice.text for choice in choices):
        completion = None
    return Usage(prompt or None, completion)


def _thought(usage: Any) -> bool:
    """Whether there was thinking, by its own count or since the total holds more than prompt and completion."""
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    prompt, completion, total = _counts(usage)
    untold = total - prompt - completion if prompt and completion is not None and total else 0
    return untold > 0 or bool(isinstance(details, dict) and _count(details.get("reasoning_tokens")))


def _counts(usage: Any) -> tuple[int | None, int | None, int | None]:
    """Tokens of the prompt, of the completion, and in total."""
    values = usage if isinstance(usage, dict) else {}
    return (
        _count(values.get("prompt_tokens")),
        _count(values.get("completion_tokens")),
        _count(values.get("total_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX_COUNT else None


def refused(status: int, content: bytes, headers: Mapping[str, str], server: Server) -> Error:
    """What a response that is no success means."""
    try:
        values = read_json(content)
    except ValueError:
        values = None
    fields = values.get("error", values) if isinstance(values, dict) else None
    return of_status(status, fields, content.decode("utf-8", "replace"), headers, server)


def of_status(status: int, body: Any, text: str, headers: Mapping[str, str], server: Server) -> Error:
    """What a status that is no success means.

    Args:
        status: HTTP status.
        body: The error object of the response, if it has one: `message`, `code`, `param`.
        text: The response's text.
        headers: The response's headers.
        server: The endpoint.
    """
    fields = body if isinstance(body, dict) else {}
    said = str(fields.get("message") or text)
    message = redacted(f"{status}: {said}", server)
    code = str(fields.get("code") or "")
    if status == 403 and _MODERATED.search(f"{code} {said}"):
        return PermanentError(message, "messages")
    if status in (401, 403):
        remedy = (
            f"set a valid key in {server.key_name}" if server.api_key else f"no key was sent: set {server.key_name}"
        )
        return AuthenticationError(f"{server.host} refuses the key ({message}); {remedy}")
    if status == 404:
        return UsageError(
            f"{server.host} knows no model '{server.model}' or no such path ({message}); check --model,"
            " --base-url (it usually ends in /v1) and --endpoint"
        )
    if "quota" in code or "billing" in code or status == 402:
        return StoppedEarly(f"the account at {server.host} is out of credit ({message}); top up and resume")
    if status in _TRANSIENT_STATUS or status >= 500:
        return TransientError(
            message, _retry_after(headers), refused=status in _REFUSING_STATUS, overload=status in _OVERLOAD_STATUS
        )
    if 300 <= status < 400:
        return UsageError(f"{server.host} redirects, which is not followed with a key; check --base-url")
    return PermanentError(message, _refused_parameter(fields, said))


def _refused_parameter(fields: Mapping[str, Any], said: str) -> str | None:
    if fields.get("param"):
        return str(fields["param"]).split(".")[0]
    named = _PARAMETER.search(said)
    return named[1] if named else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a refusal asks to wait: Retry-After (RFC 9110: seconds or a date), else what a limit needs."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError):
            return max(_finite(headers.get(name, "")) * unit_s, 0.0)
    value = headers.get("retry-after", "")
    with contextlib.suppress(ValueError, TypeError):
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return _wait_for_limits(headers) or None


def _wait_for_limits(headers: Mapping[str, str]) -> float:
    """Seconds until every limit of which nothing is left is whole again."""
    waits = [_seconds(headers.get(reset, "")) for remaining, reset in _LIMITS if headers.get(remaining) == "0"]
    return max(waits, default=0.0)


def _seconds(text: str) -> float:
    """Seconds in "1.5", "6m0s", "120ms", or until a date in ISO 8601 or since the epoch, in seconds or milliseconds."""
    with contextlib.suppress(ValueError):
        value = _finite(text)
        if value <= _MAX_RELATIVE_S:
            return max(value, 0.0)
        return max((value / 1000 if value > 1000 * _MAX_RELATIVE_S else value) - time.time(), 0.0)
    if text and (parts := _DURATION.fullmatch(text)):
        hours, minutes, seconds, milliseconds = (float(part or 0) for part in parts.groups())
        return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    with contextlib.suppress(ValueError):
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        return max(moment.timestamp() - time.time(), 0.0)
    return 0.0


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def redacted(text: str, server: Server) -> str:
    """What an endpoint said, without keys and of bounded length."""
    if server.api_key:
        text = text.replace(server.api_key, "[key]")
    return storable(_KEY.sub("[key]", text)[:_MAX_MESSAGE])
