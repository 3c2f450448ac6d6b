"""Requests per second and client CPU per request: this project's teacher, the plain OpenAI client, distilabel, curator.

Every client asks the same prompts of the same server on loopback, each in an interpreter and an environment of its own,
in turns, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any
from urllib.parse import urlencode

from benchmarks.clients.cell import Cell
from benchmarks.server import cpu_seconds

ROOT = Path(__file__).parents[1]
MODEL = "gpt-4o-mini"  # a name that every client's tables know
MAX_TOKENS = 350
SEED = 42
# Nothing but loopback is asked: no telemetry, no model hub, no price tables from the network, no proxy.
QUIET = {
    "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1",
    "TELEMETRY_ENABLED": "false", "CURATOR_VIEWER": "0", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*",
    "CURATOR_DISABLE_RICH_DISPLAY": "1", "TQDM_DISABLE": "1",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Client:
    """A program that asks.

    Attributes:
        title: Column head.
        arguments: After `python -m`.
        environment: Name of its virtual environment; None for the one that runs the harness.
        requirements: What pip installs there.
    """

    title: str
    arguments: tuple[str, ...]
    environment: str | None = None
    requirements: tuple[str, ...] = ()


# distilabel imports requests without asking for it, and needs less CPU with openai 3 than with 1 or 2.
_DISTILABEL = ("distilabel", ("distilabel[openai]==1.5.3", "openai==3.54.0", "requests==2.32.5"))
CLIENTS = {
    "ours": Client("ours", ("benchmarks.clients.ours",)),
    "plain": Client("AsyncOpenAI", ("benchmarks.clients.plain",)),
    "distilabel": Client("distilabel", ("benchmarks.clients.distilabel",), *_DISTILABEL),
    "distilabel-pipeline": Client(
        "distilabel pipeline", ("benchmarks.clients.distilabel", "--pipeline"), *_DISTILABEL
    ),
    "curator": Client("curator", ("benchmarks.clients.curator",), "curator", ("bespokelabs-curator==0.1.31",)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of one client gave.

    Attributes:
        client: Key of `CLIENTS`.
        concurrency: Most requests in flight.
        latency_s: Of the server.
        n_requests: How many were to be asked.
        answers: How many different prompts' answers the client handed back.
        requests_per_s: Requests over the time from the first request to the last reply, both seen by the server.
        share: Of the ideal, concurrency / latency.
        cpu_ms: User and system time a request of the client's processes, from its first request until it has handed
            back, and stored, the last answer.
        to_return_s: From the first request until then.
        stats: The server's counts.
        error: Why there are no figures, or "".
    """

    client: str
    concurrency: int
    latency_s: float
    n_requests: int
    answers: int = 0
    requests_per_s: float = 0.0
    share: float = 0.0
    cpu_ms: float = 0.0
    to_return_s: float = 0.0
    stats: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


class LoadServer:
    """The server in a process of its own."""

    def __init__(self, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._url = f"http://127.0.0.1:{port}"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _get(self, path: str) -> dict[str, Any]:
        with self._opener.open(self._url + path, timeout=10) as reply:
            values: dict[str, Any] = json.load(reply)
        return values

    def reset(self, latency_s: float, client: int) -> None:
        """Set the latency and count anew, for the client with this process id."""
        self._get("/reset?" + urlencode({"latency_s": latency_s, "client": client}))

    def stats(self) -> dict[str, Any]:
        """The counts since then."""
        return self._get("/stats")


@contextmanager
def running_server(core: int) -> Iterator[LoadServer]:
    """Start the server on a core, and end it when the block ends."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=partial(_pin, core)
    ) as process:
        try:
            assert process.stdout
            yield LoadServer(int(process.stdout.readline()))
        finally:
            process.kill()


def n_requests(concurrency: int, latency_s: float) -> int:
    """Requests of a run: ten rounds, or four where ten take over 8 s; up to 2,560 where that many fit into 4 s."""
    rounds = 10 if 10 * latency_s <= 8 else 4
    return max(concurrency * rounds, min(2560, int(concurrency * 4 / latency_s)))


def interpreter(client: Client, environments: Path) -> Path:
    """The client's Python, in an environment that is made when it is missing or holds something else."""
    if client.environment is None:
        return Path(sys.executable)
    folder = environments / client.environment
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join((f"# Python {platform.python_version()}", *client.requirements, ""))
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {' '.join(client.requirements)} into {folder}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        command = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *client.requirements]
        subprocess.run(command, check=True, stdout=sys.stderr)
        stamp.write_text(wanted)
    return python


