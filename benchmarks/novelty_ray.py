"""Novelty over a Ray cluster: the same output as one machine's to the byte, also when an actor and a node are killed.

Starts a cluster of several nodes on this machine, writes a file of made-up texts, and runs `selfinstruct novelty` with
the local engine, with Ray, and with Ray while it loses an actor and then a node.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.teacher import machine
from benchmarks.texts import pool_and_candidates, read_texts
from selfinstruct.files import to_json_line
from tests.generating import ROOT

STORE = 200 * 2**20  # bytes of a node's object store
ACTOR = b"ray::Shard"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the command.

    Attributes:
        engine: And what it lost.
        seconds: Of the command, start-up included.
        us_a_row: The same by row.
        own_us_a_row: Processor time of the command itself, without the actors, by row.
        sha256: Of the output.
    """

    engine: str
    seconds: float
    us_a_row: float
    own_us_a_row: float
    sha256: str


def run(engine: str, source: Path, flags: Sequence[str], rows: int, meanwhile: Callable[[Path], None]) -> Run:
    """Run the command; `meanwhile` gets the folder that its output is written to."""
    with TemporaryDirectory(dir=source.parent) as folder:
        out = Path(folder) / "out.jsonl"
        command = [sys.executable, "-m", "selfinstruct", "novelty", str(source), "--out", str(out), *flags]
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        meanwhile(Path(folder))
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"failed: {' '.join(command)}")
        seconds = time.monotonic() - began
        own_s = used.ru_utime + used.ru_stime
        with out.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Run(engine, seconds, seconds / rows * 1e6, own_s / rows * 1e6, sha256)


def lose(cluster: Any, source: Path) -> Callable[[Path], None]:
    """Kills an actor at a third of the output, and a node with an actor at two thirds."""

    def meanwhile(folder: Path) -> None:
        _wait_until_written(folder, source.stat().st_size / 3)
        os.kill(_actors()[0], signal.SIGKILL)
        _wait_until_written(folder, source.stat().st_size * 2 / 3)
        parents = {_parent(actor) for actor in _actors()}
        cluster.remove_node(next(node for node in cluster.worker_nodes if _raylet(node) in parents))

    return meanwhile


def _wait_until_written(folder: Path, size: float) -> None:
    while sum(path.stat().st_size for path in folder.iterdir()) < size:
        time.sleep(0.2)


def _actors() -> list[int]:
    """Processes of shards on this machine."""
    return sorted(
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if path.read_bytes().startswith(ACTOR)
    )


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _raylet(node: Any) -> int:
    """The process of a node that starts its actors."""
    return int(node.all_processes["raylet"][0].process.pid)


def table(runs: Sequence[Run]) -> str:
    """The runs, and whether their outputs are the same."""
    lines = [f"{'engine':<42} | {'seconds':>8} | {'us a row':>8} | {'own CPU':>8} | output"]
    lines += [
        f"{r.engine:<42} | {r.seconds:8.1f} | {r.us_a_row:8.1f} | {r.own_us_a_row:8.1f} | {r.sha256[:16]}" for r in runs
    ]
    same = len({r.sha256 for r in runs}) == 1
    return "\n".join([*lines, "", "all outputs are the same to the byte" if same else "THE OUTPUTS DIFFER"])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="JSONL with texts that the made-up ones resemble")
    parser.add_argument("--field", default="instruction", help="of the texts in it")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    given = parser.parse_args()

    from ray.cluster_utils import Cluster

    print(machine(), f"{given.rows:,} rows, {given.nodes} nodes of one shard each", sep="\n", end="\n\n", flush=True)
    with TemporaryDirectory() as folder:
        source = Path(folder) / "in.jsonl"
        texts, _ = pool_and_candidates(read_texts(given.file, given.field), given.rows, 0)
        source.write_text("".join(to_json_line({"instruction": text}) + "\n" for text in texts))
        runs = [run("local, 1 thread", source, ["--threads", "1"], given.rows, lambda _: None)]
        for name in ("ray", "ray, an actor and then a node killed"):
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE})
            for _ in range(given.nodes - 1):
                cluster.add_node(num_cpus=1, object_store_memory=STORE)
            flags = ["--engine", "ray", "--ray-address", cluster.address, "--shards", str(given.nodes)]
            runs.append(
                run(name, source, flags, given.rows, (lambda _: None) if name == "ray" else lose(cluster, source))
            )
            cluster.shutdown()
    print(table(runs))
    if given.out:
        given.out.write_text(json.dumps([asdict(r) for r in runs], indent=2))
    if len({r.sha256 for r in runs}) > 1:
        sys.exit(1)


if __name__ == "__main__":
    main()
