"""Held-out tasks: reads every form that evaluation takes into `TaskItem`s.

Forms, told apart by their fields: this project's JSONL (`task, cluster, instruction, input, references, ...`),
Super-NaturalInstructions task JSON (`Definition, Instances`), seed-task JSONL (`instances`), prompt/completion JSONL
(`cluster, dataset, template, prompt, completion`) and Alpaca JSON or JSONL (`instruction, input, output`). Rows of a
data set, named as in "datasets:owner/name:split", may have any of the forms that a line may have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr

from selfinstruct.errors import InputError
from selfinstruct.files import ModelT, read_json, read_jsonl, to_json_line, validate
from selfinstruct.records import Instance, TaskItem
from selfinstruct.seeds import InstanceRow, SeedRow

RankedMetric = Literal["accuracy", "accuracy_per_token", "accuracy_per_character"]
GeneratedMetric = Literal["exact_match", "rouge_l", "token_f1", "numeric", "regex", "json_schema", "option_match"]
Metric = Literal[RankedMetric, GeneratedMetric]
RANKED: frozenset[str] = frozenset(get_args(RankedMetric))
"""Metrics that rank options by log-likelihood; with the others the answer is generated."""
DATA_SET = "datasets:"
Text = Annotated[StrictStr, Field(min_length=1)]
# Numbers are as good as names.
Name = Annotated[StrictStr, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
# A JSON Schema may be written as the object that it is.
Reference = Annotated[Text, BeforeValidator(lambda value: to_json_line(value) if isinstance(value, dict) else value)]
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")


class _HeldOutRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: Name = ""
    task: Text
    cluster: Text
    instruction: Text
    input: StrictStr
    references: list[Reference] = Field(min_length=1)
    options: list[Text] | None = None
    metric: Metric | None = None
    demonstrations: list[InstanceRow] = []
    wordings: list[Text] = []


class _PairRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cluster: Text
    dataset: Text
    template: Name = ""
    prompt: Text
    completion: Text


class _AlpacaRow(BaseModel):
    # The released Alpaca file has exactly these; while generating it has more, which do no harm here.
    instruction: Text
    input: StrictStr = ""
    output: Text


class _SuperNiExample(BaseModel):
    input: StrictStr
    output: StrictStr


class _SuperNiInstance(BaseModel):
    id: StrictStr = ""
    input: StrictStr
    output: StrictStr | list[StrictStr] = Field(min_length=1)


class _SuperNiTask(BaseModel):
    """allenai/natural-instructions, tasks/*.json; fields without use here are left out."""

    Definition: StrictStr | list[StrictStr] = Field(min_length=1)
    Categories: list[StrictStr] = Field(["super-naturalinstructions"], min_length=1)
    PositiveExamples: list[_SuperNiExample] = Field([], alias="Positive Examples")
    Instances: list[_SuperNiInstance] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a file, before it is checked.

    Attributes:
        values: As read.
        file: Name of the file without its suffixes.
        number: 1-based, within the file.
        path, line: Where messages say that it stands: in a line, or in "tasks.json[2]".
    """

    values: Any
    file: str
    number: int
    path: Path
    line: int | None = None

    def checked(self, model: type[ModelT]) -> ModelT:
        return validate(model, self.values, path=self.path, line=self.line)

    def error(self, problem: str, field: str | None = None, remedy: str | None = None) -> InputError:
        return InputError(problem, path=self.path, line=self.line, field=field, remedy=remedy)


def read_tasks(paths: Sequence[Path]) -> list[TaskItem]:
    """Read held-out items from files and folders, in the order given, folders by name.

    Raises:
        InputError: For a missing or broken file, a wrong field, a repeated id, or no item at all.
    """
    items: dict[str, TaskItem] = {}
    for path in task_files(paths):
        for row in _rows(path):
            for item in _items(row):
                if item.id in items:
                    remedy = "make ids unique; an item without one gets its file's name and its number"
                    raise row.error(f"'{item.id}' is used twice", "id", remedy)
                items[item.id] = item
    if not items:
        raise InputError("no item found", path=", ".join(map(str, paths)), remedy="give files with held-out tasks")
    return list(items.values())


def task_files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files and data sets among paths, and those in folders among them that `read_tasks` would read, by name."""
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
        else:
            yield path


def _rows(path: Path) -> Iterator[_Row]:
    name = path.name.split(".")[0]
    if str(path).startswith(DATA_SET):
        yield from _data_set_rows(str(path).removeprefix(DATA_SET))
        return
    if not path.name.removesuffix(".gz").endswith(".json"):
        for line, values in read_jsonl(path):
            yield _Row(values, name, line, path, line)
        return
    content = read_json(path)
    if isinstance(content, dict) and "Definition" in content:
        yield _Row(content, name, 1, path)
    elif isinstance(content, list):
        for index, values in enumerate(content):
            yield _Row(values, name, index + 1, Path(f"{path}[{index}]"))
    else:
        raise InputError(
            "is neither a list of rows nor a Super-NaturalInstructions task", path=path, remedy="see docs/evaluation.md"
        )


def _data_set_rows(source: str) -> Iterator[_Row]:
    from selfinstruct.labelled_data import read_labelled

    data = read_labelled(source)
    for number, row in enumerate(data, start=1):
        # A table has every column in every row, null where a line would leave it out.
        values = {name: value for name, value in row.values.items() if value is not None}
        yield _Row(values, data.name, number, Path(source), row.line)


def _items(row: _Row) -> list[TaskItem]:
    """The items of one row: a seed task has one for each instance, and so has a Super-NaturalInstructions task."""
    if not isinstance(row.values, dict):
        raise row.error("must be a JSON object")
    id = f"{row.file}/{row.number}"
    if "Definition" in row.values:
        return _super_ni(row.checked(_SuperNiTask), row.file)
    if "instances" in row.values:
        seed = row.checked(SeedRow)
        return [
            TaskItem(f"{seed.id}/{i}", seed.id, row.file, seed.instruction, instance.input, (instance.output,))
            for i, instance in enumerate(seed.instances)
        ]
    if "prompt" in row.values:
        pair = row.checked(_PairRow)
        item = TaskItem(id, pair.dataset, pair.cluster, pair.prompt, "", (pair.completion,), template=pair.template)
        return [item]
    if "output" in row.values:
        alpaca = row.checked(_AlpacaRow)
        return [TaskItem(id, row.file, row.file, alpaca.instruction, alpaca.input, (alpaca.output,))]
    return [_held_out(row.checked(_HeldOutRow), row, id)]


def _held_out(values: _HeldOutRow, row: _Row, id: str) -> TaskItem:
    given = values.options or []
    metric = values.metric or ("accuracy" if given else "rouge_l")
    # With another metric the answer is generated and compared with the references; the options are not used.
    options = given if metric in RANKED or metric == "option_match" else []
    if not options and (metric in RANKED or metric == "option_match"):
        raise row.error(f"{metric} needs options to choose from", "metric", "add options or leave the metric out")
    if len(set(options)) < len(options) or len(options) == 1:
        raise row.error("must be at least two different texts", "options")
    if options and (missing := [r for r in values.references if r not in options]):
        raise row.error(f"'{missing[0]}' is none of the options", "references", "write it exactly as the option")
    if metric != "json_schema" and any(isinstance(r, dict) for r in row.values["references"]):
        raise row.error("must be texts", "references", "objects are for the metric json_schema")
    return TaskItem(
        id=values.id or id,
        task=values.task,
        cluster=values.cluster,
        instruction=values.instruction,
        input=values.input,
        references=tuple(values.references),
        options=tuple(options),
        metric=metric,
        demonstrations=tuple(Instance(d.input, d.output) for d in values.demonstrations),
        wordings=tuple(values.wordings),
    )


def _super_ni(task: _SuperNiTask, name: str) -> list[TaskItem]:
    definition = task.Definition if isinstance(task.Definition, str) else "\n".join(task.Definition)
    return [
        TaskItem(
            id=instance.id or f"{name}/{index}",
            task=name,
            cluster=task.Categories[0],
            instruction=definition,
            input=instance.input,
            references=(instance.output,) if isinstance(instance.output, str) else tuple(instance.output),
            demonstrations=tuple(Instance(example.input, example.output) for example in task.PositiveExamples),
        )
        for index, instance in enumerate(task.Instances)
    ]
