"""Alpaca (Taori et al., 2023): a whole list of tasks in one request, three seed tasks shown.

Structure and constants after `generate_instruction.py` of tatsu-lab/stanford_alpaca; the wording is this project's.
Deviations: stops cannot cut a number inside an answer ("in 2020." ends in the original at "in 20"), and the parser
recovers from wrong numbers and markdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from selfinstruct.parsing import task_blocks
from selfinstruct.records import Candidate, Completion, Example, Prompt, Verdict
from selfinstruct.strategies import Slot, Step, Strategy, unparsable

N_DEMONSTRATIONS = 3
MAX_TOKENS = 3072
_TOKENS_PER_TASK = 150  # usual length of a reply's task, for forecasts

_REQUIREMENTS = """\
Write {n} varied tasks for a text-only assistant, each with an input and the assistant's output. They serve to test how
well a language model follows instructions. What matters:
1. Begin tasks with many different verbs, and repeat none if you can.
2. Vary the form: questions, commands, requests, short briefs.
3. Vary the kind: open writing, classification, editing, extraction, question answering, planning, reasoning, and so on.
4. A language model must be able to do it with text alone: nothing to see, hear, open, look up or remind of.
5. Everything is in English.
6. A task takes one or two sentences, as a command or a question.
7. The input is concrete and realistic, no stand-in, and at most 100 words. A task that needs none has "<noinput>".
8. The output answers the task for that input, correctly, in at most 100 words.

The {n} tasks:
"""


class Alpaca(Strategy):
    """A whole list of tasks in one request."""

    kind: Literal["alpaca"] = "alpaca"
    tasks_per_request: int = Field(17, gt=0, le=50)

    async def propose(self, slot: Slot) -> list[Candidate]:
        """New tasks from one list request."""
        shown = slot.rng.sample(slot.seeds, min(N_DEMONSTRATIONS, len(slot.seeds)))
        prompt = self.list_prompt(shown)
        completions = await slot.ask_all("list", prompt)
        return [candidate for completion in completions for candidate in _candidates(slot, prompt, completion)]

    def steps(self, slot: Slot) -> tuple[Step, ...]:
        """The list request alone."""
        prompt = self.list_prompt(slot.seeds[:N_DEMONSTRATIONS])
        return (Step(prompt, self.tasks_per_request * _TOKENS_PER_TASK),)

    def list_prompt(self, shown: Sequence[Example]) -> Prompt:
        """The requirements, the demonstrations as blocks, and the start of the next block."""
        n = N_DEMONSTRATIONS + self.tasks_per_request
        blocks = "".join(_block(number, task) for number, task in enumerate(shown, start=1))
        text = f"{_REQUIREMENTS.format(n=n)}{blocks}###\n{len(shown) + 1}. Instruction:"
        return Prompt(
            ({"role": "user", "content": text},),
            max_tokens=min(MAX_TOKENS, 200 * self.tasks_per_request),
            temperature=1.0,
            stop=(f"\n{n + 1}. Instruction", f"\n###\n{n + 1}."),
            n=self.replies_per_request,
            demonstrations=tuple(task.id for task in shown),
        )


def _candidates(slot: Slot, prompt: Prompt, completion: Completion) -> list[Candidate]:
    blocks = task_blocks(completion.text)
    if not blocks:
        return [unparsable(slot, completion, prompt.demonstrations)]
    candidates = []
    for index, block in enumerate(blocks):
        rejection = None
        if completion.finish_reason == "length" and index == len(blocks) - 1:
            rejection = Verdict("truncated", "the reply reached its token limit inside this task")
        elif not block.instruction:
            rejection = Verdict("unparsable", "a block without an instruction")
        candidates.append(
            slot.candidate(
                completion, index, block.instruction, block.instances, False, prompt.demonstrations, rejection
            )
        )
    return candidates


def _block(number: int, task: Example) -> str:
    instance = task.instances[0]
    instruction = " ".join(task.instruction.split()).rstrip(":")
    return (
        f"###\n{number}. Instruction: {instruction}\n{number}. Input:\n{instance.input or '<noinput>'}\n"
        f"{number}. Output:\n{instance.output}\n"
    )
