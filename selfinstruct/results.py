"""Reads what a run, a training, evaluations and a comparison left in their folders, as far as a report shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from selfinstruct.dataset import DATASET_FILE, read_dataset
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import read_json, read_jsonl, read_toml, validate
from selfinstruct.records import Example

ModelT = TypeVar("ModelT", bound=BaseModel)
Interval = tuple[float, float]

SUMMARY_FILE = "summary.json"
RECORD_FILES = ("run.toml", "train.toml", "evaluate.toml")


class _Read(BaseModel):
    # Further fields are for others to read.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class StrategyFigures(_Read):
    """What came of one strategy."""

    slots: int
    judged: int
    accepted: int
    rejected: dict[str, int]


class RunFigures(_Read):
    """From a run's summary.json."""

    accepted: int
    rejected: dict[str, int]
    requests: dict[str, int]
    tokens: dict[str, int]
    cost_usd: float | None
    elapsed_s: float
    closed_by: str
    strategies: dict[str, StrategyFigures] = {}
    diversity: dict[str, Any] = {}

    @property
    def candidates(self) -> int:
        """Number of candidates judged."""
        return self.accepted + sum(self.rejected.values())


class RejectedTask(_Read):
    """A candidate as far as it could be parsed."""

    instruction: str


class Resemblance(_Read):
    """An example that a candidate resembles, and their ROUGE-L."""

    id: str
    score: float


class Rejected(_Read):
    """A line of rejected.jsonl."""

    candidate: RejectedTask
    rule: str
    detail: str
    nearest: list[Resemblance]


class TrainingFigures(_Read):
    """From a training's summary.json; losses in nats a token."""

    rows_used: int
    rows_dropped: dict[str, int]
    train_loss: float
    eval_loss_before: float | None
    eval_loss: float | None
    tokens_per_s: float
    elapsed_s: float


class Step(_Read):
    """A line of metrics.jsonl."""

    step: int
    loss: float
    learning_rate: float
    tokens_per_s: float
    eval_loss: float | None = None


class Score(_Read):
    """A mean of scores, 0 to 1."""

    n: int
    mean: float
    ci95: Interval | None


class Evaluation(_Read):
    """From an evaluation's summary.json."""

    adapter: str | None
    n: int
    overall: dict[str, Score]
    clusters: dict[str, Score]
    truncated: int
    unscored: int


class Change(_Read):
    """A paired difference of mean scores, 0 to 1."""

    metric: str = ""
    n: int
    base: float
    tuned: float
    delta: float
    ci95: Interval | None
    minimal_detectable_effect: float | None
    verdict: str


class Comparison(_Read):
    """What `finetune compare` wrote: `base` and `tuned` are folders, `further` has the same base."""

    base: str = "base"
    tuned: str = "tuned"
    clusters: dict[str, Change]
    overall: dict[str, Change]
    warnings: list[str] = []
    further: list[Comparison] = []

    @property
    def names(self) -> tuple[str, str]:
        """Names of both folders."""
        return Path(self.base).name, Path(self.tuned).name


@dataclass(frozen=True, slots=True)
class RejectedRule:
    """Some candidates that one rule rejected, of the n that it did."""

    rule: str
    n: int
    rows: tuple[Rejected, ...]


