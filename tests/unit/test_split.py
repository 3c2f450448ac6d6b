import json
import subprocess
import sys

import pytest

from finetune.cli import GROUP
from finetune.rows import read_rows
from finetune.splitting import SplitConfig, describe, split
from selfinstruct.command import run_program
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import write_jsonl
from selfinstruct.tasks import read_tasks
from tests.generating import ROOT

DATASETS = {"trec": "topic", "ag_news": "topic", "imdb": "sentiment", "qasc": "multiple-choice-qa"}


def pairs(n=8, datasets=DATASETS):
    return [
        {"cluster": cluster, "dataset": dataset, "template": f"{dataset}_1", "prompt": f"{dataset} question {i}?",
         "completion": f"answer {i}"}
        for i in range(n) for dataset, cluster in datasets.items()
    ]  # fmt: skip


@pytest.fixture
def source(tmp_path):
    write_jsonl(tmp_path / "p3.jsonl", pairs())
    return tmp_path / "p3.jsonl"


def config(source, out, **more):
    return SplitConfig(source=[source], out=out, **{"hold_out": ["topic"], **more})


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_held_out_cluster_is_tested_on_and_nothing_of_it_trained_on(source, tmp_path):
    summary = split(config(source, tmp_path / "out"))
    assert summary.test == {"topic": {"ag_news": 8, "trec": 8}}
    assert summary.train == {"multiple-choice-qa": {"qasc": 8}, "sentiment": {"imdb": 8}}
    train = list(read_rows(tmp_path / "out" / "train.jsonl"))
    items = read_tasks([tmp_path / "out" / "test.jsonl"])
    assert [row.instruction for row in train[:2]] == ["imdb question 0?", "qasc question 0?"]
    assert {(item.task, item.cluster) for item in items} == {("trec", "topic"), ("ag_news", "topic")}
    assert items[0].references == ("answer 0",)
    assert lines(tmp_path / "out" / "train.jsonl")[0].keys() >= {"cluster", "dataset", "template"}
    assert "test.jsonl: 16 rows" in describe(summary)


def test_clusters_are_known_by_other_spellings(source, tmp_path):
    summary = split(config(source, tmp_path / "out", hold_out=["Multiple_Choice QA", "sentiment"]))
    assert set(summary.test) == {"multiple-choice-qa", "sentiment"}


def test_a_sample_is_the_same_whatever_else_there_is(source, tmp_path):
    first = split(config(source, tmp_path / "one", sample=3))
    assert first.left_out == {"sample": 20}
    assert first.train["sentiment"] == {"imdb": 3}
    write_jsonl(tmp_path / "less.jsonl", [row for row in pairs() if row["dataset"] != "qasc"][::-1])
    split(config(tmp_path / "less.jsonl", tmp_path / "two", sample=3))
    one, two = ({row["prompt"] for row in lines(tmp_path / name / "test.jsonl")} for name in ("one", "two"))
    assert one == two
    split(config(source, tmp_path / "three", sample=3, seed=1))
    assert {row["prompt"] for row in lines(tmp_path / "three" / "test.jsonl")} != one


def test_the_same_command_writes_the_same_bytes(source, tmp_path):
    command = [sys.executable, "-m", "finetune", "split", str(source), "--hold-out", "topic", "--sample", "4"]
    for name in ("a", "b"):
        subprocess.run([*command, "--out", str(tmp_path / name)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_rows_of_templates_and_held_out_items_are_taken_too(tmp_path):
    rows = [
        {"id": "a/1", "instruction": "Say a.", "input": "", "output": "a", "cluster": "topic", "dataset": "a",
         "template": "t"},
        {"id": "b/1", "task": "b", "cluster": "sentiment", "instruction": "Good?", "input": "Yes.",
         "references": ["yes"], "options": ["yes", "no"]},
    ]  # fmt: skip
    write_jsonl(tmp_path / "rows.jsonl", rows)
    split(config(tmp_path / "rows.jsonl", tmp_path / "one"))
    (item,) = read_tasks([tmp_path / "one" / "test.jsonl"])
    assert (item.id, item.task, item.cluster, item.references) == ("a/1", "a", "topic", ("a",))
    assert next(read_rows(tmp_path / "one" / "train.jsonl")).output == "yes"
    split(config(tmp_path / "rows.jsonl", tmp_path / "two", hold_out=["sentiment"]))
    (item,) = read_tasks([tmp_path / "two" / "test.jsonl"])
    assert item.options == ("yes", "no")


def test_tables_are_read_too(tmp_path):
    rows = pairs(2)
    lines = [",".join(row.values()) for row in rows]
    (tmp_path / "p3.csv").write_text("\n".join([",".join(rows[0]), *lines]))
    write_jsonl(tmp_path / "p3.jsonl", rows)
    for kind in ("csv", "jsonl"):
        split(config(tmp_path / f"p3.{kind}", tmp_path / kind))
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / "csv" / name).read_bytes() == (tmp_path / "jsonl" / name).read_bytes()


def test_rows_without_an_answer_are_counted(tmp_path):
    write_jsonl(tmp_path / "p3.jsonl", [*pairs(), {**pairs()[0], "completion": " "}])
    assert split(config(tmp_path / "p3.jsonl", tmp_path / "out")).left_out == {"empty": 1}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"dataset": "TREC", "cluster": "questions"},
            "data set 'trec' is in cluster 'topic', which is held out",
        ),
        ({"dataset": "new", "cluster": "sentiment", "prompt": "TREC  question 0?"}, "a question of data set 'trec'"),
    ],
)
def test_overlap_is_an_error_and_nothing_is_written(tmp_path, row, problem):
    write_jsonl(tmp_path / "p3.jsonl", [*pairs(), {"prompt": "New?", "completion": "x", **row}])
    with pytest.raises(UsageError, match=problem):
        split(config(tmp_path / "p3.jsonl", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--hold-out", "topics"], "there is no cluster 'topics' here; there are topic, sentiment, multiple-choice-qa"),
        (["--hold-out", "topic", "sentiment", "multiple-choice-qa"], "nothing to train on"),
        ([], "--hold-out"),
    ],
)
def test_wrong_clusters_are_named(source, tmp_path, capsys, flags, problem):
    assert run_program(GROUP, "finetune", ["split", str(source), "--out", str(tmp_path / "out"), *flags]) == 2
    assert problem in capsys.readouterr().err


def test_broken_rows_are_named_and_files_kept(source, tmp_path):
    split(config(source, tmp_path / "out"))
    with pytest.raises(UsageError, match=r"train\.jsonl exists; .*--overwrite"):
        split(config(source, tmp_path / "out"))
    split(config(source, tmp_path / "out", overwrite=True))
    row = pairs()[0]
    del row["dataset"]
    write_jsonl(tmp_path / "broken.jsonl", [pairs()[0], row])
    with pytest.raises(InputError, match=r"broken.jsonl:2: field 'dataset': is missing"):
        split(config(tmp_path / "broken.jsonl", tmp_path / "new"))
