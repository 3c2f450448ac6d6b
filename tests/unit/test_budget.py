"""Prices, bounds and caps."""

from __future__ import annotations

import pytest

from selfinstruct.budget import Budget, halved, max_prompt_tokens, price_of
from selfinstruct.errors import CapReached
from selfinstruct.records import Usage

OPENAI = "https://api.openai.com/v1"
LOCAL = "http://127.0.0.1:8000/v1"
NOTHING = Usage(0, 0)


def per_thousand(n_in: int, n_out: int) -> float:
    return n_in / 1024 + n_out / 512


def test_known_model_is_priced_from_the_table():
    price = price_of("gpt-4o-mini", OPENAI, None, None)
    assert price is not None
    assert price(1_000_000, 0) == pytest.approx(0.15)
    assert price(0, 1_000_000) == pytest.approx(0.60)
    assert price(0, 0) == 0


@pytest.mark.parametrize(
    ("model", "url"), [("no-such-model", OPENAI), ("no-such-model", LOCAL), ("gpt-4o-mini", LOCAL)]
)
def test_unknown_price_is_none_and_not_zero(model, url):
    assert price_of(model, url, None, None) is None


def test_own_figures_win_over_the_table():
    price = price_of("gpt-4o-mini", OPENAI, 2.0, 8.0)
    assert price is not None
    assert price(1_000_000, 500_000) == pytest.approx(6.0)
    free = price_of("no-such-model", LOCAL, 0.0, 0.0)
    assert free is not None
    assert free(10, 10) == 0


@pytest.mark.parametrize("text", ["", "plain words", "Привет", "你好世界", "\N{FIRE}" * 9, "\ud800"])
def test_prompt_bound_is_at_least_one_token_a_byte(text):
    assert max_prompt_tokens(text) >= len(text.encode("utf-8", "replace")) + 3  # a chat adds a few of its own


def test_cost_without_a_price_stays_unknown():
    budget = Budget(None, None, 2, 0.0, 0)
    assert budget.reserve(100, 100) is None
    assert budget.settle(None, Usage(10, 10)) is None
    assert budget.settle(budget.reserve(100, 100), NOTHING) is None
    assert (budget.spent_usd, budget.n_requests) == (0.0, 2)
    with pytest.raises(CapReached, match="--max-requests 2 is reached"):
        budget.reserve(1, 1)


def test_reservation_is_replaced_by_the_cost():
    budget = Budget(per_thousand, 4.0, None, 0.0, 0)
    reserved = budget.reserve(1024, 512)
    assert (reserved, budget.reserved_usd) == (2.0, 2.0)
    assert budget.settle(reserved, Usage(512, 256)) == 1.0
    assert (budget.spent_usd, budget.reserved_usd) == (1.0, 0.0)
    assert budget.settle(budget.reserve(1024, 512), NOTHING) == 0.0
    assert budget.spent_usd == 1.0
    assert budget.settle(budget.reserve(1024, 512), Usage()) == 2.0  # no usage figures: charged as reserved
    assert budget.spent_usd == 3.0
    assert budget.reserve(1024, 0) == 1.0  # the cap itself may be reached
    with pytest.raises(CapReached, match=r"could cost 1.0000 USD and pass --max-cost-usd 4 \(spent 3.0000, reserved"):
        budget.reserve(1024, 0)
    assert (budget.reserved_usd, budget.n_requests) == (1.0, 4)


def test_endpoint_that_bills_more_than_was_reserved_gets_larger_reservations():
    budget = Budget(per_thousand, 100.0, None, 0.0, 0)
    assert budget.settle(budget.reserve(1024, 512), Usage(3072, 512)) == 4.0  # a hidden system prompt, say
    assert budget.reserve(1024, 512) == 4.0
    assert budget.settle(4.0, Usage(3072, 512)) == 4.0
    assert budget.reserve(512, 256) == 2.0


def test_batches_cost_half():
    assert halved(per_thousand)(1024, 512) == per_thousand(1024, 512) / 2


def test_earlier_processes_count():
    with pytest.raises(CapReached):
        Budget(per_thousand, 4.0, None, 3.5, 0).reserve(1024, 0)
    with pytest.raises(CapReached):
        Budget(None, None, 7, 0.0, 7).reserve(1, 1)
    with pytest.raises(CapReached):
        Budget(per_thousand, 4.0, None, 2.0, 0, reserved_usd=1.5).reserve(1024, 0)
    assert Budget(per_thousand, 4.0, 8, 3.0, 7).reserve(1024, 0) == 1.0