@dataclass(frozen=True, slots=True)
class Generation:
    """A run.

    Attributes:
        figures: None for a run that has not ended yet.
        n_examples: Number of accepted tasks.
        examples, rejected: Samples of what was accepted and rejected.
        instructions: Of all accepted tasks, by id.
    """

    figures: RunFigures | None
    n_examples: int
    examples: tuple[Example, ...]
    rejected: tuple[RejectedRule, ...]
    instructions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training."""

    figures: TrainingFigures
    steps: tuple[Step, ...]


def told_apart(folders: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """(the training, if any; the evaluations) among folders, by the files in them.

    Raises:
        InputError: For a folder that is neither.
        UsageError: For a second training, or two evaluations of one name.
    """
    trainings, evaluations = [], []
    for folder in folders:
        if any((folder / name).exists() for name in ("evaluate.toml", "predictions.jsonl")):
            evaluations.append(folder)
        elif any((folder / name).exists() for name in ("train.toml", "metrics.jsonl")):
            trainings.append(folder)
        else:
            problem = "holds neither a training nor an evaluation" if folder.is_dir() else "no such folder"
            raise InputError(problem, path=folder, remedy="give folders that `finetune` wrote")
    if len(trainings) > 1:
        raise UsageError(f"{trainings[0]} and {trainings[1]} are both trainings; give one")
    names = [folder.resolve().name for folder in evaluations]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two evaluations are called '{repeated}'; rename one folder")
    return trainings[0] if trainings else None, evaluations


def is_finished(folder: Path) -> bool:
    """Whether a folder has its summary, which every command writes last."""
    return (folder / SUMMARY_FILE).exists()


def read_generation(run: Path, n_examples: int, n_rejected: int) -> Generation:
    """Read a run folder.

    Args:
        run: The folder.
        n_examples: Most accepted tasks to keep.
        n_rejected: Most rejected candidates to keep of each rule.

    Raises:
        InputError: For a folder that is none, or a broken file in it.
    """
    if not any((run / name).exists() for name in ("run.toml", SUMMARY_FILE, DATASET_FILE)):
        problem = "holds no run" if run.is_dir() else "no such folder"
        raise InputError(problem, path=run, remedy="give the folder that `selfinstruct generate --out` wrote")
    dataset, rejected = run / DATASET_FILE, run / "rejected.jsonl"
    # A run that accepted nothing has an empty data set.
    examples = read_dataset(dataset) if dataset.exists() and dataset.stat().st_size else []
    return Generation(
        figures=_read_summary(RunFigures, run) if is_finished(run) else None,
        n_examples=len(examples),
        examples=tuple(examples[index] for index in evenly(len(examples), n_examples)),
        rejected=tuple(_read_rejected(rejected, n_rejected)) if rejected.exists() else (),
        instructions={example.id: example.instruction for example in examples},
    )


def _read_summary(model: type[ModelT], folder: Path) -> ModelT:
    path = folder / SUMMARY_FILE
    return validate(model, read_json(path), path=path)


def _read_rejected(path: Path, most: int) -> Iterator[RejectedRule]:
    """Samples for each rule, most frequent first; the file is read twice rather than kept in memory."""
    totals = Counter(str(values.get("rule")) for _, values in read_jsonl(path))
    wanted = {rule: set(evenly(n, most)) for rule, n in totals.items()}
    rows: dict[str, list[Rejected]] = {rule: [] for rule in totals}
    seen: Counter[str] = Counter()
    for line, values in read_jsonl(path):
        rule = str(values.get("rule"))
        if seen[rule] in wanted[rule]:
            rows[rule].append(validate(Rejected, values, path=path, line=line))
        seen[rule] += 1
    for rule, n in totals.most_common():
        yield RejectedRule(rule, n, tuple(rows[rule]))


def evenly(n: int, most: int) -> list[int]:
    """Indices below n, first and last among them, evenly spread, at most so many (2 or more)."""
    return list(range(n)) if n <= most else [index * (n - 1) // (most - 1) for index in range(most)]


def read_training(folder: Path) -> Training:
    """Read the folder of a finished training.

    Raises:
        InputError: For a broken file.
    """
    path = folder / "metrics.jsonl"
    steps = (validate(Step, values, path=path, line=line) for line, values in read_jsonl(path))
    return Training(_read_summary(TrainingFigures, folder), tuple(steps))


def read_evaluation(folder: Path) -> Evaluation:
    """Read the folder of a finished evaluation.

    Raises:
        InputError: For a broken file.
    """
    return _read_summary(Evaluation, folder)


def read_comparison(path: Path) -> Comparison:
    """Read the file that `finetune compare --out` wrote.

    Raises:
        InputError: For another or a broken file.
    """
    return validate(Comparison, read_json(path), path=path)


def read_settings(folder: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the recorded configurations of a folder, as (folder/file, [(dotted name, value)]).

    The user's home folder is shown as ~, since a report may be passed on.
    """
    home = str(Path.home())
    for name in RECORD_FILES:
        if (folder / name).exists():
            values = _flat(read_toml(folder / name))
            yield f"{folder.resolve().name}/{name}", [(key, str(value).replace(home, "~")) for key, value in values]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{prefix}.{index}")
    else:
        yield prefix, ", ".join(map(str, value)) if isinstance(value, list) else value
