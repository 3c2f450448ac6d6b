"""What this machine has for each part of the work, what is missing, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from selfinstruct.command import Config
from selfinstruct.embedded import SERVER_REMEDY, WEIGHTS_SHA256, available_threads, cache_folder, weights
from selfinstruct.errors import UsageError
from selfinstruct.files import sha256_file, shipped

DISTRIBUTION = "selfinstruct"
EVERYTHING = "everything"
EMBEDDED_MODEL = "the embedded model"
ENDPOINT = "an LLM API"
TRAINING = "training and evaluation"
_PURPOSES = (EVERYTHING, EMBEDDED_MODEL, ENDPOINT, TRAINING)
_EXTRAS = {None: EVERYTHING, "embedded": EMBEDDED_MODEL, "train": TRAINING}

# Training the embedded model took 2.8 GB, its conversion 1.2 GB of memory and 0.6 GB of disk.
_TRAINING_BYTES = 4e9
_FREE_BYTES = 1e9
_PROBE_TIMEOUT_S = 120

# Only whether they are set is shown, never what to.
_VARIABLES = {
    "SELFINSTRUCT_EMBEDDED_GGUF": EMBEDDED_MODEL,
    "SELFINSTRUCT_CACHE": TRAINING,
    "HF_TOKEN": TRAINING,
    "HF_HUB_OFFLINE": TRAINING,
    "CUDA_VISIBLE_DEVICES": TRAINING,
}

_TORCH_PROBE = """
import json, torch
cuda = torch.cuda.is_available()
devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if cuda else []
names = [f"{d.name} ({d.total_memory / 2**30:.0f} GiB)" for d in devices]
if torch.backends.mps.is_available():
    names.append("Apple MPS")
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(), "accelerators": names}))
"""


class DoctorConfig(Config):
    """The check-up has nothing to configure."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        found: What there is, in words.
        needed_for: What cannot be done without it.
        remedy: What to do when it is not well.
    """

    name: str
    ok: bool
    found: str
    needed_for: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """Everything that was looked at."""

    checks: tuple[Check, ...]


def doctor(config: DoctorConfig) -> DoctorReport:
    """Say what this machine has, what is missing, and what to do about it.

    Nothing is changed, downloaded or sent; of keys it is only said whether they are set.
    """
    looks = (_machine, _packages, _shipped_files, _embedded_model, _environment, _accelerators)
    return DoctorReport(tuple(check for look in looks for check in look()))


def _machine() -> Iterator[Check]:
    version = platform.python_version()
    yield Check("Python", sys.version_info >= (3, 10), version, EVERYTHING, "install Python 3.10 or newer")
    yield Check("system", os.name == "posix", platform.platform(terse=True), EVERYTHING, "use Linux, macOS or WSL")
    yield Check("cores", True, str(available_threads()), EVERYTHING)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    remedy = "use a machine with 4 GB or more"
    yield Check("memory", memory >= _TRAINING_BYTES, f"{memory / 1e9:.1f} GB", TRAINING, remedy)
    yield _disk("disk here", Path.cwd(), EVERYTHING, "free some, or give --out on another disk")
    yield _disk("disk of the cache", cache_folder(), TRAINING, "free some, or set SELFINSTRUCT_CACHE to another folder")


def _disk(name: str, folder: Path, needed_for: str, remedy: str) -> Check:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    found = f"{free / 1e9:.1f} GB free for {folder}" if writable else f"{folder} cannot be written"
    return Check(name, writable and free >= _FREE_BYTES, found, needed_for, remedy)


def _packages() -> Iterator[Check]:
    """This distribution and what it requires, as its metadata says."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Check(DISTRIBUTION, False, "not installed, run from its folder", EVERYTHING, "bash scripts/setup.sh")
        return
    yield Check(DISTRIBUTION, True, metadata.version(DISTRIBUTION), EVERYTHING)
    for requirement in requirements:
        name_and_versions, _, marker = requirement.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)", marker)
        purpose = _EXTRAS.get(extra and extra[1])
        # Requirements of other Python versions are not for here; extras for developers are not for users.
        if purpose and "python_version" not in marker:
            yield _package(name_and_versions, purpose, extra and extra[1])


