"""`finetune evaluate`: a model's answers to held-out tasks, scored.

evaluate.toml                what was asked for, of which model; written first
predictions.partial.jsonl    answers so far, batch by batch; gone once all are there
predictions.jsonl            all answers, in the order of the items
summary.json                 means with intervals; written last: a folder with a summary is finished
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune.metrics import SCORE
from finetune.models import ModelSource, check_base, load_adapter, load_model, renderer_of, resolve, tokenizer_of
from finetune.predictions import PARTIAL, PREDICTIONS, Prediction, grouped, metric_of, partial_file
from finetune.questions import Question, ask, limited
from finetune.statistics import Interval, mean_interval
from selfinstruct.command import Config, table
from selfinstruct.errors import Error, InputError, Interrupted, UsageError
from selfinstruct.files import (
    digest,
    read_json,
    read_toml,
    sha256_file,
    shipped,
    to_json_line,
    to_toml,
    validate,
    write_json,
    write_jsonl,
    write_text,
)  # fmt: skip
from selfinstruct.progress import Progress
from selfinstruct.render import TemplateName
from selfinstruct.tasks import read_tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

RECORD, SUMMARY = "evaluate.toml", "summary.json"


class EvaluateConfig(Config):
    """Which model, on which tasks, and how it is asked."""

    model: str = Field("embedded", description="Model: embedded, a folder, a GGUF file, or a name on the hub.")
    adapter: Path | None = Field(None, description="Adapter to put on the model: the folder adapter/ of a training.")
    tasks: list[Path] = Field([], description="Files or folders with held-out tasks. Default: the shipped ones.")
    out: Path = Field(description="Folder for predictions and summary; the same command resumes.")
    template: TemplateName = Field(
        "auto",
        description="How items become prompts: chat (the model's template), alpaca, plain or a Jinja file; auto is the "
        "adapter's own, else chat, or alpaca where the model has no template.",
    )
    shots: int = Field(0, ge=0, description="Demonstrations in each prompt: the first of those that the item has.")
    limit: int | None = Field(
        None, ge=1, description="Items of each cluster: the first of each of its tasks, then the second, and so on."
    )
    max_new_tokens: int = Field(64, ge=1, description="Most tokens of a generated answer.")
    batch_tokens: int = Field(4096, ge=1, description="Most tokens of a batch, padding included.")
    threads: int | None = Field(None, ge=1, description="CPU threads; default as many as there are cores.")
    dry_run: bool = Field(False, description="Check all inputs, say what would be evaluated, and end.")


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Score(_Result):
    """A mean of scores; `ci95` is null for a single one.

    The metric of a cluster with items of several is, for example, "accuracy + exact_match": see `metric_of`.
    """

    metric: str
    n: int
    mean: float
    ci95: Interval | None


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
    n: int
    overall: dict[str, Score]
    clusters: dict[str, Score]
    tasks: dict[str, Score]
    truncated: int = Field(description="Generated answers cut at the token limit.")
    unscored: int
    unscored_items: list[Unscored]
    elapsed_s: float = Field(description="Seconds of answering, in the run that finished it.")


def evaluate(config: EvaluateConfig) -> EvaluationSummary | EvaluationPlan:
    """Score a model, with or without an adapter, on held-out tasks.

    An item with options gets the option with the largest summed log-likelihood; any other a greedy answer. An item
    that does not fit the model's context, with its longest option or --max-new-tokens, is left out and listed, never
    cut. The same command goes on where a killed one stopped, and returns at once when everything is there.

    Returns:
        With --dry-run the plan, else the summary as it stands in summary.json.

    Raises:
        InputError: For unreadable tasks, models or adapters, or an item without the demonstrations for --shots.
        UsageError: When --out holds something else or an evaluation with other settings, or no item fits.
        Interrupted: On Ctrl-C; finished batches are kept.
    """
    items = limited(read_tasks(config.tasks or [shipped("heldout")]), config.limit)
    source = resolve(config.model)
    adapter_sha256 = "none" if config.adapter is None else _adapter_sha256(config.adapter)
    if config.adapter:
        check_base(config.adapter, source)
    tokenizer = tokenizer_of(source, config.adapter)
    renderer = renderer_of(tokenizer, source, config.adapter, config.template)
    asked = [ask(item, renderer, tokenizer, config.shots) for item in items]
    questions, unscored = _fitting(asked, _context_length(source), config.max_new_tokens)
    adapter = None if config.adapter is None else str(config.adapter)
    if config.dry_run:
        clusters: dict[str, Counter[str]] = {}
        for question in questions:
            clusters.setdefault(question.item.cluster, Counter())[question.item.metric] += 1
        return EvaluationPlan(
            model=source.public_name, adapter=adapter, template=renderer.name, shots=config.shots, n=len(questions),
            clusters={name: dict(counts) for name, counts in clusters.items()}, unscored_items=unscored,
        )  # fmt: skip

    identity = {
        "model": source.public_name,
        "weights": source.weights_sha256 or source.revision or "newest on the hub",
        "adapter": adapter_sha256,
        "template": f"{renderer.name} {renderer.sha256}",
        "shots": config.shots,
        "max_new_tokens": config.max_new_tokens,
        "items": f"{len(items)} {digest([asdict(item) for item in items])}",
    }
    if finished := _finished(config.out, identity):
        return finished
    config.out.mkdir(parents=True, exist_ok=True)
    versions = {name: version(name) for name in ("torch", "transformers", "peft")}
    record = {"config": config.model_dump(mode="json"), "identity": identity, "versions": versions}
    write_text(config.out / RECORD, to_toml(record))

    model = _load(source, config)
    started = time.monotonic()
    predictions = _predict(model, tokenizer, questions, config)
    summary = EvaluationSummary(
        model=source.public_name,
        model_path=source.location,
        adapter=adapter,
        template=renderer.name,
        template_sha256=renderer.sha256,
        shots=config.shots,
        n=len(predictions),
        overall=_scores(predictions, lambda p: p.metric),
        clusters=_scores(predictions, lambda p: p.cluster),
        tasks=_scores(predictions, lambda p: p.task),
        truncated=sum(p.truncated for p in predictions),
        unscored=len(unscored),
        unscored_items=unscored,
        elapsed_s=round(time.monotonic() - started, 3),
    )
    write_jsonl(config.out / PREDICTIONS, map(asdict, predictions))
    write_json(config.out / SUMMARY, summary.model_dump(mode="json"))
    (config.out / PARTIAL).unlink()
    return summary


def _adapter_sha256(adapter: Path) -> str:
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        raise InputError(
            f"holds no {weights.name}, so it is no adapter" if adapter.is_dir() else "no such folder",
            path=adapter, remedy="give the folder adapter/ that `finetune train` wrote",
        )  # fmt: skip
    return sha256_file(weights)


def _context_length(source: ModelSource) -> int | None:
    """Most tokens that the model takes; None where its configuration sets no limit."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            source.location,
            revision=source.revision or "main",
            local_files_only=source.is_local,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise UsageError(f"the configuration of {source.name} cannot be used: {problem}") from error
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _fitting(
    asked: Sequence[Question], context_length: int | None, max_new_tokens: int
) -> tuple[list[Question], list[Unscored]]:
    """The questions that fit the context, and those that do not."""
    questions, unscored = [], []
    for question in asked:
        _, n_tokens = question.size(max_new_tokens)
        if context_length is not None and n_tokens > context_length:
            reason = f"takes {n_tokens} tokens with its answer, the model's context is {context_length}"
            unscored.append(Unscored(item=question.item.id, reason=reason))
        else:
            questions.append(question)
    if not questions:
        raise UsageError(f"no item fits the model; the first, '{unscored[0].item}', {unscored[0].reason}")
    if unscored:
        logger.warning("%d of %d items do not fit the model's context and are left out", len(unscored), len(asked))
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


