"""Tokens per second, memory and loss of a LoRA training: this project, TRL's SFTTrainer and transformers' Trainer.

All get the same model, tokens, adapters, batches, optimizer and seed, each in a process of its own, in turns, so that
what else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.teacher import machine
from benchmarks.trainers.job import Job, Report

ROOT = Path(__file__).parents[1]
# 2 forward and 2 backward for each parameter and token: frozen weights get no gradient of their own.
FLOPS_PER_PARAMETER_TOKEN = 4
QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
# Sizes of public LLaMA models (Llama-3.2-1B and Llama-3.1-8B, config.json), and one to try the program with.
SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "llama-1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "llama-8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
}
KEY_VALUE_HEADS = {"tiny": 2, "llama-1b": 8, "llama-8b": 8}
LLAMA_VOCABULARY = 128_256
SEED = 0


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to train.

    Attributes:
        title: Row head.
        program: Below `benchmarks.trainers`.
        mode: See `Job`.
        is_peer: Whether it runs in the peers' environment.
        same_batches: Whether its steps hold the same rows as ours, so that losses can be compared.
        arguments: Further ones.
    """

    title: str
    program: str
    mode: str = ""
    is_peer: bool = False
    same_batches: bool = True
    arguments: tuple[str, ...] = ()


CONTENDERS = {
    "ours": Contender("this project", "finetune_train"),
    "trl-padded": Contender("TRL, padded", "trl_trainer", "padded", is_peer=True),
    "trl-packed": Contender("TRL, packed", "trl_trainer", "packed", is_peer=True, same_batches=False),
    "trl-single": Contender("TRL, batches of 1, accumulated", "trl_trainer", "single", is_peer=True),
    "plain-grouped": Contender("Trainer, padded, grouped by length", "plain_trainer", "grouped", same_batches=False),
    "plain-single": Contender("Trainer, batches of 1, accumulated", "plain_trainer", "single"),
    "unsloth": Contender("unsloth, packed", "trl_trainer", "packed", True, False, ("unsloth",)),
}
ON_CPU = ("ours", "trl-padded", "trl-packed", "trl-single", "plain-grouped", "plain-single")
ON_GPU = ("ours", "trl-packed", "unsloth", "plain-grouped")


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of one contender gave; `error` says why there are no figures, or is ""."""

    contender: str
    model: str
    report: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    def rate(self, name: str) -> float:
        """Tokens of a kind per second."""
        return float(self.report[name]) / float(self.report["elapsed_s"])


def write_rows(
    source: Path, job_folder: Path, model: str, batch_size: int, steps: int, max_length: int
) -> tuple[Path, Path]:
    """The first rows of a file that are short enough, for one epoch.

    Returns:
        A file with text for this project, and one with tokens for the others, in the order in which this project
        takes the rows.
    """
    from finetune.config import TrainConfig
    from finetune.models import load_tokenizer, resolve
    from finetune.packing import Schedule
    from finetune.rows import TrainingRow, prepare
    from selfinstruct.errors import UsageError
    from selfinstruct.render import renderer_for

    tokenizer = load_tokenizer(resolve(model))
    renderer = renderer_for(tokenizer, "chat")
    opened = gzip.open if source.suffix == ".gz" else open
    kept: list[str] = []
    rows: list[TrainingRow] = []
    with opened(source, "rt", encoding="utf-8") as file:
        lines = [line for line in file if json.loads(line)["output"].strip()]
    text, ids = job_folder / "rows.jsonl", job_folder / "tokens.jsonl"
    # One by one, so that rows that are dropped are dropped from both.
    probe = job_folder / "probe.jsonl"
    for line in dict.fromkeys(lines):
        if len(kept) == batch_size * steps:
            break
        probe.write_text(line, encoding="utf-8")
        config = TrainConfig(data=[probe], out=job_folder / "unused", model=model, max_length=max_length)
        try:
            (row,) = prepare(config, renderer, tokenizer).rows
        except UsageError:  # too long, or empty
            continue
        kept.append(line)
        rows.append(row)
    if len(kept) < batch_size * steps:
        raise SystemExit(f"{source} has {len(kept)} usable rows, {batch_size * steps} are needed; give fewer --steps")
    tokens = [
        json.dumps({"input_ids": list(row.input_ids), "labels": row.labels}) + "\n"
        for step in Schedule(rows, batch_size, steps, SEED)
        for row in step.rows
    ]
    text.write_text("".join(kept), encoding="utf-8")
    ids.write_text("".join(tokens), encoding="utf-8")
    return text, ids


def random_model(shape: str, folder: Path) -> Path:
    """A LLaMA of a size with random weights and the embedded model's tokenizer; enough to measure speed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from finetune.models import load_tokenizer, quiet, resolve

    tokenizer = load_tokenizer(resolve("embedded"))
    vocabulary = len(tokenizer) if shape == "tiny" else LLAMA_VOCABULARY
    config = LlamaConfig(
        vocab_size=vocabulary, max_position_embeddings=8192, tie_word_embeddings=shape != "llama-8b",
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        num_key_value_heads=KEY_VALUE_HEADS[shape], **SHAPES[shape],
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    with quiet():
        model.to(torch.bfloat16 if torch.cuda.is_available() else torch.float32).save_pretrained(folder / shape)
    tokenizer.save_pretrained(folder / shape)
    return folder / shape


def parameters(model: str) -> int:
    """Number of weights of a model, tied ones once."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)).num_parameters())


def measure(contender: Contender, python: str, job: Job, name: str, timeout_s: float) -> Run:
    """Run one contender once."""
    threads = str(job.threads)
    environment = os.environ | QUIET | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    command = [python, "-W", "ignore", "-m", f"benchmarks.trainers.{contender.program}", json.dumps(asdict(job))]
    try:
        done = subprocess.run(
            [*command, *contender.arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Run(name, job.model, error=f"took over {timeout_s:.0f} s")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return Run(name, job.model, error=(lines[-1] if lines else f"exit code {done.returncode}")[:200])
    last = done.stdout.strip().splitlines()[-1]
    if contender.program == "gemm":
        return Run(name, job.model, {"peak_flops": float(last)})
    return Run(name, job.model, asdict(Report(**json.loads(last))))


def table(runs: Sequence[Run], peak_flops: float, n_parameters: int) -> str:
    """A row for each contender: medians of its runs."""
    rows = [
        ["contender", "real tokens/s", "supervised/s", "with padding/s", "share of peak", "peak GiB", "last loss"],
        ["---", "--:", "--:", "--:", "--:", "--:", "--:"],
    ]
    for name in dict.fromkeys(run.contender for run in runs):
        own = [run for run in runs if run.contender == name]
        good = [run for run in own if not run.error]
        title = CONTENDERS[name].title
        if not good:
            rows.append([title, own[0].error, "", "", "", "", ""])
            continue
        real, supervised, padded = (
            statistics.median(run.rate(kind) for run in good)
            for kind in ("tokens", "supervised_tokens", "padded_tokens")
        )
        share = FLOPS_PER_PARAMETER_TOKEN * n_parameters * real / peak_flops
        memory = statistics.median(run.report["peak_mib"] for run in good) / 1024
        loss = f"{good[-1].report['losses'][-1]:.5f}"
        other = "" if CONTENDERS[name].same_batches else " (other batches)"
        failed = f" ({len(own) - len(good)} runs failed)" if len(good) < len(own) else ""
        rates = [f"{rate:.1f}" for rate in (real, supervised, padded)]
        rows.append([title + failed, *rates, f"{share:.0%}", f"{memory:.2f}", loss + other])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def verdict(runs: Sequence[Run]) -> str:
    """How our speed compares with the best setting of each peer, and whether equal batches gave equal losses."""
    good = [run for run in runs if not run.error]
    speed = {
        name: statistics.median(run.rate("tokens") for run in good if run.contender == name)
        for name in dict.fromkeys(run.contender for run in good)
    }
    lines = []
    for peer in ("trl", "plain", "unsloth"):
        if "ours" in speed and (best := max((n for n in speed if n.startswith(peer)), key=speed.get, default=None)):  # type: ignore[arg-type]
            lines.append(f"{speed['ours'] / speed[best]:.2f} times the real tokens/s of {CONTENDERS[best].title}")
    same = {run.contender: run.report["losses"] for run in good if CONTENDERS[run.contender].same_batches}
    if len(same) > 1:
        # The first step has seen no update: what differs there is the batch or the loss, not the initialisation.
        first = [losses[0] for losses in same.values()]
        lines.append(f"losses of the first step on identical batches differ by at most {max(first) - min(first):.1e}")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, help="Alpaca rows: JSON lines, may be gzipped")
    parser.add_argument("--model", default="embedded", help="as for `finetune train`")
    parser.add_argument("--shapes", default="", help=f"random models instead, of {', '.join(SHAPES)}; for a GPU")
    parser.add_argument("--contenders", help=f"of {', '.join(CONTENDERS)}; default those of the device")
    parser.add_argument("--peer-python", type=Path, help="Python with TRL (and unsloth); peers are left out without")
    parser.add_argument("--steps", type=int, default=5, help="optimizer steps of each run; the first is not timed")
    parser.add_argument("--batch-size", type=int, default=8, help="rows in a step")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each contender; medians are shown")
    parser.add_argument("--max-length", type=int, default=1024, help="tokens of a row or pack at most")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each contender")
    parser.add_argument("--timeout-s", type=float, default=900, help="for one run")
    parser.add_argument("--dry-run", action="store_true", help="one round of two steps, shapes as tiny ones")
    parser.add_argument("--out", type=Path, help="JSON file for all raw figures")
    args = parser.parse_args()
    if unknown := set(filter(None, (args.contenders or "").split(","))) - set(CONTENDERS):
        parser.error(f"--contenders: no {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    if unknown := set(filter(None, args.shapes.split(","))) - set(SHAPES):
        parser.error(f"--shapes: no {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}")
    return args


def main() -> None:
    """Run all contenders in turns and print a table for each model."""
    import torch

    args = _arguments()
    on_gpu = torch.cuda.is_available()
    if args.dry_run:
        args.rounds, args.steps = 1, 2
    elif args.shapes and not on_gpu:
        print("no GPU here: the figures for the shapes are missing (--dry-run tries the program)", file=sys.stderr)
        sys.exit(2)
    wanted = args.contenders.split(",") if args.contenders else ON_GPU if on_gpu or args.shapes else ON_CPU
    names = [name for name in wanted if args.peer_python or not CONTENDERS[name].is_peer]
    if left_out := set(wanted) - set(names):
        print(f"left out without --peer-python: {', '.join(sorted(left_out))}", file=sys.stderr)
    facts: dict[str, Any] = {"machine": machine(), "arguments": {key: str(value) for key, value in vars(args).items()}}
    for shape in args.shapes.split(","):
        with TemporaryDirectory(prefix="training-") as name:
            folder = Path(name)
            model = args.model
            if shape:
                model = str(random_model("tiny" if args.dry_run else shape, folder))
            _measure_all(args, shape or args.model, model, names, folder, on_gpu, facts)
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1))


def _measure_all(
    args: argparse.Namespace,
    title: str,
    model: str,
    names: Sequence[str],
    folder: Path,
    on_gpu: bool,
    facts: dict[str, Any],
) -> None:
    from finetune.models import resolve

    location = resolve(model).location
    text, ids = write_rows(args.rows, folder, model, args.batch_size, args.steps, args.max_length)
    job = Job(
        model=location, data=str(text), rows=str(ids), mode="", folder="", rank=16, alpha=32, learning_rate=2e-4,
        batch_size=args.batch_size, steps=args.steps, max_length=args.max_length, seed=SEED, threads=args.threads,
        on_gpu=on_gpu,
    )  # fmt: skip
    runs: list[Run] = []
    peak_flops = 0.0
    for number in range(args.rounds):
        gemm = measure(Contender("matrix product", "gemm"), sys.executable, job, "gemm", args.timeout_s)
        peak_flops = max(peak_flops, gemm.report.get("peak_flops", 0.0))
        turn = [*names[number % len(names) :], *names[: number % len(names)]]
        for name in turn:
            contender = CONTENDERS[name]
            python = str(args.peer_python) if contender.is_peer else sys.executable
            with TemporaryDirectory(dir=folder) as own:
                given = Job(**asdict(job) | {"mode": contender.mode, "folder": own})
                runs.append(measure(contender, python, given, name, args.timeout_s))
            last = runs[-1]
            said = last.error or f"{last.rate('tokens'):.1f} tokens/s"
            print(f"{title}, round {number + 1}, {contender.title}: {said}", file=sys.stderr)
    facts[title] = {"peak_flops": peak_flops, "runs": [asdict(run) for run in runs]}
    if args.peer_python:
        facts["peer packages"] = packages_of(args.peer_python)
    cpu = facts["machine"]["cpu"]
    print(f"\n{title} on {'one GPU' if on_gpu else cpu}, {args.threads} threads, peak {peak_flops / 1e9:.0f} GFLOP/s; "
          f"{args.steps} steps of {args.batch_size} rows, medians of {args.rounds}\n")  # fmt: skip
    ordered = sorted(runs, key=lambda run: list(names).index(run.contender))
    print(table(ordered, peak_flops, parameters(location)))
    print(f"\n{verdict(runs)}")


def packages_of(python: Path) -> list[str]:
    """What is installed with a Python, with or without pip."""
    code = "from importlib.metadata import distributions as d; print(*sorted(f'{x.name}=={x.version}' for x in d()))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.split()


if __name__ == "__main__":
    main()
