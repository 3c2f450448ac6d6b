"""Whatever the order of requests and replies, no cap is passed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.budget import Budget
from selfinstruct.errors import CapReached
from selfinstruct.records import Usage

# (what happens, prompt tokens, completion tokens, which of the requests in flight, share of the bound in 1/8)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "settle", "unknown", "release"]),
        st.integers(0, 4096),
        st.integers(0, 4096),
        st.integers(0, 99),
        st.integers(0, 8),
    ),
    max_size=40,
)


def dyadic(n_in: int, n_out: int) -> float:
    """A price whose sums are exact in floating point, so that the comparison below can be."""
    return n_in / 2**12 + n_out / 2**10


@settings(max_examples=1000)
@given(STEPS, st.integers(1, 40), st.integers(1, 30), st.integers(0, 8))
def test_no_interleaving_passes_a_cap(steps, max_cost_usd, max_requests, spent_usd):
    spent_usd = min(spent_usd, max_cost_usd)
    budget = Budget(dyadic, max_cost_usd, max_requests, spent_usd, 0)
    in_flight: list[tuple[float, int, int]] = []
    sent, billed = 0, float(spent_usd)
    for kind, n_in, n_out, which, eighths in steps:
        if kind == "reserve":
            fits = billed + sum(r for r, *_ in in_flight) + dyadic(n_in, n_out) <= max_cost_usd and sent < max_requests
            if fits:
                reserved = budget.reserve(n_in, n_out)
                assert reserved == dyadic(n_in, n_out)
                in_flight.append((reserved, n_in, n_out))
                sent += 1
            else:
                with pytest.raises(CapReached):
                    budget.reserve(n_in, n_out)
        elif in_flight:
            reserved, n_in, n_out = in_flight.pop(which % len(in_flight))
            if kind == "settle":
                n_in, n_out = n_in * eighths // 8, n_out * eighths // 8
                cost = budget.settle(reserved, Usage(n_in, n_out))
                assert cost == dyadic(n_in, n_out)
            else:
                cost = budget.settle(reserved, Usage(0, 0) if kind == "release" else Usage())
                assert cost == (0 if kind == "release" else reserved)
            billed += cost
        assert budget.spent_usd == billed
        assert budget.reserved_usd == sum(r for r, *_ in in_flight)
        assert budget.n_requests == sent <= max_requests
        assert billed + budget.reserved_usd <= max_cost_usd
