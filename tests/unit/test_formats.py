import builtins
import hashlib
import json

import pytest
from jsonschema import Draft202012Validator, ValidationError

from selfinstruct.cli import GROUP
from selfinstruct.command import run_program
from selfinstruct.dataset import dataset_rows
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import write_jsonl
from selfinstruct.formats import ExportConfig, describe, entries, export
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


# What each program's documentation asks of a row: TRL's "dataset formats", LLaMA-Factory's data/README.md ("Alpaca" and
# "ShareGPT format") and Axolotl's "dataset formats".
def turns(who, what, user, assistant):
    """A list of turns in which user and assistant follow each other, as LLaMA-Factory demands, and text is text."""
    name = {"enum": [user, assistant]}
    turn = {"type": "object", "required": [who, what], "properties": {who: name, what: {"type": "string"}}}
    first, second = ({"properties": {who: {"const": speaker}}} for speaker in (user, assistant))
    return {"type": "array", "items": turn, "prefixItems": [first, second], "minItems": 2, "maxItems": 2}


def columns(**fields):
    return {"type": "object", "required": list(fields), "properties": fields, "additionalProperties": False}


TEXT = {"type": "string"}
SCHEMAS = {
    "alpaca": columns(instruction={"type": "string", "minLength": 1}, input=TEXT, output=TEXT),
    "messages": columns(messages=turns("role", "content", "user", "assistant")),
    "sharegpt": columns(conversations=turns("from", "value", "human", "gpt")),
    "completion": columns(prompt=TEXT, completion=TEXT),
}


@pytest.mark.parametrize("form", SCHEMAS)
def test_rows_are_as_the_trainers_document_them(run, form):
    text = exported(run, form).read_text("utf-8")
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    validator = Draft202012Validator(SCHEMAS[form])
    for row in rows:
        validator.validate(row)
    with pytest.raises(ValidationError):
        validator.validate(dict.fromkeys(rows[0]))


@pytest.mark.parametrize("form", [*SCHEMAS, "parquet"])
def test_entries_name_the_file_and_columns_that_it_has(run, form):
    out = exported(run, form)
    factory, axolotl = entries(form, out).values()
    assert (factory["file_name"], axolotl["path"]) == (out.name, str(out))
    names = set(SCHEMAS["alpaca" if form == "parquet" else form]["required"])
    assert set(factory.get("columns", {}).values()) <= names
    kind = axolotl["type"]
    fields = {value for key, value in kind.items() if key.startswith("field_")} if isinstance(kind, dict) else set()
    assert fields <= names
    if form in ("messages", "sharegpt"):
        # The defaults of both, which an entry leaves out.
        who = factory.get("tags", {"role_tag": "from", "content_tag": "value"})
        properties = axolotl.get("message_property_mappings", {"role": "role", "content": "content"})
        assert list(SCHEMAS[form]["properties"]) == [axolotl.get("field_messages", "messages")]
        assert [who["role_tag"], who["content_tag"]] == list(properties.values())


def test_the_entries_are_printed_and_in_the_result(run, capsys):
    out = run.parent / "data" / "sharegpt.json"
    arguments = ["export", str(run), "--format", "sharegpt", "--out", str(out)]
    assert run_program(GROUP, "selfinstruct", arguments) == 0
    printed = capsys.readouterr().out
    assert 'LLaMA-Factory: {"file_name":"sharegpt.json","formatting":"sharegpt"}' in printed
    assert f'Axolotl: {{"path":"{out}","type":"chat_template"' in printed
    assert run_program(GROUP, "selfinstruct", [*arguments, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == entries("sharegpt", out)


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
