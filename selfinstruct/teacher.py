"""Between a prompt and its completions: the ledger, the budget, the endpoint's pace, and asking again.

`ask` is all that strategies see of it.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, TypeVar

import anyio
import stamina

from selfinstruct.budget import Budget, max_prompt_tokens
from selfinstruct.dialect import Dialect, WastedReply
from selfinstruct.endpoint import Connections, Reply, Server
from selfinstruct.errors import (
    Error,
    PermanentError,
    StoppedEarly,
    TransientError,
    UsageError,
)
from selfinstruct.files import digest
from selfinstruct.ledger import Ledger
from selfinstruct.pacing import Gate, Stopped, Turn
from selfinstruct.records import Completion, Prompt, Usage

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

stamina.instrumentation.set_on_retry_hooks(())  # the teacher says itself what it asks again, and why

_ABOUT_THE_PROMPT = ("messages", "prompt")  # parameters whose refusal says nothing about the next request
_MIN_WAIT_S, _FIRST_WAIT_S, _MAX_WAIT_S, _JITTER_S = 0.01, 0.5, 30.0, 1.0
_FIRST_ANSWER_S = 60.0  # an endpoint that has never answered is more likely a wrong address than an outage


class Teacher(abc.ABC):
    """Answers prompts, from the ledger where it can; use it as a context.

    Args:
        server: Where requests go.
        ledger: Keeps every attempt and completion.
        budget: Bounds requests and money.
        config_key: Identifies the configuration that shapes the data.
    """

    def __init__(self, server: Server, ledger: Ledger, budget: Budget, config_key: str) -> None:
        self._server, self._ledger, self._budget, self._config_key = server, ledger, budget, config_key
        self._dialect = Dialect(server)
        self._works = ledger.has_completions()  # the endpoint has replied to this run before
        self._stopped = False
        self._ended_by: Exception = Stopped()
        self._last_reply = time.monotonic()
        self._warned = False
        self._retrying: set[anyio.CancelScope] = set()
        self.n_replies = self.n_tokens = 0  # of this process, for the progress line

    @abc.abstractmethod
    async def __aenter__(self) -> Teacher:
        """Open what is needed to ask."""

    @abc.abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""

    @property
    @abc.abstractmethod
    def in_flight(self) -> int:
        """How many requests are under way."""

    @property
    def n_draining(self) -> int:
        """How many requests a stop waits for."""
        return self.in_flight

    @property
    @abc.abstractmethod
    def limit(self) -> int | None:
        """How many requests may be under way now; None where nothing limits them."""

    def stop(self) -> None:
        """Send nothing new. What may have been paid for is stored."""
        self._stopped = True
        for scope in self._retrying:
            scope.cancel()

    @abc.abstractmethod
    def abort(self) -> None:
        """Send nothing new, and wait for nothing."""

    async def ask(self, slot: int, step: str, prompt: Prompt) -> tuple[Completion, ...]:
        """The completions of a prompt, at least one: the stored ones, else new ones.

        Args:
            slot: The slot that asks.
            step: What is asked within the slot; unique there.
            prompt: What is asked.

        Returns:
            One with finish_reason "error" where the endpoint refuses this one request for good.

        Raises:
            AuthenticationError: The key is refused.
            CapReached: A cap could be passed.
            StoppedEarly: The endpoint stayed away for `outage_s`, or the account is out of credit.
            UsageError: The endpoint refuses every request: wrong model, wrong URL.
            Stopped: The run is ending.
        """
        request = prompt.as_request()
        prompt_key = digest([self._config_key, slot, step, request], 24)
        if stored := self._ledger.completions(prompt_key):
            return stored
        if self._stopped:
            raise self._ended_by
        return await self._ask(prompt_key, slot, step, prompt, request)

    @abc.abstractmethod
    async def _ask(
        self, prompt_key: str, slot: int, step: str, prompt: Prompt, request: Mapping[str, Any]
    ) -> tuple[Completion, ...]:
        """Ask for what the ledger does not have."""

    @property
    def _patience_s(self) -> float:
        return self._server.outage_s if self._works else min(self._server.outage_s, _FIRST_ANSWER_S)

    async def _persist(self, ask: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Ask, and ask again after transient errors until the endpoint has stayed away for too long.

        Raises:
            StoppedEarly: It has.
            Stopped: The run is ending, and this was not under way.
        """
        try:
            return await ask()
        except TransientError as first:
            failed: TransientError | None = first
        if self._stopped:
            raise Stopped
        started = time.monotonic()

        def wait_before_retry(error: Exception) -> bool | float:
            """Stamina's hook: seconds to wait, False to give up."""
            if not isinstance(error, TransientError):
                return False
            # An endpoint that replies to others is busy, not lost.
            away_s = time.monotonic() - max(started, self._last_reply)
            if away_s + (error.retry_after_s or 0.0) > self._patience_s:
                return False
            if error.retry_after_s is not None:
                return max(error.retry_after_s, _MIN_WAIT_S)
            # As long as it has been away: doubling in an outage, short while others get replies.
            return min(max(away_s, _FIRST_WAIT_S), _MAX_WAIT_S) + random.uniform(0, _JITTER_S)  # noqa: S311

        try:
            with _scope(self._retrying, shield=False):
                async for attempt in stamina.retry_context(on=wait_before_retry, attempts=None, timeout=None):
                    with attempt:
                        if failed:  # the first try was made above, since most need no second
                            error, failed = failed, None
                            raise error
                        return await ask()
            raise Stopped
        except TransientError as error:
            wish = "" if error.retry_after_s is None else f"; asks to wait {error.retry_after_s:g} s"
            raise StoppedEarly(
                f"{self._server.host} gave no answer for {self._patience_s:g} s ({error}{wish}); everything so far is"
                " kept, and the same command resumes"
            ) from error

    def _max_tokens(self, body: Mapping[str, Any], prompt: Prompt) -> tuple[int, int]:
        """The most (prompt, completion) tokens that a request can take."""
        text = "".join(message["content"] for message in prompt.messages)
        return max_prompt_tokens(text), self._dialect.max_completion_tokens(body)

    def _completions(self, prompt_key: str, reply: Reply, prompt: Prompt) -> tuple[Completion, ...]:
        choices = [self._dialect.cut(choice, prompt) for choice in reply.choices[: prompt.n]]
        return tuple(_completion(prompt_key, n, c.text, c.finish_reason) for n, c in enumerate(choices))

    def _is_fatal(self, error: PermanentError) -> bool:
        """Whether what is refused is the way of asking, not one prompt: nothing has ever been answered."""
        return not self._works and error.parameter not in _ABOUT_THE_PROMPT

    def _fatal(self, error: PermanentError) -> UsageError:
        return UsageError(
            f"{self._server.host} refuses the first request: {error}. Check --model, --base-url and --endpoint"
        )

    def _is_outcome(self, error: PermanentError, body: Mapping[str, Any]) -> bool:
        """Whether a refusal is the answer to one prompt, and no reason to ask otherwise or to end."""
        return not self._dialect.has_alternative(error.parameter, body) and not self._is_fatal(error)

    def _charge(self, error: BaseException, reserved_usd: float | None) -> tuple[Usage, float | None]:
        """What a failed request takes from the budget: nothing if refused, the reservation if its fate is unknown."""
        if isinstance(error, WastedReply):
            return error.usage, self._budget.settle(reserved_usd, error.usage)
        refused = error.refused if isinstance(error, TransientError) else isinstance(error, Error)
        usage = Usage(0, 0) if refused else Usage()
        return usage, self._budget.settle(reserved_usd, usage)

    def _say(self, error: TransientError) -> None:
        """Tell the user of the first error of many; the others are for --verbose."""
        logger.log(logging.INFO if self._warned else logging.WARNING, "asking again after an error: %s", error)
        self._warned = True

    def _count(self, usage: Usage) -> None:
        self._works = True
        self.n_replies += 1
        self.n_tokens += (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)


