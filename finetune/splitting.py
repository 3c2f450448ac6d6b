"""`finetune split`: training and test sets that share no data set, after FLAN (Wei et al., 2022, section 2.2).

train.jsonl     rows for `finetune train`
test.jsonl      items for `finetune evaluate`
summary.json    rows of each by cluster and data set; written last
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from selfinstruct.command import Config
from selfinstruct.contamination import plain_name
from selfinstruct.errors import UsageError
from selfinstruct.files import digest, refuse_to_replace, write_json, write_jsonl
from selfinstruct.labelled_data import read_labelled

TRAIN, TEST, SUMMARY = "train.jsonl", "test.jsonl", "summary.json"


class SplitConfig(Config):
    """What to split, and what to hold out."""

    source: list[Path] = Field(
        min_length=1,
        description="Files (.jsonl, .json, .csv, .tsv, .parquet) or data sets whose rows have cluster and dataset: "
        "prompt and completion as in P3, what selfinstruct templates wrote, or held-out items (task for dataset).",
    )
    hold_out: list[str] = Field(
        min_length=1, description="A cluster to test on, and not to train on.", json_schema_extra={"metavar": "CLUSTER"}
    )
    out: Path = Field(description="Folder for train.jsonl, test.jsonl and summary.json.")
    sample: int | None = Field(None, ge=1, description="Rows of each data set, drawn at random. Default: all.")
    seed: int = Field(0, description="Seed of the drawing; the same rows are drawn whatever else the files hold.")
    overwrite: bool = Field(False, description="Replace the files if they exist.")


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """What was written.

    Attributes:
        train, test: Rows by cluster and data set.
        left_out: Rows by reason: "empty" (no answer) and "sample".
    """

    out: str
    train: dict[str, dict[str, int]]
    test: dict[str, dict[str, int]]
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Row:
    values: dict[str, Any]
    cluster: str
    dataset: str
    instruction: str
    input: str
    output: str

    @property
    def asked(self) -> str:
        """What makes two rows the same."""
        return " ".join(f"{self.instruction} {self.input}".casefold().split())

    def to_train_on(self) -> dict[str, Any]:
        if "output" in self.values:
            return self.values
        row = {
            "instruction": self.instruction, "input": self.input, "output": self.output, "cluster": self.cluster,
            "dataset": self.dataset,
        }  # fmt: skip
        return row | self._kept("id", "template")

    def to_test_on(self) -> dict[str, Any]:
        if "output" not in self.values:
            return self.values
        return self._kept("id") | {
            "task": self.dataset, "cluster": self.cluster, "instruction": self.instruction, "input": self.input,
            "references": [self.output],
        }  # fmt: skip

    def _kept(self, *names: str) -> dict[str, Any]:
        return {name: self.values[name] for name in names if name in self.values}


def split(config: SplitConfig) -> SplitSummary:
    """Divide data by cluster: held-out clusters to test on, all others to train on.

    Rows keep the order of the files. All of them are held in memory.

    Raises:
        InputError: For a broken file, or a row without cluster, data set, question or answer.
        UsageError: When a cluster is not there, a data set or a question would stand in both, one of the sets would be
            empty, or a file to be written exists.
    """
    for name in (TRAIN, TEST, SUMMARY):
        refuse_to_replace(config.out / name, config.overwrite)
    left_out: Counter[str] = Counter()
    rows = [row for path in config.source for row in _read(path)]
    answered = [row for row in rows if row.output.strip()]
    drawn = _sampled(answered, config)
    left_out.update(empty=len(rows) - len(answered), sample=len(answered) - len(drawn))
    _check_clusters(config.hold_out, drawn)
    held_out = set(map(plain_name, config.hold_out))
    train, test = (
        [row for row in drawn if (plain_name(row.cluster) in held_out) is wanted] for wanted in (False, True)
    )
    _check_apart(train, test)
    write_jsonl(config.out / TRAIN, (row.to_train_on() for row in train))
    write_jsonl(config.out / TEST, (row.to_test_on() for row in test))
    summary = SplitSummary(str(config.out), _counts(train), _counts(test), dict(+left_out))
    write_json(config.out / SUMMARY, {**asdict(summary), "config": config.model_dump(mode="json")})
    return summary


def _read(path: Path) -> Iterator[_Row]:
    for row in read_labelled(str(path)):
        # A table has every column in every row.
        values = {name: value for name, value in row.values.items() if value is not None}
        if "prompt" in values:
            asked = values["prompt"], "", values.get("completion")
        else:
            references = values.get("references")
            answer = references[0] if isinstance(references, list) and references else values.get("output")
            asked = values.get("instruction"), values.get("input", ""), answer
        named = values.get("cluster"), values.get("dataset", values.get("task"))
        names = ("cluster", "dataset", "instruction", "input", "output")
        for name, value in zip(names, (*named, *asked), strict=True):
            if not isinstance(value, str) or (name in names[:3] and not value.strip()):
                raise row.error("is missing or no text", name, "give rows with cluster, dataset, prompt and completion")
        yield _Row(values, *map(str, (*named, *asked)))


def _sampled(rows: Sequence[_Row], config: SplitConfig) -> list[_Row]:
    """At most `--sample` rows of each data set, chosen by their content, so that what else there is changes nothing."""
    if config.sample is None:
        return list(rows)
    numbers: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        numbers.setdefault(row.dataset, []).append(number)

    def lot(number: int) -> str:
        return digest([config.seed, rows[number].values])

    drawn = {number for some in numbers.values() for number in heapq.nsmallest(config.sample, some, key=lot)}
    return [row for number, row in enumerate(rows) if number in drawn]


def _check_clusters(hold_out: Sequence[str], rows: Sequence[_Row]) -> None:
    known = {plain_name(row.cluster): row.cluster for row in rows}
    for name in hold_out:
        if plain_name(name) not in known:
            raise UsageError(f"--hold-out: there is no cluster '{name}' here; there are {', '.join(known.values())}")
    if len(known) == len(set(map(plain_name, hold_out))):
        raise UsageError("--hold-out: all clusters are held out, so there is nothing to train on")


def _check_apart(train: Sequence[_Row], test: Sequence[_Row]) -> None:
    """Refuse sets that share a data set, under whatever cluster, or a question."""
    datasets = {plain_name(row.dataset): row for row in train}
    questions = {row.asked: row for row in train}
    for row in test:
        if other := datasets.get(plain_name(row.dataset)):
            raise UsageError(
                f"data set '{row.dataset}' is in cluster '{row.cluster}', which is held out, and in '{other.cluster}', "
                f"which is not; hold out both (--hold-out {row.cluster} {other.cluster}), or take it out of one"
            )
        if other := questions.get(row.asked):
            raise UsageError(
                f"a question of data set '{row.dataset}' (held out) stands in '{other.dataset}' (trained on) too: "
                f"'{row.asked[:60]}...'; hold out both clusters, or take it out of one"
            )


def _counts(rows: Sequence[_Row]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.cluster, Counter())[row.dataset] += 1
    return {cluster: dict(sorted(counts[cluster].items())) for cluster in sorted(counts)}


def describe(summary: SplitSummary) -> str:
    """The counts in words."""
    lines = []
    for name, counts in ((TRAIN, summary.train), (TEST, summary.test)):
        n = sum(sum(datasets.values()) for datasets in counts.values())
        lines.append(f"{Path(summary.out) / name}: {n} rows")
        for cluster, datasets in counts.items():
            lines.append(f"  {cluster}: {', '.join(f'{dataset} {n}' for dataset, n in datasets.items())}")
    if summary.left_out:
        lines.append(f"left out: {', '.join(f'{n} {reason}' for reason, n in summary.left_out.items())}")
    lines.append("No data set and no question stands in both.")
    return "\n".join(lines)