def _load(source: ModelSource, config: EvaluateConfig) -> Any:
    """The model with its adapter, on the device that computes."""
    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    model: Any = load_model(source)
    if torch.cuda.is_available():
        model = model.to("cuda")
    if config.adapter is not None:
        model = load_adapter(model, config.adapter)
    return model.eval()


def _predict(
    model: Any, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], config: EvaluateConfig
) -> list[Prediction]:
    """Answer all questions, but not again those of batches that an earlier run finished.

    Batches depend on the questions alone, so a resumed evaluation computes the very same ones.
    """
    from torch import OutOfMemoryError

    with partial_file(config.out) as (answered, file):
        batches = [batch for batch in _batches(questions, config) if not all(q.item.id in answered for q in batch)]
        n_done = len(questions) - sum(map(len, batches))
        with Progress("item", len(questions), n_done) as shown:
            try:
                for batch in batches:
                    for prediction in _answer(model, tokenizer, batch, config.max_new_tokens):
                        answered[prediction.item] = prediction
                        file.write(to_json_line(asdict(prediction)) + "\n")
                    file.flush()
                    n_done += len(batch)
                    shown.update(n_done, batch[-1].item.metric)
            except KeyboardInterrupt as error:
                raise Interrupted(f"interrupted; the same command goes on with {config.out}") from error
            except OutOfMemoryError as error:
                raise Error("the device is out of memory; run it again with a smaller --batch-tokens") from error
    return [answered[question.item.id] for question in questions]


