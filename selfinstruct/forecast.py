"""What a run would take, reckoned from its own prompts before anything is sent."""

from __future__ import annotations

import math
from dataclasses import dataclass

from selfinstruct.records import Prompt
from selfinstruct.strategies import Slot, alpaca, self_instruct

# Averages over English text and over the replies of current models; a forecast, not a bound.
CHARACTERS_PER_TOKEN = 4
TOKENS_PER_LISTED_INSTRUCTION, TOKENS_PER_INSTANCE, TOKENS_PER_ALPACA_TASK = 30, 130, 150


@dataclass(frozen=True, slots=True)
class Totals:
    """Requests and tokens of a whole run."""

    requests: int
    prompt_tokens: int
    completion_tokens: int


def totals(slot: Slot, target: int, accepted_share: float) -> Totals:
    """What a run takes.

    Args:
        slot: Any slot of the run; nothing is asked.
        target: Accepted tasks wanted.
        accepted_share: Share of the listed tasks that is accepted, 0 to 1.
    """
    lists = math.ceil(target / (accepted_share * slot.tasks_per_request))
    if slot.strategy == "alpaca":
        prompt = alpaca.list_prompt(slot, slot.seeds[: alpaca.N_DEMONSTRATIONS])
        return Totals(lists, lists * _tokens(prompt), lists * slot.tasks_per_request * TOKENS_PER_ALPACA_TASK)
    listing = self_instruct.instructions_prompt(slot, self_instruct.demonstrations(slot.rng, slot.seeds, ()))
    completing = [
        self_instruct.classification_prompt(slot, slot.seeds[0].instruction),
        self_instruct.instance_prompt(slot, slot.seeds[0].instruction, False),
    ]
    # What a filter rejects by its instruction is never completed.
    return Totals(
        lists + 2 * target,
        lists * _tokens(listing) + target * sum(map(_tokens, completing)),
        lists * slot.tasks_per_request * TOKENS_PER_LISTED_INSTRUCTION + target * (3 + TOKENS_PER_INSTANCE),
    )


def _tokens(prompt: Prompt) -> int:
    return sum(len(message["content"]) for message in prompt.messages) // CHARACTERS_PER_TOKEN
