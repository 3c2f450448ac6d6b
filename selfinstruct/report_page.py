"""One self-contained HTML page on a run: what was generated, how training went, what got better on held-out tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import Field

from selfinstruct.characters import cut
from selfinstruct.command import Config
from selfinstruct.errors import Interrupted
from selfinstruct.files import atomic_file, refuse_to_replace, sha256_file
from selfinstruct.page.charts import Histogram, LineChart, Point, histogram, line_chart, sunburst
from selfinstruct.page.generation import LENGTH_BINS, N_SIMILARITY_BINS, Judged, Run, Survey, opened_run, survey
from selfinstruct.page.outcomes import outcomes
from selfinstruct.page.overlap import in_common
from selfinstruct.page.rendering import rendered
from selfinstruct.page.tasks import Tables
from selfinstruct.page.words import answer, count, duration, percent, usd, variety
from selfinstruct.results import (
    Comparison,
    RunFigures,
    StrategyFigures,
    Training,
    is_finished,
    name_of,
    read_comparison,
    read_evaluation,
    read_lineage,
    read_settings,
    read_training,
    told_apart,
)
from selfinstruct.verb_object import root_verbs

logger = logging.getLogger(__name__)

WATCH_S = 10.0
# What `selfinstruct run` makes beside generate/, and the file that is written first.
RECIPE_FOLDERS = {
    "train": "train.toml", "evaluate-base": "evaluate.toml", "evaluate-tuned": "evaluate.toml",
}  # fmt: skip
# Id, title and what is shown in it, of each section.
SECTIONS = (
    ("yield", "Yield", "figures"),
    ("verbs", "What is asked for", "burst"),
    ("variety", "Length and variety", "histograms"),
    ("cost", "Cost and throughput", "figures"),
    ("threshold", "Border of novelty", "at_threshold"),
    ("examples", "Accepted tasks", "accepted"),
    ("rejected", "Rejected candidates", "rejected"),
    ("training", "Training", "training"),
    ("results", "Held-out results", "results"),
    ("changed", "Changed answers", "changed"),
    ("settings", "Configuration", "settings"),
)
_TIMES = ((3600, "hours of work"), (60, "minutes of work"), (1, "seconds of work"))


class ReportConfig(Config):
    """Options of `selfinstruct report`."""

    run: Path = Field(description="The run folder, or the whole folder of `selfinstruct run`.")
    others: list[Path] = Field([], description="Folders of a training and of evaluations, told apart by their files.")
    compare: Path | None = Field(None, description="The comparison that `finetune compare --out` wrote.")
    lineage: Path | None = Field(None, description="What `finetune lineage --out` wrote.")
    out: Path = Field(description="The HTML file to write.", json_schema_extra={"metavar": "FILE.html"})
    overwrite: bool = Field(False, description="Replace the file if it exists.")
    watch: float | None = Field(
        None, gt=0,
        description=f"Write it anew every so many seconds, {WATCH_S:g} if none are given, until the run has ended.",
        json_schema_extra={"metavar": "[SECONDS]", "flag_value": WATCH_S},
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """What was written.

    Attributes:
        missing: What the page leaves out, and how to get it, in sentences.
    """

    path: str
    sha256: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Sources:
    """The folders and files of a report, as they are at the moment.

    Attributes:
        is_complete: Whether there is nothing more to come but what is under way in these folders.
    """

    run: Path
    training: Path | None
    evaluations: tuple[Path, ...]
    compare: Path | None
    lineage: Path | None
    is_complete: bool

    @property
    def folders(self) -> list[Path]:
        """All of them, the run first."""
        return [self.run, *([self.training] if self.training else []), *self.evaluations]

    def state(self) -> list[tuple[int, int] | None]:
        """Something that changes whenever a file does."""
        names = ("ledger.sqlite", "ledger.sqlite-wal", "summary.json", "metrics.jsonl", "tokens.json")
        paths = [folder / name for folder in self.folders for name in names]
        found = [
            path.stat() if path.exists() else None for path in [*paths, *filter(None, [self.compare, self.lineage])]
        ]
        return [(stat.st_mtime_ns, stat.st_size) if stat else None for stat in found]


def report(config: ReportConfig) -> ReportSummary:
    """Write one self-contained HTML page on a run, its training and its evaluations.

    What has not ended is shown as far as it has come; with `watch` again and again, until all of it has.

    Raises:
        InputError: For a folder that is none of these, or a broken file in one.
        UsageError: When the output exists.
        Interrupted: By Ctrl-C, with `watch`; the page stays as it was written last.
    """
    refuse_to_replace(config.out, config.overwrite)
    if config.watch is None:
        return _write(config.out, _sources(config), None)[0]
    logger.warning("%s is written anew every %g s, until all has ended", config.out, config.watch)
    try:
        return _watch(config, config.watch)
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; {config.out} is as it was written last") from error


def describe(summary: ReportSummary) -> str:
    """The summary in words."""
    return "\n".join([f"wrote {summary.path}", *summary.missing])


def _watch(config: ReportConfig, pause_s: float) -> ReportSummary:
    """Write the page whenever something has changed, until nothing is under way."""
    state: object = None
    while True:
        sources = _sources(config)
        if (now := sources.state()) != state:
            summary, is_over = _write(config.out, sources, pause_s)
            if is_over:
                return summary
            state = now
        time.sleep(pause_s)


def _sources(config: ReportConfig) -> _Sources:
    """What is to be shown; of the folder of a recipe, whatever is there by now."""
    recipe = config.run
    if config.others or not (recipe / "generate").is_dir():
        training, evaluations = told_apart(config.others)
        return _Sources(config.run, training, tuple(evaluations), config.compare, config.lineage, True)
    begun = [recipe / name for name, record in RECIPE_FOLDERS.items() if (recipe / name / record).exists()]
    training, evaluations = told_apart(begun)
    compare, lineage = (
        recipe / name if (recipe / name).exists() else None for name in ("compare.json", "lineage.json")
    )
    return _Sources(
        recipe / "generate",
        training,
        tuple(evaluations),
        config.compare or compare,
        config.lineage or lineage,
        is_complete=compare is not None or not (recipe / "manifest.json").exists(),
    )


def _write(out: Path, sources: _Sources, reload_s: float | None) -> tuple[ReportSummary, bool]:
    """(What was written; whether nothing is under way any more, so that it need not be written again)."""
    with opened_run(sources.run) as run:
        is_over = sources.is_complete and not run.is_running and all(map(is_finished, sources.folders[1:]))
        values = _values(sources, run)
        with atomic_file(out) as file:
            for piece in rendered(reload_s=None if is_over else reload_s, **values):
                file.write(piece)
    return ReportSummary(str(out), sha256_file(out), values["missing"]), is_over


# -- what the page shows -----------------------------------------------------------------------------------------------


def _values(sources: _Sources, run: Run) -> dict[str, Any]:
    """Everything that the templates ask for."""
    seen = survey(run)
    training = read_training(sources.training) if sources.training else None
    evaluations = {f.resolve().name: read_evaluation(f) for f in sources.evaluations if is_finished(f)}
    compared = read_comparison(sources.compare) if sources.compare else None
    changed = read_lineage(sources.lineage) if sources.lineage else None
    values = {
        "name": name_of(sources.run),
        "answer": " ".join(answer(run.figures, training, compared)),
        "headline": list(_headline(run, training, compared)),
        "missing": tuple(_missing(sources, run, compared)),
        "is_running": run.is_running,
        "until": run.pace.until.strftime("%Y-%m-%d %H:%M:%S UTC") if run.pace else "",
        **_generation(run, seen),
        "training": training if training and (training.figures or training.steps) else None,
        "curves": list(_curves(training)) if training and training.steps else [],
        "results": outcomes(evaluations, compared),
        "changed": changed if changed and changed.items else None,
        "settings": [settings for folder in sources.folders for settings in read_settings(folder)],
    }
    return values | {"sections": [(id, title) for id, title, name in SECTIONS if values[name]]}


def _headline(run: Run, training: Training | None, compared: Comparison | None) -> Iterator[tuple[str, str, str]]:
    """(label, value, note) of the figures that come first."""
    if figures := run.figures:
        share = f"{percent(figures.accepted, figures.candidates)} of {count(figures.candidates)} candidates"
        wanted = f"of {count(run.target)} wanted; " if run.is_running and run.target else ""
        yield "Accepted", count(figures.accepted), f"{wanted}{share}"
        yield "Cost", usd(figures.cost_usd), f"in {duration(figures.elapsed_s)}"
    if training and training.figures and training.figures.eval_loss is not None:
        before = training.figures.eval_loss_before
        note = "" if before is None else f"from {before:.3f} before training"
        yield "Held-back loss", f"{training.figures.eval_loss:.3f}", note
    if compared:
        verdicts = [change.verdict for change in compared.clusters.values()]
        better, worse = verdicts.count("better"), verdicts.count("worse")
        yield "Held-out clusters", f"{better} better, {worse} worse", f"of {len(verdicts)}, beyond chance"


def _missing(sources: _Sources, run: Run, compared: Comparison | None) -> Iterator[str]:
    """What the page lacks, in sentences."""
    if run.figures is None:
        yield "The run has no summary yet; the same selfinstruct generate resumes it."
    elif not run.rows.n_accepted:
        yield "The run has accepted no task."
    if run.problem:
        yield run.problem
    if sources.training is None:
        yield "No training is shown; give the folder that finetune train wrote."
    for folder in sources.folders[1:]:
        if not is_finished(folder):
            yield f"{folder.resolve().name} is not finished; the same finetune command resumes it."
    if compared is None:
        yield (
            "The evaluations are shown without a verdict; finetune compare gives one, for --compare to take."
            if sources.evaluations
            else "No held-out results are shown; give the folders that finetune evaluate wrote."
        )


# -- of the generation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _FunnelRow:
    """A line of the yield: all candidates, those that one rule rejected, or the accepted ones.

    Attributes:
        begin, width: Of its bar, in percent: what is left over after it, and what it took.
        by_strategy: The number of each strategy, where there are several.
    """

    kind: str
    name: str
    n: int
    begin: float
    width: float
    by_strategy: tuple[int, ...]


def _generation(run: Run, seen: Survey) -> dict[str, Any]:
    figures, rows = run.figures, run.rows
    tables = Tables(run, seen)
    verbs = root_verbs([row.instruction for row in seen.sample])
    strategies = tuple(figures.strategies) if figures and len(figures.strategies) > 1 else ()
    return {
        "figures": figures if figures and figures.candidates else None,
        "strategies": strategies,
        "funnel": list(_funnel(figures, strategies)) if figures else [],
        "by_rule": [(rule, n, [tables.task(row) for row in seen.by_rule[rule]]) for rule, n in rows.n_rejected.items()],
        "verbs": verbs,
        "burst": sunburst(verbs.pairs),
        "histograms": list(_histograms(run, seen)) if rows.n_accepted else [],
        "has_seeds": bool(run.seeds),
        "n_measured": len(seen.sample),
        "n_accepted": rows.n_accepted,
        "variety": list(variety(figures.diversity)) if figures else [],
        "pace": list(_pace(run, seen)),
        "n_pauses": run.pace.n_pauses if run.pace else 0,
        "cost_notes": _cost_notes(figures),
        "threshold": f"{run.threshold:g}" if run.threshold is not None else "the threshold",
        "at_threshold": _at_threshold(seen, tables),
        "accepted": tables.accepted() if rows.n_accepted else None,
        "rejected": tables.rejected() if rows.n_rejected else None,
    }


def _funnel(figures: RunFigures, strategies: Sequence[str]) -> Iterator[_FunnelRow]:
    def row(kind: str, name: str, n: int, left: int, of: Callable[[StrategyFigures], int]) -> _FunnelRow:
        by_strategy = tuple(of(figures.strategies[strategy]) for strategy in strategies)
        whole = max(1, figures.candidates) / 100
        return _FunnelRow(kind, name, n, round(left / whole, 2), round(n / whole, 2), by_strategy)

    left = figures.candidates
    yield row("whole", "candidates", left, 0, lambda of: of.judged)
    for rule, n in sorted(figures.rejected.items(), key=lambda item: (-item[1], item[0])):
        left -= n
        yield row("rule", rule, n, left, lambda of, rule=rule: of.rejected.get(rule, 0))  # type: ignore[misc]
    yield row("accepted", "accepted", figures.accepted, 0, lambda of: of.accepted)


def _histograms(run: Run, seen: Survey) -> Iterator[tuple[str, str, Histogram, str, str]]:
    """(id, title, chart, unit, label of its line) of each."""
    bounds = [*LENGTH_BINS[1:], None]
    bins = [
        f"{low}" if high == low + 1 else f"{low} to {high - 1}" if high else f"{low} or more"
        for low, high in zip(LENGTH_BINS, bounds, strict=True)
    ]
    for kind, counts in seen.lengths.items():
        if sum(counts):
            both = {"accepted": counts, "seeds": seen.seed_lengths[kind]}
            chart = histogram(bins, both, labels=[f"{low}" for low in LENGTH_BINS])
            yield f"length-{kind}", f"Words per {kind}", chart, "words, from", ""
    borders = [f"{index / N_SIMILARITY_BINS:g}" for index in range(N_SIMILARITY_BINS + 1)]
    between = [f"{low} to {high}" for low, high in pairwise(borders)]
    recorded = ((run.figures.diversity.get("seeds") or {}).get("nearest") or {}) if run.figures else {}
    similarity = {"accepted": seen.similarity, "seeds": recorded.get("histogram", [])}
    if sum(seen.similarity):
        rule = None if run.threshold is None else run.threshold * N_SIMILARITY_BINS
        chart = histogram(between, similarity, borders=borders, rule=rule)
        yield "similarity", "Likeness to the nearest task", chart, "ROUGE-L", "rejected above"


def _pace(run: Run, seen: Survey) -> Iterator[tuple[str, str, LineChart, str, Sequence[Point], str]]:
    """(id, title, chart, unit below it, points, their format) of each."""
    if run.pace and len(run.pace.tokens_per_s) > 1:
        pace = run.pace
        size, unit = next((size, unit) for size, unit in _TIMES if pace.elapsed_s >= 2 * size or size == 1)

        def in_units(points: Sequence[Point]) -> list[Point]:
            return [(x / size, y) for x, y in points]

        rates = in_units(pace.tokens_per_s)
        yield "rate", "Tokens a second", line_chart(rates, from_zero=True), unit, rates, "{:,.0f}"
        if any(usd for _, usd in pace.usd):
            spent = in_units(pace.usd)
            yield "spent", "US dollars so far", line_chart(spent, from_zero=True), unit, spent, "{:,.4f}"
        else:
            tokens = in_units(pace.tokens)
            yield "tokens", "Tokens so far", line_chart(tokens, from_zero=True), unit, tokens, "{:,.0f}"
    if len(seen.shares) > 1:
        shares = [(judged, 100 * share) for judged, share in seen.shares]
        chart = line_chart(shares, from_zero=True)
        yield "shares", "Percent accepted, as the pool grew", chart, "candidates judged", shares, "{:.1f}"


def _cost_notes(figures: RunFigures | None) -> dict[str, str]:
    if figures is None:
        return {}
    unlucky = {name: figures.requests.get(name, 0) for name in ("retried", "failed", "unused")}
    each = ""
    if figures.cost_usd and figures.accepted:
        each = f"{usd(1000 * figures.cost_usd / figures.accepted)} a thousand accepted"
    return {"requests": ", ".join(f"{count(n)} {name}" for name, n in unlucky.items() if n), "each": each}


@dataclass(frozen=True, slots=True)
class _Pair:
    """A candidate and the task that it is most like, in pieces that say whether both have them."""

    score: float
    ours: Sequence[tuple[str, bool]]
    theirs: Sequence[tuple[str, bool]]


def _at_threshold(seen: Survey, tables: Tables) -> list[tuple[str, list[_Pair]]]:
    """(heading, pairs) on either side of the threshold of novelty."""

    def pair(row: Judged) -> _Pair:
        return _Pair(row.nearest[0].score, *in_common(cut(row.instruction), cut(tables.neighbour(row))))

    if not seen.just_accepted and not seen.just_rejected:
        return []
    return [
        ("Just accepted", [pair(row) for row in seen.just_accepted]),
        ("Just rejected", [pair(row) for row in seen.just_rejected]),
    ]


# -- of the training ---------------------------------------------------------------------------------------------------


def _curves(training: Training) -> Iterator[tuple[str, str, LineChart, Sequence[Point], str, Sequence[Point]]]:
    """(id, title, chart, points, their format, marked points) of each."""
    steps = training.steps
    held_back = [(float(step.step), step.eval_loss) for step in steps if step.eval_loss is not None]
    if training.figures and training.figures.eval_loss_before is not None:
        held_back.insert(0, (0.0, training.figures.eval_loss_before))
    losses = [(float(step.step), step.loss) for step in steps]
    yield "loss", "Loss per learnt token", line_chart(losses, held_back), losses, "{:.3f}", held_back
    rates = [(float(step.step), step.learning_rate) for step in steps]
    yield "learning-rate", "Learning rate", line_chart(rates, from_zero=True), rates, "{:.2e}", ()
    pace = [(float(step.step), step.tokens_per_s) for step in steps]
    yield "tokens-per-s", "Tokens a second", line_chart(pace, from_zero=True), pace, "{:,.0f}", ()
