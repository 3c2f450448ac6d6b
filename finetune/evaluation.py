"""`finetune evaluate`: a model's answers to held-out tasks, scored.

evaluate.toml                what was asked for, of which model; written first
predictions.partial.jsonl    answers so far, as they come; gone once all are there
ledger.sqlite                of an endpoint: every request and reply
predictions.jsonl            all answers with their scores, in the order of the items
summary.json                 means with intervals; written last: a folder with a summary is finished
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from finetune.answers import Answer, AnswerCache, partial_answers
from finetune.engines import EndpointEngine, Engine
from finetune.figures import AnswerFigures, Spread, answer_figures, spreads
from finetune.grading import graded, refused
from finetune.metrics import problem_of
from finetune.predictions import PARTIAL, PREDICTIONS, Prediction
from finetune.questions import Question, Setting, ask, limited
from finetune.scores import Score, scores
from finetune.statistics import Interval
from finetune.transformers_engine import NEWEST, TransformersEngine
from finetune.wordings import N_GENERAL
from selfinstruct.asking import EndpointConfig
from selfinstruct.command import Config, table
from selfinstruct.errors import InputError, Interrupted, UsageError
from selfinstruct.files import (
    digest,
    read_json,
    read_toml,
    shipped,
    to_toml,
    validate,
    write_json,
    write_jsonl,
    write_text,
)  # fmt: skip
from selfinstruct.progress import Progress
from selfinstruct.records import TaskItem
from selfinstruct.render import TemplateName
from selfinstruct.tasks import RANKED, read_tasks

logger = logging.getLogger(__name__)

RECORD, SUMMARY, LEDGER = "evaluate.toml", "summary.json", "ledger.sqlite"
DECODING = "greedy"


class _Options(Config):
    model: str = Field(
        "embedded",
        description="Model: embedded, a folder, a GGUF file, or a name on the hub; with --base-url its name there.",
    )
    adapter: Path | None = Field(None, description="Adapter to put on the model: the folder adapter/ of a training.")
    tasks: list[Path] = Field(
        [],
        description="Files or folders with held-out tasks, or datasets:NAME:SPLIT for a data set with such rows. "
        "Default: the shipped ones.",
    )
    out: Path = Field(description="Folder for predictions and summary; the same command resumes.")
    template: TemplateName = Field(
        "auto",
        description="How items become prompts: chat (the model's template), alpaca, plain or a Jinja file; auto is the "
        "adapter's own, else chat, or alpaca where the model has no template.",
    )
    shots: int = Field(0, ge=0, description="Demonstrations in each prompt: the first of those that the item has.")
    borrow_shots: bool = Field(
        False, description="Where an item has too few demonstrations, take other items of its task."
    )
    wordings: int = Field(
        1, ge=1,
        description="Wordings in which each item is asked: its own, those that its file gives, then up to "
        f"{N_GENERAL - 1} general ones. Its score is their mean; the spread is reported.",
    )  # fmt: skip
    list_options: bool = Field(False, description="End prompts with the item's options, OPTIONS: and - a line.")
    generate_options: bool = Field(
        False, description="Where options would be ranked, generate an answer and see which it names (option_match)."
    )
    limit: int | None = Field(
        None, ge=1, description="Items of each cluster: the first of each of its tasks, then the second, and so on."
    )
    max_new_tokens: int = Field(64, ge=1, description="Most tokens of a generated answer.")
    batch_tokens: int = Field(
        8192, ge=1, description="Most tokens of a batch, padding included; halved where memory does not suffice."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; default as many as there are cores.")
    cache: Path | None = Field(
        None, description="Folder of answers that evaluations share, by model, adapter, prompt and decoding."
    )
    dry_run: bool = Field(False, description="Check all inputs, say what would be evaluated, and end.")


class EvaluateConfig(EndpointConfig, _Options):
    """Which model, on which tasks, and how it is asked."""


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Unscored(_Result):
    """An item that was not asked, and why."""

    item: str
    reason: str


class EvaluationPlan(_Result):
    """What --dry-run found."""

    model: str
    adapter: str | None
    template: str
    shots: int
    n: int
    clusters: dict[str, dict[str, int]] = Field(description="Cluster to metric to number of items.")
    unscored_items: list[Unscored]


class EvaluationSummary(_Result):
    """What an evaluation came to; all means are 0 to 1."""

    model: str
    model_path: str
    adapter: str | None
    template: str
    template_sha256: str
    shots: int
    decoding: str
    n: int
    overall: dict[str, Score]
    clusters: dict[str, Score]
    tasks: dict[str, Score]
    answers: dict[str, dict[str, AnswerFigures]] = Field(
        description="How answers were: overall by metric, and by the names of clusters and tasks."
    )
    wordings: int
    spread: dict[str, Spread] = Field(description="By cluster, with several wordings; by task, with several templates.")
    truncated: int = Field(description="Generated answers cut at the token limit.")
    unscored: int
    unscored_items: list[Unscored]
    reused: int = Field(description="Answers that were there: of an earlier call or from the cache.")
    requests: int = Field(description="Sent to an endpoint.")
    cost_usd: float | None = Field(description="Of all requests; null when the price is unknown.")
    elapsed_s: float = Field(description="Seconds of answering, in the run that finished it.")


def evaluate(config: EvaluateConfig) -> EvaluationSummary | EvaluationPlan:
    """Score a model, with or without an adapter, on held-out tasks.

    An item with options to rank gets the option with the largest log-likelihood; any other a greedy answer. An item
    that does not fit the model's context, with its longest option or --max-new-tokens, is left out and listed, never
    cut. The same command goes on where a killed one stopped, and returns at once when everything is there.

    An endpoint (--base-url) tells no log-likelihoods of given options: there, items with options are answered and
    scored by the option that the answer names, under the metric option_match.

    Returns:
        With --dry-run the plan, else the summary as it stands in summary.json.

    Raises:
        InputError: For unreadable tasks, models or adapters, or an item without the demonstrations for --shots.
        UsageError: When --out holds something else or an evaluation with other settings, or no item fits.
        CapReached, StoppedEarly, AuthenticationError: By an endpoint; answers so far are kept.
        Interrupted: On Ctrl-C; finished batches are kept.
    """
    pool = read_tasks(config.tasks or [shipped("heldout")])
    items = limited(pool, config.limit)
    engine = _engine(config)
    if config.generate_options or not engine.ranks:
        items = [_generated(item) for item in items]
    for item in items:
        if problem := problem_of(item.metric, item.references):
            raise InputError(f"item '{item.id}': {problem}", field="references", remedy="mend it in its file")
    setting = Setting(config.shots, config.borrow_shots, config.wordings, config.list_options)
    asked = ask(items, pool, engine.renderer, setting)
    questions, unscored = _fitting(asked, engine)
    if config.dry_run:
        return _plan(config, engine, questions, unscored)

    identity = {
        **engine.identity,
        "template": f"{engine.renderer.name} {engine.renderer.sha256}",
        "shots": config.shots,
        "max_new_tokens": config.max_new_tokens,
        "decoding": DECODING,
        "items": f"{len(items)} {digest([asdict(item) for item in items])}",
        "prompts": digest([question.prompt for question in asked]),
    }
    if finished := _finished(config.out, identity):
        return finished
    cache = _cache(config, engine)
    config.out.mkdir(parents=True, exist_ok=True)
    versions = {name: version(name) for name in engine.packages}
    record = {"config": config.model_dump(mode="json"), "identity": identity, "versions": versions}
    write_text(config.out / RECORD, to_toml(record))

    started = time.monotonic()
    answers, reused = _answers(engine, questions, config, cache)
    unscored += [Unscored(item=item, reason=reason) for item, reason in refused(answers).items()]
    predictions = graded(answers)
    if not predictions:
        raise UsageError(f"no item was answered; the first, '{unscored[0].item}', {unscored[0].reason}")
    summary = _summary(config, engine, predictions, unscored, reused, time.monotonic() - started)
    write_jsonl(config.out / PREDICTIONS, map(asdict, predictions))
    write_json(config.out / SUMMARY, summary.model_dump(mode="json"))
    (config.out / PARTIAL).unlink()
    return summary


def _plan(
    config: EvaluateConfig, engine: Engine, questions: Sequence[Question], unscored: list[Unscored]
) -> EvaluationPlan:
    items = {question.item.id: question.item for question in questions}
    clusters: dict[str, Counter[str]] = {}
    for item in items.values():
        clusters.setdefault(item.cluster, Counter())[item.metric] += 1
    return EvaluationPlan(
        model=engine.model,
        adapter=None if config.adapter is None else str(config.adapter),
        template=engine.renderer.name,
        shots=config.shots,
        n=len(items),
        clusters={name: dict(counts) for name, counts in clusters.items()},
        unscored_items=unscored,
    )


def _summary(
    config: EvaluateConfig, engine: Engine, predictions: Sequence[Prediction], unscored: Sequence[Unscored],
    reused: int, elapsed_s: float,
) -> EvaluationSummary:  # fmt: skip
    return EvaluationSummary(
        model=engine.model,
        model_path=engine.location,
        adapter=None if config.adapter is None else str(config.adapter),
        template=engine.renderer.name,
        template_sha256=engine.renderer.sha256,
        shots=config.shots,
        decoding=DECODING,
        n=len(predictions),
        overall=scores(predictions, lambda p: p.metric),
        clusters=scores(predictions, lambda p: p.cluster),
        tasks=scores(predictions, lambda p: p.task),
        answers={
            "overall": answer_figures(predictions, lambda p: p.metric),
            "clusters": answer_figures(predictions, lambda p: p.cluster),
            "tasks": answer_figures(predictions, lambda p: p.task),
        },
        wordings=config.wordings,
        spread=spreads([p for p in predictions if p.wordings], lambda p: p.cluster)
        or spreads(predictions, lambda p: p.task),
        truncated=sum(p.truncated for p in predictions),
        unscored=len(unscored),
        unscored_items=list(unscored),
        reused=reused,
        requests=engine.spent.requests if engine.spent else 0,
        cost_usd=engine.spent.cost_usd if engine.spent else 0.0,
        elapsed_s=round(elapsed_s, 3),
    )


def _engine(config: EvaluateConfig) -> Engine:
    if config.base_url is None:
        return TransformersEngine(
            config.model, config.adapter, config.template, config.max_new_tokens, config.batch_tokens, config.threads
        )
    if config.adapter is not None:
        raise UsageError(
            "--adapter: an endpoint has its own models; serve the tuned one there, or leave out --base-url"
        )
    return EndpointEngine(config, config.model, config.template, config.max_new_tokens, config.out / LEDGER)


def _generated(item: TaskItem) -> TaskItem:
    return replace(item, metric="option_match") if item.metric in RANKED else item


def _fitting(asked: Sequence[Question], engine: Engine) -> tuple[list[Question], list[Unscored]]:
    """The questions that can be put to the model, and the items that cannot, in any of their wordings."""
    problems: dict[str, str] = {}
    for question in asked:
        if problem := engine.problem(question):
            problems.setdefault(question.item.id, problem)
    unscored = [Unscored(item=item, reason=problem) for item, problem in problems.items()]
    questions = [question for question in asked if question.item.id not in problems]
    if not questions:
        raise UsageError(f"no item fits the model; the first, '{unscored[0].item}', {unscored[0].reason}")
    if unscored:
        n_items = len({question.item.id for question in asked})
        logger.warning("%d of %d items do not fit the model's context and are left out", len(unscored), n_items)
    return questions, unscored


def _finished(out: Path, identity: Mapping[str, Any]) -> EvaluationSummary | None:
    """The summary of a finished evaluation with the same settings; None for an unfinished or a new one.

    Raises:
        UsageError: When the folder holds something else, or an evaluation with other settings.
    """
    if not (out / RECORD).exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"--out {out} holds other files; give a new or an empty folder")
        return None
    before = read_toml(out / RECORD).get("identity", {})
    if changed := [key for key in identity if before.get(key) != identity[key]]:
        changes = "; ".join(f"{key} was {before.get(key, 'not recorded')}, now {identity[key]}" for key in changed)
        raise UsageError(
            f"{out} holds an evaluation with other settings: {changes}. Give the same settings to resume, or another "
            "--out"
        )
    summary = out / SUMMARY
    return validate(EvaluationSummary, read_json(summary), path=summary) if summary.exists() else None


def _cache(config: EvaluateConfig, engine: Engine) -> AnswerCache | None:
    if config.cache is None:
        return None
    if NEWEST in engine.identity.values():
        raise UsageError("--cache: the model's weights may change on the hub; name a revision: --model NAME@REVISION")
    return AnswerCache(config.cache, engine.identity)


def _answers(
    engine: Engine, questions: Sequence[Question], config: EvaluateConfig, cache: AnswerCache | None
) -> tuple[list[tuple[Question, Answer]], int]:
    """(each question with its answer, how many of the answers were there before); every batch is kept as it is done."""
    keys = [question.key(config.max_new_tokens) for question in questions]
    with partial_answers(config.out / PARTIAL) as (answers, keep):
        if cache:
            known = {key: cache.answers[key] for key in keys if key in cache.answers and key not in answers}
            keep(known)
            answers |= known
        # Two items may be one question: the same prompt with the same options.
        asked = dict(zip(keys, questions, strict=True))
        key_of = dict(enumerate(asked))
        open_questions = {number: asked[key] for number, key in key_of.items() if key not in answers}
        reused = sum(key in answers for key in keys)
        with Progress("question", len(asked), len(asked) - len(open_questions)) as shown:

            def receive(done: Mapping[int, Answer]) -> None:
                new = {key_of[number]: answer for number, answer in done.items()}
                keep({key: answer for key, answer in new.items() if answer.error is None})
                if cache:
                    cache.keep(new)
                answers.update(new)
                shown.update(len(answers), "")

            if open_questions:
                try:
                    engine.answer(open_questions, receive)
                except KeyboardInterrupt as error:
                    raise Interrupted(f"interrupted; the same command goes on with {config.out}") from error
        return [(question, answers[key]) for key, question in zip(keys, questions, strict=True)], reused


def describe(result: EvaluationSummary | EvaluationPlan) -> str:
    """An evaluation, or the plan of one, for people."""
    asked = f"{result.model}{f' with {result.adapter}' if result.adapter else ''}"
    asked = f"{asked}, template {result.template}, {result.shots} demonstrations a prompt"
    lines = [f"{asked}: {result.n} items"]
    if isinstance(result, EvaluationPlan):
        counted = [(name, metric, str(n)) for name, counts in result.clusters.items() for metric, n in counts.items()]
        lines += ["", table([("cluster", "metric", "items"), *counted])]
    else:
        lines += _describe_summary(result)
    if result.unscored_items:
        first = result.unscored_items[0]
        lines += ["", f"{len(result.unscored_items)} items were left out; the first, {first.item}, {first.reason}."]
    return "\n".join(lines)


def _describe_summary(summary: EvaluationSummary) -> list[str]:
    shown = [*summary.clusters.items(), *((f"all {metric}", score) for metric, score in summary.overall.items())]
    rows: list[tuple[str, ...]] = [
        (name, s.metric, str(s.n), str(s.n_tasks), f"{s.mean:.3f}", _interval(s.ci95), s.unit) for name, s in shown
    ]
    lines = ["", table([("cluster", "metric", "items", "tasks", "mean", "95% interval", "by"), *rows])]
    generated = {
        name: figures for name, figures in summary.answers["clusters"].items() if figures.stop_rate is not None
    }
    if generated:
        header = ("generated answers", "n", "ended by themselves", "empty", "off format", "characters", "reference's")
        rows = [
            (name, str(f.generated), f"{f.stop_rate:.0%}", str(f.empty), str(f.off_format),
             f"{f.mean_answer_characters:.0f}", f"{f.mean_reference_characters:.0f}")
            for name, f in generated.items()
        ]  # fmt: skip
        lines += ["", table([header, *rows])]
    if summary.spread:
        rows = [
            (name, str(len(s.means)), f"{s.mean:.3f}", f"{s.lowest:.3f}", f"{s.highest:.3f}", f"{s.sd:.3f}")
            for name, s in summary.spread.items()
        ]
        lines += ["", table([("by wording", "wordings", "mean", "lowest", "highest", "sd"), *rows])]
    if summary.truncated:
        lines += ["", f"{summary.truncated} answers were cut at the token limit (--max-new-tokens)."]
    if summary.requests:
        cost = "cost unknown" if summary.cost_usd is None else f"{summary.cost_usd:.4f} USD"
        lines += ["", f"{summary.requests} requests, {cost}."]
    return lines


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
