import builtins
import hashlib
import json

import pytest

from selfinstruct.dataset import dataset_rows
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import write_jsonl
from selfinstruct.formats import ExportConfig, describe, export
from selfinstruct.records import Example, Instance

EXAMPLES = (
    Example("1", "Übersetze.", (Instance("Guten Tag \U0001f600", "Hello \ud800"),), False),
    Example("2", "Good or bad?", (Instance("fine", "good"), Instance("", "none")), True),
)
ANSWERS = ["Hello ?", "good", "none"]


@pytest.fixture
def run(tmp_path):
    write_jsonl(tmp_path / "run" / "dataset.jsonl", (row for example in EXAMPLES for row in dataset_rows(example)))
    return tmp_path / "run"


def exported(run, form, **options):
    out = run.parent / f"out.{form}"
    summary = export(ExportConfig(run=run, out=out, format=form, **options))
    assert (summary.rows, summary.path) == (3, str(out))
    assert summary.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert str(out) in describe(summary)
    return out


def test_alpaca(run):
    text = exported(run, "alpaca").read_text()
    rows = json.loads(text)
    assert [list(row) for row in rows] == [["instruction", "input", "output"]] * 3
    assert [row["output"] for row in rows] == ANSWERS
    assert text.startswith('[\n    {\n        "instruction": "Übersetze."')


def test_messages(run):
    rows = [json.loads(line) for line in exported(run, "messages").read_text().splitlines()]
    assert rows[1] == {
        "messages": [{"role": "user", "content": "Good or bad?\n\nfine"}, {"role": "assistant", "content": "good"}]
    }
    assert rows[2]["messages"][0]["content"] == "Good or bad?"


def test_sharegpt(run):
    rows = json.loads(exported(run, "sharegpt").read_text())
    assert rows[1] == {
        "conversations": [{"from": "human", "value": "Good or bad?\n\nfine"}, {"from": "gpt", "value": "good"}]
    }


def test_completion(run):
    rows = [json.loads(line) for line in exported(run, "completion").read_text().splitlines()]
    assert rows[1]["prompt"].endswith("### Instruction:\nGood or bad?\n\n### Input:\nfine\n\n### Response:")
    assert "### Input:" not in rows[2]["prompt"]
    assert [row["completion"] for row in rows] == ANSWERS


def test_parquet(run):
    import pyarrow.parquet as pq

    table = pq.read_table(exported(run, "parquet"))
    assert table.column_names == ["id", "instruction", "input", "output", "is_classification"]
    assert table["id"].to_pylist() == ["1", "2", "2/2"]
    assert table["output"].to_pylist() == ANSWERS


def test_parquet_without_pyarrow_says_what_to_install(run, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"selfinstruct\[train\]"):
        export(ExportConfig(run=run, out=run.parent / "x.parquet", format="parquet"))


def test_nothing_is_overwritten_unasked(run):
    out = exported(run, "alpaca")
    out.write_text("precious")
    with pytest.raises(UsageError, match="--overwrite"):
        exported(run, "alpaca")
    assert out.read_text() == "precious"
    assert len(json.loads(exported(run, "alpaca", overwrite=True).read_text())) == 3


def test_data_set_is_never_overwritten(run):
    path = run / "dataset.jsonl"
    before = path.read_bytes()
    with pytest.raises(UsageError, match="the data set itself"):
        export(ExportConfig(run=run, out=path, overwrite=True))
    assert path.read_bytes() == before


def test_broken_or_empty_data_set_leaves_no_file(run):
    path = run / "dataset.jsonl"
    for text, problem in (("", "holds no row"), ('{"id": "1"}\n', "is missing"), ("{", "not valid JSON")):
        path.write_text(text)
        with pytest.raises(InputError, match=problem):
            export(ExportConfig(run=run, out=run.parent / "new.json"))
        assert [file.name for file in run.parent.iterdir()] == ["run"]
