"""Every form of training data, read into rows."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from finetune.sources import ChatRow, InstructionRow, read_rows, read_source
from selfinstruct.errors import InputError

ALPACA = {"instruction": "Name the capital.", "input": "Peru", "output": "Lima"}
MESSAGES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Ciao"},
    ]
}
SHAREGPT = {
    "id": "x1",
    "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello"},
        {"from": "human", "value": "Bye"},
        {"from": "gpt", "value": "Ciao"},
    ],
}
PAIR = {"prompt": "Capital of Peru?", "completion": " Lima"}
FORMS = [ALPACA, MESSAGES, SHAREGPT, PAIR]


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read(path: Path) -> list[Any]:
    return [
        row.messages if isinstance(row, ChatRow) else (row.instruction, row.input, row.output)
        for row in read_rows(path)
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (ALPACA, ("Name the capital.", "Peru", "Lima")),
        ({"instruction": "Say it.", "output": "It."}, ("Say it.", "", "It.")),
        ({"instruction": "Say it.", "input": None, "output": "It."}, ("Say it.", "", "It.")),
        (PAIR, ("Capital of Peru?", "", " Lima")),
        ({"prompt": "Capital?", "response": "Lima"}, ("Capital?", "", "Lima")),
        ({"cluster": "c", "dataset": "d", "template": "t", **PAIR}, ("Capital of Peru?", "", " Lima")),
        (MESSAGES, tuple(MESSAGES["messages"])),
        (SHAREGPT, tuple(MESSAGES["messages"])),
        ({"prompt": "unused", "prompt_id": "7", **MESSAGES}, tuple(MESSAGES["messages"])),
        ({"system": "Be brief.", "conversations": SHAREGPT["conversations"][1:]}, tuple(MESSAGES["messages"])),
        ({"system": " ", "conversations": SHAREGPT["conversations"][1:]}, tuple(MESSAGES["messages"][1:])),
    ],
)
def test_every_form_of_a_row(tmp_path: Path, row: dict[str, Any], expected: object) -> None:
    assert read(lines(tmp_path / "rows.jsonl", row)) == [expected]


@pytest.mark.parametrize("row", FORMS, ids=[next(iter(form)) for form in FORMS])
def test_every_kind_of_file_says_the_same(tmp_path: Path, row: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row, row]
    files = [lines(tmp_path / "rows.jsonl", *rows)]
    files.append(tmp_path / "rows.json")
    files[-1].write_text(json.dumps(rows))
    files.append(tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(rows), files[-1])
    if all(isinstance(value, str) for value in row.values()):
        files.append(tmp_path / "rows.csv")
        with files[-1].open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows(rows)
    for path in list(files):
        files.append(path.with_name(f"{path.name}.gz"))
        files[-1].write_bytes(gzip.compress(path.read_bytes()))
    texts = [read(path) for path in files]
    assert len(texts[0]) == 2
    assert all(text == texts[0] for text in texts)


def test_places_lead_to_the_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(ALPACA)}\n\n{json.dumps(ALPACA)}\n")
    assert [row.place for row in read_rows(path)] == [f"{path}:1", f"{path}:3"]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([MESSAGES, MESSAGES]))
    assert [row.place for row in read_rows(path)] == [f"{path}[0]", f"{path}[1]"]


def test_a_run_folder_is_its_data_set(tmp_path: Path) -> None:
    data = lines(tmp_path / "dataset.jsonl", {**ALPACA, "id": "1", "source": {"slot": 0}})
    source = read_source(tmp_path)
    assert (source.path, len(source.rows)) == (str(data), 1)


def test_a_data_set_folder_and_its_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    train = datasets.Dataset.from_list([MESSAGES, MESSAGES])
    saved = tmp_path / "saved"
    datasets.DatasetDict({"train": train, "test": train.select([0])}).save_to_disk(saved)
    assert len(read_source(Path(f"{saved}:train")).rows) == 2
    assert len(read_source(Path(f"{saved}:test")).rows) == 1
    assert read_source(Path(f"{saved}:train")).rows[0].answers == ["Hello", "Ciao"]
    hub_like = tmp_path / "org" / "name"
    hub_like.mkdir(parents=True)
    train.to_parquet(hub_like / "train-00000-of-00001.parquet")
    source = read_source(hub_like)
    assert [row.asked for row in source.rows] == [["Hi", "Bye"]] * 2
    assert source.sha256 == read_source(Path(f"{saved}:train")).sha256  # of the texts, however they are stored
    assert source.sha256 != read_source(Path(f"{saved}:test")).sha256


def test_what_training_asks_is_the_same_in_every_form() -> None:
    instruction = InstructionRow("Name the  capital.", "Peru", "Lima", "a:1")
    chat = ChatRow(
        ({"role": "user", "content": "Name the capital.\n\nPeru"}, {"role": "assistant", "content": "Lima"}), "b:1"
    )
    assert instruction.question == chat.question == "Name the capital. Peru"


def test_a_file_does_not_mix_forms(tmp_path: Path) -> None:
    for first in FORMS:
        for second in FORMS:
            path = lines(tmp_path / "rows.jsonl", first, second)
            if first is second:
                assert len(read(path)) == 2
            else:
                with pytest.raises(InputError, match=r"rows\.jsonl:2: field '\w+': has '\w+' where .* must not mix"):
                    read(path)