def _batches(questions: Sequence[Question], config: EvaluateConfig) -> list[list[Question]]:
    """Questions with options and those without apart, each grouped by length."""
    from finetune.scoring import plan_batches

    batches = []
    for has_options in (True, False):
        alike = [question for question in questions if bool(question.item.options) is has_options]
        sizes = [question.size(config.max_new_tokens) for question in alike]
        batches += [[alike[index] for index in batch] for batch in plan_batches(sizes, config.batch_tokens)]
    return batches


def _answer(
    model: Any, tokenizer: PreTrainedTokenizerBase, batch: Sequence[Question], max_new_tokens: int
) -> Iterator[Prediction]:
    """Put one batch, all with options or all without, to the model."""
    from finetune import scoring

    if batch[0].item.options:
        scores = scoring.option_log_likelihoods(model, [q.tokens for q in batch if not isinstance(q.tokens, list)])
        for question, option_scores in zip(batch, scores, strict=True):
            yield _ranked(question, option_scores)
    else:
        eos_ids = _eos_ids(model, tokenizer)
        prompts = [q.tokens for q in batch if isinstance(q.tokens, list)]
        answers = scoring.generate(model, prompts, max_new_tokens=max_new_tokens, eos_ids=eos_ids)
        for question, tokens in zip(batch, answers, strict=True):
            text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            yield _generated(question, text, is_cut=tokens[-1] not in eos_ids)


def _ranked(question: Question, option_scores: Sequence[float]) -> Prediction:
    item = question.item
    if not all(map(math.isfinite, option_scores)):
        raise Error(f"the model's log-likelihoods for item '{item.id}' are no finite numbers; its weights are broken")
    best = item.options[max(range(len(item.options)), key=option_scores.__getitem__)]
    return _prediction(question, best, tuple(option_scores), float(best in item.references), stop=None)


def _generated(question: Question, text: str, *, is_cut: bool) -> Prediction:
    score = SCORE[question.item.metric](text, question.item.references)
    return _prediction(question, text, (), score, stop="length" if is_cut else "eos")


def _prediction(
    question: Question, text: str, option_scores: tuple[float, ...], score: float, stop: Literal["eos", "length"] | None
) -> Prediction:
    item = question.item
    return Prediction(
        item=item.id, task=item.task, cluster=item.cluster, prompt=question.prompt, prediction=text,
        references=item.references, options=item.options, option_scores=option_scores, metric=item.metric, score=score,
        stop=stop, truncated=stop == "length",
    )  # fmt: skip


def _eos_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that end an answer: the tokenizer's, and those that the model's authors set for generation."""
    ended = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(ended if isinstance(ended, list) else [ended])} - {None}


def _scores(predictions: Sequence[Prediction], key: Callable[[Prediction], str]) -> dict[str, Score]:
    return {
        name: Score(
            metric=metric_of(group),
            n=len(group),
            mean=math.fsum(p.score for p in group) / len(group),
            ci95=mean_interval([p.score for p in group]),
        )
        for name, group in grouped(predictions, key).items()
    }


def describe(result: EvaluationSummary | EvaluationPlan) -> str:
    """An evaluation, or the plan of one, for people."""
    asked = f"{result.model}{f' with {result.adapter}' if result.adapter else ''}"
    asked = f"{asked}, template {result.template}, {result.shots} demonstrations a prompt"
    lines = [f"{asked}: {result.n} items"]
    if isinstance(result, EvaluationPlan):
        counted = [(name, metric, str(n)) for name, counts in result.clusters.items() for metric, n in counts.items()]
        lines += ["", table([("cluster", "metric", "items"), *counted])]
    else:
        scores = [*result.clusters.items(), *((f"all {metric}", score) for metric, score in result.overall.items())]
        rows = [
            (name, score.metric, str(score.n), f"{score.mean:.3f}", _interval(score.ci95)) for name, score in scores
        ]
        lines += ["", table([("cluster", "metric", "items", "mean", "95% interval"), *rows])]
        if result.truncated:
            lines += ["", f"{result.truncated} answers were cut at the token limit (--max-new-tokens)."]
    if result.unscored_items:
        first = result.unscored_items[0]
        lines += ["", f"{len(result.unscored_items)} items were left out; the first, {first.item}, {first.reason}."]
    return "\n".join(lines)


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
