"""Exports as other trainers read them: are the rows all there, is the text whole, is exactly the answer learnt.

A data set of the shipped seed tasks (English and Chinese) and of hostile texts is written in every format of
`selfinstruct export`. Each program reads the unchanged files with its own code and its own entry for them, and reports,
row by row, what it would train on. A tokenizer that gives back any text shows whether that is what was written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.models import resolve
from selfinstruct.dataset import dataset_rows
from selfinstruct.files import shipped, write_json, write_jsonl
from selfinstruct.formats import ExportConfig, export
from selfinstruct.records import Example, Instance
from selfinstruct.seeds import read_seeds
from tests.hostile import payloads

CLIENTS = Path(__file__).parent / "clients"
# By its entry's name in an export's summary; TRL has no configuration of data.
PROGRAMS = {"trl": "", "llamafactory": "LLaMA-Factory", "axolotl": "Axolotl"}
# What TRL's page on data set formats takes as it is; the columns of alpaca it leaves to a function of the user.
TRL_FORMATS = ("messages", "sharegpt", "completion")
FILES = {
    "alpaca": "alpaca.json", "messages": "messages.jsonl", "sharegpt": "sharegpt.json",
    "completion": "completion.jsonl", "parquet": "alpaca.parquet",
}  # fmt: skip
# What the embedded model's chat template, and the programs, end an answer with.
ENDS = ("<|im_end|>\n", "<|im_end|>")
MAX_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """What one program made of one export.

    Attributes:
        rows: How many it has.
        whole: Rows whose text holds instruction, input and answer as they were written.
        exact: Rows of which the answer, and nothing but the answer and its end, is learnt.
        all_learnt: Rows of which the prompt is learnt as well.
        differing: Some rows that are neither, as (answer that was written, what is learnt).
    """

    program: str
    format: str
    rows: int
    whole: int
    exact: int
    all_learnt: int
    differing: tuple[tuple[str, str], ...]


def examples(every: int) -> Iterator[Example]:
    """Seed tasks of both languages, and every so many hostile texts in each place of a task."""
    for name in ("seed_tasks.jsonl", "seed_tasks.zh.jsonl"):
        yield from read_seeds(shipped(name))
    for number, payload in enumerate(payloads()[::every]):
        text = payload.text.encode("utf-8", "replace").decode().strip()  # UTF-8 has no lone surrogates
        fields = [text if place == number % 3 else f"Text {payload.mark}." for place in range(3)]
        yield Example(payload.mark, fields[0], (Instance(fields[1], fields[2]),), False)


def read_by(
    program: str, version: str, rows: Mapping[str, Any], expected: Sequence[Mapping[str, str]]
) -> Iterator[Reading]:
    """Compare what a program reports with what was written."""
    for name, found in rows.items():
        whole = exact = all_learnt = 0
        differing = []
        for row, wanted in zip(found, expected, strict=False):
            whole += all(wanted[field] in row["text"] for field in ("instruction", "input", "output"))
            answer = next(
                (row["answer"].removesuffix(end) for end in ENDS if row["answer"].endswith(end)), row["answer"]
            )
            if answer == wanted["output"]:
                exact += 1
            elif row["answer"].strip() == row["text"].strip():
                all_learnt += 1
            else:
                differing.append((wanted["output"], answer))
        yield Reading(version, name, len(found), whole, exact, all_learnt, tuple(differing[:MAX_SHOWN]))


def table(readings: Sequence[Reading], n_rows: int) -> str:
    """Readings as Markdown."""
    lines = [
        f"{n_rows} rows in each export",
        "",
        "| program | export | rows | text whole | answer alone learnt, exactly | prompt learnt as well |",
        "| -- | -- | --: | --: | --: | --: |",
        *(f"| {r.program} | {r.format} | {r.rows} | {r.whole} | {r.exact} | {r.all_learnt} |" for r in readings),
    ]
    for reading in readings:
        lines += [
            f"{reading.program}, {reading.format}: {w!r:.60} became {learnt!r:.60}" for w, learnt in reading.differing
        ]
    return "\n".join(lines)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    for program in PROGRAMS:
        parser.add_argument(
            f"--{program}", type=Path, metavar="PYTHON", help=f"interpreter of an environment with {program}"
        )
    parser.add_argument("--every", type=int, default=25, help="take every so many hostile texts (default: 25)")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    args = parser.parse_args()
    readings: list[Reading] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [row for example in examples(args.every) for row in dataset_rows(example)]
        write_jsonl(folder / "dataset.jsonl", rows)
        entries: dict[str, dict[str, Any]] = {program: {} for program in PROGRAMS}
        for form, file in FILES.items():
            config = ExportConfig.model_validate(
                {"run": folder / "dataset.jsonl", "out": folder / file, "format": form}
            )
            said = export(config).entries
            for program, label in PROGRAMS.items():
                if form in TRL_FORMATS or program != "trl":
                    entries[program][form] = said[label] if label else {"path": str(config.out)}
        given = {"folder": name, "tokenizer": resolve("embedded").location, "out": str(folder / "read.json")}
        for program in PROGRAMS:
            if python := getattr(args, program):
                arguments = json.dumps(given | {"entries": entries[program]})
                command = [str(python), str(CLIENTS / f"{program}_exports.py"), arguments]
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{program}: failed with {done.returncode}\n{done.stderr[-2000:]}")
                    continue
                found = json.loads((folder / "read.json").read_text(encoding="utf-8"))
                readings += read_by(program, found["version"], found["rows"], rows)
    print(table(readings, len(rows)))
    if args.out:
        write_json(args.out, [asdict(reading) for reading in readings])


if __name__ == "__main__":
    main()
