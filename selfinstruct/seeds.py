"""Seed tasks: the hand-written examples that a run starts from."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from selfinstruct.errors import InputError
from selfinstruct.files import read_jsonl, validate
from selfinstruct.records import Example, Instance


class InstanceRow(BaseModel):
    """One case of a task."""

    model_config = ConfigDict(extra="forbid")

    input: StrictStr
    output: StrictStr = Field(min_length=1)


class SeedRow(BaseModel):
    """The Self-Instruct schema (seed_tasks.jsonl of yizhongw/self-instruct)."""

    model_config = ConfigDict(extra="forbid")

    id: StrictStr = Field(min_length=1)
    name: StrictStr
    instruction: StrictStr = Field(min_length=1)
    instances: list[InstanceRow] = Field(min_length=1)
    is_classification: StrictBool


def read_seeds(path: Path) -> list[Example]:
    """Read seed tasks.

    Raises:
        InputError: For a broken line, a missing or unknown field, a repeated id, or an empty file.
    """
    seeds: dict[str, Example] = {}
    for line, values in read_jsonl(path):
        row = validate(SeedRow, values, path=path, line=line)
        if row.id in seeds:
            raise InputError(f"'{row.id}' is used twice", path=path, line=line, field="id", remedy="make ids unique")
        instances = tuple(Instance(instance.input, instance.output) for instance in row.instances)
        seeds[row.id] = Example(row.id, row.instruction, instances, row.is_classification, row.name)
    if not seeds:
        raise InputError("holds no seed task", path=path, remedy="write one JSON object a line")
    return list(seeds.values())
