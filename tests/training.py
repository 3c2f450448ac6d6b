"""What the tests of training share: a few rows, their files, and looking into what a training wrote."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune.config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Peru": "Lima", "Japan": "Tokyo", "Kenya": "Nairobi", "Cuba": "Havana",
    "Norway": "Oslo", "Egypt": "Cairo",
}  # fmt: skip
ROWS = [{"instruction": f"Capital of {land}?", "input": "", "output": city} for land, city in CAPITALS.items()]
EVAL_ROWS = [
    {"instruction": "Capital of Spain?", "input": "", "output": "Madrid"},
    {"instruction": "Say a long word.", "input": "in English", "output": "incomprehensibilities"},
]
TIMES = ("tokens_per_s", "elapsed_s")


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def column(out: Path, name: str) -> list[float]:
    return [line[name] for line in metrics(out)]


def timeless(out: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in metrics(out)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def wait_for(ready: Callable[[], bool], timeout_s: float = 60, pause_s: float = 0.005) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, "the training did not get there"
        time.sleep(pause_s)


def flags(config: TrainConfig) -> list[str]:
    """A configuration as a command line."""
    values = config.model_dump(mode="json", exclude_defaults=True)
    data = [f"--data={path}" for path in values.pop("data")]
    options = {f"--{name.replace('_', '-')}": value for name, value in values.items()}
    return [*data, *(flag if value is True else f"{flag}={value}" for flag, value in options.items())]


def started(config: TrainConfig, **options: Any) -> subprocess.Popen[str]:
    """A training in a process of its own."""
    command = [sys.executable, str(ROOT / "scripts" / "finetune.py"), *flags(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
