"""The gate in virtual time: who goes when, how many at once, at what rate; and that no place is ever lost."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from contextlib import asynccontextmanager, closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.pacing import FIRST_PAUSE_S, MAX_PAUSE_S, Gate, Stopped


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing is left to do."""

    def __init__(self):
        self._now = 0.0
        loop = self

        class Jump(selectors.DefaultSelector):
            def select(self, timeout=None):
                assert timeout is not None, "everything waits, for ever"
                loop._now += timeout
                return super().select(0)

        super().__init__(Jump())

    def time(self):
        return self._now


def run(scenario):
    """Run an async function of (a maker of gates, the clock) in virtual time."""
    with closing(VirtualTime()) as loop:
        return loop.run_until_complete(scenario(lambda *args: Gate(*args, clock=loop.time), loop.time))


async def send(gate, clock, begun, priority=0, seconds=1.0, max_tokens=1, tokens=1, succeeds=True):
    """One request; `begun` gets the moment at which it was let through."""
    async with gate.turn(priority, max_tokens) as turn:
        begun.append(clock())
        await asyncio.sleep(seconds)
        turn.tokens = tokens
        if succeeds:
            gate.succeeded()


@asynccontextmanager
async def proven(gate):
    """A gate whose ceiling is open, in a turn of its own."""
    async with gate.turn(0, 0):
        gate.succeeded()
        yield


async def prove(gate):
    async with proven(gate):
        pass


# -- how many at once ------------------------------------------------------------------------------------------------


def test_first_goes_alone_and_the_others_up_to_the_ceiling():
    async def scenario(make, clock):
        gate, begun = make(3), []
        await asyncio.gather(*(send(gate, clock, begun) for _ in range(8)))
        return begun, gate.limit

    assert run(scenario) == ([0, 1, 1, 1, 2, 2, 2, 3], 3)


def test_as_long_as_none_succeeds_they_go_one_by_one():
    async def scenario(make, clock):
        gate, begun = make(3), []
        failing = [send(gate, clock, begun, succeeds=False) for _ in range(3)]
        await asyncio.gather(*failing, *(send(gate, clock, begun) for _ in range(4)))
        return begun

    assert run(scenario) == [0, 1, 2, 3, 4, 4, 4]


