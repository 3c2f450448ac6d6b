"""Everything that a training takes from files: rows read, split, checked against held-out tasks, encoded and mixed.

Every row that is not used is counted under a reason; none is cut.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar

from finetune.config import TrainConfig
from finetune.contamination import Finding, contaminated
from finetune.encoding import IGNORED as IGNORED
from finetune.encoding import TrainingRow as TrainingRow
from finetune.encoding import encode as encode
from finetune.folder import FileRecord
from finetune.sources import InstructionRow as InstructionRow
from finetune.sources import Row, Source, read_source
from finetune.sources import read_rows as read_rows
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import sha256_file, shipped
from selfinstruct.render import Renderer
from selfinstruct.seeds import read_seeds
from selfinstruct.tasks import task_files

RowT = TypeVar("RowT")
# How many places a message names.
_SHOWN = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Everything that a training takes from files.

    Attributes:
        rows, eval_rows: In the order of the files. With weights, a row may be among the training rows several times.
        dropped, eval_dropped: Reason to number of rows.
        contaminated: Training rows that held-out tasks have too, whether or not they are used.
    """

    rows: tuple[TrainingRow, ...]
    eval_rows: tuple[TrainingRow, ...]
    dropped: Mapping[str, int]
    eval_dropped: Mapping[str, int]
    files: tuple[FileRecord, ...]
    contaminated: tuple[Finding, ...] = ()


def prepare(config: TrainConfig, renderer: Renderer, tokenizer: Any) -> TrainingData:
    """Read all data that the configuration names, split it, and turn it into tokens.

    Evaluation rows are kept out first, over all sources alike. Then the usable rows of each source are counted, and
    with weights drawn from (see `mixture`).

    Args:
        config: Says which files, how many rows to keep out, how long a row may be, and what must not be in them.
        renderer: Of this tokenizer.
        tokenizer: A `PreTrainedTokenizerBase`.

    Raises:
        InputError: For a file or a row that cannot be used, or rows that held-out tasks have too.
        UsageError: When no row is left, of a source with a weight or at all.
    """
    sources = [read_source(path) for path in config.data]
    roles: list[Literal["train", "seeds"]] = ["train"] * len(sources)
    if config.include_seeds:
        sources.append(_seeds(config.seeds or shipped("seed_tasks.jsonl")))
        roles.append("seeds")
    kept = [list(source.rows) for source in sources]
    held: Source | None = None
    eval_rows: list[Row] = []
    if config.eval_data:
        held = read_source(config.eval_data)
        eval_rows = list(held.rows)
    elif config.eval_fraction:
        origin = [index for index, source in enumerate(sources) for _ in source.rows]
        pairs = zip(origin, (row for source in sources for row in source.rows), strict=True)
        train_pairs, eval_pairs = split(list(pairs), config.eval_fraction, config.seed)
        kept = [[row for at, row in train_pairs if at == index] for index in range(len(sources))]
        eval_rows = [row for _, row in eval_pairs]

    dropped: Counter[str] = Counter()
    kept, findings = _uncontaminated(kept, config)
    if findings and config.contamination == "drop":
        dropped["contaminated"] = len(findings)
    questions = {row.question for row in eval_rows}
    encoded = []
    for rows in kept:
        training_rows, reasons = encode(rows, renderer, tokenizer, config.max_length, questions)
        encoded.append(training_rows)
        dropped.update(reasons)
    held_rows, eval_dropped = encode(eval_rows, renderer, tokenizer, config.max_length)
    if not any(encoded):
        raise UsageError(f"no row is left to train on: {_counts(dropped) or 'all are kept out for evaluation'}")
    if questions and not held_rows:
        raise UsageError(f"no row is left to evaluate on: {_counts(eval_dropped)}")
    if config.weights:
        n_mixed = len(config.data)
        if (empty := next((i for i in range(n_mixed) if not encoded[i]), None)) is not None:
            raise UsageError(f"no row of {sources[empty].path} is left to give it its weight: {_counts(dropped)}")
        encoded[:n_mixed] = mixture(encoded[:n_mixed], config.weights, config.seed)

    files = [
        FileRecord(role=role, path=source.path, sha256=source.sha256, rows=len(source.rows), used=len(used))
        for role, source, used in zip(roles, sources, encoded, strict=True)
    ]
    if held:
        files.append(
            FileRecord(role="eval", path=held.path, sha256=held.sha256, rows=len(held.rows), used=len(held_rows))
        )
    files += [
        FileRecord(role="held_out", path=str(path), sha256=sha256_file(path), rows=0, used=0)
        for path in task_files(config.held_out)
    ]
    return TrainingData(
        rows=tuple(row for rows in encoded for row in rows),
        eval_rows=tuple(held_rows),
        dropped=dict(dropped),
        eval_dropped=eval_dropped,
        files=tuple(files),
        contaminated=tuple(findings),
    )


