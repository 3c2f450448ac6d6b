"""When a request may be sent: how many are in flight, at what rate, and how long the endpoint wants to be left alone.

Concurrency follows additive increase and multiplicative decrease (Chiu and Jain, 1989), as TCP's congestion control.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

DECREASE = 0.7  # of the limit, at a sign of overload
SATURATED = 0.8  # share of the limit in use from which a reply says that more would go
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 30.0  # when decreases bring no reply: it is the rate then, and time has to pass
MINUTE_S = 60.0


class Stopped(Exception):
    """Nothing more is sent."""


@dataclass(slots=True)
class Turn:
    """A request's time in flight.

    Attributes:
        began_s: When it was let through.
        counted: The tokens that count towards the cap: the most it can take, until it is over.
        tokens: How many it took, set by its holder; 0 if it was never sent, None if unknown, which counts as the most.
    """

    began_s: float
    counted: int
    tokens: int | None = 0


class Gate:
    """Lets requests through, those of early slots first.

    The first request goes alone, since it shows whether key, model and parameters are right; then as many as the
    ceiling. The endpoint's signs of overload lower the limit, replies under a full load raise it again by about one for
    each limit's worth of them.

    Args:
        ceiling: Most requests in flight.
        requests_per_minute: Requests are spaced so that no minute holds more; None for no cap.
        tokens_per_minute: The requests begun within a minute take no more, but for one that takes more by itself; until
            its reply is in, a request counts with the most it can take. None for no cap.
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
        self._per_request_s = MINUTE_S / requests_per_minute if requests_per_minute else 0.0
        self._tokens_per_minute = tokens_per_minute or math.inf
        self._limit = 1.0
        self._proven = self._closed = False
        self._in_flight = 0
        self._decreased_at = -math.inf
        self._pause_s = 0.0
        self._held_until = 0.0  # by the endpoint's wish
        self._next_request = 0.0  # by the cap
        self._last_minute: deque[Turn] = deque()  # begun within it, the earliest first
        self._tokens = 0  # that these count
        self._waiting: list[tuple[int, int, int, asyncio.Future[Turn]]] = []
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
        turn = await self._enter(priority, max_tokens)
        try:
            yield turn
        finally:
            self._leave(turn)

    def close(self) -> None:
        """Let nobody in any more; those who wait hear of it."""
        self._closed = True
        while self._waiting:
            *_, allowed = self._waiting.pop()
            if not allowed.done():
                allowed.set_exception(Stopped())

    async def _enter(self, priority: int, max_tokens: int) -> Turn:
        if self._closed:
            raise Stopped
        allowed: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), max_tokens, allowed))
        self._let_in()
        try:
            return await allowed
        except asyncio.CancelledError:
            if not allowed.cancelled() and not allowed.exception():  # let in at the same moment
                self._leave(allowed.result())
            raise

    def _leave(self, turn: Turn) -> None:
        self._in_flight -= 1
        if turn.tokens is not None and turn.began_s + MINUTE_S > self._clock():
            self._tokens += turn.tokens - turn.counted
            turn.counted = turn.tokens
        self._let_in()

    def succeeded(self) -> None:
        """A reply came in (during its turn)."""
        self._pause_s = 0.0
        if not self._proven:
            self._proven, self._limit = True, float(self._ceiling)
        elif self._in_flight >= SATURATED * self.limit:
            self._limit = min(self._limit + 1 / self._limit, float(self._ceiling))

    def overloaded(self, turn: Turn) -> None:
        """The endpoint gave a sign of overload in a turn; one that began before the last decrease tells nothing new."""
        if turn.began_s >= self._decreased_at:
            self._limit = max(self._limit * DECREASE, 1.0)
            self._decreased_at = self._clock()
            self.hold(self._pause_s)
            self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), MAX_PAUSE_S)

    def hold(self, seconds: float) -> None:
        """Send nothing for a while, since the endpoint asked for it."""
        self._held_until = max(self._held_until, self._clock() + seconds)

    def _let_in(self) -> None:
        while self._waiting and self._in_flight < self.limit:
            *_, max_tokens, allowed = self._waiting[0]
            if allowed.done():  # whoever waited has gone
                heapq.heappop(self._waiting)
                continue
            now = self._clock()
            wait_s = max(self._held_until, self._next_request, self._room_at(max_tokens, now)) - now
            if wait_s > 0:
                if self._timer:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._let_in)
                return
            heapq.heappop(self._waiting)
            self._in_flight += 1
            self._next_request = now + self._per_request_s
            turn = Turn(now, max_tokens)
            self._last_minute.append(turn)
            self._tokens += max_tokens
            allowed.set_result(turn)

    def _room_at(self, max_tokens: int, now: float) -> float:
        """When there may be room for so many tokens; in the past if there is."""
        while self._last_minute and self._last_minute[0].began_s + MINUTE_S <= now:
            self._tokens -= self._last_minute.popleft().counted
        fits = not self._tokens or self._tokens + max_tokens <= self._tokens_per_minute
        return -math.inf if fits else self._last_minute[0].began_s + MINUTE_S