def test_early_slots_go_first_and_equal_ones_in_the_order_of_coming():
    async def scenario(make, clock):
        gate, order = make(1), []

        async def request(slot, name):
            async with gate.turn(slot, 1):
                order.append(name)
                await asyncio.sleep(1)

        names = ["late", "early", "middle", "early too", "first of all"]
        requests = (request(slot, name) for slot, name in zip((9, 2, 4, 2, 0), names, strict=True))
        await asyncio.gather(request(5, "is in"), *requests)
        return order

    assert run(scenario) == ["is in", "first of all", "early", "early too", "middle", "late"]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 6),
    st.lists(
        st.tuples(
            st.floats(0, 3),  # comes after
            st.integers(0, 5),  # priority
            st.floats(0, 5),  # takes
            st.sampled_from(["succeeded", "overloaded", "held", "neither"]),
            st.one_of(st.none(), st.floats(0, 4)),  # is cancelled after
        ),
        max_size=25,
    ),
)
def test_limit_is_never_passed_and_no_place_is_lost(ceiling, requests):
    async def scenario(make, clock):
        gate, in_flight = make(ceiling), 0

        async def request(after, priority, seconds, end):
            nonlocal in_flight
            await asyncio.sleep(after)
            async with gate.turn(priority, 1) as turn:
                in_flight += 1
                # Those let in before a decrease may be more than the limit is now; later ones wait for them.
                assert in_flight <= ceiling
                allowed.append((in_flight, gate.limit))
                try:
                    await asyncio.sleep(seconds)
                    if end == "succeeded":
                        gate.succeeded()
                    elif end == "overloaded":
                        gate.overloaded(turn)
                    elif end == "held":
                        gate.hold(seconds)
                finally:
                    in_flight -= 1

        allowed = []
        tasks = [asyncio.ensure_future(request(*values)) for *values, _ in requests]
        for task, (*_, cancelled_after) in zip(tasks, requests, strict=True):
            if cancelled_after is not None:
                asyncio.get_running_loop().call_later(cancelled_after, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        assert all(n <= limit for n, limit in allowed)

        # Every place is there again: as many as the limit get in at once, and no more.
        await asyncio.sleep(10 + MAX_PAUSE_S)
        limit, begun = gate.limit, []
        await asyncio.gather(*(send(gate, clock, begun, succeeds=False) for _ in range(limit + 1)))
        assert [moment - begun[0] for moment in begun] == [0] * limit + [pytest.approx(1)]

    run(scenario)


def test_overload_lowers_the_limit_once_for_all_that_was_under_way():
    async def scenario(make, clock):
        gate, limits = make(100), []
        await prove(gate)

        async def refused(seconds):
            async with gate.turn(0, 0) as turn:
                await asyncio.sleep(seconds)
                gate.overloaded(turn)
                limits.append(gate.limit)

        await asyncio.gather(*(refused(seconds) for seconds in (1, 1, 2, 60)))
        await refused(1)  # sent after the decrease
        await asyncio.gather(refused(1), refused(1))
        for _ in range(20):
            await refused(1)
        return limits

    limits = run(scenario)
    assert limits[:7] == [70, 70, 70, 70, 49, 34, 34]
    assert limits[-1] == 1


def test_overload_without_any_reply_makes_pauses_longer_until_there_is_one():
    async def scenario(make, clock):
        gate, begun = make(4), []
        await prove(gate)

        async def refused():
            async with gate.turn(0, 0) as turn:
                begun.append(clock())
                gate.overloaded(turn)

        for _ in range(20):
            await refused()
        await prove(gate)
        for _ in range(3):
            await refused()
        return begun

    begun = run(scenario)
    pauses = [late - early for early, late in itertools.pairwise(begun)]
    doubling = [0, *(min(FIRST_PAUSE_S * 2**n, MAX_PAUSE_S) for n in range(18))]
    assert pauses[:19] == pytest.approx(doubling)
    assert pauses[20:] == pytest.approx([0, FIRST_PAUSE_S])


def test_limit_grows_by_one_a_round_and_only_under_a_full_load():
    async def scenario(make, clock):
        gate, begun = make(10), []
        await prove(gate)
        async with gate.turn(0, 0) as turn:
            gate.overloaded(turn)
        for _ in range(30):
            await send(gate, clock, begun)  # one at a time says nothing about more
        idle, start = gate.limit, clock()
        begun.clear()
        await asyncio.gather(*(send(gate, clock, begun) for _ in range(70)))
        return idle, [begun.count(start + second) for second in range(7)], gate.limit

    idle, rounds, limit = run(scenario)
    assert idle == rounds[0] == 7
    assert all(0 <= after - before <= 1 for before, after in itertools.pairwise(rounds))
    assert max(rounds) == limit == 10  # the ceiling, which is not passed
    assert rounds[4] >= 9


# -- when ------------------------------------------------------------------------------------------------------------


def test_nothing_is_sent_while_the_endpoint_wants_to_be_left_alone():
    async def scenario(make, clock):
        gate, begun = make(4), []

        async def wish():
            await asyncio.sleep(0.5)
            gate.hold(10)
            gate.hold(2)  # the longer wish counts

        await prove(gate)
        await asyncio.gather(wish(), *(send(gate, clock, begun) for _ in range(6)))
        return begun

    assert run(scenario) == [0, 0, 0, 0, 10.5, 10.5]


@pytest.mark.parametrize("held", [False, True])
def test_those_who_wait_hear_that_it_closes(held):
    async def scenario(make, clock):
        gate, begun = make(1), []
        if held:
            gate.hold(3600)
        requests = [asyncio.ensure_future(send(gate, clock, begun)) for _ in range(3)]
        await asyncio.sleep(0.5)
        gate.close()
        results = await asyncio.gather(*requests, send(gate, clock, begun), return_exceptions=True)
        return begun, [type(result) for result in results], clock()

    begun, results, ended = run(scenario)
    assert results[1:] == [Stopped] * 3
    assert (begun, results[0]) == (([], Stopped) if held else ([0], type(None)))  # who is in goes on
    assert ended == (0.5 if held else 1)


@pytest.mark.parametrize("moment", ["before", "same moment"])
def test_whoever_stops_waiting_takes_no_place_and_no_tokens(moment):
    async def scenario(make, clock):
        gate, begun = make(1, None, 100), []
        async with proven(gate):
            leaver = asyncio.ensure_future(send(gate, clock, begun, max_tokens=100))
            await asyncio.sleep(1)
            if moment == "before":
                leaver.cancel()
        if moment == "same moment":  # it has just been let in, and does not know it yet
            leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        await asyncio.gather(*(send(gate, clock, begun, max_tokens=50, tokens=50) for _ in range(2)))
        return begun

    assert run(scenario) == [1, 2]


def test_whoever_is_cancelled_and_closed_out_at_once_takes_no_place():
    async def scenario(make, clock):
        gate = make(1)
        async with gate.turn(0, 1):
            leaver = asyncio.ensure_future(send(gate, clock, []))
            await asyncio.sleep(1)
            gate.close()
            leaver.cancel()
            with pytest.raises((asyncio.CancelledError, Stopped)):
                await leaver
        return gate._in_flight

    assert run(scenario) == 0


# -- at what rate ----------------------------------------------------------------------------------------------------

REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 90),  # comes after
        st.floats(0, 90),  # takes
        st.integers(0, 400),  # at most so many tokens
        st.one_of(st.none(), st.floats(0, 1)),  # of which it took this share
    ),
    max_size=40,
)