def _package(requirement: str, purpose: str, extra: str | None) -> Check:
    """Whether a requirement such as "openai<4,>=2.8" is installed, and new enough."""
    name = re.split(r"[^\w.-]", requirement.strip())[0]
    least = re.search(r">=([\d.]+)", requirement)
    remedy = f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install {DISTRIBUTION}"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, False, "not installed", purpose, remedy)
    if least and _release(version) < _release(least[1]):
        return Check(name, False, f"{version}, older than {least[1]}", purpose, f"{remedy} --upgrade")
    return Check(name, True, version, purpose)


def _release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (2, 13, 0) of "2.13.0+cpu"."""
    return tuple(int(number) for number in re.match(r"[\d.]*", version)[0].split(".") if number)  # type: ignore[index]


def _shipped_files() -> Iterator[Check]:
    for name in (
        "seed_tasks.jsonl",
        "seed_tasks.zh.jsonl",
        "attributes.toml",
        "templates",
        "heldout",
        "validation.jsonl",
    ):
        try:
            yield Check(f"data/{name}", True, str(shipped(name)), EVERYTHING)
        except UsageError:
            yield Check(f"data/{name}", False, "missing", EVERYTHING, f"install {DISTRIBUTION} again")


def _embedded_model() -> Iterator[Check]:
    problem = _probe("import xllamacpp")[1]
    found = f"does not load: {problem}" if problem else "loads"
    yield Check("llama.cpp server", not problem, found, EMBEDDED_MODEL, SERVER_REMEDY)
    try:
        file = weights()
    except UsageError as error:
        yield Check("weights", False, "missing", EMBEDDED_MODEL, str(error))
    else:
        is_published = sha256_file(file) == WEIGHTS_SHA256
        yield Check("weights", True, f"{file}{'' if is_published else ' (not the published file)'}", EMBEDDED_MODEL)
    models = cache_folder() / "models"
    copies = [folder.name for folder in sorted(models.glob("[!.]*"))]
    yield Check("fp32 copies", True, ", ".join(copies) or "none yet; made on first use", TRAINING)


def _environment() -> Iterator[Check]:
    remedy = "set it to your key, or name another with --api-key-env; a server that asks for none needs none"
    yield Check("OPENAI_API_KEY", "OPENAI_API_KEY" in os.environ, _is_set("OPENAI_API_KEY"), ENDPOINT, remedy)
    for name, purpose in _VARIABLES.items():
        yield Check(name, True, _is_set(name), purpose)


def _is_set(variable: str) -> str:
    return "set" if os.environ.get(variable) else "not set"


def _accelerators() -> Iterator[Check]:
    said, problem = _probe(_TORCH_PROBE)
    if problem:
        remedy = f"pip install '{DISTRIBUTION}[train]'"
        yield Check("PyTorch", False, f"does not load: {problem}", TRAINING, remedy)
        return
    torch = json.loads(said)
    yield Check("PyTorch", True, f"{torch['version']}, {torch['threads']} threads", TRAINING)
    yield Check("accelerators", True, ", ".join(torch["accelerators"]) or "none; the CPU is used", TRAINING)


def _probe(code: str) -> tuple[str, str]:
    """(standard output, last line of what went wrong) of Python code in a process of its own.

    Native libraries may crash or be slow to load; neither may end the check-up.
    """
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return "", f"no answer within {_PROBE_TIMEOUT_S} s"
    if done.returncode == 0:
        return done.stdout, ""
    return "", (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def describe(report: DoctorReport) -> str:
    """The report for people, by purpose."""
    lines: list[str] = []
    for purpose in _PURPOSES:
        checks = [check for check in report.checks if check.needed_for == purpose]
        state = "ready" if all(check.ok for check in checks) else "not ready"
        lines += ["", f"For {purpose}: {state}"] if lines else [f"For {purpose}: {state}"]
        width = max((len(check.name) for check in checks), default=0)
        for check in checks:
            lines.append(f"  {'ok    ' if check.ok else 'not ok'}  {check.name:<{width}}  {check.found}")
            if check.remedy and not check.ok:
                lines.append(f"          {'':<{width}}  -> {check.remedy}")
    return "\n".join(lines)