def _counts(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in dropped.items())


def _seeds(path: Path) -> Source:
    """Seed tasks, one row for each instance."""
    rows = tuple(
        InstructionRow(seed.instruction, instance.input, instance.output, f"{path} ({seed.id})")
        for seed in read_seeds(path)
        for instance in seed.instances
    )
    return Source(str(path), rows, sha256_file(path))


def split(rows: Sequence[RowT], eval_fraction: float, seed: int) -> tuple[list[RowT], list[RowT]]:
    """Keep a random share of the rows out, at least one; both parts keep the order of the files.

    Returns:
        (rows to train on, rows to evaluate on).
    """
    n_eval = max(1, round(eval_fraction * len(rows)))
    kept_out = set(Random(f"{seed}/eval").sample(range(len(rows)), n_eval))  # noqa: S311
    return (
        [row for index, row in enumerate(rows) if index not in kept_out],
        [row for index, row in enumerate(rows) if index in kept_out],
    )


def mixture(sources: Sequence[Sequence[RowT]], weights: Sequence[float], seed: int) -> list[list[RowT]]:
    """Give each source its share of an epoch, which has as many rows as all sources together.

    A source with more rows than its share gives a random part of them; one with fewer is gone through several times,
    and gives a random part of its rows once more. Each epoch has the same rows.

    Args:
        sources: Usable rows of each source, at least one.
        weights: One for each source; shares are weights divided by their sum, and whole rows by largest remainders.
        seed: Of what is drawn.

    Returns:
        The rows of each source in an epoch, whole passes first, in the order of the source.
    """
    total, whole = sum(map(len, sources)), sum(weights)
    exact = [total * weight / whole for weight in weights]
    counts = [int(share) for share in exact]
    for index in sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])[: total - sum(counts)]:
        counts[index] += 1
    mixed = []
    for index, (rows, count) in enumerate(zip(sources, counts, strict=True)):
        passes, rest = divmod(count, len(rows))
        drawn = sorted(Random(f"{seed}/mixture/{index}").sample(range(len(rows)), rest))  # noqa: S311
        mixed.append([*rows] * passes + [rows[i] for i in drawn])
    return mixed


def _uncontaminated(groups: list[list[Row]], config: TrainConfig) -> tuple[list[list[Row]], list[Finding]]:
    """The rows to train on, and those that held-out tasks have too, which are among them only with "report".

    Raises:
        InputError: When there are any and they are to be refused.
    """
    found = [contaminated(rows, config.held_out) for rows in groups]
    findings = [finding for indices in found for finding in indices.values()]
    if not findings:
        return groups, []
    places = "; ".join(f"{finding.place}: {finding.detail}" for finding in findings[:_SHOWN])
    more = f"; and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    problem = f"{len(findings)} rows have something in common with held-out tasks ({places}{more})"
    if config.contamination == "refuse":
        raise InputError(
            problem, path=findings[0].place, remedy="leave them out with --contamination drop, or only report them"
        )
    logger.warning("%s; %s", problem, "left out" if config.contamination == "drop" else "trained on all the same")
    if config.contamination == "report":
        return groups, findings
    return [
        [row for index, row in enumerate(rows) if index not in indices]
        for rows, indices in zip(groups, found, strict=True)
    ], findings
