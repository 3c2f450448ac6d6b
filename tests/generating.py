"""What the tests of `selfinstruct generate` share: running it here or as a process, and reading what it leaves."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from selfinstruct.cli import GROUP
from selfinstruct.command import run_program
from tests.server import Behaviour, RunningServer

ROOT = Path(__file__).parents[1]
DATA = ("dataset.jsonl", "rejected.jsonl")


class FreshServer:
    """A running server as one test sees it: default behaviour, and a log that begins with the test."""

    def __init__(self, server: RunningServer) -> None:
        server.set(**Behaviour().model_dump())
        self._server, self._before = server, len(server.log())
        self.base_url, self.port = server.base_url, server.port

    def log(self) -> list[dict[str, Any]]:
        return self._server.log()[self._before :]

    def set(self, **behaviour: Any) -> None:
        """Change behaviour; faults by number count from the test's first request."""
        for kind, when in behaviour.get("faults", {}).items():
            if not isinstance(when, float):
                behaviour["faults"] = {**behaviour["faults"], kind: [self._before + number for number in when]}
        self._server.set(**behaviour)


def arguments(out: Path, base_url: str, **flags: Any) -> list[str]:
    """The command line of a run; a flag of None is left out, one of True stands alone, one of a tuple is repeated."""
    defaults = {
        "model": "m", "base_url": base_url, "api_key_env": "", "num_instructions": 30, "concurrency": 8, "window": 3,
        "outage_s": 5,
    }  # fmt: skip
    command = ["generate", "--out", str(out)]
    for name, value in {**defaults, **flags}.items():
        flag = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, tuple) else (value,):
            command += [] if one is None else [flag] if one is True else [flag, str(one)]
    return command


def generate(out: Path, base_url: str, **flags: Any) -> int:
    """Run the command in this process; gives its exit code."""
    return run_program(GROUP, "selfinstruct", arguments(out, base_url, **flags))


def start(out: Path, base_url: str, **flags: Any) -> subprocess.Popen[str]:
    """Start the command as a process of its own, in a group of its own."""
    command = [sys.executable, "-m", "selfinstruct", *arguments(out, base_url, **flags)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def summary(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / "summary.json").read_text("utf-8"))
    return values


def data(run: Path) -> list[bytes]:
    """The bytes of both JSONL files."""
    return [(run / name).read_bytes() for name in DATA]


def ledger(run: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a plain sqlite3 connection finds in a run's ledger."""
    with closing(sqlite3.connect(run / "ledger.sqlite")) as connection:
        return connection.execute(sql).fetchall()
