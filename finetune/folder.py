"""The folder of one training: what is recorded of it, how far it is, and its checkpoints.

train.toml           what was asked for and from what; written first
tokens.json          the first rows token by token, and which tokens are learnt: what a report shows
metrics.jsonl        one object a logged step
checkpoints/step-N   complete ones only, each with its hashes: the last two, and the best if that is to be kept; gone
                     once the training is finished
.lock                held by the process that writes here
adapter/             the result
summary.json         written last: a folder with a summary is finished
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune.tokens import InspectedRow
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import (
    hold,
    read_json,
    read_jsonl,
    read_toml,
    sha256_file,
    to_json_line,
    to_toml,
    usual_mode,
    validate,
    write_json,
    write_jsonl,
    write_text,
)  # fmt: skip

logger = logging.getLogger(__name__)

# What may differ when a training is resumed: data and model are compared by their hashes, and how a step is divided
# changes nothing but roundings.
FREE_SETTINGS = frozenset(
    {
        "data", "seeds", "eval_data", "held_out", "out", "model", "threads", "report_to", "dry_run", "probe_steps",
        "pack_length", "gradient_checkpointing", "compile", "liger",
    }
)  # fmt: skip
# A checkpoint's own list of its files, in the form of sha256sum; written last.
SUMS = "SHA256SUMS"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseRecord(_Record):
    """The base model: as asked for, where it was, and what it may be called in public."""

    name: str
    location: str
    public_name: str
    revision: str | None = None
    weights_sha256: str | None = None


class TemplateRecord(_Record):
    """How rows became text."""

    name: str
    sha256: str


class FileRecord(_Record):
    """A file or data set that rows were read from, or one of held-out tasks that they were compared with.

    Attributes:
        rows: How many it holds.
        used: How many of them, repeated ones counted again, an epoch or an evaluation has.
    """

    role: Literal["train", "seeds", "eval", "held_out"]
    path: str
    sha256: str
    rows: int
    used: int | None = None


class BatchingRecord(_Record):
    """How an optimizer step was divided."""

    processes: int
    pack_length: int = Field(description="Most tokens of a forward pass; 0 is one row at a time.")


class TrainRecord(_Record):
    """The content of train.toml."""

    config: dict[str, Any]
    base: BaseRecord
    template: TemplateRecord
    batching: BatchingRecord
    versions: dict[str, str]
    files: list[FileRecord]


class TrainSummary(_Record):
    """What a training came to.

    Losses are means over the supervised tokens (the completions with their end-of-sequence token), in nats.
    """

    rows_used: int
    rows_dropped: dict[str, int] = Field(description="Reason to number of rows.")
    eval_rows: int
    eval_rows_dropped: dict[str, int]
    steps: int = Field(description="Optimizer steps made; fewer than planned if the training stopped early.")
    kept_step: int = Field(description="Step that the adapter is from.")
    tokens: int = Field(description="Tokens trained on, without padding, over all epochs.")
    supervised_tokens: int
    trainable_parameters: int
    train_loss: float = Field(description="Mean over all steps.")
    eval_loss_before: float | None = Field(description="Of the base model, on the evaluation rows.")
    eval_loss: float | None = Field(description="Of the adapter that was kept.")
    tokens_per_s: float
    supervised_tokens_per_s: float
    mfu: float | None = Field(description="Share of the device's peak, 0 to 1; null where the peak is unknown.")
    elapsed_s: float = Field(description="Seconds of training, without loading, evaluation and checkpoints.")
    pack_length: int = Field(description="Most tokens of a forward pass at the end; memory that ran out lowers it.")
    gradient_checkpointing: bool = Field(description="At the end; memory that ran out turns it on.")
    template_sha256: str


class TrainingFolder:
    """Paths and state of one training.

    Args:
        path: Of the folder; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adapter = path / "adapter"
        self.checkpoints = path / "checkpoints"
        self.partial = self.checkpoints / ".partial"
        self.record = path / "train.toml"
        self.tokens = path / "tokens.json"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"

    def check_place(self) -> None:
        """Make sure that the folder is empty, not there yet, or holds a training.

        Raises:
            UsageError: When it does not.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file; give another folder")
        # A name with a dot is what a process leaves that was killed while it wrote train.toml.
        is_used = self.path.exists() and any(not file.name.startswith(".") for file in self.path.iterdir())
        if is_used and not self.record.exists():
            raise UsageError(f"--out {self.path} holds other files; give a new or an empty folder")

    def check(self, record: TrainRecord) -> None:
        """Make sure that a training with these settings may start or go on here.

        Raises:
            UsageError: When the folder holds a training with other settings.
        """
        if not self.record.exists():
            return
        if changes := differences(validate(TrainRecord, read_toml(self.record), path=self.record), record):
            raise UsageError(
                f"{self.path} holds a training with other settings: {'; '.join(changes)}. "
                "Give the same settings to resume, or another --out"
            )

    def finished(self) -> TrainSummary | None:
        """The summary of a finished training."""
        return validate(TrainSummary, read_json(self.summary), path=self.summary) if self.summary.exists() else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder for this process.

        Raises:
            UsageError: When another process trains here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / ".lock"
        with open(lock, "a") as file:
            hold(file, self.path)
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint of a step."""
        return self.checkpoints / f"step-{step}"

    def _steps(self) -> list[int]:
        """Steps that have a complete checkpoint, newest first."""
        return sorted(
            (int(found.name.removeprefix("step-")) for found in self.checkpoints.glob("step-*")), reverse=True
        )

    def last_checkpoint(self) -> tuple[int, Path] | None:
        """(steps done, folder) of the newest checkpoint that is as it was written.

        Raises:
            InputError: When there are checkpoints and all of them are damaged.
        """
        damages = []
        for step in self._steps():
            damage = damaged_file(self.checkpoint(step))
            if damage is None:
                return step, self.checkpoint(step)
            logger.warning("%s is damaged; going on from an older checkpoint", damage)
            damages.append(damage)
        if damages:
            raise InputError(
                "is damaged, and there is no older checkpoint", path=damages[-1],
                remedy=f"get it back, or remove {self.checkpoints} to train from the start",
            )  # fmt: skip
        return None

    def eval_loss_before(self, step: int) -> float | None:
        """Evaluation loss of the base model, from the checkpoint of a step."""
        history = read_json(self.checkpoint(step) / "trainer_state.json")["log_history"]
        return next((float(entry["eval_loss"]) for entry in history if "eval_loss" in entry), None)

    def best_step(self, lines: Sequence[Mapping[str, Any]]) -> int | None:
        """Step with the lowest evaluation loss, among those logged that are still here or just being saved."""
        evaluated = [(line["eval_loss"], line["step"]) for line in lines if "eval_loss" in line]
        there = {*self._steps(), lines[-1]["step"] if lines else 0}
        return min(((loss, step) for loss, step in evaluated if step in there), default=(0.0, None))[1]

    def start(self, record: TrainRecord, rows: Sequence[InspectedRow]) -> None:
        """Record a new training, and a few of its rows token by token."""
        write_text(self.record, to_toml(record.model_dump(mode="json")))
        write_text(self.tokens, to_json_line({"rows": [asdict(row) for row in rows]}) + "\n")

    def clear_partial(self) -> None:
        """Remove what a killed process left half-written."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def publish_checkpoint(self, partial: Path, step: int, best: int | None = None) -> None:
        """Make a completely written checkpoint the newest one; of the older ones keep one, and the best.

        Args:
            partial: Where it was written.
            step: Optimizer steps behind it.
            best: Step of another checkpoint to keep.
        """
        files = sorted(file for file in partial.rglob("*") if file.is_file())
        sums = "".join(f"{sha256_file(file)}  {file.relative_to(partial)}\n" for file in files)
        write_text(partial / SUMS, sums)
        publish(partial, self.checkpoint(step))
        steps = self._steps()
        kept = {*[old for old in steps if old <= step][:2], best}
        for old in set(steps) - kept:
            shutil.rmtree(self.checkpoint(old))

    def finish(self, summary: TrainSummary) -> None:
        """Write the summary, which marks the training as finished, and drop the checkpoints."""
        write_json(self.summary, summary.model_dump(mode="json"))
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def keep_metrics(self, step: int, *, write: bool) -> list[dict[str, Any]]:
        """The logged steps up to one; those after it will be trained again.

        Args:
            step: The last one to keep.
            write: Remove the others from the file as well.
        """
        kept = [line for line in self._whole_lines() if line["step"] <= step]
        if write:
            write_jsonl(self.metrics, kept)
        return kept

    def _whole_lines(self) -> Iterator[dict[str, Any]]:
        """Logged steps up to a line that a killed process left half-written."""
        try:
            yield from (line for _, line in read_jsonl(self.metrics)) if self.metrics.exists() else ()
        except InputError:
            return

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one logged step."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(to_json_line(line) + "\n")


def damaged_file(checkpoint: Path) -> Path | None:
    """The first file of a checkpoint that is missing or not as it was written."""
    sums = checkpoint / SUMS
    if not sums.is_file():
        return sums
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        expected, _, name = line.partition("  ")
        file = checkpoint / name
        if not file.is_file() or sha256_file(file) != expected:
            return file
    return None


def publish(partial: Path, final: Path) -> None:
    """Rename a completely written folder into place, so that it appears whole and on disk or not at all."""
    for path in (*partial.rglob("*"), partial):
        if path.is_file():
            path.chmod(usual_mode())  # safetensors lets nobody else read its files
        _sync(path)
    if final.exists():
        shutil.rmtree(final)
    partial.replace(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    written = os.open(path, os.O_RDONLY)
    try:
        os.fsync(written)
    finally:
        os.close(written)


def differences(recorded: TrainRecord, now: TrainRecord) -> list[str]:
    """What differs between two records among the things that shape an adapter, each in words."""
    before, after = _identity(recorded), _identity(now)
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [f"{key} was {before.get(key, 'not set')}, now {after.get(key, 'not set')}" for key in changed]


def _identity(record: TrainRecord) -> dict[str, Any]:
    """Name in messages to value, of everything that shapes an adapter."""
    settings = {
        f"--{name.replace('_', '-')}": value
        for name, value in record.config.items()
        if name not in FREE_SETTINGS and value is not None
    }
    files = {
        f"{file.role} file {index} ({Path(file.path).name})": file.sha256[:16]
        for index, file in enumerate(record.files, start=1)
    }
    return {
        **settings,
        "base model": record.base.public_name,
        "revision of the base model": record.base.revision,
        "weights of the base model": (record.base.weights_sha256 or "")[:16],
        "template": record.template.sha256[:16],
        **files,
        "processes": record.batching.processes,
    }
