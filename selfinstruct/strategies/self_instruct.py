"""Self-Instruct (Wang et al., 2023): instruction, then whether it is classification, then an instance.

Structure and constants after `bootstrap_instructions.py`, `identify_clf_or_not.py` and `generate_instances.py`; the
wording is this project's. Deviations: milder sampling (top_p 0.9 and presence penalty 1 for the list, 0.5 for
instances; the original's 0.5, 2 and 1.5 were made for the GPT-3 of 2022), stops cannot cut a number inside an answer,
demonstrations of the later steps come from the run's own seed tasks, one instance a task, and a task that a filter is
certain to reject is not completed.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal

import anyio

from selfinstruct.parsing import input_first, is_yes, numbered_items, output_first
from selfinstruct.records import Candidate, Completion, Example, Instance, Prompt, Verdict
from selfinstruct.strategies import Slot, Step, Strategy, unparsable

N_HUMAN, N_MACHINE = 6, 2
N_CLASSIFICATION_DEMONSTRATIONS, N_INSTANCE_DEMONSTRATIONS = 8, 5
_MAX_DEMONSTRATION_CHARACTERS = 360
_TOKENS_PER_INSTRUCTION, _TOKENS_PER_INSTANCE = 30, 130  # usual lengths of replies, for forecasts


class SelfInstruct(Strategy):
    """Instruction, class, instance: one list request, then two requests for each task."""

    kind: Literal["self-instruct"] = "self-instruct"

    async def propose(self, slot: Slot) -> list[Candidate]:
        """New tasks from one list request and, for each of them, a class and an instance request."""
        shown = demonstrations(slot.rng, slot.seeds, slot.accepted)
        prompt = self.instructions_prompt(slot, shown)
        first = len(shown) + 1 if slot.endpoint == "completions" else None
        candidates: dict[tuple[int, int], Candidate] = {}

        async def finish(place: tuple[int, int], completion: Completion, instruction: str) -> None:
            step = str(place[1]) if not place[0] else f"{place[0]}.{place[1]}"
            candidates[place] = await complete(slot, completion, place[1], step, instruction, prompt.demonstrations)

        seen: set[str] = set()
        completions = await slot.ask_all("instructions", prompt)
        async with anyio.create_task_group() as tasks:
            for number, completion in enumerate(completions):
                instructions = numbered_items(completion.text, first)
                if not instructions:
                    candidates[number, 0] = unparsable(slot, completion, prompt.demonstrations)
                for index, instruction in enumerate(instructions):
                    cut = completion.finish_reason == "length" and index == len(instructions) - 1
                    rejection = _cut_or_repeated(instruction, cut, seen)
                    seen.add(instruction.lower())
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
        task = slot.seeds[0].instruction
        return (
            Step(
                self.instructions_prompt(slot, demonstrations(slot.rng, slot.seeds, ())),
                self.tasks_per_request * _TOKENS_PER_INSTRUCTION,
            ),
            Step(classification_prompt(slot, task), 3, per_task=True),
            Step(instance_prompt(slot, task, False), _TOKENS_PER_INSTANCE, per_task=True),
        )

    def instructions_prompt(self, slot: Slot, shown: Sequence[Example]) -> Prompt:
        """The list of demonstrations to go on with."""
        listed = "\n".join(
            f"{number}. {' '.join(task.instruction.split())}" for number, task in enumerate(shown, start=1)
        )
        first, last = len(shown) + 1, len(shown) + self.tasks_per_request
        if slot.endpoint == "completions":
            text = f"Come up with a series of tasks:\n\n{listed}\n{first}."
            stop: tuple[str, ...] = ("\n\n", f"\n{last + 1}.")
        else:
            text = (
                "Here is a list of tasks that people gave to a text-only assistant:\n\n"
                f"{listed}\n\n"
                f"Go on with the list: write tasks {first} to {last}. Each must be new, unlike all others in subject,"
                " kind and wording, possible to do by reading and writing alone, and complete: if it works on a text,"
                " say what kind of text, but leave the text itself out. Answer with the numbered list only, one task a"
                " line."
            )
            stop = ()
        return Prompt(
            messages=({"role": "user", "content": text},),
            max_tokens=min(1024, 96 * self.tasks_per_request),
            temperature=0.7,
            top_p=0.9,
            presence_penalty=1.0,
            stop=stop,
            n=self.replies_per_request,
            demonstrations=tuple(task.id for task in shown),
        )


def _cut_or_repeated(instruction: str, cut: bool, seen: set[str]) -> Verdict | None:
    if cut:
        return Verdict("truncated", "the reply reached its token limit inside this task")
    return Verdict("duplicate", "stands earlier among the same replies") if instruction.lower() in seen else None


async def complete(
    slot: Slot, listed: Completion, index: int, step: str, instruction: str, demonstrations: tuple[str, ...]
) -> Candidate:
    """Ask for the class and an instance of one instruction.

    Args:
        slot: The slot.
        listed: The completion in which the instruction stands.
        index: Its place there.
        step: Its place in the slot; part of the steps' names.
        instruction: Its text.
        demonstrations: What was shown when it was asked for.
    """
    answer = await slot.ask(f"classification/{step}", classification_prompt(slot, instruction))
    if not answer.text.strip():
        why = answer.error or f"no answer to whether it is classification (finish reason '{answer.finish_reason}')"
        unclear = Verdict("unparsable", f"{why}; a reasoning model may need more --thinking-tokens")
        return slot.candidate(listed, index, instruction, demonstrations=demonstrations, rejection=unclear)
    is_classification = is_yes(answer.text)
    reply = await slot.ask(f"instance/{step}", instance_prompt(slot, instruction, is_classification))
    rejection = None
    if reply.finish_reason == "length":
        rejection = Verdict("truncated", "the answer reached its token limit")
    elif reply.finish_reason in ("error", "content_filter"):
        rejection = Verdict("unparsable", reply.error or "the endpoint's content filter ended the reply")
    parse = output_first if is_classification else input_first
    # A plain completion goes on after the label that the prompt ended with, and so do some chat models.
    continued = parse(f"{_lead(is_classification)} {reply.text}")
    instance = continued if slot.endpoint == "completions" else parse(reply.text) or continued
    if instance is None and rejection is None:
        rejection = Verdict("unparsable", f"no instance found: {reply.text[:200]!r}")
    instances = (instance,) if instance else ()
    return slot.candidate(listed, index, instruction, instances, is_classification, demonstrations, rejection)


def demonstrations(rng: Random, seeds: Sequence[Example], accepted: Sequence[Example]) -> list[Example]:
    """Six seed tasks and two accepted ones, shuffled; seed tasks instead while there are not enough accepted."""
    machine = rng.sample(accepted, min(N_MACHINE, len(accepted)))
    human = rng.sample(seeds, min(N_HUMAN + N_MACHINE - len(machine), len(seeds)))
    shown = [*human, *machine]
    rng.shuffle(shown)
    return shown


def classification_prompt(slot: Slot, instruction: str) -> Prompt:
    """Is it classification? Demonstrations are the same in all slots, so that servers can reuse the prefix."""
    rng = slot.run_rng("classification")
    half = N_CLASSIFICATION_DEMONSTRATIONS // 2
    shown = _drawn(rng, [s for s in slot.seeds if s.is_classification], half)
    shown += _drawn(rng, [s for s in slot.seeds if not s.is_classification], half)
    rng.shuffle(shown)
    cases = "".join(
        f"Task: {task.instruction}\nIs it classification? {'Yes' if task.is_classification else 'No'}\n\n"
        for task in shown
    )
    text = (
        "Is the answer to a task one of a few fixed labels? Then it is a classification task.\n\n"
        f"{cases}Task: {instruction}\nIs it classification?"
    )
    if slot.endpoint == "chat":
        text += " Answer Yes or No."
    stop = ("\n", "Task") if slot.endpoint == "completions" else ()
    return Prompt(({"role": "user", "content": text},), max_tokens=3, temperature=0.0, stop=stop)


def instance_prompt(slot: Slot, instruction: str, is_classification: bool) -> Prompt:
    """One instance: output first for classification, so that labels vary; input first otherwise."""
    rng = slot.run_rng(f"instance/{is_classification}")
    fitting = [s for s in slot.seeds if s.is_classification == is_classification]
    shown = _drawn(rng, fitting, N_INSTANCE_DEMONSTRATIONS)
    cases = "\n\n".join(_worked(task, rng.choice(task.instances)) for task in shown)
    if is_classification:
        order = "Write one example for each task: first the class label, then an input to which it belongs."
    else:
        order = 'Write one example for each task: an input, or "(none)" where the task needs none, and the output.'
    text = f"{order}\n\n{cases}\n\nTask: {instruction}\n"
    if slot.endpoint == "chat":
        text += "\nNow write the example for the last task only, in the same form, beginning with "
    text += _lead(is_classification)
    return Prompt(
        ({"role": "user", "content": text},),
        max_tokens=slot.max_output_tokens,
        temperature=0.0,
        presence_penalty=0.5,
        stop=("\nTask:",),
    )


def _lead(is_classification: bool) -> str:
    return "Class label:" if is_classification else "Input:"


def _worked(task: Example, instance: Instance) -> str:
    if task.is_classification:
        given = f"\nInput: {instance.input}" if instance.input else ""
        return f"Task: {task.instruction}\nClass label: {instance.output}{given}"
    return f"Task: {task.instruction}\nInput: {instance.input or '(none)'}\nOutput: {instance.output}"


def _drawn(rng: Random, tasks: Sequence[Example], n: int) -> list[Example]:
    """Short tasks, drawn; long demonstrations would only cost tokens."""
    short = [
        t
        for t in tasks
        if len(t.instruction) + len(t.instances[0].input + t.instances[0].output) < _MAX_DEMONSTRATION_CHARACTERS
    ]
    pool = short if len(short) >= n else list(tasks)
    return rng.sample(pool, min(n, len(pool)))
