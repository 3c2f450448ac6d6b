"""One self-contained HTML page on a run: what was generated, how training went, what got better on held-out tasks."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from selfinstruct.charts import LineChart, line_chart
from selfinstruct.command import Config
from selfinstruct.files import refuse_to_replace, sha256_file, write_text
from selfinstruct.results import (
    Change,
    Comparison,
    Generation,
    RunFigures,
    Training,
    evenly,
    is_finished,
    read_comparison,
    read_evaluation,
    read_generation,
    read_settings,
    read_training,
    told_apart,
)

TEMPLATES = Path(__file__).parent / "page"
N_EXAMPLES, N_REJECTED_PER_RULE, N_LOSS_ROWS = 20, 10, 10
# Longer texts are cut in the page, which says so.
MAX_CHARACTERS = 1500
RULES = {
    "accepted": "",
    "contamination": "resembles a held-out task",
    "contradictory": "the same input with different answers",
    "copied_prompt": "repeats words of the prompt",
    "duplicate": "stands there already, letter for letter",
    "empty_output": "has no answer",
    "format": "broken off, or labels left in it",
    "incomplete": "ends with a colon, so something is missing",
    "input_is_output": "the answer repeats the input",
    "judge": "the judge thinks little of it",
    "keyword": "asks for something that a text model cannot see or make",
    "language": "instruction or answer is not in the language of the run",
    "missing_input": "speaks of a text that is not there",
    "no_content": "the answer says nothing",
    "no_gain": "asks for the same as the task that it was made from",
    "no_instruction": "a block without an instruction",
    "not_completed": "was rejected before its answer was asked for",
    "novelty": "too similar to a task that is already there",
    "personal_data": "holds an address, a phone or a card number",
    "program": "asks to write a program",
    "punctuation": "starts with punctuation",
    "refusal": "the answer refuses, or speaks of being a model",
    "repetition": "the answer turns in circles",
    "surplus": "more than were asked for",
    "target_reached": "fine, but no longer needed",
    "tools": "needs tools, eyes or ears",
    "too_long": "the instruction has too many words",
    "too_short": "the instruction has too few words",
    "unjudged": "the judge gave no grade",
    "truncated": "was cut off at the token limit",
    "unparsable": "the reply could not be read as a task",
}
CLOSED_BY = {
    "pilot": "The pilot has what it wanted; the run can be gone on with.",
    "refiltered": "The candidates of another run were judged again.",
    "saturated": "The run stopped when hardly any candidate was new any more.",
    "cap": "The run stopped at its cap on cost or requests and can be resumed.",
    "outage": "The run stopped because the endpoint could no longer be reached; it can be resumed.",
    "interrupted": "The run was interrupted and can be resumed.",
}
METRICS = {
    "exact_match": "exact match", "rouge_l": "ROUGE-L", "token_f1": "token F1", "regex": "regular expression",
    "json_schema": "JSON schema", "option_match": "option named", "accuracy_per_token": "accuracy (per token)",
    "accuracy_per_character": "accuracy (per character)",
}  # fmt: skip
# Control characters, direction overrides and lone surrogates have no place in a page.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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


def report(config: ReportConfig) -> ReportSummary:
    """Write one self-contained HTML page on a run, its training and its evaluations.

    Raises:
        InputError: For a folder that is none of these, or a broken file in one.
        UsageError: When the output exists.
    """
    refuse_to_replace(config.out, config.overwrite)
    training_folder, evaluation_folders = told_apart(config.others)
    folders = [training_folder, *evaluation_folders] if training_folder else evaluation_folders
    generation = read_generation(config.run, N_EXAMPLES, N_REJECTED_PER_RULE)
    training = read_training(training_folder) if training_folder and is_finished(training_folder) else None
    evaluations = {f.resolve().name: read_evaluation(f) for f in evaluation_folders if is_finished(f)}
    compared = read_comparison(config.compare) if config.compare else None
    missing = tuple(_missing(generation, training_folder, evaluation_folders, compared))
    page = _render(
        name=_title(config.run.resolve()),
        answer=" ".join(_answer(generation.figures, training, compared)),
        missing=missing,
        generation=generation,
        counts=_counts(generation.figures) if generation.figures else [],
        training=training,
        chart=_loss_chart(training) if training and training.steps else None,
        steps=[training.steps[index] for index in evenly(len(training.steps), N_LOSS_ROWS)] if training else [],
        comparisons=[compared, *compared.further] if compared else [],
        evaluations=dict(sorted(evaluations.items(), key=lambda item: item[1].adapter is not None)),
        cluster_names=list(dict.fromkeys(name for result in evaluations.values() for name in result.clusters)),
        settings=[settings for folder in (config.run, *folders) for settings in read_settings(folder)],
    )
    write_text(config.out, page)
    return ReportSummary(str(config.out), sha256_file(config.out), missing)


def describe(summary: ReportSummary) -> str:
    """The summary in words."""
    return "\n".join([f"wrote {summary.path}", *summary.missing])


def _title(run: Path) -> str:
    """The name of a run; `selfinstruct run` has its own in a folder called generate."""
    return run.parent.name if run.name == "generate" else run.name


def _counts(figures: RunFigures) -> list[tuple[str, int]]:
    """What became of the candidates: the accepted ones, then the rules by number."""
    rejected = sorted(figures.rejected.items(), key=lambda item: (-item[1], item[0]))
    return [("accepted", figures.accepted), *rejected]


def _loss_chart(training: Training) -> LineChart:
    """The loss by step, with the losses on held-back rows, before the first step too, as marks."""
    held_back = [(float(step.step), step.eval_loss) for step in training.steps if step.eval_loss is not None]
    if training.figures.eval_loss_before is not None:
        held_back.insert(0, (0.0, training.figures.eval_loss_before))
    return line_chart([(float(step.step), step.loss) for step in training.steps], held_back)


# -- words -----------------------------------------------------------------------------------------------------------


def _answer(figures: RunFigures | None, training: Training | None, compared: Comparison | None) -> Iterator[str]:
    """The paragraph that comes first, sentence by sentence."""
    if figures:
        yield (
            f"Of {figures.candidates:,} candidate tasks {figures.accepted:,} were accepted "
            f"({figures.accepted / max(1, figures.candidates):.0%}), in {_duration(figures.elapsed_s)}; "
            f"{_cost(figures.cost_usd)}."
        )
        if figures.closed_by != "target":
            yield CLOSED_BY.get(figures.closed_by, "The run ended before its target.")
    if training:
        before, after = training.figures.eval_loss_before, training.figures.eval_loss
        loss = f"the training loss was {training.figures.train_loss:.3f} on average"
        if before is not None and after is not None:
            loss = f"the loss on held-back rows went from {before:.3f} to {after:.3f}"
        yield f"A model was fine-tuned on {training.figures.rows_used:,} rows; {loss}."
    if compared:
        for metric, change in compared.overall.items():
            yield (
                f"On {change.n:,} held-out items its {METRICS.get(metric, metric)} went from {_points(change.base)} to "
                f"{_points(change.tuned)} ({_difference(change)}): {change.verdict}."
            )
        changed = {
            verdict: [name for name, change in compared.clusters.items() if change.verdict == verdict]
            for verdict in ("better", "worse")
        }
        for verdict, names in changed.items():
            if names:
                yield f"It got {verdict} on {_enumeration(names)}."
        if not any(changed.values()):
            yield "On no single cluster of held-out tasks is the change larger than chance would explain."


def _missing(
    generation: Generation, training: Path | None, evaluations: Sequence[Path], compared: Comparison | None
) -> Iterator[str]:
    """What the page lacks, in sentences."""
    if generation.figures is None:
        yield "The run has no summary yet; the same selfinstruct generate resumes it."
    elif not generation.n_examples:
        yield "The run accepted no task."
    if training is None:
        yield "No training is shown; give the folder that finetune train wrote."
    for folder in [training, *evaluations]:
        if folder and not is_finished(folder):
            yield f"{folder.resolve().name} is not finished and left out; the same finetune command resumes it."
    if compared is None:
        yield (
            "The evaluations are shown without a verdict; finetune compare gives one, for --compare to take."
            if evaluations
            else "No held-out results are shown; give the folders that finetune evaluate wrote."
        )


def _cost(amount: float | None) -> str:
    if amount is None:
        return "the cost is unknown"
    return f"the teacher cost {_usd(amount)}" if amount else "the teacher cost nothing"


def _difference(change: Change) -> str:
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
    """The page. Whatever was read is escaped, and the only style sheet allowed is ours, known by its hash."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        points=_points,
        signed=_signed,
        usd=_usd,
        duration=_duration,
        cut=_cut,
        metric=lambda name: METRICS.get(name, name),
        count=lambda n: f"{n:,.0f}",
        meaning=lambda rule: RULES.get(rule, ""),
    )
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(style=style, style_hash=style_hash, **values)


def _visible(value: Any) -> Any:
    """Text with a mark where it had characters that are not to be shown."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", value) if type(value) is str else value


def _cut(text: str) -> str:
    more = len(text) - MAX_CHARACTERS
    return text if more <= 0 else f"{text[:MAX_CHARACTERS]} … ({more:,} more characters)"
