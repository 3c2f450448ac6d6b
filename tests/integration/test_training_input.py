"""Whatever is wrong with training data or templates: one clear error, exit code 2, and everything as it was."""

from __future__ import annotations

import gzip
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.cli import GROUP
from selfinstruct.command import run_program
from tests.tiny import CHAT_TEMPLATE, build_tiny_llama

ROW = {"instruction": "Capital of Peru?", "input": "", "output": "Lima"}
USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}
HELD_OUT = {
    "task": "t", "cluster": "c", "references": ["Lima"], "input": "",
    "instruction": "Which city by the sea, founded by Pizarro on the river Rimac, is the capital of Peru today?",
}  # fmt: skip
REWRITING = CHAT_TEMPLATE.replace("{% for", "{{ messages | length if messages | length > 2 }}{% for", 1)
SYSTEMLESS = "{{ raise_exception('no system role') if messages[0]['role'] == 'system' }}" + CHAT_TEMPLATE


def lines(*rows: Any) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def chat(*messages: Any) -> bytes:
    good = {"messages": [USER, ANSWER]}
    return lines(good, {"messages": list(messages)})


def sharegpt(*turns: Any, **others: Any) -> bytes:
    return lines({"conversations": [HUMAN, GPT]}, {"conversations": list(turns), **others})


