"""Held-out items that training data holds too: what is learnt by heart there says nothing of other tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from finetune.sources import TrainingText
from selfinstruct.contamination import MIN_TOKENS, TokenRuns
from selfinstruct.novelty import NoveltyIndex, tokenize
from selfinstruct.records import TaskItem
from selfinstruct.render import joined

# Above which the original pipelines call instructions the same (Wang et al., 2023, section 2.2).
THRESHOLD = 0.7


@dataclass(frozen=True, slots=True)
class Overlap:
    """What an item and a training row have in common.

    Attributes:
        item: Its id.
        row: Where the training row stands.
        reason: In words.
    """

    item: str
    row: str
    reason: str


def overlaps(items: Iterable[TaskItem], rows: Sequence[TrainingText]) -> list[Overlap]:
    """Items whose prompt or a reference shares 13 tokens in a row with a training row, or resembles one.

    Resembles: ROUGE-L above `THRESHOLD`, of the prompt with a row's instruction and input, and of a reference with a
    row's answer. References of fewer than 8 tokens ("positive") are left out of both.

    Returns:
        At most one for each item, in the items' order.
    """
    asked = {item.id: item for item in items}
    found = _by_tokens(asked.values(), rows)
    rest = [item for item in asked.values() if item.id not in found]
    prompts = [(item.id, joined(item.instruction, item.input)) for item in rest]
    found |= _by_rouge(prompts, [row.prompt for row in rows], rows, "its prompt")
    references = [(item.id, text) for item in rest if item.id not in found for text in item.references]
    long = [(id, text) for id, text in references if len(tokenize(text, "unicode")) >= MIN_TOKENS]
    found |= _by_rouge(long, [row.output for row in rows], rows, "a reference")
    return [found[id] for id in asked if id in found]


def _by_tokens(items: Iterable[TaskItem], rows: Sequence[TrainingText]) -> dict[str, Overlap]:
    """Rows stream past the items, which are far fewer."""
    runs = {"its prompt": TokenRuns(), "a reference": TokenRuns()}
    for item in items:
        runs["its prompt"].add(joined(item.instruction, item.input), item.id)
        for reference in item.references:
            runs["a reference"].add(reference, item.id)
    found: dict[str, Overlap] = {}
    for row in rows:
        for what, texts in runs.items():
            for text in (row.prompt, row.output):
                for n, owners in texts.shared(text):
                    for id in owners:
                        found.setdefault(id, Overlap(id, row.place, f"{n} tokens in a row of {what}"))
    return found


def _by_rouge(
    texts: Sequence[tuple[str, str]], pool: Sequence[str], rows: Sequence[TrainingText], what: str
) -> dict[str, Overlap]:
    index = NoveltyIndex("unicode")
    index.add(*pool)
    matches = index.search([text for _, text in texts])
    found: dict[str, Overlap] = {}
    for number, (id, _) in enumerate(texts):
        for position, score in matches.of(number):
            if score > THRESHOLD:
                found.setdefault(id, Overlap(id, rows[position].place, f"ROUGE-L {score:.2f} with {what}"))
    return found
