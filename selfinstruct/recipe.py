"""`selfinstruct run` and `demo`: all stages from one recipe into one folder, resumable stage by stage.

A recipe is a TOML file with a section of options for each command. Every stage is one of the commands that a user could
type, run as a process of its own; DIR/manifest.json says of each what it was, from what it made what, and how it ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from selfinstruct.command import Config
from selfinstruct.errors import Error, InputError, Interrupted, UsageError
from selfinstruct.files import (
    digest,
    read_json,
    read_toml,
    sha256_file,
    shipped,
    to_toml,
    validate,
    write_json,
    write_text,
)  # fmt: skip
from selfinstruct.tasks import DATA_SET

logger = logging.getLogger(__name__)

DERIVED = ("train", "evaluate-base", "evaluate-tuned")  # stages whose folder is all from their options and inputs
PATH_OPTIONS = ("seeds", "eval_data", "tasks")
_SHIPPED = "shipped:"
_PR_SET_PDEATHSIG = 1  # prctl(2)


class RunConfig(Config):
    """Options of `selfinstruct run`."""

    recipe: Path = Field(description="Recipe (TOML).")
    out: Path = Field(description="Folder for everything that is made; the same one again resumes.")
    dry_run: bool = Field(False, description="Check the recipe, say what would run and what it would cost, and end.")


class DemoConfig(Config):
    """Options of `selfinstruct demo`."""

    out: Path = Field(Path("runs/demo"), description="Folder for everything that is made; the same one again resumes.")
    smoke: bool = Field(False, description="A tiny size that only shows that every stage works.")
    dry_run: bool = Field(False, description="Say what would run, and end.")


class Recipe(BaseModel):
    """A recipe file.

    Attributes:
        title: One line about it.
        generate, train, evaluate: Options of these commands, as their --help lists them, without input and output
            folders. Paths are relative to the recipe; "shipped:NAME" is a data file of this project.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = ""
    generate: dict[str, Any]
    train: dict[str, Any]
    evaluate: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Stage:
    """One command of a recipe.

    Attributes:
        name: As in the manifest.
        program: "selfinstruct" or "finetune".
        arguments: After the program's name.
        options: The recipe's section that the command reads; a change makes the stage run again.
        inputs: Files it reads; a change makes the stage run again.
        outputs: Files it makes.
    """

    name: str
    program: Literal["selfinstruct", "finetune"]
    arguments: tuple[str, ...]
    options: Mapping[str, Any]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]

    @property
    def command(self) -> str:
        """The command as one would type it."""
        return shlex.join([self.program, *self.arguments])


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a recipe made.

    Attributes:
        folder: Where.
        stages: State of each stage: "done", or "kept" where nothing had changed since an earlier call.
        figures: Tasks accepted and rejected, and the loss on held-back rows before and after, in words.
        comparison: What got better and what did not, in words.
        elapsed_s: Of this call.
    """

    folder: str
    stages: dict[str, str]
    figures: str
    comparison: str
    elapsed_s: float


def run(config: RunConfig) -> RunResult:
    """Generate, train, evaluate base and tuned model, compare and report: one recipe, one folder.

    Raises:
        InputError: For a recipe that cannot work; found before anything is run.
        Error: When a stage fails, with its exit code.
    """
    recipe = read_recipe(config.recipe)
    _check_sections(config.recipe)
    stages = plan(recipe, config.out)
    if config.dry_run:
        _forecast(recipe)
        return RunResult(str(config.out), {stage.name: stage.command for stage in stages}, "", "", 0.0)
    started = time.monotonic()
    config.out.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_text(config.out / "recipe.toml", to_toml(recipe.model_dump()))
    states: dict[str, str] = {}
    for number, stage in enumerate(stages, start=1):
        states[stage.name] = _run_stage(stage, f"[{number}/{len(stages)}]", config.out)
    comparison = (config.out / "compare.txt").read_text(encoding="utf-8")
    return RunResult(str(config.out), states, _figures(config.out), comparison, round(time.monotonic() - started, 1))


def demo(config: DemoConfig) -> RunResult:
    """Run everything on the embedded model: no key, no GPU, no model hub.

    Raises:
        Error: As `run`.
    """
    name = "embedded-smoke.toml" if config.smoke else "embedded.toml"
    return run(RunConfig(recipe=shipped_recipe(name), out=config.out, dry_run=config.dry_run))


def describe(result: RunResult) -> str:
    """The result in words, what was made, and what to do next."""
    if not result.comparison:
        return "would run:\n" + "\n".join(f"  {command}" for command in result.stages.values())
    folder = Path(result.folder)
    made = {
        "data set": folder / "generate" / "dataset.jsonl",
        "rejected": folder / "generate" / "rejected.jsonl",
        "adapter": folder / "train" / "adapter",
        "answers": f"{folder / 'evaluate-base'} and {folder / 'evaluate-tuned'}",
        "report": folder / "report.html",
    }
    return "\n".join(
        [
            "",
            result.figures,
            "",
            result.comparison.strip(),
            "",
            f"Made in {result.elapsed_s / 60:.1f} minutes:",
            *(f"  {name:<9} {path}" for name, path in made.items()),
            "",
            "Next, with a key of your own (nothing is sent before you have seen the price):",
            "  export OPENAI_API_KEY=...",
            "  selfinstruct generate --out runs/mine --model gpt-4o-mini --num-instructions 1000 --dry-run",
            "  selfinstruct generate --out runs/mine --model gpt-4o-mini --num-instructions 1000 --max-cost-usd 2",
        ]
    )


def _figures(folder: Path) -> str:
    run, training = (read_json(folder / name / "summary.json") for name in ("generate", "train"))
    text = f"{run['accepted']} tasks accepted, {sum(run['rejected'].values())} rejected, each with its rule."
    if training["eval_loss"] is not None:
        text += (
            f"\nLoss a token on {training['eval_rows']} rows that were not trained on:"
            f" {training['eval_loss_before']:.3f} before, {training['eval_loss']:.3f} after."
        )
    return text


def shipped_recipe(name: str) -> Path:
    """Path of a recipe that comes with the project."""
    return Path(__file__).resolve().parent / "recipes" / name


def read_recipe(path: Path) -> Recipe:
    """Read a recipe, with its paths made absolute.

    Raises:
        InputError: For a broken file, an unknown section, an option that the recipe's own folders make needless, or a
            path that does not exist.
    """
    recipe = validate(Recipe, read_toml(path), path=path)
    owned = {"generate": ("out",), "train": ("data", "out"), "evaluate": ("model", "adapter", "out")}
    sections = {}
    for section, names in owned.items():
        options = dict(getattr(recipe, section))
        for name in names:
            if name in options:
                raise InputError(
                    "is set by the recipe's own folders", path=path, field=f"{section}.{name}", remedy="leave it out"
                )
        for name in PATH_OPTIONS:
            if name in options:
                options[name] = _resolved(options[name], path, f"{section}.{name}")
        sections[section] = options
    train = sections["train"]
    sections["evaluate"].setdefault("template", train.get("template", "auto"))
    return recipe.model_copy(update=sections)


def _resolved(value: Any, recipe: Path, field: str) -> Any:
    """A path option, or a list of them, as absolute paths."""
    if isinstance(value, list):
        return [_resolved(item, recipe, field) for item in value]
    if not isinstance(value, str):
        raise InputError("must be a path", path=recipe, field=field, remedy="write it in quotes")
    if value.startswith(_SHIPPED):
        try:
            return str(shipped(value.removeprefix(_SHIPPED)))
        except UsageError as error:
            raise InputError(str(error), path=recipe, field=field) from error
    path = recipe.parent.absolute() / value
    if not path.exists():
        raise InputError(f"no such file: {path}", path=recipe, field=field, remedy="paths are relative to the recipe")
    return str(path)


def plan(recipe: Recipe, folder: Path) -> list[Stage]:
    """The stages of a recipe, in order."""
    options = ("--config", str(folder / "recipe.toml"))
    run, train, base, tuned = (folder / name for name in ("generate", "train", "evaluate-base", "evaluate-tuned"))
    dataset, adapter = run / "dataset.jsonl", train / "adapter" / "adapter_model.safetensors"
    model = ("--model", str(recipe.train.get("model", "embedded")))
    seeds = Path(recipe.generate.get("seeds") or shipped("seed_tasks.jsonl"))
    tasks = tuple(_files(recipe.evaluate.get("tasks") or [str(shipped("heldout"))]))
    eval_data = tuple(_files([recipe.train[name] for name in ("eval_data", "seeds") if name in recipe.train]))
    predictions = (base / "predictions.jsonl", tuned / "predictions.jsonl")
    compare, lineage, page = folder / "compare.json", folder / "lineage.json", folder / "report.html"
    return [
        Stage(
            "generate", "selfinstruct", ("generate", *options, "--out", str(run)), recipe.generate,
            (seeds,), (dataset, run / "rejected.jsonl", run / "summary.json"),
        ),
        Stage(
            "train", "finetune", ("train", *options, "--data", str(run), "--out", str(train)), recipe.train,
            (dataset, *eval_data), (adapter, train / "summary.json"),
        ),
        Stage(
            "evaluate-base", "finetune", ("evaluate", *options, *model, "--out", str(base)),
            {**recipe.evaluate, "model": model[1]}, tasks, (predictions[0], base / "summary.json"),
        ),
        Stage(
            "evaluate-tuned", "finetune",
            ("evaluate", *options, *model, "--adapter", str(adapter.parent), "--out", str(tuned)),
            {**recipe.evaluate, "model": model[1]}, (*tasks, adapter), (predictions[1], tuned / "summary.json"),
        ),
        Stage(
            "compare", "finetune",
            ("compare", str(base), str(tuned), "--training-data", str(run), "--out", str(compare), "--overwrite"), {},
            (*predictions, dataset), (compare, folder / "compare.txt"),
        ),
        Stage(
            "lineage", "finetune",
            ("lineage", str(base), str(tuned), "--training-data", str(run), "--out", str(lineage), "--overwrite"), {},
            (*predictions, dataset), (lineage,),
        ),
        Stage(
            "report", "selfinstruct",
            ("report", *map(str, (run, train, base, tuned)),
             "--compare", str(compare), "--lineage", str(lineage), "--out", str(page), "--overwrite"),
            {}, (dataset, compare, lineage, train / "summary.json"), (page,),
        ),
    ]  # fmt: skip


def _files(paths: list[str]) -> Iterator[Path]:
    for path in (Path(path) for path in paths if not path.startswith(DATA_SET)):
        yield from sorted(f for f in path.iterdir() if f.is_file()) if path.is_dir() else [path]


def _check_sections(path: Path) -> None:
    """Let each command check its own section, so that a mistake in the last one shows before the first is paid for."""
    stand_in = ("--out", "x", "--config", str(path), "--print-config")
    written = read_toml(path)
    for program, arguments in (
        ("selfinstruct", ("generate", *stand_in)),
        ("finetune", ("train", "--data", "x", *stand_in)),
        ("finetune", ("evaluate", *stand_in)),
    ):
        if arguments[0] not in written:
            continue
        checked = subprocess.run(  # noqa: S603
            _argv(program, arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if checked.returncode:
            _fail(
                checked.stderr.strip().removeprefix("error: ") or f"{program} {arguments[0]} failed", checked.returncode
            )


def _forecast(recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        write_text(path, to_toml(recipe.model_dump()))
        arguments = ("generate", "--config", str(path), "--out", "x", "--dry-run")
        code = subprocess.run(_argv("selfinstruct", arguments), stdout=sys.stderr, check=False).returncode  # noqa: S603
    if code:
        _fail(f"the forecast ended with exit code {code}", code)


def _run_stage(stage: Stage, place: str, folder: Path) -> str:
    """Run a stage unless an earlier call did with the same inputs; returns "done" or "kept"."""
    manifest_path = folder / "manifest.json"
    manifest = read_json(manifest_path) if manifest_path.exists() else {"stages": {}}
    record = {"options_sha256": digest(dict(stage.options), 64), "inputs": _hashes(stage.inputs, folder)}
    before = manifest["stages"].get(stage.name, {})
    unchanged = all(before.get(key) == value for key, value in record.items())
    if unchanged and before["state"] == "done" and before["outputs"] == _hashes(stage.outputs, folder):
        logger.warning("%s %s: done before, kept", place, stage.name)
        return "kept"
    if before and not unchanged and stage.name in DERIVED:
        _set_aside(folder / stage.name)
    logger.warning("%s %s", place, stage.command)
    started = time.monotonic()

    def note(state: str, **more: Any) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        entry = {"command": stage.command, **record, "versions": _versions(), "state": state, "at": now, **more}
        manifest["stages"][stage.name] = entry
        write_json(manifest_path, manifest)

    note("running")
    text = folder / "compare.txt" if stage.name == "compare" else None
    code = _call(stage, text)
    elapsed_s = round(time.monotonic() - started, 1)
    if code:
        note("failed", exit_code=code, elapsed_s=elapsed_s)
        resumes = "" if code == UsageError.exit_code else "; the same command resumes there"
        _fail(f"stage {stage.name} ended with exit code {code}{resumes}", code)
    note("done", outputs=_hashes(stage.outputs, folder), elapsed_s=elapsed_s)
    return "done"


def _set_aside(folder: Path) -> None:
    """Keep what a stage made from other options or inputs under another name, so that it can be made anew."""
    if not folder.exists():
        return
    number = next(n for n in itertools.count(1) if not folder.with_name(f"{folder.name}.{n}").exists())
    kept = folder.rename(folder.with_name(f"{folder.name}.{number}"))
    logger.warning("the recipe or its inputs have changed: what was in %s is now in %s", folder, kept)


def _fail(message: str, code: int) -> None:
    error = Interrupted(message) if code in (130, -signal.SIGINT, -signal.SIGTERM) else Error(message)
    error.exit_code = code if code > 0 else error.exit_code
    raise error


def _call(stage: Stage, text: Path | None) -> int:
    """Run a stage's command, its output on stderr or in a file, and wait for it whatever signals arrive."""
    with contextlib.ExitStack() as stack:
        stdout: Any = stack.enter_context(open(text, "w", encoding="utf-8")) if text else sys.stderr
        process = subprocess.Popen(  # noqa: S603
            _argv(stage.program, stage.arguments),
            stdout=stdout,
            preexec_fn=_end_with_parent,
        )
        # The terminal sends Ctrl-C to the stage as well; other senders may know only this process.
        stack.enter_context(_handling(signal.SIGTERM, lambda: process.terminate()))
        stack.enter_context(_handling(signal.SIGINT, lambda: None))
        return process.wait()


@contextlib.contextmanager
def _handling(number: signal.Signals, action: Any) -> Iterator[None]:
    before = signal.signal(number, lambda *_: action())
    try:
        yield
    finally:
        signal.signal(number, before)


def _end_with_parent() -> None:
    """In the child: be told to end when the parent is killed, so that no stage goes on alone (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _argv(program: str, arguments: tuple[str, ...]) -> list[str]:
    quiet = () if logger.isEnabledFor(logging.WARNING) else ("--quiet",)
    return [sys.executable, "-m", program, *arguments, *quiet]


def _hashes(paths: tuple[Path, ...], folder: Path) -> dict[str, str | None]:
    """Hashes of files; those inside the folder are named relative to it, so that the folder may be moved."""
    names = (str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in paths)
    return {name: sha256_file(path) if path.is_file() else None for name, path in zip(names, paths, strict=True)}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("selfinstruct", "openai", "torch", "transformers", "peft"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
