"""Held-out tasks: reads every form that evaluation takes into `TaskItem`s.

Forms, told apart by their fields: this project's JSONL (`task, cluster, instruction, input, references, ...`),
Super-NaturalInstructions task JSON (`Definition, Instances`), seed-task JSONL (`instances`), prompt/completion JSONL
(`cluster, dataset, template, prompt, completion`) and Alpaca JSON or JSONL (`instruction, input, output`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from selfinstruct.errors import InputError
from selfinstruct.files import read_json, read_jsonl, validate
from selfinstruct.records import Instance, TaskItem

Metric = Literal["accuracy", "exact_match", "rouge_l"]
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _InstanceRow(_Row):
    input: StrictStr
    output: StrictStr = Field(min_length=1)


class _HeldOutRow(_Row):
    id: StrictStr = ""
    task: StrictStr = Field(min_length=1)
    cluster: StrictStr = Field(min_length=1)
    instruction: StrictStr = Field(min_length=1)
    input: StrictStr
    references: list[StrictStr] = Field(min_length=1)
    options: list[StrictStr] = []
    metric: Metric | None = None
    demonstrations: list[_InstanceRow] = []


class _SeedRow(_Row):
    id: StrictStr
    name: StrictStr
    instruction: StrictStr = Field(min_length=1)
    instances: list[_InstanceRow] = Field(min_length=1)
    is_classification: bool


class _PairRow(_Row):
    cluster: StrictStr
    dataset: StrictStr
    template: StrictStr = ""
    prompt: StrictStr = Field(min_length=1)
    completion: StrictStr = Field(min_length=1)


class _AlpacaRow(BaseModel):
    # The released Alpaca file has exactly these; while generating it has more, which do no harm here.
    instruction: StrictStr = Field(min_length=1)
    input: StrictStr = ""
    output: StrictStr = Field(min_length=1)


class _SuperNiInstance(BaseModel):
    id: StrictStr = ""
    input: StrictStr
    output: StrictStr | list[StrictStr]


class _SuperNiTask(BaseModel):
    """allenai/natural-instructions, tasks/*.json; fields without use here are left out."""

    Definition: StrictStr | list[StrictStr]
    Categories: list[StrictStr] = ["super-naturalinstructions"]
    Instances: list[_SuperNiInstance] = Field(min_length=1)


def read_tasks(paths: Sequence[Path]) -> list[TaskItem]:
    """Read held-out items from files and folders, in the order given, folders by name.

    Raises:
        InputError: For a missing or broken file, a wrong field, a repeated id, or no item at all.
    """
    items: dict[str, TaskItem] = {}
    for path in _files(paths):
        for line, item in _read_file(path):
            if item.id in items:
                raise InputError(
                    f"'{item.id}' is used twice", path=path, line=line, field="id", remedy="make ids unique"
                )
            items[item.id] = item
    if not items:
        raise InputError("hold no item", path=", ".join(map(str, paths)), remedy="give files with held-out tasks")
    return list(items.values())


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
        else:
            yield path


def _read_file(path: Path) -> Iterator[tuple[int | None, TaskItem]]:
    if path.name.removesuffix(".gz").endswith(".json"):
        value = read_json(path)
        if isinstance(value, dict) and "Definition" in value:
            for item in _super_ni(value, path):
                yield None, item
        elif isinstance(value, list):
            for index, row in enumerate(value):
                for item in _row_items(row, path, index + 1):
                    yield index + 1, item
        else:
            raise InputError(
                "is neither a list of rows nor a Super-NaturalInstructions task", path=path, remedy="see the README"
            )
    else:
        for line, row in read_jsonl(path):
            for item in _row_items(row, path, line):
                yield line, item


def _row_items(row: Any, path: Path, line: int) -> list[TaskItem]:
    """The items of one row; a seed task has one for each instance."""
    if not isinstance(row, dict):
        raise InputError("must be a JSON object", path=path, line=line)
    stem = path.name.split(".")[0]
    if "instances" in row:
        seed = validate(_SeedRow, row, path=path, line=line)
        return [
            TaskItem(f"{seed.id}/{i}", seed.id, stem, seed.instruction, instance.input, (instance.output,))
            for i, instance in enumerate(seed.instances)
        ]
    if "prompt" in row:
        pair = validate(_PairRow, row, path=path, line=line)
        return [TaskItem(f"{stem}/{line}", pair.dataset, pair.cluster, pair.prompt, "", (pair.completion,))]
    if "output" in row:
        alpaca = validate(_AlpacaRow, row, path=path, line=line)
        return [TaskItem(f"{stem}/{line}", stem, stem, alpaca.instruction, alpaca.input, (alpaca.output,))]
    return [_held_out(validate(_HeldOutRow, row, path=path, line=line), path, line)]


def _held_out(row: _HeldOutRow, path: Path, line: int) -> TaskItem:
    metric = row.metric or ("accuracy" if row.options else "rouge_l")
    if (metric == "accuracy") != bool(row.options):
        raise InputError(
            "accuracy goes with options, the other metrics without", path=path, line=line, field="metric",
            remedy="add options or leave the metric out",
        )  # fmt: skip
    if row.options and not set(row.references) <= set(row.options):
        missing = next(reference for reference in row.references if reference not in row.options)
        raise InputError(
            f"'{missing}' is none of the options", path=path, line=line, field="references",
            remedy="write it exactly as the option",
        )  # fmt: skip
    if len(set(row.options)) < len(row.options) or len(row.options) == 1:
        raise InputError("must be at least two different texts", path=path, line=line, field="options")
    return TaskItem(
        id=row.id or f"{path.name.split('.')[0]}/{line}",
        task=row.task,
        cluster=row.cluster,
        instruction=row.instruction,
        input=row.input,
        references=tuple(row.references),
        options=tuple(row.options),
        metric=metric,
        demonstrations=tuple(Instance(d.input, d.output) for d in row.demonstrations),
    )


def _super_ni(value: dict[str, Any], path: Path) -> Iterator[TaskItem]:
    task = validate(_SuperNiTask, value, path=path)
    name = path.name.split(".")[0]
    definition = task.Definition if isinstance(task.Definition, str) else "\n".join(task.Definition)
    for index, instance in enumerate(task.Instances):
        outputs = (instance.output,) if isinstance(instance.output, str) else tuple(instance.output)
        yield TaskItem(
            id=instance.id or f"{name}/{index}",
            task=name,
            cluster=task.Categories[0],
            instruction=definition,
            input=instance.input,
            references=outputs,
        )