GOOD = {"a.jsonl": lines(ROW)}
LEAK = {**ROW, "instruction": HELD_OUT["instruction"]}
TASKS = {"t.jsonl": lines(HELD_OUT)}
FOR_SYSTEM = lines({"messages": [{"role": "system", "content": "x"}, USER, ANSWER]})
CONVERSATION = lines({"messages": [USER, ANSWER, USER, ANSWER]})
Files = dict[str, bytes]
# What is wrong: files beside the model; arguments after --data a.jsonl, or instead of it; what the error says.
CASES: dict[str, tuple[Files, list[str], str]] = {
    # Files
    "no file": ({}, [], r"a\.jsonl: no such file\. Check the path"),
    "an empty file": ({"a.jsonl": b""}, [], r"a\.jsonl: holds no row\. Give"),
    "blank lines": ({"a.jsonl": b"\n \n"}, [], r"a\.jsonl: holds no row\. Give"),
    "no list": ({"a.json": b"{}"}, ["a.json"], r"a\.json: must be a list of rows\. Write"),
    "JSON lines named .json": ({"a.json": lines(ROW, ROW)}, ["a.json"],
                               r"a\.json:2: is not valid JSON .*Name it \.jsonl"),
    "an empty list": ({"a.json": b"[]"}, ["a.json"], r"a\.json: holds no row\. Give"),
    "a list of texts": ({"a.json": b'[{"prompt": "a", "completion": "b"}, "x"]'}, ["a.json"],
                        r"a\.json\[1\]: must be a JSON object\. Write"),
    "a folder of nothing": ({"run/notes.md": b""}, ["run"], r"run: holds no dataset\.jsonl\. Give the folder"),
    "an unfinished run": ({"run/ledger.sqlite": b""}, ["run"], r"run: holds no dataset\.jsonl\. Give the folder"),
    "another kind of file": ({"a.txt": b"text"}, ["a.txt"], r"a\.txt: is of no kind that is read\. Give \.jsonl"),
    "broken JSON": ({"a.jsonl": lines(ROW) + b"{"}, [], r"a\.jsonl:2: is not valid JSON .*\. Mend or remove"),
    "JSON nested too deep": ({"a.jsonl": lines(ROW) + b"[" * 100_000}, [], r"a\.jsonl:2: is no JSON that can be read"),
    "a number of thousands of digits": ({"a.jsonl": b'{"x": ' + b"1" * 5000 + b"}"}, [],
                                        r"a\.jsonl:1: is no JSON that can be read"),
    "a line that is no object": ({"a.jsonl": lines(ROW, [1])}, [], r"a\.jsonl:2: must be a JSON object\. Write"),
    "broken UTF-8": ({"a.jsonl": lines(ROW) + b'{"instruction": "\xff"}'}, [], r"a\.jsonl:2: is not UTF-8 .*Save it"),
    "UTF-16": ({"a.jsonl": '{"a": 1}'.encode("utf-16")}, [], r"a\.jsonl:1: is not UTF-8 text .*Save it as UTF-8"),
    "truncated gzip": ({"a.jsonl.gz": gzip.compress(lines(ROW))[:-9]}, ["a.jsonl.gz"],
                       r"a\.jsonl\.gz: is a broken gzip file .*Copy it again"),
    "no gzip": ({"a.jsonl.gz": lines(ROW)}, ["a.jsonl.gz"], r"a\.jsonl\.gz: is a broken gzip file"),
    "no Parquet": ({"a.parquet": b"PAR1"}, ["a.parquet"], r"a\.parquet: is not Parquet"),
    "cells too few": ({"a.csv": b"prompt,completion\na,b\nc\n"}, ["a.csv"], r"a\.csv:3: has 1 cells where .*quotes"),
    "a quote not closed": ({"a.csv": b'prompt,completion\na,"b\n'}, ["a.csv"], r"a\.csv:2: is not valid CSV .*Mend"),
    # Rows
    "no known form": ({"a.jsonl": lines({"question": "x", "text": "y"})}, [],
                      r"a\.jsonl:1: has the fields question, text, which are no training row\. Give instruction and"),
    "no field at all": ({"a.jsonl": b"{}"}, [], r"a\.jsonl:1: has the fields \(none\)"),
    "mixed forms": ({"a.jsonl": lines(ROW, {"messages": [USER, ANSWER]})}, [],
                    r"a\.jsonl:2: field 'instruction': has 'messages' where the first row has 'instruction'.*Put rows"),
    "a missing field": ({"a.jsonl": lines(ROW, {"instruction": "x"})}, [], r"a\.jsonl:2: field 'output': is missing"),
    "a number": ({"a.jsonl": lines({**ROW, "output": 3})}, [], r"a\.jsonl:1: field 'output': .*string, not 3"),
    "NaN": ({"a.jsonl": b'{"instruction": "x", "output": NaN}'}, [], r"a\.jsonl:1: field 'output': .*string, not nan"),
    "null": ({"a.jsonl": lines({**ROW, "output": None})}, [], r"a\.jsonl:1: field 'output': .*string, not None"),
    "a list": ({"a.jsonl": lines({**ROW, "instruction": ["x"]})}, [], r"a\.jsonl:1: field 'instruction': .*string"),
    "half an emoji": ({"a.jsonl": b'{"instruction": "x", "output": "\\ud83d"}'}, [],
                      r"a\.jsonl:1: field 'output': holds half a character .*mend or remove"),
    "a pair without its answer": ({"a.jsonl": lines({"prompt": "x"})}, [], r"a\.jsonl:1: field 'completion': is miss"),
    "a huge row": ({"a.jsonl": lines({**ROW, "output": "x" * 5_000_000})}, [], r"no row is left .*: 1 too_long"),
    "empty answers": ({"a.jsonl": lines({**ROW, "output": " "})}, [], r"no row is left .*: 1 empty_output"),
    # Conversations
    "messages that are a text": ({"a.jsonl": lines({"messages": "Hi"})}, [], r"a\.jsonl:1: field 'messages': .*list"),
    "no message": ({"a.jsonl": chat()}, [], r"a\.jsonl:2: field 'messages': holds no message\. Remove the row"),
    "an unknown role": ({"a.jsonl": chat({"role": "tool", "content": "x"}, ANSWER)}, [],
                        r"a\.jsonl:2: field 'messages\.0\.role': .*'system', 'user' or 'assistant', not 'tool'"),
    "content in parts": ({"a.jsonl": chat({"role": "user", "content": [{"type": "text"}]}, ANSWER)}, [],
                         r"a\.jsonl:2: field 'messages\.0\.content': .*string"),
    "two users in a row": ({"a.jsonl": chat(USER, USER, ANSWER)}, [],
                           r"a\.jsonl:2: field 'messages\.1\.role': is the user's turn where .*assistant's.*Merge"),
    "the assistant first": ({"a.jsonl": chat(ANSWER, USER, ANSWER)}, [],
                            r"a\.jsonl:2: field 'messages\.0\.role': is the assistant's turn where the user's"),
    "no answer": ({"a.jsonl": chat(USER)}, [], r"a\.jsonl:2: field 'messages': ends without an answer\. Remove"),
    "a question at the end": ({"a.jsonl": chat(USER, ANSWER, USER)}, [], r"field 'messages': ends without an answer"),
    "a system message later on": ({"a.jsonl": chat(USER, {"role": "system", "content": "x"}, ANSWER)}, [],
                                  r"a\.jsonl:2: field 'messages\.1\.role': is the system's turn where"),
    "calls of tools": ({"a.jsonl": chat(USER, {**ANSWER, "tool_calls": [{"id": "1"}]})}, [],
                       r"a\.jsonl:2: field 'messages\.1\.tool_calls': calls of tools .*remove the row"),
    "an answer not to be learnt": ({"a.jsonl": chat(USER, {**ANSWER, "weight": 0})}, [],
                                   r"a\.jsonl:2: field 'messages\.1\.weight': all answers .*remove"),
    "an unknown speaker": ({"a.jsonl": sharegpt(HUMAN, {"from": "bing", "value": "x"})}, [],
                           r"a\.jsonl:2: field 'conversations\.1\.from': .*, not 'bing'"),
    "a turn without text": ({"a.jsonl": sharegpt(HUMAN, {"from": "gpt"})}, [],
                            r"a\.jsonl:2: field 'conversations\.1\.value': is missing"),
    "two system messages": ({"a.jsonl": sharegpt({"from": "system", "value": "a"}, HUMAN, GPT, system="b")}, [],
                            r"a\.jsonl:2: field 'system': stands beside a system message"),
    "a conversation under alpaca": ({"a.jsonl": CONVERSATION}, ["a.jsonl", "--template", "alpaca"],
                                    r"no row is left to train on: 1 several_turns"),
    # Mixtures, held-out tasks, evaluation rows
    "a weight too few": (GOOD, ["a.jsonl", "a.jsonl", "--weights", "1"], r"--weights are 1, but --data are 2"),
    "a weight of 0": (GOOD, ["a.jsonl", "--weights", "0"], r"--weights must be larger than 0"),
    "a weight of NaN": (GOOD, ["a.jsonl", "--weights", "nan"], r"--weights must be larger than 0"),
    "a weight for nothing": ({**GOOD, "b.jsonl": lines({**ROW, "output": ""})},
                             ["a.jsonl", "b.jsonl", "--weights", "1", "1"], r"no row of b\.jsonl is left.*1 empty_out"),
    "no held-out tasks": (GOOD, ["a.jsonl", "--held-out", "none.jsonl"], r"none\.jsonl: no such file"),
    "broken held-out tasks": ({**GOOD, "t.jsonl": b"{"}, ["a.jsonl", "--held-out", "t.jsonl"],
                              r"t\.jsonl:1: is not valid JSON"),
    "held-out rows": ({**TASKS, "a.jsonl": lines(ROW, LEAK)}, ["a.jsonl", "--held-out", "t.jsonl"],
                      r"a\.jsonl:2: 1 rows have something in common .*shares 13"),
    "all rows held out": ({**TASKS, "a.jsonl": lines(LEAK)},
                          ["a.jsonl", "--held-out", "t.jsonl", "--contamination", "drop"],
                          r"no row is left to train on: 1 contaminated"),
    "no evaluation rows": ({**GOOD, "e.jsonl": lines({"instruction": "x", "output": ""})},
                           ["a.jsonl", "--eval-data", "e.jsonl"], r"no row is left to evaluate on: 1 empty_output"),
    "all rows evaluated": ({**GOOD, "e.jsonl": lines(ROW)}, ["a.jsonl", "--eval-data", "e.jsonl"],
                           r"no row is left to train on: 1 in_eval_data"),
    # Templates
    "an unknown template": (GOOD, ["a.jsonl", "--template", "alpca"], r"--template: .*'alpaca'.* file, not 'alpca'"),
    "no template file": (GOOD, ["a.jsonl", "--template", "t.jinja"], r"t\.jinja: no such file\. Check the path"),
    "a template that is a folder": ({**GOOD, "t/x": b""}, ["a.jsonl", "--template", "t"], r"t: is a folder, not a"),
    "a template not in UTF-8": ({**GOOD, "t.jinja": b"a\n\xff"}, ["a.jsonl", "--template", "t.jinja"],
                                r"t\.jinja:2: is not UTF-8 text"),
    "a template with an error": ({**GOOD, "t.jinja": b"\n{% for %}"}, ["a.jsonl", "--template", "t.jinja"],
                                 r"t\.jinja:2: fails as a chat template .*Mend the template"),
    "a template without the user": ({**GOOD, "t.jinja": b"Hello"}, ["a.jsonl", "--template", "t.jinja"],
                                    r"t\.jinja: does not write what the user says\. Write"),
    "a template that refuses a row": (
        {"a.jsonl": FOR_SYSTEM, "t.jinja": SYSTEMLESS.encode()},
        ["a.jsonl", "--template", "t.jinja"], r"a\.jsonl:1: the chat template fails \(no system role\)",
    ),
    "a template that rewrites turns": ({"a.jsonl": CONVERSATION, "t.jinja": REWRITING.encode()},
                                       ["a.jsonl", "--template", "t.jinja"], r"a\.jsonl:1: the chat template"),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    yield
    for name in ("selfinstruct", "finetune"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_bad_training_data_is_named_and_leaves_everything_as_it_was(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    files, arguments, message = CASES[name]
    monkeypatch.chdir(tmp_path)
    for file, content in files.items():
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_bytes(content)
    before = contents(tmp_path)
    command = ["train", "--data", *(arguments or ["a.jsonl"]), "--model", str(model), "--out", "out"]
    assert run_program(GROUP, "finetune", command) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert contents(tmp_path) == before
    assert not Path("out").exists()


def test_a_data_set_that_is_not_to_be_had_is_named_at_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # whether there is a network or not
    for name in ("no-such-owner/no-such-name:train", "missing"):
        command = ["train", "--data", name, "--model", str(model), "--out", str(tmp_path / "out")]
        assert run_program(GROUP, "finetune", command) == 2
        assert re.search(f"there is no file '{name}', and as a data set it cannot be loaded", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_there_are_as_many_kinds_as_promised() -> None:
    assert len(CASES) >= 40


def test_splits_of_a_data_set_have_to_be_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = datasets.Dataset.from_list([ROW])
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "saved")
    train = ["train", "--model", str(model), "--out", str(tmp_path / "out"), "--dry-run", "--data"]
    assert run_program(GROUP, "finetune", [*train, f"{tmp_path}/saved"]) == 2
    assert "has the splits train, test; name one, such as" in capsys.readouterr().err
    assert run_program(GROUP, "finetune", [*train, f"{tmp_path}/saved:dev"]) == 2
    assert "has no split 'dev'; it has train, test" in capsys.readouterr().err
    assert run_program(GROUP, "finetune", [*train, f"{tmp_path}/saved:train"]) == 0
    assert "would train on 1 rows" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_chat_template_takes_none_from_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = build_tiny_llama(tmp_path / "bare", chat_template=None)
    (tmp_path / "a.jsonl").write_bytes(lines(ROW))
    command = ["train", "--data", str(tmp_path / "a.jsonl"), "--model", str(bare), "--out", str(tmp_path / "out")]
    capsys.readouterr()
    assert run_program(GROUP, "finetune", [*command, "--template", "chat"]) == 2
    assert capsys.readouterr().err == "error: the model has no chat template; use --template alpaca\n"
    assert not (tmp_path / "out").exists()
