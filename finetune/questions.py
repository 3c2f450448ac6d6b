"""From held-out items to what a model is asked: which items, with which demonstrations, in which words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from finetune.wordings import AS_WRITTEN, wordings
from selfinstruct.errors import InputError
from selfinstruct.files import digest
from selfinstruct.records import Instance, TaskItem
from selfinstruct.render import Renderer
from selfinstruct.tasks import RANKED


@dataclass(frozen=True, slots=True)
class Question:
    """An item as it is put to a model, in one wording.

    Attributes:
        prompt: The rendered text, special tokens included.
        wording: Name of the wording.
    """

    item: TaskItem
    prompt: str
    wording: str = AS_WRITTEN

    @property
    def is_ranked(self) -> bool:
        """Whether its options are ranked, instead of an answer being generated."""
        return self.item.metric in RANKED

    def key(self, max_new_tokens: int) -> str:
        """What its answer depends on besides the model: prompt, options and decoding, which is greedy."""
        how = list(self.item.options) if self.is_ranked else {"greedy": max_new_tokens}
        return digest([self.prompt, how], 32)


@dataclass(frozen=True, slots=True)
class Setting:
    """How items are put.

    Attributes:
        shots: Demonstrations in each prompt.
        borrow_shots: Whether other items of a task stand in for demonstrations that it lacks.
        wordings: Wordings of each item.
        list_options: Whether prompts end with the item's options, as FLAN's do.
    """

    shots: int = 0
    borrow_shots: bool = False
    wordings: int = 1
    list_options: bool = False


def limited(items: Sequence[TaskItem], limit: int | None) -> list[TaskItem]:
    """At most so many items of each cluster, in the order given.

    A cluster's tasks take turns: the first item of each, then the second of each, until the limit is reached.
    """
    if limit is None:
        return list(items)
    turn: dict[str, int] = {}
    n_of_task: Counter[tuple[str, str]] = Counter()
    for item in items:
        turn[item.id] = n_of_task[item.cluster, item.task]
        n_of_task[item.cluster, item.task] += 1
    n_of_cluster: Counter[str] = Counter()
    kept = set()
    for item in sorted(items, key=lambda item: turn[item.id]):
        if n_of_cluster[item.cluster] < limit:
            n_of_cluster[item.cluster] += 1
            kept.add(item.id)
    return [item for item in items if item.id in kept]


def ask(items: Sequence[TaskItem], pool: Sequence[TaskItem], renderer: Renderer, setting: Setting) -> list[Question]:
    """Put items into words.

    Args:
        items: What is asked.
        pool: All items there are, to borrow demonstrations from.
        renderer: Turns a task into a prompt.
        setting: With how many demonstrations, in how many wordings.

    Raises:
        InputError: When an item has fewer demonstrations than shots.
    """
    of_task: dict[tuple[str, str], list[TaskItem]] = {}
    for item in pool if setting.borrow_shots else ():
        of_task.setdefault((item.cluster, item.task), []).append(item)
    return [
        Question(item, renderer.prompt(instruction, given), wording)
        for item in items
        for wording, (instruction, given) in _worded(item, of_task, setting).items()
    ]


def _worded(
    item: TaskItem, of_task: Mapping[tuple[str, str], Sequence[TaskItem]], setting: Setting
) -> dict[str, tuple[str, str]]:
    """(instruction, input) by wording, with options and demonstrations."""
    own = item.demonstrations[: setting.shots]
    others = (other for other in of_task.get((item.cluster, item.task), ()) if other.id != item.id)
    borrowed = [
        Instance(other.input or other.instruction, other.references[0])
        for other, _ in zip(others, range(setting.shots - len(own)), strict=False)
    ]
    shown = [*own, *borrowed]
    if len(shown) < setting.shots:
        raise InputError(
            f"item '{item.id}' has {len(shown)} demonstrations, --shots asks for {setting.shots}",
            field="demonstrations", remedy="add some, lower --shots, or take other items of its task: --borrow-shots",
        )  # fmt: skip
    if item.options and (setting.list_options or item.metric == "option_match"):
        item = with_options(item)
    return {name: with_demonstrations(shown, *text) for name, text in wordings(item, setting.wordings).items()}


def with_options(item: TaskItem) -> TaskItem:
    """An item whose text ends with its options: "OPTIONS:" and "- option" a line, as in FLAN (Wei et al., 2022)."""
    listed = "\n".join(["OPTIONS:", *(f"- {option}" for option in item.options)])
    if item.input:
        return replace(item, input=f"{item.input}\n{listed}")
    variants = tuple(f"{text}\n{listed}" for text in item.wordings)
    return replace(item, instruction=f"{item.instruction}\n{listed}", wordings=variants)


def with_demonstrations(demonstrations: Sequence[Instance], instruction: str, input: str) -> tuple[str, str]:
    """(instruction, input) of an item after worked cases of its task, all in one text, so that every template takes it.

    The order is that of Tk-Instruct's prompts: positive examples, then "Now complete the following example". Where
    there is no input, the instruction is all there is of a case, and whole cases stand one after the other.
    """
    if not demonstrations:
        return instruction, input
    if not input and all(case.input for case in demonstrations):
        return "\n\n".join([*(f"{case.input}\n{case.output}" for case in demonstrations), instruction]), ""
    shown = [
        f"Example {number}:\nInput: {case.input}\nOutput: {case.output}"
        for number, case in enumerate(demonstrations, start=1)
    ]
    return instruction, "\n\n".join([*shown, f"Now complete the following example:\nInput: {input}\nOutput:"])
