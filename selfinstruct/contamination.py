"""What must not be trained on, recognised by name and by text: one rule for filters, training and comparisons.

By text: tokens in a row, GPT-3's test (Brown et al., 2020, appendix C), which looks for n-grams of 8 to 13 words; and
ROUGE-L, by which the original pipelines tell instructions apart (Wang et al., 2023, section 2.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfinstruct.novelty import NoveltyIndex, tokenize
from selfinstruct.records import Instance, TaskItem
from selfinstruct.render import joined
from selfinstruct.tasks import read_tasks, task_files

NGRAM = 13
THRESHOLD = 0.7
# What is shorter than GPT-3's shortest n-grams ("yes", "Paris") is anyone's.
MIN_TOKENS = 8


class TokenRuns:
    """Texts and whose they are, asked whose have tokens in a row in common with another text.

    Args:
        ngram: Tokens in a row that are no coincidence. A text with fewer counts as a whole, if it has `MIN_TOKENS`.
    """

    def __init__(self, ngram: int = NGRAM) -> None:
        self._ngram, self._shortest = ngram, min(ngram, MIN_TOKENS)
        self._owners: dict[str, list[str]] = {}  # of tokens in a row
        self._beginnings: set[str] = set()  # of those, as long as the shortest
        self._lengths: set[int] = set()

    def add(self, text: str, owner: str) -> None:
        """Add a text; one that is too short changes nothing."""
        tokens = tokenize(text, "unicode")
        if len(tokens) < self._shortest:
            return
        n = min(len(tokens), self._ngram)
        self._lengths.add(n)
        for start in range(len(tokens) - n + 1):
            owners = self._owners.setdefault(" ".join(tokens[start : start + n]), [])
            if owner not in owners[-1:]:
                owners.append(owner)
            self._beginnings.add(" ".join(tokens[start : start + self._shortest]))

    def shared(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """(How many tokens in a row, whose they are) at each place of a text where there are any, in its order."""
        tokens = tokenize(text, "unicode")
        for start in range(len(tokens) - self._shortest + 1):
            if " ".join(tokens[start : start + self._shortest]) in self._beginnings:
                for n in self._lengths:
                    if owners := self._owners.get(" ".join(tokens[start : start + n])):
                        yield n, owners


class _Alike:
    """Texts and whose they are, asked whose are alike to another text."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._index = NoveltyIndex("unicode")
        self._owners: dict[str, list[str]] = {}
        self._texts: list[str] = []

    def add(self, text: str, owner: str) -> None:
        if text not in self._owners:
            self._index.add(text)
            self._texts.append(text)
        self._owners.setdefault(text, []).append(owner)

    def of(self, text: str) -> Iterator[tuple[float, list[str]]]:
        """(ROUGE-L F, whose) of texts above the threshold, the most alike first."""
        k, alike = 0, self._index.nearest(text)
        while len(alike) > k and alike[-1].score > self._threshold:
            k = len(alike)
            alike = self._index.nearest(text, 2 * k)
        return (
            (match.score, self._owners[self._texts[match.position]]) for match in alike if match.score > self._threshold
        )


@dataclass(frozen=True, slots=True)
class Common:
    """What a task and a held-out item have in common.

    Attributes:
        what: Such as "the answer shares 13 tokens in a row".
        item: The item, as it was named when it was added.
    """

    what: str
    item: str

    def __str__(self) -> str:
        return f"{self.what} with {self.item}"


class HeldOut:
    """Held-out items, in all wordings that they have, asked what a task has in common with them.

    A task and an item have something in common where `ngram` tokens in a row of the one's instruction and input, or of
    its answer, are in the other's prompt or a reference; where instruction and input have a ROUGE-L F above the
    threshold with the prompt; or the answer has one with a reference of at least `MIN_TOKENS`.

    Args:
        ngram: Tokens in a row that are no coincidence, see `TokenRuns`.
        threshold: Largest ROUGE-L F of texts that are not alike, 0 to 1.
    """

    def __init__(self, ngram: int = NGRAM, threshold: float = THRESHOLD) -> None:
        self._runs = TokenRuns(ngram)
        self._prompts, self._references = _Alike(threshold), _Alike(threshold)

    @classmethod
    def read(cls, paths: Sequence[Path], ngram: int = NGRAM, threshold: float = THRESHOLD) -> HeldOut:
        """The items of files and folders, named with their files.

        Raises:
            InputError: When they cannot be read.
        """
        held_out = cls(ngram, threshold)
        for file in task_files(paths):
            for item in read_tasks([file]):
                held_out.add(item, f"item '{item.id}' of {file}")
        return held_out

    def add(self, item: TaskItem, name: str) -> None:
        """Add an item under a name."""
        prompts = [joined(instruction, item.input) for instruction in (item.instruction, *item.wordings)]
        for text in dict.fromkeys(prompts):
            self._prompts.add(text, name)
        for text in dict.fromkeys([*prompts, *item.references]):
            self._runs.add(text, name)
        for text in dict.fromkeys(item.references):
            if len(tokenize(text, "unicode")) >= MIN_TOKENS:
                self._references.add(text, name)

    def common(self, instruction: str, instances: Iterable[Instance]) -> Iterator[Common]:
        """Everything that a task has in common with items.

        Args:
            instruction: Asked by itself for tokens in a row only, since an input may make another task of it.
            instances: The cases of the task, as far as they are known.
        """
        yield from self._shared("the instruction", instruction)
        for instance in instances:
            prompt = joined(instruction, instance.input)
            yield from self._shared("the task", prompt)
            yield from _alike("the task", self._prompts.of(prompt))
            yield from self._shared("the answer", instance.output)
            yield from _alike("the answer", self._references.of(instance.output))

    def _shared(self, part: str, text: str) -> Iterator[Common]:
        for n, names in self._runs.shared(text):
            for name in names:
                yield Common(f"{part} shares {n} tokens in a row", name)


def _alike(part: str, found: Iterable[tuple[float, list[str]]]) -> Iterator[Common]:
    for score, names in found:
        for name in names:
            yield Common(f"{part} has ROUGE-L {score:.3f}", name)


def plain_name(name: str) -> str:
    """A cluster's or data set's name without what differs between collections.

    "Data-to-Text" is data_to_text, and summarization is with s.
    """
    return re.sub(r"[\W_]+", "_", name.casefold()).replace("ization", "isation")
