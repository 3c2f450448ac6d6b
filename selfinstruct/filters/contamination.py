"""Tasks that a held-out set has too: training on them would spoil what evaluation says."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from selfinstruct.contamination import NGRAM, THRESHOLD, HeldOut
from selfinstruct.errors import InputError
from selfinstruct.files import digest, sha256_file
from selfinstruct.filters import Case, Filter
from selfinstruct.records import Verdict
from selfinstruct.tasks import read_tasks, task_files


class Contamination(Filter):
    """A task that has something in common with a held-out one: see `selfinstruct.contamination.HeldOut`."""

    kind: Literal["contamination"] = "contamination"
    by_instruction: ClassVar[bool] = True
    tasks: Path = Field(description="Held-out tasks: a file, or a folder that is read whole.")
    ngram: int = Field(NGRAM, ge=3, description="Tokens in a row that are no coincidence.")
    threshold: float = Field(THRESHOLD, ge=0, lt=1, description="Largest ROUGE-L F with a held-out prompt or answer.")
    sha256: str = Field("", description="Of the files' contents; found when not given, so that a change is noticed.")

    @model_validator(mode="before")
    @classmethod
    def _fingerprint(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("tasks") and not values.get("sha256"):
            return {**values, "sha256": fingerprint(Path(values["tasks"]))}
        return values

    def judge(self, case: Case) -> Verdict | None:
        """By tokens in a row anywhere, then by the prompt as a whole, once its input is known."""
        held_out = _held_out(self.tasks, self.ngram, self.threshold, self.sha256)
        found = next(held_out.common(case.instruction, case.instances), None)
        return Verdict("contamination", str(found)) if found else None


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
def _held_out(path: Path, ngram: int, threshold: float, sha256: str) -> HeldOut:
    if fingerprint(path) != sha256:
        raise InputError(f"has changed: it had the hash {sha256}", path=path, remedy="restore it, or leave sha256 out")
    return HeldOut.read([path], ngram, threshold)
