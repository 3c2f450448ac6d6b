"""The data set of a run, dataset.jsonl: one row an instance, with where it came from and what it resembles.

Rows that `selfinstruct templates` wrote are read as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from selfinstruct.errors import InputError
from selfinstruct.files import read_jsonl, validate
from selfinstruct.records import Example, Instance, Neighbour, Source

DATASET_FILE = "dataset.jsonl"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class _SourceRow(_Strict):
    strategy: StrictStr
    model: StrictStr
    slot: StrictInt = Field(ge=0)
    prompt_key: StrictStr
    completion_key: StrictStr
    demonstrations: list[StrictStr]
    attributes: dict[StrictStr, StrictStr] = {}


class _NeighbourRow(_Strict):
    id: StrictStr
    score: float = Field(ge=0, le=1)


class _Row(_Strict):
    id: StrictStr = Field(min_length=1)
    instruction: StrictStr = Field(min_length=1)
    input: StrictStr
    output: StrictStr = Field(min_length=1)
    is_classification: StrictBool

    def example(self) -> Example:
        return Example(self.id, self.instruction, (Instance(self.input, self.output),), self.is_classification)


class _DatasetRow(_Row):
    source: _SourceRow | None
    nearest: list[_NeighbourRow]
    scores: dict[StrictStr, float] = {}

    def example(self) -> Example:
        source = Source.of_row(self.source.model_dump()) if self.source else None
        nearest = tuple(Neighbour(neighbour.id, neighbour.score) for neighbour in self.nearest)
        return replace(super().example(), source=source, nearest=nearest, scores=self.scores)


class _TemplateRow(_Row):
    is_classification: StrictBool = False  # P3 does not say
    cluster: StrictStr
    dataset: StrictStr
    template: StrictStr


def dataset_rows(example: Example) -> Iterator[dict[str, Any]]:
    """Yield the rows of an example, one an instance; the second one's id is `<id>/2`, and so on."""
    for number, instance in enumerate(example.instances, start=1):
        yield {
            "id": _row_id(example.id, number),
            "instruction": example.instruction,
            "input": instance.input,
            "output": instance.output,
            "is_classification": example.is_classification,
            "source": example.source and example.source.as_row(),
            "nearest": [asdict(neighbour) for neighbour in example.nearest],
        } | ({"scores": dict(example.scores)} if example.scores else {})


def _row_id(id: str, number: int) -> str:
    return id if number == 1 else f"{id}/{number}"


def dataset_path(run: Path) -> Path:
    """The data set that a user means: the file itself, or the one in a run folder.

    Raises:
        InputError: When there is neither.
    """
    if not run.is_dir():
        if not run.is_file():
            raise InputError("no such file or run folder", path=run, remedy="check the path")
        return run
    path = run / DATASET_FILE
    if not path.is_file():
        raise InputError(
            f"holds no {DATASET_FILE}", path=run, remedy="let the run finish; the same selfinstruct generate resumes it"
        )
    return path


def read_dataset(path: Path) -> list[Example]:
    """Read what `dataset_rows` wrote: rows of one example, which follow each other, become its instances again.

    Rows with a template become an example each.

    Raises:
        InputError: For a broken line, a missing or unknown field, a repeated id, or an empty file.
    """
    examples: list[Example] = []
    ids: set[str] = set()
    for line, values in read_jsonl(path):
        row = validate(_TemplateRow if "template" in values else _DatasetRow, values, path=path, line=line)
        if row.id in ids:
            raise InputError(f"'{row.id}' is used twice", path=path, line=line, field="id", remedy="make ids unique")
        ids.add(row.id)
        last = examples[-1] if examples else None
        if last and (row.id, row.instruction) == (_row_id(last.id, len(last.instances) + 1), last.instruction):
            examples[-1] = replace(last, instances=(*last.instances, Instance(row.input, row.output)))
        else:
            examples.append(row.example())
    if not examples:
        raise InputError("holds no row", path=path, remedy="generate some first")
    return examples