def sent(requests, ceiling, requests_per_minute, tokens_per_minute):
    """(moment, tokens as known in the end) of every request, in the order in which they went."""

    async def scenario(make, clock):
        gate, log = make(ceiling, requests_per_minute, tokens_per_minute), []

        async def request(after, seconds, max_tokens, share):
            await asyncio.sleep(after)
            tokens = None if share is None else int(share * max_tokens)
            async with gate.turn(0, max_tokens) as turn:
                log.append((clock(), max_tokens if tokens is None else tokens))
                await asyncio.sleep(seconds)
                turn.tokens = tokens
                gate.succeeded()

        await asyncio.gather(*(request(*values) for values in requests))
        return log

    return run(scenario)


@settings(max_examples=200, deadline=None)
@given(REQUESTS, st.integers(1, 20), st.integers(1, 40))
def test_no_minute_holds_more_requests_than_the_cap(requests, ceiling, cap):
    begun = [moment for moment, _ in sent(requests, ceiling, cap, None)]
    assert len(begun) == len(requests)
    assert all(late - early > 60 - 1e-6 for early, late in zip(begun, begun[cap:], strict=False))


@settings(max_examples=400, deadline=None)
@given(REQUESTS, st.integers(1, 20), st.one_of(st.none(), st.integers(1, 40)), st.integers(1, 1000))
def test_no_minute_holds_more_tokens_than_the_cap(requests, ceiling, requests_cap, cap):
    log = sent(requests, ceiling, requests_cap, cap)
    assert len(log) == len(requests)
    for place, (moment, _) in enumerate(log):
        minute = [tokens for begun, tokens in log[: place + 1] if begun > moment - 60 + 1e-6 and tokens]
        assert sum(minute) <= cap or len(minute) == 1  # one that takes more by itself goes when nothing else does


def test_requests_go_as_fast_as_the_cap_allows():
    log = sent([(0, 0.1, 1, 1.0)] * 50, 8, 120, None)
    assert log[-1][0] == pytest.approx(49 * 60 / 120, abs=0.1)


def test_tokens_that_a_request_did_not_take_are_for_others():
    """It counts with the most that it can take until its reply is in."""
    moments = [moment for moment, _ in sent([(0, 2, 100, 0.1)] * 14, 8, None, 200)]
    assert moments[:12] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 60]


def test_tokens_beyond_the_bound_of_a_request_count_too():
    async def scenario(make, clock):
        gate, begun = make(2, None, 100), []
        await send(gate, clock, begun, max_tokens=50, tokens=90)  # a hidden system prompt, say
        await asyncio.gather(*(send(gate, clock, begun, max_tokens=10, tokens=10) for _ in range(2)))
        return begun

    assert run(scenario) == [0, 1, 60]
