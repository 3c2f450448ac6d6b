"""Self-Instruct exactly as published: structure, constants, sampling, stops, parsing, in the original's four steps.

The sentences are this project's, the prompts are in English whatever the run's language.

Flaws that are kept:
    * The stop "16." cuts "in 2016." to "in 20", reported as a regular end; a list ends at its
      first blank line.
    * A list that reached its token limit is dropped as a whole.
    * `capitalize` turns "NASA SQL" into "Nasa sql"; a demonstration loses its colon at the end.
    * A line that begins with a number splits an instruction.
    * "Yes." is no yes.
    * "Example" inside an answer splits it, "Input:" ends it, and an answer without "Output:" is lost.
    * An input with one word before a colon loses all up to it half of the time: "https://..." and "10:30" break.
    * The filters `self-instruct-heuristics` and `novelty` with the tokenizer "rouge", which sees only [a-z0-9].

Deviations:
    * One prompt a request, not five; the four steps follow each other task by task, not over the whole pool, so that
      only complete tasks join it.
    * Demonstrations of the second and third step are drawn from the run's seed tasks, once a run, instead of written
      for them; fewer where there are not as many.
    * A chat model gets the same text as a message; a number that it repeats before its list is left out.
    * Instances keep their order, and a refused request is a rejected task, not an empty answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfinstruct.parsing import originals
from selfinstruct.records import Candidate, Completion, Example, Prompt, Verdict
from selfinstruct.strategies import Slot, Step
from selfinstruct.strategies.demonstrations import N_HUMAN, N_MACHINE, of_class, short_ones
from selfinstruct.strategies.preparation import MAX_INSTANCES, prepared

N_TASKS = 8  # the list goes on from 9; the stop "16." leaves seven of them
# Of the second step's 31 demonstrations, those that are classification; as in `clf_task_template.py`.
N_CLASSIFICATION, N_OTHER = 12, 19
N_INPUT_FIRST, N_OUTPUT_FIRST = 11, 16  # the demonstrations of `instance_gen_template.py`
_TOKENS_PER_LIST, _TOKENS_PER_INSTANCE = 240, 150  # usual lengths of replies, for forecasts


def instructions_prompt(shown: Sequence[Example], classification_only: bool) -> Prompt:
    """Step 1: a numbered list to go on with."""
    opening = "Think of a series of different tasks:"
    if classification_only:
        opening = "Think of a series of classification tasks. Name the labels to choose from where you can."
    listed = "".join(f"{number}. {_collapsed(task.instruction)}\n" for number, task in enumerate(shown, start=1))
    return Prompt(
        ({"role": "user", "content": f"{opening}\n{listed}{len(shown) + 1}."},),
        max_tokens=1024,
        temperature=0.7,
        top_p=0.5,
        presence_penalty=2.0,
        stop=("\n\n", "\n16", "16.", "16 ."),
        demonstrations=tuple(task.id for task in shown),
    )


def _collapsed(instruction: str) -> str:
    return " ".join(instruction.split()).rstrip(":")


def listed(slot: Slot, completion: Completion) -> list[tuple[str, Verdict | None]]:
    """The instructions of a reply to step 1; on a length stop all of them are dropped."""
    text = completion.text
    if slot.endpoint == "chat":
        text = text.lstrip().removeprefix(f"{N_HUMAN + N_MACHINE + 1}.")
    cut = Verdict("truncated", "the reply reached its token limit, and the original drops all of it")
    rejection = cut if completion.finish_reason == "length" else None
    return [(instruction, rejection) for instruction in originals.listed_instructions(text)]


def classification_prompt(slot: Slot, instruction: str) -> Prompt:
    """Step 2, whether a task is classification."""
    rng = slot.run_rng("faithful/classification")
    shown = rng.sample(
        classified := [s for s in slot.seeds if s.is_classification], min(N_CLASSIFICATION, len(classified))
    )
    shown += rng.sample(others := [s for s in slot.seeds if not s.is_classification], min(N_OTHER, len(others)))
    rng.shuffle(shown)
    cases = "".join(
        f"Task: {task.instruction}\nIs it classification? {'Yes' if task.is_classification else 'No'}\n\n"
        for task in shown
    )
    text = f"Does this task ask for one label out of a limited set?\n\n{cases}Task: {instruction.strip()}\n"
    return Prompt(
        ({"role": "user", "content": f"{text}Is it classification?"},),
        max_tokens=3,
        temperature=0.0,
        stop=("\n", "Task"),
    )


def instance_prompt(slot: Slot, instruction: str, is_classification: bool) -> Prompt:
    """Step 3: instances, output first for classification, else input first."""
    rng = slot.run_rng(f"faithful/instance/{is_classification}")
    n = N_OUTPUT_FIRST if is_classification else N_INPUT_FIRST
    shown = short_ones(rng, of_class(slot.seeds, is_classification), n)
    if is_classification:
        opening = "Write, for each possible label of the task, an input that belongs to it, or only the label where the"
        opening += " task needs no input."
    else:
        opening = "Write examples for these tasks, several where you can, and only the output where the task needs no"
        opening += " input."
    cases = "\n\n".join(_worked(task, is_classification) for task in shown)
    return Prompt(
        ({"role": "user", "content": f"{opening}\n\n{cases}\n\nTask: {instruction.strip()}\n"},),
        max_tokens=300 if is_classification else 350,
        temperature=0.0,
        presence_penalty=1.5,
        stop=(f"Example {MAX_INSTANCES + 1}", "Task:"),
    )


def _worked(task: Example, is_classification: bool) -> str:
    if is_classification:
        cases = [f"Class label: {i.output}" + (f"\n{i.input}" if i.input else "") for i in task.instances]
    elif not task.instances[0].input:
        cases = [f"Output: {task.instances[0].output}"]
    else:
        cases = [f"Example {n}\nInput: {i.input}\nOutput: {i.output}" for n, i in enumerate(task.instances, start=1)]
    return "\n".join([f"Task: {task.instruction}", *cases])


async def complete(
    slot: Slot, listed: Completion, index: int, step: str, instruction: str, demonstrations: tuple[str, ...]
) -> Candidate:
    """Steps 2 to 4 for one instruction; arguments as of `self_instruct.complete`."""
    answer = await slot.ask(f"classification/{step}", classification_prompt(slot, instruction))
    is_classification = originals.is_classification(answer.text)
    reply = await slot.ask(f"instance/{step}", instance_prompt(slot, instruction, is_classification))
    parse = originals.classification_instances if is_classification else originals.generation_instances
    instances, rejection = prepared(parse(reply.text), reply.finish_reason == "length", colons=(":",))
    if error := answer.error or reply.error:
        rejection = Verdict("unparsable", error)
    elif not instances:
        rejection = rejection or Verdict("unparsable", f"no instance found: {reply.text[:200]!r}")
    rng = slot.run_rng(f"faithful/prepare/{listed.key}/{index}")
    if len(instances) > MAX_INSTANCES:
        instances = rng.sample(instances, MAX_INSTANCES)
    if rejection is None:
        instances = [originals.without_field_name(instance, rng) for instance in instances]
    return slot.candidate(listed, index, instruction, tuple(instances), is_classification, demonstrations, rejection)


def steps(slot: Slot, shown: Sequence[Example]) -> tuple[Step, ...]:
    """The requests that a slot makes."""
    task = slot.seeds[0].instruction
    return (
        Step(instructions_prompt(shown, False), _TOKENS_PER_LIST),
        Step(classification_prompt(slot, task), 3, per_task=True),
        Step(instance_prompt(slot, task, False), _TOKENS_PER_INSTANCE, per_task=True),
    )
