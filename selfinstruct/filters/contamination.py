"""Tasks that a held-out set has too: training on them would spoil what evaluation says."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from selfinstruct.contamination import NGRAM, TokenRuns
from selfinstruct.errors import InputError
from selfinstruct.files import digest, sha256_file
from selfinstruct.filters import Case, Filter
from selfinstruct.novelty import NoveltyIndex
from selfinstruct.records import Verdict
from selfinstruct.render import joined
from selfinstruct.tasks import read_tasks, task_files


class HeldOut:
    """Held-out items, asked what a text has in common with them.

    Args:
        path: A file, or a folder of files, in any form that evaluation reads.
        ngram: Tokens in a row that are no coincidence. A text with fewer counts as a whole.
    """

    def __init__(self, path: Path, ngram: int) -> None:
        self._runs = TokenRuns(ngram)
        self._prompts = NoveltyIndex("unicode")
        self._places: list[str] = []  # of the prompts
        seen: set[str] = set()
        for file in task_files([path]):
            for item in read_tasks([file]):
                prompt, place = joined(item.instruction, item.input), f"item '{item.id}' of {file}"
                if prompt not in seen:
                    self._prompts.add(prompt)
                    self._places.append(place)
                for text in {prompt, *item.references} - seen:
                    self._runs.add(text, place)
                    seen.add(text)

    def shares(self, text: str) -> str | None:
        """Which tokens in a row of a text an item has too, as the end of a sentence."""
        for n, places in self._runs.shared(text):
            return f"shares {n} tokens in a row with {places[0]}"
        return None

    def resembles(self, prompt: str, threshold: float) -> str | None:
        """Which item's prompt a prompt has a ROUGE-L F above the threshold with, as the end of a sentence."""
        nearest = self._prompts.nearest(prompt)
        if not nearest or nearest[0].score <= threshold:
            return None
        return f"has ROUGE-L {nearest[0].score:.3f} with {self._places[nearest[0].position]}"


class Contamination(Filter):
    """A task that shares 13 tokens in a row with a held-out prompt or answer, or resembles a held-out prompt.

    The first is GPT-3's test, the second the novelty filter's, on instruction and input together.
    """

    kind: Literal["contamination"] = "contamination"
    by_instruction: ClassVar[bool] = True
    tasks: Path = Field(description="Held-out tasks: a file, or a folder that is read whole.")
    ngram: int = Field(NGRAM, ge=3, description="Tokens in a row that are no coincidence.")
    threshold: float = Field(0.7, ge=0, lt=1, description="Largest ROUGE-L F with a held-out prompt.")
    sha256: str = Field("", description="Of the files' contents; found when not given, so that a change is noticed.")

    @model_validator(mode="before")
    @classmethod
    def _fingerprint(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("tasks") and not values.get("sha256"):
            return {**values, "sha256": fingerprint(Path(values["tasks"]))}
        return values

    def judge(self, case: Case) -> Verdict | None:
        """By tokens in a row anywhere, then by the prompt as a whole, once its input is known."""
        held_out = _held_out(self.tasks, self.ngram, self.sha256)
        if found := held_out.shares(case.instruction):
            return Verdict("contamination", f"the instruction {found}")
        for instance in case.instances:
            prompt = joined(case.instruction, instance.input)
            if found := held_out.shares(prompt) or held_out.resembles(prompt, self.threshold):
                return Verdict("contamination", f"the task {found}")
            if found := held_out.shares(instance.output):
                return Verdict("contamination", f"the answer {found}")
        return None


def fingerprint(path: Path) -> str:
    """A hash of the held-out tasks at a path.

    Raises:
        InputError: When they cannot be read: better now than when the first task has been paid for.
    """
    files = list(task_files([path]))
    for file in files or [path]:
        read_tasks([file])
    return digest([sha256_file(file) for file in files])


@lru_cache(maxsize=2)
def _held_out(path: Path, ngram: int, sha256: str) -> HeldOut:
    if fingerprint(path) != sha256:
        raise InputError(f"has changed: it had the hash {sha256}", path=path, remedy="restore it, or leave sha256 out")
    return HeldOut(path, ngram)
