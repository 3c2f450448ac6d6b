"""Exports read by `datasets` and written again: the same rows, whatever text they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from selfinstruct.dataset import dataset_rows, read_dataset
from selfinstruct.files import shipped, write_jsonl
from selfinstruct.formats import ExportConfig, export
from selfinstruct.records import Example, Instance
from selfinstruct.seeds import read_seeds
from tests.hostile import payloads

FORMATS = ["alpaca", "messages", "sharegpt", "completion", "parquet"]


def utf8(text: str) -> str:
    """Text as any file in UTF-8 has it: without lone surrogates."""
    return text.encode("utf-8", "replace").decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with hostile text in every field, and the seed tasks in English and Chinese."""
    folder = tmp_path_factory.mktemp("run")
    examples = [
        example for language in ("seed_tasks.jsonl", "seed_tasks.zh.jsonl") for example in read_seeds(shipped(language))
    ]
    texts = [payload.text for payload in payloads()]
    for number, text in enumerate(texts):
        given = Instance(texts[number - 1], texts[number - 2])
        examples.append(Example(f"h{number}", text, (given, Instance("", text)), number % 2 == 0))
    write_jsonl(folder / "dataset.jsonl", (row for example in examples for row in dataset_rows(example)))
    return folder


@pytest.fixture(scope="module")
def rows(run: Path) -> list[dict[str, Any]]:
    """What went in, by the project's own reader."""
    return [row for example in read_dataset(run / "dataset.jsonl") for row in dataset_rows(example)]


def loaded(path: Path, cache: Path) -> datasets.Dataset:
    builder = "parquet" if path.suffix == ".parquet" else "json"
    return datasets.load_dataset(builder, data_files=str(path), split="train", cache_dir=str(cache))


def test_the_reader_gives_back_what_was_generated(rows: list[dict[str, Any]]) -> None:
    texts = [utf8(payload.text) for payload in payloads()]
    hostile = rows[-2 * len(texts) :]
    assert [row["instruction"] for row in hostile[::2]] == texts
    assert [row["output"] for row in hostile[1::2]] == texts


@pytest.mark.parametrize("form", FORMATS)
def test_round_trip(form: Any, run: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / f"out.{'parquet' if form == 'parquet' else 'json'}"
    export(ExportConfig(run=run, out=out, format=form))
    read = loaded(out, tmp_path / "cache")
    assert len(read) == len(rows)
    expected = [expected_row(form, row) for row in rows]
    assert read.to_list() == expected

    # And back again, as JSON lines and as Parquet.
    read.to_json(tmp_path / "again.json", force_ascii=False)
    assert [json.loads(line) for line in (tmp_path / "again.json").read_bytes().splitlines()] == expected
    read.to_parquet(tmp_path / "again.parquet")
    assert loaded(tmp_path / "again.parquet", tmp_path / "cache").to_list() == expected


def expected_row(form: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row of an export, written down apart from the code that is tested."""
    question = f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"]
    if form == "messages":
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]
        return {"messages": turns}
    if form == "sharegpt":
        return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": row["output"]}]}
    if form == "completion":
        given = f"\n\n### Input:\n{row['input']}" if row["input"] else ""
        task = ", paired with an input that provides further context" if row["input"] else ""
        prompt = (
            f"Below is an instruction that describes a task{task}. Write a response that appropriately completes the "
            f"request.\n\n### Instruction:\n{row['instruction']}{given}\n\n### Response:"
        )
        return {"prompt": prompt, "completion": row["output"]}
    columns = ["instruction", "input", "output"]
    return {name: row[name] for name in (["id", *columns, "is_classification"] if form == "parquet" else columns)}
