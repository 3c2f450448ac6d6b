"""What tuning on some clusters of tasks does to a model on others: zero-shot, paired, with intervals.

A model is tuned on a sample of prompt and completion pairs of all clusters but those held out, within half an hour on
two cores, and asked about the held-out ones before and after: by rank over the answers that a template has, and by
what it writes. Three worked examples in the base model's prompt are the control: what they bring as well, the base
model could do already and only lacked the form of the answer.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from finetune import CompareConfig, EvaluateConfig, TrainConfig, compare, evaluate, train
from finetune.changes import Comparison
from selfinstruct.command import table
from selfinstruct.files import read_jsonl, write_jsonl

MAX_OPTIONS = 8
SHOTS = 3


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of the file; `options` are the answers that its prompt lists or its template has, else ()."""

    cluster: str
    template: str
    prompt: str
    completion: str
    options: tuple[str, ...] = ()


def read_pairs(path: Path, max_prompt: int) -> list[Pair]:
    """Rows with an answer and a prompt of at most so many characters, none twice, of templates with several answers."""
    rows = {
        (values["cluster"], f"{values['dataset']}/{values['template']}", values["prompt"]): values["completion"].strip()
        for _, values in read_jsonl(path)
        if values["prompt"].strip() and values["completion"].strip() and len(values["prompt"]) <= max_prompt
    }
    answers: dict[str, list[str]] = defaultdict(list)
    for (_, template, _), completion in rows.items():
        answers[template].append(completion)
    options = {template: _options(found) for template, found in answers.items()}
    return [
        Pair(cluster, template, prompt, completion, _listed(prompt, completion) or options[template])
        for (cluster, template, prompt), completion in rows.items()
        if len(set(answers[template])) > 1
    ]


def _listed(prompt: str, completion: str) -> tuple[str, ...]:
    """The lines of the prompt that begin with a dash, if the answer is one of them."""
    lines = tuple(dict.fromkeys(re.findall(r"^ *- (.*\S)", prompt, re.MULTILINE)))
    return lines if completion in lines and 2 <= len(lines) <= MAX_OPTIONS else ()


def _options(completions: Sequence[str]) -> tuple[str, ...]:
    """The answers of a template, if few of them make up all of its rows."""
    different = sorted(set(completions))
    return tuple(different) if len(different) <= MAX_OPTIONS and len(completions) >= 4 * len(different) else ()


