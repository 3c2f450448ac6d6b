"""What a run would take: reckoned from its own prompts before anything is sent, measured once there is a part of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfinstruct.records import Example, Prompt
from selfinstruct.run_config import GenerateConfig

if TYPE_CHECKING:
    from selfinstruct.bootstrap import Plan
    from selfinstruct.budget import Price
    from selfinstruct.ledger import Ledger
    from selfinstruct.strategies import Slot, Strategy

# Averages over English text and over the replies of current models; a forecast, not a bound.
CHARACTERS_PER_TOKEN = 4
ASSUMED_YIELDS = (0.9, 0.4)
FIRST_TOKEN_S, TOKENS_PER_S = 0.5, 60.0  # of one reply of a hosted model
# Of the embedded model on two processor cores, all replies together.
EMBEDDED_PROMPT_TOKENS_PER_S, EMBEDDED_TOKENS_PER_S = 300.0, 60.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the rest of a run takes, as ranges from the best case to the worst.

    Attributes:
        endpoint: Where requests would go.
        basis: What the ranges rest on.
        accepted: Tasks that are there already.
        requests, prompt_tokens, completion_tokens: Still to come.
        cost_usd: Still to be spent; None when the price is unknown.
        seconds: None where nothing says how long replies take, as with batches.
    """

    endpoint: str
    basis: str
    accepted: int
    target: int
    requests: tuple[int, int]
    prompt_tokens: tuple[int, int]
    completion_tokens: tuple[int, int]
    cost_usd: tuple[float, float] | None
    seconds: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Requests and tokens of a run."""

    requests: int
    prompt_tokens: int
    completion_tokens: int


def forecast(config: GenerateConfig, plan: Plan, seeds: Sequence[Example], price: Price | None) -> Forecast:
    """What the rest of a run takes: by its own figures if it has accepted something, else by assumption."""
    from selfinstruct.ledger import Ledger

    path = config.out / "ledger.sqlite"
    if path.is_file():
        ledger = Ledger(path)
        try:
            if ledger.n_accepted():
                return _measured(config, ledger)
        finally:
            ledger.close()
    return _assumed(config, plan, seeds, price)


def _assumed(config: GenerateConfig, plan: Plan, seeds: Sequence[Example], price: Price | None) -> Forecast:
    from selfinstruct.bootstrap import slot_of

    async def nothing(*_: Any) -> Any:
        raise AssertionError("a forecast sends nothing")

    def total(yielded: float) -> Totals:
        """Of a mixture by its shares; of several in turn by the first."""
        whole = sum(strategy.share or 0.0 for strategy in plan.strategies)
        parts = (
            [(s, plan.target * (s.share or 0.0) / whole) for s in plan.strategies]
            if whole
            else [(plan.strategies[0], plan.target)]
        )
        slots = ((s, slot_of(plan, s, 0, seeds, (), nothing, lambda instruction: False), part) for s, part in parts)
        each = [totals(s, slot, math.ceil(part), yielded) for s, slot, part in slots]
        return Totals(
            sum(t.requests for t in each), sum(t.prompt_tokens for t in each), sum(t.completion_tokens for t in each)
        )

    best, worst = map(total, ASSUMED_YIELDS)
    return Forecast(
        endpoint=config.base_url or "the embedded model",
        basis=f"if {ASSUMED_YIELDS[0]:.0%} or {ASSUMED_YIELDS[1]:.0%} of the tasks are accepted",
        accepted=0,
        target=plan.target,
        requests=(best.requests, worst.requests),
        prompt_tokens=(best.prompt_tokens, worst.prompt_tokens),
        completion_tokens=(best.completion_tokens, worst.completion_tokens),
        cost_usd=None if price is None else (_cost(price, best), _cost(price, worst)),
        seconds=None if config.batch else (_seconds(config, best), _seconds(config, worst)),
    )


def _measured(config: GenerateConfig, ledger: Ledger) -> Forecast:
    """What the judged slots took for a task, times what is missing, less what is stored for the slots after them.

    The range is that of the yield: how far the share accepted of the rest may lie from that of the judged candidates.
    """
    accepted, judged = ledger.n_accepted(), ledger.n_judged()
    missing = max(config.num_instructions - accepted, 0)
    share = accepted / judged
    to_judge = max(missing / share, 1.0)
    # Both parts are samples: the variance of the difference of their shares is that of one sample of this size.
    low, high = wilson_interval(share, judged * to_judge / (judged + to_judge))
    n_slots = len(ledger.last_slots(judged))
    best, worst = (
        missing / accepted * share / high,
        missing / accepted * share / low + 1 / n_slots,
    )  # a last slot's rest
    taken, stored = ledger.taken(judged=True), ledger.taken(judged=False)

    def rest(place: int) -> tuple[float, float]:
        return tuple(max((taken[place] or 0) * factor - (stored[place] or 0), 0) for factor in (best, worst))  # type: ignore[return-value]

    requests, prompt_tokens, completion_tokens = (
        (math.floor(low), math.ceil(high)) for low, high in (rest(0), rest(1), rest(2))
    )
    seconds_a_reply = ledger.mean_seconds()
    assert config.concurrency
    seconds = None
    if seconds_a_reply is not None and not config.batch:
        seconds = tuple(round(n * seconds_a_reply / config.concurrency) for n in requests)
    return Forecast(
        endpoint=config.base_url or "the embedded model",
        basis=f"by what {accepted} accepted of {judged} judged took (later ones are harder to make new)",
        accepted=accepted,
        target=config.num_instructions,
        requests=requests,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cost_usd=None if taken[3] is None or stored[3] is None else rest(3),
        seconds=seconds,  # type: ignore[arg-type]
    )


def wilson_interval(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """95% interval of a share seen in n cases (Wilson, 1927)."""
    centre = share + z * z / (2 * n)
    margin = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - margin) / (1 + z * z / n), (centre + margin) / (1 + z * z / n)


def totals(strategy: Strategy, slot: Slot, target: int, accepted_share: float) -> Totals:
    """What a run takes.

    Args:
        strategy: The run's.
        slot: Any slot of the run; nothing is asked.
        target: Accepted tasks wanted.
        accepted_share: Share of the listed tasks that is accepted, 0 to 1.
    """
    replies = math.ceil(target / (accepted_share * strategy.tasks_per_request))
    requests = prompt_tokens = completion_tokens = 0
    for step in strategy.steps(slot):
        n = target if step.per_task else math.ceil(replies / strategy.replies_per_request)
        requests += n
        prompt_tokens += n * _tokens(step.prompt)
        completion_tokens += (target if step.per_task else replies) * step.completion_tokens
    return Totals(requests, prompt_tokens, completion_tokens)


def _tokens(prompt: Prompt) -> int:
    return sum(len(message["content"]) for message in prompt.messages) // CHARACTERS_PER_TOKEN


def _cost(price: Price, totals: Totals) -> float:
    """Priced request by request, since prices may depend on a prompt's length."""
    per_request = price(totals.prompt_tokens // totals.requests, totals.completion_tokens // totals.requests)
    return float(per_request) * totals.requests


def _seconds(config: GenerateConfig, totals: Totals) -> int:
    if config.embedded:
        prompts = totals.prompt_tokens / EMBEDDED_PROMPT_TOKENS_PER_S
        return round(prompts + totals.completion_tokens / EMBEDDED_TOKENS_PER_S)
    assert config.concurrency
    busy_s = totals.requests * FIRST_TOKEN_S + totals.completion_tokens / TOKENS_PER_S
    paced_s = 60 * max(
        totals.requests / (config.requests_per_minute or math.inf),
        (totals.prompt_tokens + totals.completion_tokens) / (config.tokens_per_minute or math.inf),
    )
    return round(max(busy_s / config.concurrency, paced_s))


def describe_forecast(f: Forecast) -> str:
    """The forecast in words."""
    cost = "unknown (give --input-usd-per-mtok and --output-usd-per-mtok)"
    if f.cost_usd is not None:
        cost = f"{f.cost_usd[0]:.2f} to {f.cost_usd[1]:.2f} USD"
    seconds = f.seconds
    time = f"about {_time(seconds[0])} to {_time(seconds[1])}" if seconds else "up to a day a round of batches"
    wanted = f"the {f.target - f.accepted} tasks still wanted" if f.accepted else f"{f.target} tasks"
    return (
        f"For {wanted}, at {f.endpoint}, {f.basis}:\n"
        f"  requests           {f.requests[0]} to {f.requests[1]}\n"
        f"  prompt tokens      about {f.prompt_tokens[0]} to {f.prompt_tokens[1]}\n"
        f"  completion tokens  about {f.completion_tokens[0]} to {f.completion_tokens[1]}\n"
        f"  cost               {cost}\n"
        f"  time               {time}"
    )


def _time(seconds: int) -> str:
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if seconds >= 60 else f"{seconds} s"