def measure(name: str, python: Path, server: LoadServer, cell: Cell, latency_s: float, core: int) -> Run:
    """Run one client once."""
    run = partial(Run, name, cell.concurrency, latency_s, cell.n_requests)
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith(("_proxy", "_api_key"))}
    environment |= QUIET | {"HOME": cell.folder, "CURATOR_CACHE_DIR": cell.folder}
    log = Path(cell.folder) / "client.log"
    with (
        open(log, "w") as errors,
        subprocess.Popen(
            [python, "-m", *CLIENTS[name].arguments, json.dumps(asdict(cell))],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            preexec_fn=partial(_pin, core), start_new_session=True,
        ) as process,
    ):  # fmt: skip
        limit_s = 120 + 0.05 * cell.n_requests + 3 * latency_s * cell.n_requests / cell.concurrency
        alarm = Timer(limit_s, partial(_end, process))
        alarm.start()
        try:
            assert process.stdin and process.stdout
            if not process.stdout.readline():
                return run(error=_reason(log, "did not start"))
            server.reset(latency_s, process.pid)
            process.stdin.write("go\n")
            process.stdin.flush()
            report = process.stdout.readline()
            cpu_s, returned_s = cpu_seconds(process.pid), time.monotonic()
            stats = server.stats()
            if not report:
                what = "crashed" if alarm.is_alive() else f"took over {limit_s:.0f} s"
                return run(stats=stats, error=_reason(log, what))
        finally:
            alarm.cancel()
            _end(process)
    answers = json.loads(report)["answers"]
    if answers != cell.n_requests:
        return run(answers, stats=stats, error=f"{answers} of {cell.n_requests} answers")
    if stats["max_open"] > cell.concurrency:
        return run(answers, stats=stats, error=f"{stats['max_open']} in flight at once")
    rate = cell.n_requests / (stats["last_s"] - stats["first_s"])
    return run(
        answers, rate, rate * latency_s / cell.concurrency, (cpu_s - stats["cpu_at_first_s"]) / cell.n_requests * 1000,
        returned_s - stats["first_s"], stats,
    )  # fmt: skip


