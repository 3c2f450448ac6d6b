"""Alpaca (Taori et al., 2023): a whole list of tasks in one request, three seed tasks shown.

Structure and constants after `generate_instruction.py` of tatsu-lab/stanford_alpaca; the wording is this project's.
Deviations: stops cannot cut a number inside an answer ("in 2020." ends in the original at "in 20"), and the parser
recovers from wrong numbers, missing labels, markdown and JSON. `faithful` has none of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field

from selfinstruct.parsing import task_blocks
from selfinstruct.records import Candidate, Completion, Example, Prompt, Verdict
from selfinstruct.strategies import Slot, Step, faithful_alpaca, unparsable
from selfinstruct.strategies.copying import copy_check, texts_of
from selfinstruct.strategies.faithful import WithOriginal
from selfinstruct.strategies.schemas import tasks_schema
from selfinstruct.wording import Wording, wording

N_DEMONSTRATIONS = 3
MAX_TOKENS = 3072
_TOKENS_PER_TASK = 150  # usual length of a reply's task, for forecasts
_FIELDS = ("instruction", "input", "output")
TASK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in _FIELDS},
    "required": list(_FIELDS),
    "additionalProperties": False,
}


class Alpaca(WithOriginal):
    """A whole list of tasks in one request."""

    kind: Literal["alpaca"] = "alpaca"
    tasks_per_request: int = Field(17, gt=0, le=50)

    async def propose(self, slot: Slot) -> list[Candidate]:
        """New tasks from one list request."""
        shown = slot.rng.sample(slot.seeds, min(N_DEMONSTRATIONS, len(slot.seeds)))
        prompt = self._prompt(slot, shown)
        completions = await slot.ask_all("list", prompt)
        if self.faithful:
            return [c for completion in completions for c in faithful_alpaca.candidates(slot, prompt, completion)]
        copied = copy_check(prompt, texts_of(shown))
        return [c for completion in completions for c in candidates(slot, prompt, completion, copied)]

    def steps(self, slot: Slot) -> tuple[Step, ...]:
        """The list request alone."""
        prompt = self._prompt(slot, slot.seeds[:N_DEMONSTRATIONS])
        return (Step(prompt, self.tasks_per_request * _TOKENS_PER_TASK),)

    def _prompt(self, slot: Slot, shown: Sequence[Example]) -> Prompt:
        return faithful_alpaca.list_prompt(shown) if self.faithful else self.list_prompt(slot, shown)

    def list_prompt(self, slot: Slot, shown: Sequence[Example]) -> Prompt:
        """The requirements, the demonstrations, and the start of the next block or the request for JSON."""
        words = wording(slot.language)
        n = len(shown) + self.tasks_per_request
        structured = self.structured and slot.endpoint == "chat"
        requirements = words.requirements.format(n=n, language=words.language)
        if structured:
            text = f"{requirements}{''.join(map(_json_line, shown))}\n{words.tasks_as_json.format(m=n - len(shown))}"
        else:
            blocks = "".join(_block(words, number, task) for number, task in enumerate(shown, start=1))
            text = f"{requirements}{blocks}###\n{len(shown) + 1}. {words.instruction}{words.colon.rstrip()}"
        return Prompt(
            ({"role": "user", "content": text},),
            max_tokens=min(MAX_TOKENS, 200 * self.tasks_per_request),
            temperature=1.0,
            stop=() if structured else (f"\n{n + 1}. {words.instruction}", f"\n###\n{n + 1}."),
            n=self.replies_per_request,
            json_schema=tasks_schema(TASK_SCHEMA, self.tasks_per_request) if structured else None,
            demonstrations=tuple(task.id for task in shown),
        )


def candidates(
    slot: Slot, prompt: Prompt, completion: Completion, copied: Callable[[str], Verdict | None]
) -> list[Candidate]:
    """The tasks of a reply; rejected are those that it cuts short, leaves without an instruction, or copied."""
    blocks = task_blocks(completion.text)
    if not blocks:
        return [unparsable(slot, completion, prompt.demonstrations)]
    found = []
    for index, block in enumerate(blocks):
        rejection: Verdict | None
        if completion.finish_reason == "length" and index == len(blocks) - 1:
            rejection = Verdict("truncated", "the reply reached its token limit inside this task")
        elif not block.instruction:
            rejection = Verdict("no_instruction", "a block without an instruction")
        else:
            rejection = copied(block.instruction)
        found.append(
            slot.candidate(
                completion, index, block.instruction, block.instances, False, prompt.demonstrations, rejection
            )
        )
    return found


def _block(words: Wording, number: int, task: Example) -> str:
    instance, colon = task.instances[0], words.colon.rstrip()
    instruction = " ".join(task.instruction.split())
    return (
        f"###\n{number}. {words.instruction}{words.colon}{instruction}\n"
        f"{number}. {words.input}{colon}\n{instance.input or '<noinput>'}\n"
        f"{number}. {words.output}{colon}\n{instance.output}\n"
    )


def _json_line(task: Example) -> str:
    instance = task.instances[0]
    fields = dict(zip(_FIELDS, (" ".join(task.instruction.split()), instance.input, instance.output), strict=True))
    return json.dumps(fields, ensure_ascii=False) + "\n"
