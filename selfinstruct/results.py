"""Reads what a run, a training, evaluations and a comparison left in their folders, as far as a report shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import read_json, read_jsonl, read_toml, validate

ModelT = TypeVar("ModelT", bound=BaseModel)
Interval = tuple[float, float]

SUMMARY_FILE = "summary.json"
RECORD_FILES = ("run.toml", "train.toml", "evaluate.toml")
METRICS_FILE, TOKENS_FILE = "metrics.jsonl", "tokens.json"


class _Read(BaseModel):
    # Further fields are for others to read.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=())


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


class TrainingFigures(_Read):
    """From a training's summary.json; losses in nats a token."""

    rows_used: int
    rows_dropped: dict[str, int]
    eval_rows: int = 0
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


class Token(_Read):
    """A token of a training row: its text, and whether it is only read or learnt."""

    text: str
    label: Literal["given", "learnt"]
    special: bool


class TokenRow(_Read):
    """A training row token by token."""

    place: str
    tokens: tuple[Token, ...]


class _Tokens(_Read):
    rows: tuple[TokenRow, ...]


class Score(_Read):
    """A mean of scores, 0 to 1."""

    metric: str = ""
    n: int
    mean: float
    ci95: Interval | None


class AnswerFigures(_Read):
    """How the answers to some items were; of `generated` ones, which the other counts are of."""

    generated: int
    stop_rate: float | None
    truncated: int
    empty: int
    off_format: int


class Evaluation(_Read):
    """From an evaluation's summary.json."""

    adapter: str | None
    shots: int = 0
    n: int
    overall: dict[str, Score]
    clusters: dict[str, Score]
    answers: dict[str, dict[str, AnswerFigures]] = {}
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
    p: float | None = None
    minimal_detectable_effect: float | None
    verdict: str


class Contamination(_Read):
    """Items that the training data holds, and the changes of the other items."""

    items: list[dict[str, Any]]
    clean: dict[str, Change]


class Comparison(_Read):
    """What `finetune compare` wrote: `base` and `tuned` are folders, `further` has the same base."""

    base: str = "base"
    tuned: str = "tuned"
    clusters: dict[str, Change]
    overall: dict[str, Change]
    contamination: Contamination | None = None
    warnings: list[str] = []
    further: list[Comparison] = []

    @property
    def names(self) -> tuple[str, str]:
        """Names of both folders."""
        return Path(self.base).name, Path(self.tuned).name


class Demonstration(_Read):
    """An example that was shown in a prompt."""

    id: str
    kind: str
    instruction: str


class Origin(_Read):
    """How a training row was made."""

    strategy: str
    model: str
    slot: int
    prompt: str | None
    demonstrations: list[Demonstration]
    seeds: list[str]


class NearRow(_Read):
    """A training row near to an item, by ROUGE-L."""

    place: str
    score: float
    instruction: str
    input: str
    output: str
    origin: Origin | None


class ItemLineage(_Read):
    """An item whose score changed, and the training rows nearest to it."""

    item: str
    task: str
    cluster: str
    base: float
    tuned: float
    asked: str
    base_answer: str
    tuned_answer: str
    rows: list[NearRow]


class Lineage(_Read):
    """What `finetune lineage --out` wrote."""

    n_changed: int
    items: list[ItemLineage]


@dataclass(frozen=True, slots=True)
class Training:
    """A training.

    Attributes:
        figures: None while it goes on.
        rows: A few of its rows, token by token.
    """

    figures: TrainingFigures | None
    steps: tuple[Step, ...]
    rows: tuple[TokenRow, ...]


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
        elif any((folder / name).exists() for name in ("train.toml", METRICS_FILE)):
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


def name_of(run: Path) -> str:
    """What a run is called, after its folder; `selfinstruct run` has its own in a folder called generate."""
    folder = run.resolve()
    return folder.parent.name if folder.name == "generate" else folder.name


def read_figures(run: Path) -> RunFigures:
    """Read the summary of a run that has ended.

    Raises:
        InputError: For a broken file.
    """
    return _read_summary(RunFigures, run)


def figures_of_its_end(run: Path, accepted: int, n_sent: int) -> RunFigures | None:
    """Figures of an ended run; one that goes on still has those of its last end, which the ledger has left behind.

    Args:
        run: Its folder.
        accepted: Tasks accepted by its ledger.
        n_sent: Requests sent by its ledger.
    """
    figures = read_figures(run) if is_finished(run) else None
    return figures if figures and (figures.accepted, figures.requests.get("sent")) == (accepted, n_sent) else None


def _read_summary(model: type[ModelT], folder: Path) -> ModelT:
    path = folder / SUMMARY_FILE
    return validate(model, read_json(path), path=path)


def evenly(n: int, most: int) -> list[int]:
    """Indices below n, first and last among them, evenly spread, at most so many (2 or more)."""
    return list(range(n)) if n <= most else [index * (n - 1) // (most - 1) for index in range(most)]


def read_training(folder: Path) -> Training:
    """Read the folder of a training, as far as it has come.

    Raises:
        InputError: For a broken file.
    """
    metrics, tokens = folder / METRICS_FILE, folder / TOKENS_FILE
    figures = _read_summary(TrainingFigures, folder) if is_finished(folder) else None
    return Training(
        figures,
        tuple(_steps(metrics, is_whole=figures is not None)) if figures or metrics.exists() else (),
        validate(_Tokens, read_json(tokens), path=tokens).rows if tokens.exists() else (),
    )


def _steps(path: Path, is_whole: bool) -> Iterator[Step]:
    """Logged steps; while a training writes, its last line may be half there."""
    try:
        for line, values in read_jsonl(path):
            yield validate(Step, values, path=path, line=line)
    except InputError:
        if is_whole:
            raise


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


def read_lineage(path: Path) -> Lineage:
    """Read the file that `finetune lineage --out` wrote.

    Raises:
        InputError: For another or a broken file.
    """
    return validate(Lineage, read_json(path), path=path)


def read_settings(folder: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the recorded configurations of a folder, as (folder/file, [(dotted name, value)]).

    The user's home folder is shown as ~, since a report may be passed on.
    """
    for name in RECORD_FILES:
        if (folder / name).exists():
            values = _flat(read_toml(folder / name))
            yield f"{folder.resolve().name}/{name}", [(key, without_home(str(value))) for key, value in values]


def without_home(text: str) -> str:
    """Text in which the user's home folder is called ~."""
    home = str(Path.home())
    return text.replace(home, "~") if home != "/" else text


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{prefix}.{index}")
    else:
        yield prefix, ", ".join(map(str, value)) if isinstance(value, list) else value
