"""`finetune compare`: what got better or worse between evaluations of the same items, and what cannot be told."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import Field

from finetune.changes import Comparison, compared, scored_apart
from finetune.comparison_text import describe as describe
from finetune.contamination import overlaps
from finetune.predictions import Prediction, asked_items, read_predictions
from finetune.sources import read_source
from selfinstruct.command import Config
from selfinstruct.errors import InputError
from selfinstruct.files import read_json, refuse_to_replace, write_json

logger = logging.getLogger(__name__)


class CompareConfig(Config):
    """Which evaluations to compare."""

    base: Path = Field(description="Evaluation that the others are compared with.")
    tuned: list[Path] = Field(min_length=1, description="Evaluations of the same items, each compared with the first.")
    training_data: list[Path] = Field(
        [],
        description="What was trained on: run folders, or files of rows. Items that stand in it are scored apart.",
        json_schema_extra={"metavar": "FILE|RUN"},
    )
    tasks: list[Path] = Field(
        [], description="Held-out tasks, for --training-data, where they are not where evaluate.toml says."
    )
    out: Path | None = Field(None, description="File for the comparison as JSON.")
    overwrite: bool = Field(False, description="Replace --out if it exists.")


def compare(config: CompareConfig) -> Comparison:
    """Compare evaluations of the same items, pair by pair, and say which differences are more than chance.

    Raises:
        InputError: When a folder holds no finished evaluation, its items are not those of the base, or --training-data
            or the held-out tasks cannot be read.
        UsageError: When --out exists.
    """
    if config.out:
        refuse_to_replace(config.out, config.overwrite)
    base = read_predictions(config.base)
    others = {folder: read_predictions(folder) for folder in config.tuned}
    for folder, tuned in others.items():
        _check_items(config.base, base, folder, tuned)
    rows = [row for path in config.training_data for row in read_source(path).rows]
    found = overlaps(asked_items(config.base, config.tasks, base).values(), rows) if rows else []
    data = [str(path) for path in config.training_data]
    left_out = _unscored(config.base)
    first, *further = (
        compared(
            (str(config.base), str(folder)), base, tuned,
            unscored=left_out | _unscored(folder),
            contamination=scored_apart(base, tuned, data, len(rows), found) if rows else None,
            warnings=_warnings(base, tuned),
        )
        for folder, tuned in others.items()
    )  # fmt: skip
    result = replace(first, further=tuple(further))
    for comparison in (first, *further):
        for warning in comparison.warnings:
            logger.warning("%s: %s", comparison.tuned, warning)
    if config.out:
        write_json(config.out, asdict(result))
    return result


def _check_items(
    base_folder: Path, base: Mapping[str, Prediction], tuned_folder: Path, tuned: Mapping[str, Prediction]
) -> None:
    """Make sure that both evaluations hold the same items, asked to be answered and scored in the same way."""
    for folder, missing in ((tuned_folder, base.keys() - tuned.keys()), (base_folder, tuned.keys() - base.keys())):
        if missing:
            raise InputError(
                f"lacks {len(missing)} items of the other evaluation: {_first(missing)}", path=folder,
                remedy="evaluate both on the same tasks with the same --limit",
            )  # fmt: skip
    if differing := [id for id in base if _question(base[id]) != _question(tuned[id])]:
        raise InputError(
            f"{len(differing)} items have another cluster, metric, options or references than in {base_folder}: "
            f"{_first(differing)}", path=tuned_folder, remedy="evaluate both on the same tasks",
        )  # fmt: skip


def _question(prediction: Prediction) -> tuple[object, ...]:
    return prediction.cluster, prediction.metric, prediction.options, prediction.references


def _first(ids: Sequence[str] | set[str]) -> str:
    shown = ", ".join(sorted(ids)[:3])
    return f"{shown}, ..." if len(ids) > 3 else shown


def _warnings(base: Mapping[str, Prediction], tuned: Mapping[str, Prediction]) -> list[str]:
    differing = [id for id in base if _prompts(base[id]) != _prompts(tuned[id])]
    if not differing:
        return []
    return [
        f"{len(differing)} of {len(base)} prompts differ from the base's ({_first(differing)}), perhaps by template, "
        "wordings or shots, so the difference is not the model's alone"
    ]


def _prompts(prediction: Prediction) -> tuple[str, ...]:
    """The prompts in all wordings."""
    return prediction.prompt, *(reworded.prompt for reworded in prediction.wordings)


def _unscored(folder: Path) -> dict[str, dict[str, str]]:
    """The folder, if its evaluation left items out, to their ids and the reasons."""
    path = folder / "summary.json"
    summary = read_json(path) if path.is_file() else {}
    left_out = {item["item"]: item["reason"] for item in summary.get("unscored_items", ())}
    return {str(folder): left_out} if left_out else {}