class DirectTeacher(Teacher):
    """Sends each request by itself and waits for its reply.

    Args:
        server, ledger, budget, config_key: See `Teacher`.
        concurrency: Most requests in flight.
        requests_per_minute, tokens_per_minute: Caps; None for none.
    """

    def __init__(
        self, server: Server, ledger: Ledger, budget: Budget, config_key: str, concurrency: int,
        requests_per_minute: int | None = None, tokens_per_minute: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(server, ledger, budget, config_key)
        self._connections = Connections(server, concurrency)
        self._gate = Gate(concurrency, requests_per_minute, tokens_per_minute)
        self._in_flight: set[anyio.CancelScope] = set()

    async def __aenter__(self) -> DirectTeacher:
        await self._connections.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connections.__aexit__(kind, error, traceback)

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return len(self._in_flight)

    @property
    def limit(self) -> int | None:
        """How many requests may be under way now."""
        return self._gate.limit

    def stop(self) -> None:
        """Send nothing new. Requests in flight may have been paid for: they finish and are stored."""
        self._gate.close()
        super().stop()

    def abort(self) -> None:
        """Send nothing new, and give up the requests in flight."""
        self.stop()
        for scope in self._in_flight:
            scope.cancel()

    async def _ask(
        self, prompt_key: str, slot: int, step: str, prompt: Prompt, request: Mapping[str, Any]
    ) -> tuple[Completion, ...]:
        return await self._persist(lambda: self._have_turn(prompt_key, slot, step, prompt, request))

    async def _have_turn(
        self, prompt_key: str, slot: int, step: str, prompt: Prompt, request: Mapping[str, Any]
    ) -> tuple[Completion, ...]:
        """One attempt when its turn comes, and another without a parameter that the endpoint turns out to refuse."""
        while True:
            async with self._gate.turn(slot, sum(self._max_tokens(self._dialect.body(prompt), prompt))) as turn:
                if self._stopped:
                    raise Stopped
                body = self._dialect.body(prompt)
                try:
                    return await self._attempt(prompt_key, slot, step, prompt, request, body, turn)
                except PermanentError as error:
                    if not self._dialect.has_alternative(error.parameter, body):
                        raise self._fatal(error) from error
                    self._dialect.learn(error.parameter, body)
                    logger.info("the model takes no %s, or needs room for it; asking otherwise", error.parameter)

    async def _attempt(
        self, prompt_key: str, slot: int, step: str, prompt: Prompt, request: Mapping[str, Any], body: dict[str, Any],
        turn: Turn,
    ) -> tuple[Completion, ...]:  # fmt: skip
        """One request.

        Raises:
            PermanentError: It has to be asked otherwise, or every request would be refused.
        """
        reserved = self._budget.reserve(*self._max_tokens(body, prompt))
        # From here on the request is finished and stored even when the run is stopping: it may cost money already.
        with _scope(self._in_flight, shield=True):
            attempt = await self._ledger.begin_attempt(prompt_key, slot, reserved)
            started = time.monotonic()
            try:
                reply = await self._connections.send(body)
                self._dialect.check_thinking(reply, body, prompt)
            except (Error, anyio.get_cancelled_exc_class()) as error:
                usage, cost = self._charge(error, reserved)
                turn.tokens = usage.total
                if not isinstance(error, PermanentError) or not self._is_outcome(error, body):
                    self._heed(error, body, turn)
                    seconds = time.monotonic() - started
                    said = str(error) if isinstance(error, Error) else "aborted"
                    await self._ledger.fail_attempt(attempt, said, cost, usage, seconds)
                    raise
                completions = refusal(prompt_key, error)
            else:
                usage, cost = reply.usage, self._budget.settle(reserved, reply.usage)
                turn.tokens = usage.total
                completions = self._completions(prompt_key, reply, prompt)
                if reply.wait_s <= self._server.outage_s:  # else the next refusal ends the run and says why
                    self._gate.hold(reply.wait_s)
            self._gate.succeeded()
            self._last_reply = time.monotonic()
            self._count(usage)
            seconds = self._last_reply - started
            await self._ledger.complete_attempt(attempt, completions, slot, step, request, cost, usage, seconds)
            return completions
        raise Stopped  # aborted

    def _heed(self, error: BaseException, body: Mapping[str, Any], turn: Turn) -> None:
        """Draw the consequences of an error for the requests to come, before the gate lets the next one through."""
        if isinstance(error, TransientError):
            if error.overload:
                self._gate.overloaded(turn)
                self._gate.hold(error.retry_after_s or 0.0)
            self._say(error)
        elif isinstance(error, PermanentError):
            self._stopped = self._stopped or not self._dialect.has_alternative(error.parameter, body)
        else:
            self._stopped = True


@contextlib.contextmanager
def _scope(scopes: set[anyio.CancelScope], *, shield: bool) -> Iterator[None]:
    """A cancel scope that is in a set while it is open."""
    with anyio.CancelScope(shield=shield) as scope:
        scopes.add(scope)
        try:
            yield
        finally:
            scopes.discard(scope)


def refusal(prompt_key: str, error: PermanentError) -> tuple[Completion, ...]:
    """The outcome of a request that the endpoint refuses for good."""
    return (_completion(prompt_key, 0, "", "error", str(error)),)


def _completion(prompt_key: str, choice: int, text: str, finish_reason: str, error: str | None = None) -> Completion:
    key = digest([prompt_key, choice, text, finish_reason], 24)
    return Completion(prompt_key, key, text, finish_reason, error)


def default_endpoint(model: str) -> Literal["chat", "completions"]:
    """The endpoint that suits a model: the embedded one, small as it is, continues a list better than it chats."""
    return "completions" if model == "embedded" else "chat"
