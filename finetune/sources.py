"""What evaluations and trainings were made of, as plain texts: the held-out items and the training rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfinstruct.errors import InputError
from selfinstruct.files import read_json, read_jsonl, read_toml, shipped
from selfinstruct.records import Source, TaskItem
from selfinstruct.render import joined
from selfinstruct.tasks import read_tasks


@dataclass(frozen=True, slots=True)
class TrainingText:
    """A row that a model was trained on.

    Attributes:
        place: "data.jsonl:3", or "data.json[2]" in a JSON list.
        id: Its own, else "".
        run: The run that made it, if it stands in the folder of one.
        source: How it was made there.
    """

    place: str
    id: str
    instruction: str
    input: str
    output: str
    run: Path | None = None
    source: Source | None = None

    @property
    def prompt(self) -> str:
        """Instruction and input."""
        return joined(self.instruction, self.input)


def read_training_texts(paths: Sequence[Path]) -> list[TrainingText]:
    """Read run folders and files of training rows: Alpaca, prompt and completion, messages, or seed tasks.

    Raises:
        InputError: For a missing or broken file, a row of another form, or no row at all.
    """
    texts = [text for path in paths for text in _read(path)]
    if not texts:
        raise InputError("no row found", path=", ".join(map(str, paths)), remedy="give what the model was trained on")
    return texts


def _read(path: Path) -> Iterator[TrainingText]:
    file, run = (path / "dataset.jsonl", path) if path.is_dir() else (path, None)
    if run and not file.is_file():
        raise InputError(
            "holds no dataset.jsonl", path=run, remedy="give the folder of a finished `selfinstruct generate`"
        )
    if run is None and (path.parent / "ledger.sqlite").is_file():
        run = path.parent
    for place, values in _rows(file):
        texts = list(_texts(values))
        if not texts or not all(isinstance(part, str) for parts in texts for part in parts):
            raise InputError(
                "is no training row", path=place,
                remedy="give instruction and output, prompt and completion, or messages",
            )  # fmt: skip
        source = values.get("source")
        made = Source.of_row(source) if run and isinstance(source, dict) else None
        for instruction, input, output in texts:
            yield TrainingText(place, str(values.get("id", "")), instruction, input, output, run, made)


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not file.name.removesuffix(".gz").endswith(".json"):
        yield from ((f"{file}:{line}", values) for line, values in read_jsonl(file))
        return
    content = read_json(file)
    if not isinstance(content, list) or not all(isinstance(values, dict) for values in content):
        raise InputError("must be a list of rows", path=file, remedy="write [{...}, ...], or JSON lines as .jsonl")
    yield from ((f"{file}[{index}]", values) for index, values in enumerate(content))


def _texts(values: Mapping[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """(instruction, input, output) of a row; of a chat all that was said by either side."""
    if isinstance(messages := values.get("messages"), list):
        yield _said(messages, ("system", "user")), "", _said(messages, ("assistant",))
    elif isinstance(instances := values.get("instances"), list):
        yield from ((values.get("instruction"), case.get("input", ""), case.get("output")) for case in instances)
    elif "prompt" in values:
        yield values["prompt"], "", values.get("completion")
    else:
        yield values.get("instruction"), values.get("input", ""), values.get("output")


def _said(messages: Iterable[Any], roles: tuple[str, ...]) -> str:
    return "\n".join(str(m["content"]) for m in messages if isinstance(m, dict) and m.get("role") in roles)


def asked_items(evaluation: Path, tasks: Sequence[Path], wanted: Iterable[str]) -> dict[str, TaskItem]:
    """The held-out items behind predictions, whose prompts hold template and demonstrations as well.

    Args:
        evaluation: Folder of a finished evaluation.
        tasks: Files and folders to read; if none, those that the evaluation's evaluate.toml names.
        wanted: Ids of the items.

    Raises:
        InputError: When one of them is not there.
    """
    record = evaluation / "evaluate.toml"
    if not tasks and record.is_file():
        config = read_toml(record).get("config", {})
        tasks = [Path(path) for path in config.get("tasks", ())] or [shipped("heldout")]
    if not tasks:
        raise InputError("holds no evaluate.toml", path=evaluation, remedy="say with --tasks where its items are")
    items = {item.id: item for item in read_tasks(tasks)}
    ids = list(wanted)
    if missing := [id for id in ids if id not in items]:
        raise InputError(
            f"lacks {len(missing)} items of {evaluation}, {missing[0]} among them",
            path=", ".join(map(str, tasks)), remedy="say with --tasks where they are",
        )  # fmt: skip
    return {id: items[id] for id in ids}