def _end(process: subprocess.Popen[str]) -> None:
    """End a client with all its processes; it is the leader of their group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _pin(core: int) -> None:
    os.sched_setaffinity(0, {core})


def _reason(log: Path, what: str) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{what}: {lines[-1].strip()[:200]}" if lines else what


def table(runs: Sequence[Run], names: Sequence[str]) -> str:
    """A row for each latency and concurrency, a column for each client: the medians of its runs."""
    rows = [
        ["latency", "in flight", "ideal", *(CLIENTS[name].title for name in names)],
        ["--:", "--:", "--:", *("--:" for _ in names)],
    ]
    for latency_s, concurrency in dict.fromkeys((run.latency_s, run.concurrency) for run in runs):
        cell = [run for run in runs if (run.latency_s, run.concurrency) == (latency_s, concurrency)]
        figures = (_figures([run for run in cell if run.client == name]) for name in names)
        rows.append([f"{latency_s * 1000:g} ms", str(concurrency), f"{concurrency / latency_s:.0f}/s", *figures])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _figures(runs: Sequence[Run]) -> str:
    failed = [run.error for run in runs if run.error]
    if failed or not runs:
        return f"{len(failed)} of {len(runs)} runs failed: {failed[0]}" if failed else ""
    rate, share, cpu_ms = (
        statistics.median(getattr(run, name) for run in runs) for name in ("requests_per_s", "share", "cpu_ms")
    )
    return f"{rate:.{0 if rate >= 100 else 1}f}/s, {share:.0%}, {cpu_ms:.2f} ms"


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {
        "cpu": cpu, "cores": str(os.cpu_count()), "kernel": platform.release(), "python": platform.python_version(),
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip


def packages(python: Path) -> list[str]:
    """What is installed in an environment, as pip states it."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "freeze", "--exclude-editable"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _arguments() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "selfinstruct-benchmarks"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=_numbers, default=[16, 64, 256], help="requests in flight: 16,64,256")
    parser.add_argument("--latency-ms", type=_numbers, default=[50, 250, 2000], help="of the server: 50,250,2000")
    parser.add_argument("--clients", default="ours,plain,distilabel,curator", help=f"of {', '.join(CLIENTS)}")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each client in each cell; medians are shown")
    parser.add_argument("--pin", default="0,1", help="cores of client and server")
    parser.add_argument("--one-core", action="store_true", help="client and server share the client's core")
    parser.add_argument("--environments", type=Path, default=cache, help="where clients are installed and write")
    parser.add_argument("--out", type=Path, help="JSON file for all raw figures")
    args = parser.parse_args()
    args.clients = args.clients.split(",")
    if unknown := set(args.clients) - set(CLIENTS):
        parser.error(f"--clients: no {', '.join(sorted(unknown))}; there are {', '.join(CLIENTS)}")
    args.client_core, args.server_core = (int(core) for core in args.pin.split(","))
    if args.one_core:
        args.server_core = args.client_core
    if absent := {args.client_core, args.server_core} - os.sched_getaffinity(0):
        parser.error(f"--pin: no core {', '.join(map(str, absent))} here; --one-core needs only the first")
    return args


def main() -> None:
    """Run all cells and print the table."""
    args = _arguments()
    args.environments = args.environments.expanduser().absolute()
    args.environments.mkdir(parents=True, exist_ok=True)
    pythons = {name: interpreter(CLIENTS[name], args.environments) for name in args.clients}
    facts: dict[str, dict[str, Any]] = {
        "machine": machine(),
        "cores": {"client": args.client_core, "server": args.server_core},
        "packages": {name: packages(python) for name, python in pythons.items()},
    }
    runs: list[Run] = []
    _pin(args.server_core)
    with running_server(args.server_core) as server:
        for latency_ms, concurrency, repeat in product(args.latency_ms, args.concurrency, range(args.repeat)):
            latency_s = latency_ms / 1000
            for name in _rotated(args.clients, repeat):
                n = n_requests(concurrency, latency_s)
                # The folder is on a disk, which a temporary one need not be; a killed client may still write there.
                with TemporaryDirectory(dir=args.environments, prefix="run-", ignore_cleanup_errors=True) as folder:
                    cell = Cell(server.base_url, MODEL, concurrency, n, SEED, MAX_TOKENS, folder)
                    run = measure(name, pythons[name], server, cell, latency_s, args.client_core)
                runs.append(run)
                done = f"{latency_ms} ms, {concurrency} in flight, {n} requests, {name}: {_figures([run])}"
                print(done, file=sys.stderr)
                if args.out:
                    args.out.write_text(json.dumps({**facts, "runs": [asdict(run) for run in runs]}, indent=1))
    cores = f"client on core {args.client_core}, server on core {args.server_core}"
    print(f"{facts['machine']['cpu']}, Python {platform.python_version()}, {cores}; medians of {args.repeat}:")
    print("requests a second, share of the ideal (in flight / latency), client CPU a request.\n")
    print(table(runs, args.clients))


def _rotated(names: Sequence[str], by: int) -> list[str]:
    """Another client goes first in each repetition."""
    by %= len(names)
    return [*names[by:], *names[:by]]


if __name__ == "__main__":
    main()
