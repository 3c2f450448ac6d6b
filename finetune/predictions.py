"""The scored answers of an evaluation: their file, and how they are grouped for means and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from finetune.answers import Stop
from selfinstruct.errors import InputError
from selfinstruct.files import first_problem, read_jsonl, read_toml, shipped
from selfinstruct.records import TaskItem
from selfinstruct.tasks import read_tasks

PREDICTIONS = "predictions.jsonl"
PARTIAL = "predictions.partial.jsonl"


@dataclass(frozen=True, slots=True)
class Reworded:
    """What became of an item in one of several wordings; see `Prediction`."""

    wording: str
    prompt: str
    prediction: str
    option_scores: tuple[float, ...]
    score: Annotated[float, Field(ge=0, le=1)]
    stop: Stop | None
    off_format: bool


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer to one item; a line of predictions.jsonl.

    Attributes:
        prompt: The exact rendered text, special tokens included.
        prediction: The answer; where options were ranked, the option that ranks first.
        option_scores: Summed log-likelihood of each option; empty when the answer was generated.
        score: 0 to 1; of an item that was asked in several wordings, their mean.
        stop: What ended a generated answer: "eos", or "length" when it was cut; None with options.
        truncated: Whether it was cut.
        option_tokens: Tokens of each option, where options were ranked.
        wording: Name of the wording, or of the template that made the prompt.
        prompt_tokens, answer_tokens: Their numbers; None where an endpoint does not tell, or nothing was generated.
        empty: Whether a generated answer has no text.
        off_format: Whether it has nothing that its metric could compare; see `metrics.is_off_format`.
        wordings: All wordings, the first one included, where there are several; all else is of the first.
    """

    item: str
    task: str
    cluster: str
    prompt: str
    prediction: str
    references: tuple[str, ...]
    options: tuple[str, ...]
    option_scores: tuple[float, ...]
    metric: str
    score: Annotated[float, Field(ge=0, le=1)]
    stop: Stop | None = None
    truncated: bool = False
    option_tokens: tuple[int, ...] = ()
    wording: str = ""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    empty: bool = False
    off_format: bool = False
    wordings: tuple[Reworded, ...] = ()


_ADAPTER = TypeAdapter(Prediction)


def _prediction(values: dict[str, Any], path: Path, line: int) -> Prediction:
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        field, problem = first_problem(error)
        raise InputError(problem, path=path, line=line, field=field, remedy="evaluate again") from error


def read_predictions(folder: Path) -> dict[str, Prediction]:
    """Read the predictions of a finished evaluation, by item.

    Raises:
        InputError: When the folder holds none, the evaluation is unfinished, or a line is wrong.
    """
    path = folder / PREDICTIONS
    if not path.exists():
        if (folder / PARTIAL).exists():
            raise InputError(
                "holds an unfinished evaluation",
                path=folder,
                remedy="run the same `finetune evaluate` again to finish it",
            )
        problem = f"holds no {PREDICTIONS}" if folder.is_dir() else "no such folder"
        raise InputError(problem, path=folder, remedy="give a folder that `finetune evaluate --out` wrote")
    predictions: dict[str, Prediction] = {}
    for line, values in read_jsonl(path):
        prediction = _prediction(values, path, line)
        if prediction.item in predictions:
            raise InputError(
                f"'{prediction.item}' is there twice", path=path, line=line, field="item", remedy="evaluate again"
            )
        predictions[prediction.item] = prediction
    if not predictions:
        raise InputError("holds no prediction", path=path, remedy="evaluate again")
    return predictions


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


def grouped(predictions: Iterable[Prediction], key: Callable[[Prediction], str]) -> dict[str, list[Prediction]]:
    """Predictions by a name, in the order in which the names first come."""
    groups: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        groups.setdefault(key(prediction), []).append(prediction)
    return groups


def metric_of(group: Iterable[Prediction]) -> str:
    """The metric of a group; of several "accuracy + exact_match", whose mean is that of all scores, 0 to 1 each.

    A cluster is judged whole, since apart its few items of each metric would show nothing.
    """
    return " + ".join(sorted({prediction.metric for prediction in group}))