def sample(pairs: Sequence[Pair], n: int, rng: Random) -> list[Pair]:
    """So many pairs, templates and the places of the right option taking turns, so that none dominates."""
    piles: dict[str, dict[int, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in rng.sample(pairs, len(pairs)):
        piles[pair.template][pair.options.index(pair.completion) if pair.options else 0].append(pair)
    turns = [_in_turns(list(piles[template].values())) for template in sorted(piles)]
    drawn = [pair for round_ in _rounds(turns) for pair in round_]
    return drawn[:n]


def _in_turns(piles: Sequence[list[Pair]]) -> Iterator[Pair]:
    """One of each pile, as long as every pile has one."""
    for row in zip(*piles, strict=False):
        yield from row


def _rounds(turns: Sequence[Iterator[Pair]]) -> Iterator[list[Pair]]:
    end = object()
    while row := [pair for pair in (next(turn, end) for turn in turns) if isinstance(pair, Pair)]:
        yield row


def with_shots(pair: Pair, pairs: Sequence[Pair], rng: Random) -> str:
    """The prompt after worked examples of the same template, with different answers as far as there are."""
    others = [other for other in pairs if other.template == pair.template and other.prompt != pair.prompt]
    shown = sample(others, SHOTS, rng)
    return "\n\n".join([*(f"{other.prompt}\n{other.completion}" for other in shown), pair.prompt])


def write_tasks(held: Sequence[Pair], pairs: Sequence[Pair], folder: Path, rng: Random) -> tuple[Path, Path]:
    """Two files with the same items, zero-shot and with examples; each item twice, to be ranked and to be written."""
    files = folder / "zero-shot.jsonl", folder / "few-shot.jsonl"
    few = [with_shots(pair, pairs, rng) for pair in held]
    for file, prompts in zip(files, ([pair.prompt for pair in held], few), strict=True):
        rows = []
        for number, (pair, prompt) in enumerate(zip(held, prompts, strict=True)):
            item = {"task": pair.template, "instruction": prompt, "input": "", "references": [pair.completion]}
            rows.append({"id": f"rank/{number}", "cluster": f"{pair.cluster} (rank)", "options": pair.options, **item})
            rows.append(
                {"id": f"write/{number}", "cluster": f"{pair.cluster} (written)", "metric": "exact_match", **item}
            )
        write_jsonl(file, rows)
    return files


def report(comparison: Comparison) -> str:
    """A row for each held-out cluster and way of asking, and for all together; the tuned model is compared first."""
    (control,) = comparison.further
    rows: list[tuple[str, ...]] = [
        ("held out", "items", "base", f"base, {SHOTS} examples", "tuned", "tuned - base", "95% interval", "verdict")
    ]
    apart = [(name, change, control.clusters[name]) for name, change in comparison.clusters.items()]
    together = [(f"all {name}", change, control.overall[name]) for name, change in comparison.overall.items()]
    for name, tuned, few in (*apart, *together):
        interval = "" if tuned.ci95 is None else f"{tuned.ci95[0]:+.3f} to {tuned.ci95[1]:+.3f}"
        means = [f"{mean:.3f}" for mean in (tuned.base, few.tuned, tuned.tuned)]
        rows.append((name, str(tuned.n), *means, f"{tuned.delta:+.3f}", interval, tuned.verdict))
    return table(rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, help="prompt/completion JSON lines with cluster, dataset and template")
    parser.add_argument("--folder", type=Path, required=True, help="for all that is made; the same command resumes")
    parser.add_argument("--held-out", default="sentiment,topic", help="clusters that are not trained on")
    parser.add_argument("--model", default="embedded", help="as for `finetune train`")
    parser.add_argument("--train-rows", type=int, default=2000, help="rows to train on, once each")
    parser.add_argument("--items", type=int, default=420, help="items of each held-out cluster")
    parser.add_argument("--max-prompt", type=int, default=600, help="characters of a prompt; about four make a token")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    args.held_out = args.held_out.split(",")
    return args


def main() -> None:
    """Make the files, tune, evaluate three times, compare, print one table."""
    args = _arguments()
    rng = Random(args.seed)
    pairs = read_pairs(args.rows, args.max_prompt)
    clusters = sorted({pair.cluster for pair in pairs})
    if missing := set(args.held_out) - set(clusters):
        sys.exit(f"{args.rows} has no cluster {', '.join(sorted(missing))}; it has {', '.join(clusters)}")
    held: list[Pair] = []
    for cluster in args.held_out:
        rankable = [pair for pair in pairs if pair.cluster == cluster and pair.options]
        held += sample(rankable, args.items, rng)
        if not rankable:
            sys.exit(f"cluster {cluster} has no template with 2 to {MAX_OPTIONS} answers, so there is nothing to rank")
    others = [cluster for cluster in clusters if cluster not in args.held_out]
    share = args.train_rows // len(others)
    held_prompts = {pair.prompt for pair in held}
    trained = [
        pair
        for cluster in others
        for pair in sample([p for p in pairs if p.cluster == cluster and p.prompt not in held_prompts], share, rng)
    ]
    args.folder.mkdir(parents=True, exist_ok=True)
    data = args.folder / "train.jsonl"
    write_jsonl(data, ({"instruction": p.prompt, "input": "", "output": p.completion} for p in trained))
    zero_shot, few_shot = write_tasks(held, pairs, args.folder, rng)

    training = args.folder / "training"
    config = TrainConfig(
        data=[data], model=args.model, out=training, epochs=1, learning_rate=args.learning_rate, schedule="cosine",
        max_length=512, seed=args.seed, threads=args.threads,
    )  # fmt: skip
    summary = train(config)
    asked = {
        "base": EvaluateConfig(model=args.model, tasks=[zero_shot], out=args.folder / "base"),
        "base-few-shot": EvaluateConfig(model=args.model, tasks=[few_shot], out=args.folder / "base-few-shot"),
        "tuned": EvaluateConfig(
            model=args.model, tasks=[zero_shot], out=args.folder / "tuned", adapter=training / "adapter"
        ),
    }
    for settings in asked.values():
        evaluate(settings.model_copy(update={"max_new_tokens": 16, "threads": args.threads}))
    result = compare(CompareConfig(base=asked["base"].out, tuned=[asked["tuned"].out, asked["base-few-shot"].out]))
    minutes = getattr(summary, "elapsed_s", 0.0) / 60
    print(
        f"\n{args.model}, tuned in {minutes:.1f} minutes on {len(trained)} rows of {', '.join(others)}:\n"
        f"python -m benchmarks.held_out_gain {' '.join(sys.argv[1:])}\n\n{report(result)}"
    )


if __name__ == "__main__":
    main()
