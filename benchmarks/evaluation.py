"""Evaluation against lm-evaluation-harness: do scores agree item by item, and how many items a second do both score.

Both get the same model in fp32, the same rendered prompts and the same items, one after the other on the same cores.
The other program's batch size is the fastest of several on a part of the items; ours stays as it is by default.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from finetune.answers import Answer
from finetune.metrics import best_option, exact_match
from finetune.questions import Question, Setting, ask
from finetune.transformers_engine import TransformersEngine
from selfinstruct.embedded import available_threads
from selfinstruct.files import shipped, write_jsonl, write_text
from selfinstruct.records import TaskItem
from selfinstruct.tasks import RANKED, read_tasks

SpreadT = TypeVar("SpreadT")

CLIENT = Path(__file__).parent / "clients" / "lm_eval_tasks.py"
BATCH_TOKENS = 8192  # the default of `finetune evaluate`
GOALS = {"options of several tokens": 3.5, "options of one token": 1.5, "generated answers": 1.5}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a task's scores agree: mean score by either, and the items that differ.

    Attributes:
        metric: "acc", "acc_norm" or "exact_match".
        largest: Largest difference of log-likelihoods, in nats; None for generated answers.
    """

    task: str
    metric: str
    n: int
    ours: float
    theirs: float
    differing: tuple[str, ...]
    largest: float | None


@dataclass(frozen=True, slots=True)
class Speed:
    """Items a second of both, at the other's best batch size."""

    kind: str
    n: int
    ours: float
    theirs: float
    batch_size: int

    @property
    def ratio(self) -> float:
        """How much faster ours is."""
        return self.ours / self.theirs


def tasks_of(items: Sequence[TaskItem], n_items: int) -> dict[str, list[TaskItem]]:
    """Tasks to agree on: of each cluster its ranked items, and its others as ones with an exact answer."""
    tasks: dict[str, list[TaskItem]] = {}
    for item in items:
        is_ranked = item.metric in RANKED
        task = tasks.setdefault(item.cluster if is_ranked else f"{item.cluster}_written", [])
        metric = "accuracy" if is_ranked else "exact_match"
        if len(task) < n_items:
            task.append(replace(item, metric=metric, references=item.references[:1], wordings=()))
    return tasks


def speed_tasks(items: Sequence[TaskItem], n_items: int) -> dict[str, list[TaskItem]]:
    """Items for each kind of work: with four or more options, with letters for options, and without options."""
    choices = [item for item in items if item.metric in RANKED and len(item.options) >= 4]
    several, one = [], []
    for item in choices:
        letters = tuple("ABCDEFGH"[: len(item.options)])
        right = letters[item.options.index(item.references[0])]
        one.append(replace(item, options=letters, references=(right,)))
        several.append(item)
    free = [replace(item, metric="exact_match", references=item.references[:1]) for item in items if not item.options]
    chosen = (several, one, free)
    return {kind: _spread(group, n_items) for kind, group in zip(GOALS, chosen, strict=True)}


