"""From held-out items to what a model is asked: which items, with which demonstrations, in which text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfinstruct.errors import InputError
from selfinstruct.records import Instance, TaskItem
from selfinstruct.render import Renderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.scoring import EncodedOptions, Tokens


@dataclass(frozen=True, slots=True)
class Question:
    """An item as it is put to a model.

    Attributes:
        prompt: The rendered text, special tokens included.
        tokens: Of the prompt alone, or with each of the item's options.
    """

    item: TaskItem
    prompt: str
    tokens: EncodedOptions | Tokens

    def size(self, max_new_tokens: int) -> tuple[int, int]:
        """(rows, tokens in each, with the longest answer there may be) that it takes in a batch."""
        if isinstance(self.tokens, list):
            return 1, len(self.tokens) + max_new_tokens
        return len(self.tokens.continuations), self.tokens.n_tokens


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


def ask(item: TaskItem, renderer: Renderer, tokenizer: PreTrainedTokenizerBase, shots: int) -> Question:
    """Render and tokenise one item.

    Raises:
        InputError: When the item has fewer demonstrations than shots.
    """
    from finetune.scoring import encode, encode_options

    if len(item.demonstrations) < shots:
        raise InputError(
            f"item '{item.id}' has {len(item.demonstrations)} demonstrations, --shots asks for {shots}",
            field="demonstrations", remedy="add some or lower --shots",
        )  # fmt: skip
    prompt = renderer.prompt(item.instruction, with_demonstrations(item.demonstrations[:shots], item.input))
    tokens = encode_options(tokenizer, prompt, item.options) if item.options else encode(tokenizer, prompt)
    return Question(item, prompt, tokens)


def with_demonstrations(demonstrations: Sequence[Instance], input: str) -> str:
    """An item's input after worked cases of its task, all in one text, so that every template takes it.

    The order is that of Tk-Instruct's prompts: positive examples, then "Now complete the following example".
    """
    if not demonstrations:
        return input
    shown = [
        f"Example {number}:\nInput: {case.input}\nOutput: {case.output}"
        for number, case in enumerate(demonstrations, start=1)
    ]
    return "\n\n".join([*shown, f"Now complete the following example:\nInput: {input}\nOutput:"])
