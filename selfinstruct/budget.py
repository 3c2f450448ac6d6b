"""Money and requests: reserved before a request is sent, settled when its reply is in, so that no cap is passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfinstruct.errors import CapReached
from selfinstruct.records import Usage

Price = Callable[[int, int], float]  # (prompt tokens, completion tokens) -> US dollars

# What a chat format adds around the text of a message, in tokens; generous.
_OVERHEAD_TOKENS = 64


def price_of(
    model: str, base_url: str, input_usd_per_mtok: float | None, output_usd_per_mtok: float | None
) -> Price | None:
    """The price of a model at an endpoint: the user's own figures, else the offline table of genai-prices.

    Returns:
        None when the price is unknown, which is not the same as free.
    """
    if input_usd_per_mtok is not None and output_usd_per_mtok is not None:
        return lambda n_in, n_out: (n_in * input_usd_per_mtok + n_out * output_usd_per_mtok) / 1e6
    from genai_prices import Usage, calc_price

    def price(n_in: int, n_out: int) -> float:
        usage = Usage(input_tokens=n_in, output_tokens=n_out)
        return float(calc_price(usage, model, provider_api_url=base_url).total_price)

    try:
        price(1000, 1000)
    except LookupError:
        return None
    return price


def halved(price: Price) -> Price:
    """What a batch API takes: half, at OpenAI and those who follow it."""
    return lambda n_in, n_out: price(n_in, n_out) / 2


def max_prompt_tokens(text: str) -> int:
    """An upper bound of a prompt's tokens without its tokenizer: a byte-level tokenizer's token is at least a byte."""
    return len(text.encode("utf-8", "replace")) + _OVERHEAD_TOKENS


@dataclass(slots=True)
class _Totals:
    """What all who share a budget have spent and reserved."""

    spent_usd: float
    reserved_usd: float
    n_requests: int


class Budget:
    """What has been spent and what is reserved for requests in flight.

    Args:
        price: None when unknown.
        max_cost_usd: Never passed by spent + reserved; None for no cap.
        max_requests: Never passed by requests sent; None for no cap.
        spent_usd: Spent by earlier processes of the same run.
        n_requests: Sent by earlier processes of the same run.
        reserved_usd: Reserved by them for requests that still go on.
    """

    def __init__(
        self, price: Price | None, max_cost_usd: float | None, max_requests: int | None,
        spent_usd: float, n_requests: int, reserved_usd: float = 0.0,
    ) -> None:  # fmt: skip
        self._price, self._max_cost_usd, self._max_requests = price, max_cost_usd, max_requests
        self._totals = _Totals(spent_usd, reserved_usd, n_requests)
        self._underestimate = 1.0  # the most that a request has cost beyond its reservation

    def at(self, price: Price | None) -> Budget:
        """The same budget for requests at another price."""
        other = Budget(price, self._max_cost_usd, self._max_requests, 0.0, 0)
        other._totals = self._totals
        return other

    @property
    def spent_usd(self) -> float:
        """Spent so far."""
        return self._totals.spent_usd

    @property
    def reserved_usd(self) -> float:
        """Reserved for requests in flight."""
        return self._totals.reserved_usd

    @property
    def n_requests(self) -> int:
        """Requests sent so far."""
        return self._totals.n_requests

    def reserve(self, max_prompt_tokens: int, max_completion_tokens: int) -> float | None:
        """Set aside the worst case of one request.

        Returns:
            US dollars; None when the price is unknown.

        Raises:
            CapReached: When the request could pass a cap; nothing is reserved then.
        """
        if self._max_requests is not None and self.n_requests >= self._max_requests:
            raise CapReached(f"--max-requests {self._max_requests} is reached")
        worst = None
        if self._price is not None:
            worst = self._price(max_prompt_tokens, max_completion_tokens) * self._underestimate
        if self._max_cost_usd is not None and self.spent_usd + self.reserved_usd + (worst or 0.0) > self._max_cost_usd:
            raise CapReached(
                f"the next request could cost {worst:.4f} USD and pass --max-cost-usd {self._max_cost_usd:g}"
                f" (spent {self.spent_usd:.4f}, reserved for requests in flight {self.reserved_usd:.4f})"
            )
        self._totals.n_requests += 1
        self._totals.reserved_usd += worst or 0.0
        return worst

    def settle(self, reserved_usd: float | None, usage: Usage) -> float | None:
        """Replace a reservation by what the request cost.

        Args:
            reserved_usd: What `reserve` returned.
            usage: By the endpoint's figures; where it gave none, the request is charged as reserved. No tokens for one
                that was refused without doing any work.

        Returns:
            The cost in US dollars; None when the price is unknown.
        """
        if reserved_usd is None or self._price is None:
            return None
        self._totals.reserved_usd -= reserved_usd
        cost = reserved_usd
        if usage.prompt_tokens is not None and usage.completion_tokens is not None:
            cost = self._price(usage.prompt_tokens, usage.completion_tokens)
        if cost > reserved_usd > 0:
            # An endpoint that counts what it was not sent (a hidden system prompt), or thinks beyond the limit.
            self._underestimate *= cost / reserved_usd
        self._totals.spent_usd += cost
        return cost
