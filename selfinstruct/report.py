"""One self-contained HTML page on a run: what was generated, how training went, what got better on held-out tasks."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from selfinstruct.charts import LineChart, evenly, line_chart
from selfinstruct.command import Config
from selfinstruct.dataset import DATASET_FILE, read_dataset
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import (
    read_json, read_jsonl, read_toml, refuse_to_replace, sha256_file, validate, write_text,
)  # fmt: skip
from selfinstruct.records import Example

ModelT = TypeVar("ModelT", bound=BaseModel)

TEMPLATES = Path(__file__).parent / "templates"
SUMMARY_FILE = "summary.json"
N_EXAMPLES, N_REJECTED_PER_RULE, N_LOSS_ROWS = 20, 10, 10
# Longer texts are cut in the page, which says so.
MAX_CHARACTERS = 1500
RULES = {
    "duplicate": "stands twice in one reply",
    "empty_output": "has no answer",
    "incomplete": "ends with a colon, so something is missing",
    "input_is_output": "the answer repeats the input",
    "keyword": "asks for something that a text model cannot see or make",
    "language": "is not in the language of the run",
    "novelty": "too similar to a task that is already there",
    "program": "asks to write a program",
    "punctuation": "starts with punctuation",
    "repetition": "the answer turns in circles",
    "target_reached": "fine, but no longer needed",
    "too_long": "the instruction has too many words",
    "too_short": "the instruction has too few words",
    "truncated": "was cut off at the token limit",
    "unparsable": "the reply could not be read as a task",
}
CLOSED_BY = {
    "target": "The run reached its target.",
    "saturated": "The run stopped when hardly any candidate was new any more.",
    "cap": "The run stopped at its cap on cost or requests, and can be resumed.",
    "outage": "The run stopped because the endpoint could no longer be reached, and can be resumed.",
    "interrupted": "The run was interrupted, and can be resumed.",
}
METRICS = {"accuracy": "accuracy", "exact_match": "exact match", "rouge_l": "ROUGE-L"}


class ReportConfig(Config):
    """Options of `selfinstruct report`."""

    run: Path = Field(description="The run folder.")
    others: list[Path] = Field([], description="Folders of a training and of evaluations, told apart by their files.")
    compare: Path | None = Field(None, description="The comparison that `finetune compare --out` wrote.")
    out: Path = Field(description="The HTML file to write.", json_schema_extra={"metavar": "FILE.html"})
    overwrite: bool = Field(False, description="Replace the file if it exists.")


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What was written.

    Attributes:
        missing: What the page leaves out, and how to get it, in sentences.
    """

    path: str
    sha256: str
    missing: tuple[str, ...]


# -- what is read, as far as the page shows it -----------------------------------------------------------------------

Interval = tuple[float, float]


