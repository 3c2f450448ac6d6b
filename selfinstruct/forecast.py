"""What a run would take, reckoned from its own prompts before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from selfinstruct.records import Completion, Example, Prompt
from selfinstruct.strategies import Slot, alpaca, self_instruct

if TYPE_CHECKING:
    from selfinstruct.generation import GenerateConfig

# Averages over English text and over the replies of current models; a forecast, not a bound.
CHARACTERS_PER_TOKEN = 4
TOKENS_PER_LISTED_INSTRUCTION, TOKENS_PER_INSTANCE, TOKENS_PER_ALPACA_TASK = 30, 130, 150


@dataclass(frozen=True, slots=True)
class Totals:
    """Requests and tokens of a whole run."""

    requests: int
    prompt_tokens: int
    completion_tokens: int


def totals(config: GenerateConfig, seeds: Sequence[Example], accepted_share: float) -> Totals:
    """What the target takes if a share of the tasks (0 to 1) is accepted."""
    slot = _sample_slot(config, seeds)
    lists = math.ceil(config.num_instructions / (accepted_share * slot.tasks_per_request))
    if config.strategy == "alpaca":
        prompt = alpaca.list_prompt(slot, seeds[: alpaca.N_DEMONSTRATIONS])
        return Totals(lists, lists * _tokens(prompt), lists * slot.tasks_per_request * TOKENS_PER_ALPACA_TASK)
    listing = self_instruct.instructions_prompt(slot, self_instruct.demonstrations(slot.rng, seeds, ()))
    completing = [
        self_instruct.classification_prompt(slot, seeds[0].instruction),
        self_instruct.instance_prompt(slot, seeds[0].instruction, False),
    ]
    completed = config.num_instructions  # what a filter rejects by its instruction is never completed
    return Totals(
        lists + 2 * completed,
        lists * _tokens(listing) + completed * sum(map(_tokens, completing)),
        lists * slot.tasks_per_request * TOKENS_PER_LISTED_INSTRUCTION + completed * (3 + TOKENS_PER_INSTANCE),
    )


def _tokens(prompt: Prompt) -> int:
    return sum(len(message["content"]) for message in prompt.messages) // CHARACTERS_PER_TOKEN


def _sample_slot(config: GenerateConfig, seeds: Sequence[Example]) -> Slot:
    async def ask(step: str, prompt: Prompt) -> Completion:
        raise AssertionError("a forecast sends nothing")

    assert config.endpoint and config.tasks_per_request
    return Slot(
        number=0,
        rng=Random(config.seed),  # noqa: S311
        run_rng=lambda purpose: Random(f"{config.seed}/{purpose}"),  # noqa: S311
        seeds=seeds,
        accepted=(),
        ask=ask,
        screen=lambda instruction: None,
        strategy=config.strategy,
        model=config.model,
        endpoint=config.endpoint,
        tasks_per_request=config.tasks_per_request,
        max_output_tokens=config.max_output_tokens,
    )