def _spread(items: Sequence[SpreadT], count: int) -> list[SpreadT]:
    """So many of them, from all parts of the list."""
    step = max(1, len(items) // count)
    return list(items[::step][:count])


def ours(engine: TransformersEngine, items: Sequence[TaskItem]) -> tuple[list[Question], list[Answer], float]:
    """Questions, answers and seconds, from texts to log-likelihoods or answers."""
    questions = ask(items, items, engine.renderer, Setting())
    answers: dict[int, Answer] = {}
    started = time.perf_counter()
    engine.answer(dict(enumerate(questions)), answers.update)
    return questions, [answers[index] for index in range(len(questions))], time.perf_counter() - started


def write_peer_task(folder: Path, name: str, questions: Sequence[Question], max_new_tokens: int) -> None:
    """One task as lm-evaluation-harness reads it: a YAML file over JSON lines."""
    write_jsonl(
        folder / f"{name}.jsonl",
        (
            {"prompt": q.prompt, "choices": list(q.item.options), "answer": q.item.references[0],
             "gold": q.item.options.index(q.item.references[0]) if q.is_ranked else 0}
            for q in questions
        ),
    )  # fmt: skip
    config: dict[str, Any] = {
        "task": name, "dataset_path": "json", "test_split": "test", "doc_to_text": "prompt", "target_delimiter": "",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
    }  # fmt: skip
    if questions[0].is_ranked:
        config |= {
            "output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        }  # fmt: skip
    else:
        config |= {
            "output_type": "generate_until", "doc_to_target": "answer",
            "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": max_new_tokens},
            "filter_list": [
                {"name": "plain", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
            ],
            "metric_list": [{"metric": "exact_match", "ignore_case": True, "ignore_punctuation": True}],
        }  # fmt: skip
    write_text(folder / f"{name}.yaml", json.dumps(config))  # JSON is YAML


def theirs(
    python: Path, engine: TransformersEngine, folder: Path, names: Sequence[str], batch_size: int, threads: int
) -> dict[str, Any]:
    """What lm-evaluation-harness makes of the tasks in a folder."""
    out = folder / "results.json"
    given = {
        "model": engine.location, "tasks": str(folder), "names": list(names), "batch_size": batch_size,
        "threads": threads, "out": str(out),
    }  # fmt: skip
    done = subprocess.run([str(python), str(CLIENT), json.dumps(given)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"lm-evaluation-harness failed:\n{done.stderr[-3000:]}")
    results: dict[str, Any] = json.loads(out.read_text())
    return results


def compared(
    name: str, questions: Sequence[Question], answers: Sequence[Answer], samples: Sequence[Mapping[str, Any]]
) -> list[Agreement]:
    """How a task's scores agree."""
    if not questions[0].is_ranked:
        pairs = [
            (exact_match(answer.text, q.item.references), float(sample["exact_match"]), answer.text, _text(sample))
            for q, answer, sample in zip(questions, answers, samples, strict=True)
        ]
        differing = [
            f"{q.item.id}: {text!r} for {other!r}" if text != other else q.item.id
            for q, (mine, its, text, other) in zip(questions, pairs, strict=True)
            if (mine, text) != (its, other)
        ]
        return [_agreement(name, "exact_match", [p[:2] for p in pairs], differing, None)]
    found = []
    largest = max(
        abs(score - its[0])
        for answer, sample in zip(answers, samples, strict=True)
        for score, its in zip(answer.option_scores, sample["responses"], strict=True)
    )
    for metric, ours_too in (("acc", "accuracy"), ("acc_norm", "accuracy_per_character")):
        scores = [
            (float(q.item.options[best_option(ours_too, q.item.options, a.option_scores, a.option_tokens)]
                   in q.item.references), float(sample[metric]))
            for q, a, sample in zip(questions, answers, samples, strict=True)
        ]  # fmt: skip
        differing = [q.item.id for q, (mine, its) in zip(questions, scores, strict=True) if mine != its]
        found.append(_agreement(name, metric, scores, differing, largest))
    return found


def _text(sample: Mapping[str, Any]) -> str:
    (response,) = sample["responses"]
    return str(response)


def _agreement(
    name: str, metric: str, scores: Sequence[Sequence[float]], differing: Sequence[str], largest: float | None
) -> Agreement:
    n = len(scores)
    mine, its = (sum(pair[side] for pair in scores) / n for side in (0, 1))
    return Agreement(name, metric, n, mine, its, tuple(differing), largest)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def main() -> None:
    """Measure what the arguments choose, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", type=Path, required=True, help="Python that has lm-eval[hf]==0.4.13")
    parser.add_argument("--tasks", type=Path, nargs="*", default=[], help="further task files, as finetune evaluate's")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--items", type=int, default=12, help="items of each task to agree on")
    parser.add_argument("--speed-items", type=int, default=32, help="items of each kind of work to time")
    parser.add_argument("--trial-items", type=int, default=16, help="items to find the other's best batch size with")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16, 32], help="sizes to try")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--only", choices=["agreement", "speed"], help="half of it")
    parser.add_argument("--out", type=Path, help="raw figures as JSON")
    given = parser.parse_args()
    items = [item for item in read_tasks([shipped("heldout"), *given.tasks]) if item.metric != "json_schema"]
    figures: dict[str, Any] = {"threads": given.threads, "model": given.model}
    if given.only != "speed":
        agreements = _agree(_engine(given), tasks_of(items, given.items), given)
        figures["agreement"] = [asdict(agreement) for agreement in agreements]
        rows = [("task", "metric", "items", "ours", "lm-eval", "differing", "largest log-likelihood difference")]
        rows += [
            (a.task, a.metric, str(a.n), f"{a.ours:.4f}", f"{a.theirs:.4f}", ", ".join(a.differing) or "none",
             "" if a.largest is None else f"{a.largest:.1e}")
            for a in agreements
        ]  # fmt: skip
        print(table(rows), flush=True)
    if given.only != "agreement":
        speeds = _measure(_engine(given), speed_tasks(items, given.speed_items), given)
        figures["speed"] = [{**asdict(speed), "ratio": speed.ratio} for speed in speeds]
        rows = [("work", "items", "ours, items/s", "lm-eval, items/s", "its batch size", "ratio", "goal")]
        rows += [
            (
                s.kind,
                str(s.n),
                f"{s.ours:.2f}",
                f"{s.theirs:.2f}",
                str(s.batch_size),
                f"{s.ratio:.2f}",
                f"{GOALS[s.kind]}",
            )
            for s in speeds
        ]
        print(table(rows), flush=True)
    if given.out:
        write_text(given.out, json.dumps(figures, indent=2))


def _engine(given: argparse.Namespace) -> TransformersEngine:
    # Alpaca's prompt does not end in white space, which the other program would move to the answer and score with it.
    engine = TransformersEngine(given.model, None, "alpaca", given.max_new_tokens, BATCH_TOKENS, given.threads)
    engine.load()
    return engine


def _agree(
    engine: TransformersEngine, tasks: Mapping[str, Sequence[TaskItem]], given: argparse.Namespace
) -> list[Agreement]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        answered = {task: ours(engine, _fitting(engine, items))[:2] for task, items in tasks.items()}
        for task, (questions, _) in answered.items():
            write_peer_task(folder, task, questions, given.max_new_tokens)
        found = theirs(given.peer_python, engine, folder, list(tasks), 1, given.threads)
        return [
            agreement
            for task, (questions, answers) in answered.items()
            for agreement in compared(task, questions, answers, found[task]["samples"])
        ]


def _fitting(engine: TransformersEngine, items: Sequence[TaskItem]) -> list[TaskItem]:
    """Items that the model has room for: the other program cuts prompts, ours leaves them out."""
    return [q.item for q in ask(items, items, engine.renderer, Setting()) if engine.problem(q) is None]


def _measure(
    engine: TransformersEngine, tasks: Mapping[str, Sequence[TaskItem]], given: argparse.Namespace
) -> list[Speed]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = {kind: f"work_{number}" for number, kind in enumerate(tasks)}
        for kind, items in tasks.items():
            questions = ask(items, items, engine.renderer, Setting())
            write_peer_task(folder, names[kind], questions, given.max_new_tokens)
            trial = _spread(questions, given.trial_items)
            write_peer_task(folder, f"trial_{names[kind]}", trial, given.max_new_tokens)
        sizes = given.batch_sizes
        best = dict.fromkeys(tasks, sizes[0])
        if len(sizes) > 1:
            wanted = [f"trial_{name}" for name in names.values()]
            trials = {size: theirs(given.peer_python, engine, folder, wanted, size, given.threads) for size in sizes}
            for kind, name in names.items():
                trial_seconds = {size: found[f"trial_{name}"]["seconds"] for size, found in trials.items()}
                best[kind] = min(trial_seconds, key=trial_seconds.__getitem__)
        speeds = []
        for size in sorted(set(best.values())):
            kinds = [kind for kind in tasks if best[kind] == size]
            wanted = [names[kind] for kind in kinds]
            found = theirs(given.peer_python, engine, folder, wanted, size, given.threads)
            for kind in kinds:
                n, seconds = len(tasks[kind]), ours(engine, tasks[kind])[2]
                speeds.append(Speed(kind, n, n / seconds, n / found[names[kind]]["seconds"], size))
        return speeds


if __name__ == "__main__":
    main()
