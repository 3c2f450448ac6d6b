"""Self-Instruct (Wang et al., 2023): instruction, then whether it is classification, then instances.

Structure and constants after `bootstrap_instructions.py`, `identify_clf_or_not.py`, `generate_instances.py` and
`prepare_for_finetuning.py`; the wording is this project's. Deviations: milder sampling (top_p 0.9 and presence penalty
1 for the list, 0.5 for instances; the original's 0.5, 2 and 1.5 were made for the GPT-3 of 2022), stops cannot cut a
number inside an answer, demonstrations of the later steps come from the run's own seed tasks, one instance a task
unless more are asked for, and a task that a filter is certain to reject is not completed. `faithful` has none of the
first two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import ClassVar, Literal

import anyio
from pydantic import Field

from selfinstruct.parsing import is_yes, labelled_instances, numbered_items, worked_instances
from selfinstruct.records import Candidate, Completion, Example, Prompt, Verdict
from selfinstruct.strategies import Slot, Step, faithful_self_instruct, unparsable
from selfinstruct.strategies.copying import copy_check, texts_of
from selfinstruct.strategies.demonstrations import demonstrations, of_class, short_ones
from selfinstruct.strategies.faithful import WithOriginal
from selfinstruct.strategies.preparation import MAX_INSTANCES, prepared
from selfinstruct.strategies.schemas import tasks_schema
from selfinstruct.wording import Wording, wording

N_CLASSIFICATION_DEMONSTRATIONS, N_INSTANCE_DEMONSTRATIONS = 8, 5
_TOKENS_PER_INSTRUCTION, _TOKENS_PER_INSTANCE = 30, 130  # usual lengths of replies, for forecasts


class SelfInstruct(WithOriginal):
    """Instruction, class, instances: one list request, then two requests for each task.

    Attributes:
        instances: Most instances of a task; each costs about as much as the first.
        classification: Classification tasks only, shown with such seed tasks.
    """

    fixed: ClassVar[tuple[str, ...]] = (*WithOriginal.fixed, "instances")

    kind: Literal["self-instruct"] = "self-instruct"
    instances: int = Field(1, ge=1, le=MAX_INSTANCES)
    classification: bool = False

    async def propose(self, slot: Slot) -> list[Candidate]:
        """New tasks from one list request and, for each of them, a class and an instance request."""
        shown = self._shown(slot, slot.accepted)
        prompt = self._prompt(slot, shown)
        candidates: dict[tuple[int, int], Candidate] = {}

        async def finish(place: tuple[int, int], completion: Completion, instruction: str) -> None:
            step = str(place[1]) if not place[0] else f"{place[0]}.{place[1]}"
            arguments = (slot, completion, place[1], step, instruction, prompt.demonstrations)
            if self.faithful:
                candidates[place] = await faithful_self_instruct.complete(*arguments)
            else:
                candidates[place] = await complete(*arguments, self.instances)

        seen: set[str] = set()
        copied = copy_check(prompt, texts_of(shown))
        completions = await slot.ask_all("instructions", prompt)
        async with anyio.create_task_group() as tasks:
            for number, completion in enumerate(completions):
                listed = self._listed(slot, prompt, completion, seen, copied)
                if not listed:
                    candidates[number, 0] = unparsable(slot, completion, prompt.demonstrations)
                for index, (instruction, rejection) in enumerate(listed):
                    if rejection or slot.screen(instruction):
                        candidates[number, index] = slot.candidate(
                            completion, index, instruction, demonstrations=prompt.demonstrations, rejection=rejection,
                            screened=rejection is None,
                        )  # fmt: skip
                    else:
                        tasks.start_soon(finish, (number, index), completion, instruction)
        return [candidates[place] for place in sorted(candidates)]

    def steps(self, slot: Slot) -> tuple[Step, ...]:
        """The list, and class and instance for each task; what a filter rejects by its instruction is not completed."""
        if self.faithful:
            return faithful_self_instruct.steps(slot, self._shown(slot, ()))
        task = slot.seeds[0].instruction
        return (
            Step(self._prompt(slot, self._shown(slot, ())), self.tasks_per_request * _TOKENS_PER_INSTRUCTION),
            Step(classification_prompt(slot, task), 3, per_task=True),
            Step(instance_prompt(slot, task, False, self.instances), self.instances * _TOKENS_PER_INSTANCE, True),
        )

    def _shown(self, slot: Slot, accepted: Sequence[Example]) -> list[Example]:
        if not self.classification:
            return demonstrations(slot.rng, slot.seeds, accepted)
        return demonstrations(
            slot.rng, of_class(slot.seeds, True), [task for task in accepted if task.is_classification]
        )

    def _prompt(self, slot: Slot, shown: Sequence[Example]) -> Prompt:
        if self.faithful:
            return faithful_self_instruct.instructions_prompt(shown, self.classification)
        return self.instructions_prompt(slot, shown)

    def _listed(
        self, slot: Slot, prompt: Prompt, completion: Completion, seen: set[str],
        copied: Callable[[str], Verdict | None],
    ) -> list[tuple[str, Verdict | None]]:  # fmt: skip
        """The instructions of a reply, and what is wrong with them at once."""
        if self.faithful:
            return faithful_self_instruct.listed(slot, completion)
        first = len(prompt.demonstrations) + 1 if slot.endpoint == "completions" else None
        instructions = numbered_items(completion.text, first)
        listed = []
        for index, instruction in enumerate(instructions):
            cut = completion.finish_reason == "length" and index == len(instructions) - 1
            listed.append((instruction, _cut_or_repeated(instruction, cut, seen) or copied(instruction)))
            seen.add(instruction.lower())
        return listed

    def instructions_prompt(self, slot: Slot, shown: Sequence[Example]) -> Prompt:
        """The list of demonstrations to go on with."""
        words = wording(slot.language)
        listed = "\n".join(f"{n}. {' '.join(task.instruction.split())}" for n, task in enumerate(shown, start=1))
        first, last = len(shown) + 1, len(shown) + self.tasks_per_request
        structured = self.structured and slot.endpoint == "chat"
        stop: tuple[str, ...] = ()
        if slot.endpoint == "completions":
            opening = words.classification_series if self.classification else words.series
            text = f"{opening}{words.colon.rstrip()}\n\n{listed}\n{first}."
            stop = ("\n\n", f"\n{last + 1}.")
        else:
            request = words.go_on.format(first=first, last=last) + words.classification_only * self.classification
            form = words.as_json if structured else words.as_list
            text = f"{words.listed}\n\n{listed}\n\n{request}{words.write_in}{form}"
        return Prompt(
            messages=({"role": "user", "content": text},),
            max_tokens=min(1024, 96 * self.tasks_per_request),
            temperature=0.7,
            top_p=0.9,
            presence_penalty=1.0,
            stop=stop,
            n=self.replies_per_request,
            json_schema=tasks_schema({"type": "string"}, self.tasks_per_request) if structured else None,
            demonstrations=tuple(task.id for task in shown),
        )


def _cut_or_repeated(instruction: str, cut: bool, seen: set[str]) -> Verdict | None:
    if cut:
        return Verdict("truncated", "the reply reached its token limit inside this task")
    return Verdict("duplicate", "stands earlier among the same replies") if instruction.lower() in seen else None


async def complete(
    slot: Slot,
    listed: Completion,
    index: int,
    step: str,
    instruction: str,
    demonstrations: tuple[str, ...],
    n_instances: int = 1,
) -> Candidate:
    """Ask for the class and instances of one instruction.

    Args:
        slot: The slot.
        listed: The completion in which the instruction stands.
        index: Its place there.
        step: Its place in the slot; part of the steps' names.
        instruction: Its text.
        demonstrations: What was shown when it was asked for.
        n_instances: Most instances wanted.
    """
    answer = await slot.ask(f"classification/{step}", classification_prompt(slot, instruction))
    if not answer.text.strip():
        why = answer.error or f"no answer to whether it is classification (finish reason '{answer.finish_reason}')"
        unclear = Verdict("unparsable", f"{why}; a reasoning model may need more --thinking-tokens")
        return slot.candidate(listed, index, instruction, demonstrations=demonstrations, rejection=unclear)
    is_classification = is_yes(answer.text)
    reply = await slot.ask(f"instance/{step}", instance_prompt(slot, instruction, is_classification, n_instances))
    parse = labelled_instances if is_classification else worked_instances
    # A plain completion goes on after the label that the prompt ended with, and so do some chat models.
    continued = parse(f"{_lead(wording(slot.language), is_classification, n_instances)} {reply.text}")
    found = continued if slot.endpoint == "completions" else parse(reply.text) or continued
    cut = reply.finish_reason == "length" and len(found) <= n_instances
    instances, rejection = prepared(found[:n_instances], cut)
    if reply.finish_reason in ("error", "content_filter"):
        rejection = Verdict("unparsable", reply.error or "the endpoint's content filter ended the reply")
    elif not instances and rejection is None:
        rejection = Verdict("unparsable", f"no instance found: {reply.text[:200]!r}")
    return slot.candidate(listed, index, instruction, tuple(instances), is_classification, demonstrations, rejection)


def classification_prompt(slot: Slot, instruction: str) -> Prompt:
    """Is it classification? Demonstrations are the same in all slots, so that servers can reuse the prefix."""
    words, rng = wording(slot.language), slot.run_rng("classification")
    half = N_CLASSIFICATION_DEMONSTRATIONS // 2
    shown = short_ones(rng, [s for s in slot.seeds if s.is_classification], half)
    shown += short_ones(rng, [s for s in slot.seeds if not s.is_classification], half)
    rng.shuffle(shown)
    cases = "".join(
        f"{words.task}{words.colon}{task.instruction}\n"
        f"{words.question} {words.yes if task.is_classification else words.no}\n\n"
        for task in shown
    )
    text = f"{words.is_classification}\n\n{cases}{words.task}{words.colon}{instruction}\n{words.question}"
    if slot.endpoint == "chat":
        text += words.yes_or_no
    stop = ("\n", words.task) if slot.endpoint == "completions" else ()
    return Prompt(({"role": "user", "content": text},), max_tokens=3, temperature=0.0, stop=stop)


def instance_prompt(slot: Slot, instruction: str, is_classification: bool, n_instances: int = 1) -> Prompt:
    """Instances: output first for classification, so that labels vary; input first otherwise."""
    words, rng = wording(slot.language), slot.run_rng(f"instance/{is_classification}")
    fitting = [s for s in slot.seeds if s.is_classification == is_classification]
    shown = short_ones(rng, fitting, N_INSTANCE_DEMONSTRATIONS)
    cases = "\n\n".join(_worked(words, rng, task, n_instances) for task in shown)
    one, several = words.input_first, words.inputs_first
    if is_classification:
        one, several = words.output_first, words.outputs_first
    order = one if n_instances == 1 else several.format(n=n_instances)
    text = f"{order}{words.write_in}\n\n{cases}\n\n{words.task}{words.colon}{instruction}\n"
    if slot.endpoint == "chat":
        text += f"\n{words.now}"
    text += _lead(words, is_classification, n_instances)
    stop = [f"\n{words.task}{words.colon.rstrip()}"]
    if n_instances > 1 and not is_classification:
        stop.append(f"\n{words.example} {n_instances + 1}")
    return Prompt(
        ({"role": "user", "content": text},),
        max_tokens=slot.max_output_tokens * n_instances,
        temperature=0.0,
        presence_penalty=0.5,
        stop=tuple(stop),
    )


def _lead(words: Wording, is_classification: bool, n_instances: int) -> str:
    """What the prompt ends with."""
    colon = words.colon.rstrip()
    if is_classification:
        return f"{words.label}{colon}"
    return f"{words.example} 1\n{words.input}{colon}" if n_instances > 1 else f"{words.input}{colon}"


def _worked(words: Wording, rng: Random, task: Example, n_instances: int) -> str:
    """A task with one of its instances, or with so many of them."""
    instances = [rng.choice(task.instances)] if n_instances == 1 else task.instances[:n_instances]
    cases = []
    for number, instance in enumerate(instances, start=1):
        if task.is_classification:
            given = f"\n{words.input}{words.colon}{instance.input}" if instance.input else ""
            cases.append(f"{words.label}{words.colon}{instance.output}{given}")
        else:
            heading = f"{words.example} {number}\n" if n_instances > 1 else ""
            given = f"{heading}{words.input}{words.colon}{instance.input or words.none}"
            cases.append(f"{given}\n{words.output}{words.colon}{instance.output}")
    return "\n".join([f"{words.task}{words.colon}{task.instruction}", *cases])
