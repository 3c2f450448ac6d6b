"""When a request may be sent: how many are in flight, at what rate, and how long the endpoint wants to be left alone.

Concurrency follows additive increase and multiplicative decrease (Chiu and Jain, 1989), as TCP's congestion control.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

DECREASE = 0.7  # of the limit, at a sign of overload
SATURATED = 0.8  # share of the limit in use from which a reply says that more would go
MIN_COOL_DOWN_S = 1.0  # signs of overload within it are one sign: they come from requests sent before the decrease


class Stopped(Exception):
    """Nothing more is sent."""


@dataclass(slots=True)
class Turn:
    """A request's time in flight.

    Attributes:
        tokens: How many it took, set by its holder; 0 if it was never sent, None if unknown, which counts as the most.
    """

    tokens: int | None = 0


class Gate:
    """Lets requests through, those of early slots first.

    The first request goes alone, since it shows whether key, model and parameters are right; then as many as the
    ceiling. The endpoint's signs of overload lower the limit, replies under a full load raise it again by about one for
    each limit's worth of them.

    Args:
        ceiling: Most requests in flight.
        requests_per_minute, tokens_per_minute: Requests are spaced so that no minute holds more; None for no cap.
            Tokens are reckoned as the worst case of a request until its reply is in.
        clock: Seconds; monotonic.
    """

    def __init__(
        self,
        ceiling: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ceiling, self._clock = ceiling, clock
        self._per_request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._limit = 1.0
        self._proven = self._closed = False
        self._in_flight = 0
        self._cooled_at = 0.0
        self._held_until = 0.0  # by the endpoint's wish
        self._next_request = self._next_tokens = 0.0  # by the caps
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return int(self._limit)

    @asynccontextmanager
    async def turn(self, priority: int, max_tokens: int) -> AsyncIterator[Turn]:
        """Wait for one's turn and have it.

        Args:
            priority: Smaller ones go first; equal ones in the order of coming.
            max_tokens: The most that the request can take, prompt and completion together.

        Yields:
            What the holder says how many tokens the request took.

        Raises:
            Stopped: The gate is closed.
        """
        await self._enter(priority, max_tokens)
        turn = Turn()
        try:
            yield turn
        finally:
            self._in_flight -= 1
            if turn.tokens is not None:
                self._next_tokens -= max(max_tokens - turn.tokens, 0) * self._per_token_s
            self._let_in()

    def close(self) -> None:
        """Let nobody in any more; those who wait hear of it."""
        self._closed = True
        while self._waiting:
            *_, allowed = self._waiting.pop()
            if not allowed.done():
                allowed.set_exception(Stopped())

    async def _enter(self, priority: int, max_tokens: int) -> None:
        if self._closed:
            raise Stopped
        allowed = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), max_tokens, allowed))
        self._let_in()
        try:
            await allowed
        except asyncio.CancelledError:
            if not allowed.cancelled() and not allowed.exception():  # let in at the same moment
                self._in_flight -= 1
                self._let_in()
            raise

    def succeeded(self) -> None:
        """A reply came in (during its turn)."""
        if not self._proven:
            self._proven, self._limit = True, float(self._ceiling)
        elif self._in_flight >= SATURATED * self.limit:
            self._limit = min(self._limit + 1 / self._limit, float(self._ceiling))

    def overloaded(self) -> None:
        """The endpoint gave a sign of overload (during its turn)."""
        now = self._clock()
        if now >= self._cooled_at:
            self._limit = max(self._limit * DECREASE, 1.0)
            self._cooled_at = now + MIN_COOL_DOWN_S

    def hold(self, seconds: float) -> None:
        """Send nothing for a while, since the endpoint asked for it; the cool-down lasts as long."""
        self._held_until = max(self._held_until, self._clock() + seconds)
        self._cooled_at = max(self._cooled_at, self._held_until)

    def _let_in(self) -> None:
        while self._waiting and self._in_flight < self.limit:
            now = self._clock()
            wait_s = max(self._held_until, self._next_request, self._next_tokens) - now
            if wait_s > 0:
                if self._timer:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._let_in)
                return
            *_, max_tokens, allowed = heapq.heappop(self._waiting)
            if allowed.done():  # whoever waited has gone
                continue
            self._in_flight += 1
            self._next_request = now + self._per_request_s
            self._next_tokens = max(now, self._next_tokens) + max_tokens * self._per_token_s
            allowed.set_result(None)