class _Shown(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class _RunSummary(_Shown):
    accepted: int
    rejected: dict[str, int]
    requests: dict[str, int]
    tokens: dict[str, int]
    cost_usd: float | None
    elapsed_s: float
    closed_by: str

    @property
    def candidates(self) -> int:
        return self.accepted + sum(self.rejected.values())


class _Task(_Shown):
    instruction: str = ""
    input: str = ""
    output: str = ""


class _Nearest(_Shown):
    id: str
    score: float


class _Rejected(_Shown):
    candidate: _Task
    rule: str
    detail: str = ""
    nearest: list[_Nearest] = []


class _TrainSummary(_Shown):
    rows_used: int
    rows_dropped: dict[str, int]
    train_loss: float
    eval_loss_before: float | None
    eval_loss: float | None
    tokens_per_s: float
    elapsed_s: float


class _Step(_Shown):
    step: int
    loss: float
    learning_rate: float | None = None
    tokens_per_s: float | None = None
    eval_loss: float | None = None


class _Score(_Shown):
    n: int
    mean: float
    ci95: Interval | None
    metric: str = ""


class _Evaluation(_Shown):
    model: str
    adapter: str | None
    n: int
    overall: dict[str, _Score]
    clusters: dict[str, _Score]
    truncated: int
    unscored: int


class _Change(_Shown):
    n: int
    base: float
    tuned: float
    delta: float
    ci95: Interval | None
    verdict: str
    p: float | None = None
    minimal_detectable_effect: float | None = None
    metric: str = ""


class _Comparison(_Shown):
    base: str = "base"
    tuned: str = "tuned"
    clusters: dict[str, _Change]
    overall: dict[str, _Change]
    warnings: list[str] = []
    further: list[_Comparison] = []


# -- what the page shows ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Count:
    """One line of the yield: a rule, or the accepted ones, with its share of all candidates."""

    rule: str
    meaning: str
    n: int
    share: float


@dataclass(frozen=True, slots=True)
class RejectedRule:
    """Some candidates that one rule rejected, of all that it did."""

    rule: str
    meaning: str
    n: int
    rows: tuple[_Rejected, ...]


@dataclass(frozen=True, slots=True)
class Generation:
    """The run: its figures, samples of what it accepted and rejected, and the accepted instructions by id."""

    summary: _RunSummary | None
    counts: tuple[Count, ...]
    n_examples: int
    examples: tuple[Example, ...]
    rejected: tuple[RejectedRule, ...]
    instructions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training: its figures, and its loss as a chart and a table."""

    summary: _TrainSummary
    chart: LineChart | None
    steps: tuple[_Step, ...]
    n_steps: int


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation, by the name of its folder."""

    name: str
    result: _Evaluation


def report(config: ReportConfig) -> ReportSummary:
    """Write one self-contained HTML page on a run, its training and its evaluations.

    Raises:
        InputError: For a folder that is none of these, or a broken file in one.
        UsageError: When the output exists.
    """
    refuse_to_replace(config.out, config.overwrite)
    trainings, evaluations = _told_apart(config.others)
    generation = _read_generation(config.run)
    training = _read_training(trainings[0]) if trainings else None
    evaluated = [e for e in map(_read_evaluation, evaluations) if e]
    compared = validate(_Comparison, read_json(config.compare), path=config.compare) if config.compare else None
    unfinished = [folder for folder in [*trainings, *evaluations] if not (folder / SUMMARY_FILE).exists()]
    missing = tuple(_missing(generation, unfinished, bool(trainings), evaluations, compared))
    page = _render(
        name=config.run.resolve().name,
        answer=list(_answer(generation.summary, training, compared)),
        missing=missing,
        generation=generation,
        training=training,
        comparisons=[compared, *compared.further] if compared else [],
        evaluated={e.name: e.result for e in evaluated},
        settings=list(_settings([config.run, *trainings, *evaluations])),
    )
    write_text(config.out, page)
    return ReportSummary(str(config.out), sha256_file(config.out), missing)


def describe(summary: ReportSummary) -> str:
    """The summary in words."""
    return "\n".join([f"wrote {summary.path}", *summary.missing])


# -- reading ---------------------------------------------------------------------------------------------------------


def _told_apart(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(the training, if any; the evaluations)."""
    trainings, evaluations = [], []
    for folder in folders:
        if any((folder / name).exists() for name in ("predictions.jsonl", "evaluate.toml")):
            evaluations.append(folder)
        elif any((folder / name).exists() for name in ("train.toml", "metrics.jsonl")):
            trainings.append(folder)
        else:
            problem = "holds neither a training nor an evaluation" if folder.is_dir() else "no such folder"
            raise InputError(problem, path=folder, remedy="give folders that `finetune` wrote")
    if len(trainings) > 1:
        raise UsageError(f"one training at most can be shown, not {len(trainings)}: {', '.join(map(str, trainings))}")
    return trainings, evaluations


def _read_generation(run: Path) -> Generation:
    if not any((run / name).exists() for name in ("run.toml", SUMMARY_FILE, DATASET_FILE)):
        problem = "holds no run" if run.is_dir() else "no such folder"
        raise InputError(problem, path=run, remedy="give the folder that `selfinstruct generate --out` wrote")
    summary = _read_summary(_RunSummary, run)
    dataset, rejected = run / DATASET_FILE, run / "rejected.jsonl"
    examples = read_dataset(dataset) if dataset.exists() and dataset.stat().st_size else []
    return Generation(
        summary=summary,
        counts=tuple(_counts(summary)) if summary else (),
        n_examples=len(examples),
        examples=tuple(examples[index] for index in evenly(len(examples), N_EXAMPLES)),
        rejected=tuple(_read_rejected(rejected)) if rejected.exists() else (),
        instructions={example.id: example.instruction for example in examples},
    )


def _read_summary(model: type[ModelT], folder: Path) -> ModelT | None:
    path = folder / SUMMARY_FILE
    return validate(model, read_json(path), path=path) if path.exists() else None


def _counts(summary: _RunSummary) -> Iterator[Count]:
    """The accepted ones, then the rules by number."""
    ranked = sorted(summary.rejected.items(), key=lambda item: (-item[1], item[0]))
    for rule, n in [("accepted", summary.accepted), *ranked]:
        yield Count(rule, RULES.get(rule, ""), n, n / max(1, summary.candidates))


def _read_rejected(path: Path) -> Iterator[RejectedRule]:
    """Samples of the rejected candidates of each rule; the file is read twice rather than kept in memory."""
    totals = Counter(str(values.get("rule")) for _, values in read_jsonl(path))
    wanted = {rule: set(evenly(n, N_REJECTED_PER_RULE)) for rule, n in totals.items()}
    rows: dict[str, list[_Rejected]] = {rule: [] for rule in totals}
    seen: Counter[str] = Counter()
    for line, values in read_jsonl(path):
        rule = str(values.get("rule"))
        if seen[rule] in wanted[rule]:
            rows[rule].append(validate(_Rejected, values, path=path, line=line))
        seen[rule] += 1
    for rule, n in totals.most_common():
        yield RejectedRule(rule, RULES.get(rule, ""), n, tuple(rows[rule]))


def _read_training(folder: Path) -> Training | None:
    summary = _read_summary(_TrainSummary, folder)
    if summary is None:
        return None
    path = folder / "metrics.jsonl"
    steps = [validate(_Step, values, path=path, line=line) for line, values in read_jsonl(path)]
    measured = [(float(step.step), step.eval_loss) for step in steps if step.eval_loss is not None]
    if steps and not measured and summary.eval_loss is not None:
        measured = [(float(steps[-1].step), summary.eval_loss)]
    if summary.eval_loss_before is not None:
        measured.insert(0, (0.0, summary.eval_loss_before))
    return Training(
        summary=summary,
        chart=line_chart([(float(step.step), step.loss) for step in steps], measured) if steps else None,
        steps=tuple(steps[index] for index in evenly(len(steps), N_LOSS_ROWS)),
        n_steps=len(steps),
    )


def _read_evaluation(folder: Path) -> Evaluated | None:
    result = _read_summary(_Evaluation, folder)
    return Evaluated(folder.resolve().name, result) if result else None


def _settings(folders: Sequence[Path]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The recorded configurations, as (folder and file, (dotted name, value)s); the user's home folder is not named."""
    for folder in folders:
        for name in ("run.toml", "train.toml", "evaluate.toml"):
            if (folder / name).exists():
                values = _flat(read_toml(folder / name))
                home = str(Path.home())
                yield f"{folder.resolve().name}/{name}", [(key, str(v).replace(home, "~")) for key, v in values]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{prefix}.{index}")
    else:
        yield prefix, ", ".join(map(str, value)) if isinstance(value, list) else value


# -- words -----------------------------------------------------------------------------------------------------------


def _answer(
    summary: _RunSummary | None, training: Training | None, compared: _Comparison | None
) -> Iterator[str]:
    """The one paragraph that comes first, sentence by sentence."""
    if summary:
        share = summary.accepted / max(1, summary.candidates)
        yield (
            f"Of {summary.candidates:,} candidate tasks {summary.accepted:,} were accepted ({share:.0%}), "
            f"in {_duration(summary.elapsed_s)}; {_cost_in_words(summary.cost_usd)}."
        )
        if summary.closed_by != "target":
            yield CLOSED_BY.get(summary.closed_by, "The run ended before its target.")
    if training:
        t = training.summary
        loss = f"the training loss was {t.train_loss:.3f} on average"
        if t.eval_loss_before is not None and t.eval_loss is not None:
            loss = f"the loss on rows kept out of training went from {t.eval_loss_before:.3f} to {t.eval_loss:.3f}"
        yield f"A model was fine-tuned on {t.rows_used:,} rows; {loss}."
    if compared:
        for metric, change in compared.overall.items():
            yield (
                f"On {change.n:,} held-out items its {METRICS.get(metric, metric)} went from {_points(change.base)} to "
                f"{_points(change.tuned)} ({_change_in_words(change)}): {change.verdict}."
            )
        for verdict in ("better", "worse"):
            names = [name for name, change in compared.clusters.items() if change.verdict == verdict]
            if names:
                yield f"It got {verdict} on {_enumeration(names)}."
        if all(change.verdict not in ("better", "worse") for change in compared.clusters.values()):
            yield "On no single cluster of held-out tasks is the change larger than chance would explain."


def _missing(
    generation: Generation,
    unfinished: Sequence[Path],
    trained: bool,
    evaluations: Sequence[Path],
    compared: _Comparison | None,
) -> Iterator[str]:
    if generation.summary is None:
        yield "The run is not finished: it has no summary yet. The same selfinstruct generate resumes it."
    elif not generation.n_examples:
        yield "The run has no accepted tasks to show."
    if not trained:
        yield "No training is shown: give the folder that finetune train wrote."
    for folder in unfinished:
        yield f"{folder.resolve().name} is not finished and left out; the same finetune command resumes it."
    if not evaluations and compared is None:
        yield "No held-out results are shown: give the folders that finetune evaluate wrote."
    elif compared is None:
        yield (
            "The evaluations are shown without a verdict: give --compare with the file that finetune compare --out wrote."
        )


def _cost_in_words(cost_usd: float | None) -> str:
    if cost_usd is None:
        return "the cost is unknown"
    return f"the teacher cost {_usd(cost_usd)}" if cost_usd else "the teacher cost nothing"


def _change_in_words(change: _Change) -> str:
    interval = f", 95% interval {_signed(change.ci95[0])} to {_signed(change.ci95[1])}" if change.ci95 else ""
    return f"{_signed(change.delta)} points{interval}"


def _enumeration(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _points(score: float) -> str:
    """A score of 0 to 1 in points of a hundred."""
    return f"{100 * score:.1f}"


def _signed(score: float) -> str:
    return f"{100 * score:+.1f}".replace("-", "\N{MINUS SIGN}")


def _usd(amount: float | None) -> str:
    if amount is None:
        return "unknown"
    return f"${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.4f}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


# -- the page --------------------------------------------------------------------------------------------------------


def _render(**values: Any) -> str:
    """The page; whatever was read is escaped, and nothing but the one style sheet, known by its hash, may take effect."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {
        "points": _points, "signed": _signed, "usd": _usd, "duration": _duration, "change": _change_in_words,
        "cut": _cut, "metric": lambda name: METRICS.get(name, name),
    }  # fmt: skip
    environment.filters.update(filters)
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = environment.get_template("report.html.j2")
    return template.render(style=Markup(style), style_hash=style_hash, **values)


def _visible(value: Any) -> Any:
    """Text without control characters and lone surrogates, which have no place in a page."""
    if not isinstance(value, str):
        return value
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in value
    )


def _cut(text: str) -> str:
    more = len(text) - MAX_CHARACTERS
    return text if more <= 0 else f"{text[:MAX_CHARACTERS]} … ({more:,} more characters)"
