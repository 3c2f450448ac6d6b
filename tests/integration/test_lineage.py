"""`finetune lineage` on a real run: from changed items to training rows, and from those to prompts and seeds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from finetune.cli import GROUP
from finetune.lineages import LineageConfig, describe, lineage
from selfinstruct.command import run_program
from selfinstruct.errors import InputError
from selfinstruct.files import shipped, write_jsonl
from selfinstruct.seeds import read_seeds
from tests.generating import FreshServer, generate, ledger, rows
from tests.predicting import predictions, write


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    out = tmp_path_factory.mktemp("lineage") / "run"
    assert generate(out, FreshServer(shared).base_url, num_instructions=60, strategy="alpaca") == 0
    return out


@pytest.fixture
def evaluations(run, tmp_path):
    """Two evaluations, whose second item was asked in nearly the words of the run's last row."""
    row = rows(run / "dataset.jsonl")[-1]
    base, tuned = predictions([0, 0, 1]), [replace(p, prediction="b") for p in predictions([0, 1, 0.5])]
    questions = ["Nothing of the sort", f"{row['instruction']} Please.", "xyzzy plugh"]
    items = [
        {"id": p.item, "task": "t", "cluster": "topic", "instruction": question,
         "input": row["input"] if i == 1 else "", "references": ["a"]}
        for i, (p, question) in enumerate(zip(base, questions, strict=True))
    ]  # fmt: skip
    write_jsonl(tmp_path / "tasks.jsonl", items)
    return write(tmp_path / "base", base), write(tmp_path / "tuned", tuned), tmp_path / "tasks.jsonl"


def config(evaluations, *data, **more):
    base, tuned, tasks = evaluations
    return LineageConfig(base=base, tuned=tuned, tasks=[tasks], training_data=list(data), **more)


def test_a_changed_item_leads_to_rows_prompts_and_seeds(run, evaluations, tmp_path):
    result = lineage(config(evaluations, run, out=tmp_path / "lineage.json"))
    assert result.n_changed == 2
    assert [item.item for item in result.items] == ["topic-accuracy-1", "topic-accuracy-2"]
    item = result.items[0]
    assert (item.base, item.tuned, item.base_answer, item.tuned_answer) == (0, 1, "a", "b")
    assert [row.score for row in item.rows] == sorted((row.score for row in item.rows), reverse=True)
    last, near = rows(run / "dataset.jsonl")[-1], item.rows[0]
    assert (near.id, near.place) == (last["id"], f"{run / 'dataset.jsonl'}:{len(rows(run / 'dataset.jsonl'))}")
    assert near.score > 0.7

    origin = near.origin
    (request,) = ledger(
        run, f"SELECT request FROM completions WHERE prompt_key = '{last['source']['prompt_key']}' AND choice = 0"
    )
    assert origin.prompt == "\n\n".join(message["content"] for message in json.loads(request[0])["messages"])
    assert [shown.id for shown in origin.demonstrations] == last["source"]["demonstrations"]
    assert all(shown.instruction in origin.prompt for shown in origin.demonstrations)
    seeds = {seed.id: seed.instruction for seed in read_seeds(shipped("seed_tasks.jsonl"))}
    for shown in origin.demonstrations:
        assert (shown.kind == "seed") == (shown.id in seeds)
    assert set(origin.seeds) <= set(seeds)
    assert set(origin.seeds) >= {shown.id for shown in origin.demonstrations if shown.kind == "seed"}
    assert json.loads((tmp_path / "lineage.json").read_text())["items"][0]["rows"][0]["origin"]["prompt"]

    text = describe(result)
    assert "topic-accuracy-1 (topic, t): 0.000 -> 1.000" in text
    assert f"made by alpaca with m, slot {last['source']['slot']}" in text
    assert f"seeds behind it: {', '.join(origin.seeds)}" in text


def test_seeds_are_found_through_the_tasks_that_were_shown(shared, tmp_path, evaluations):
    """With rewritten tasks a prompt shows no seed of its own from the second generation on."""
    run = tmp_path / "evolved"
    assert generate(run, FreshServer(shared).base_url, num_instructions=40, strategy="evol-instruct") == 0
    seeds = {seed.id for seed in read_seeds(shipped("seed_tasks.jsonl"))}
    made = rows(run / "dataset.jsonl")
    grandchildren = [row for row in made if not set(row["source"]["demonstrations"]) & seeds]
    write_jsonl(tmp_path / "tasks.jsonl", [
        {"id": p.item, "task": "t", "cluster": "topic", "instruction": row["instruction"], "input": row["input"],
         "references": ["a"]}
        for p, row in zip(predictions([0] * 3), grandchildren, strict=False)
    ])  # fmt: skip
    result = lineage(config(evaluations, run, item=["topic-accuracy-0"], nearest=1))
    (row,) = result.items[0].rows
    assert row.id == grandchildren[0]["id"]
    assert [shown.kind for shown in row.origin.demonstrations] == ["task"]
    assert row.origin.seeds
    assert set(row.origin.seeds) <= seeds


def test_a_plain_file_ends_at_the_row(evaluations, tmp_path):
    write_jsonl(tmp_path / "plain.jsonl", [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}
        for text, answer in (("Nothing of that sort at all", "x"), ("Hello", "Hi"))
    ])  # fmt: skip
    result = lineage(config(evaluations, tmp_path / "plain.jsonl", item=["topic-accuracy-0", "topic-accuracy-2"]))
    (near,) = result.items[0].rows
    assert (near.place, near.output, near.origin) == (f"{tmp_path / 'plain.jsonl'}:1", "x", None)
    assert result.items[1].rows == ()
    assert "no training row has a word in common" in describe(result)


def test_a_run_without_its_ledger_still_names_demonstrations(run, evaluations, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("dataset.jsonl", "run.toml"):
        (copy / name).write_bytes((run / name).read_bytes())
    origin = lineage(config(evaluations, copy)).items[0].rows[0].origin
    assert origin.prompt is None
    assert origin.demonstrations
    assert sorted(path.name for path in copy.iterdir()) == ["dataset.jsonl", "run.toml"]


def test_command_line(run, evaluations, tmp_path, capsys):
    base, tuned, tasks = map(str, evaluations)
    command = ["lineage", base, tuned, "--training-data", str(run), "--tasks", tasks]
    assert run_program(GROUP, "finetune", [*command, "--limit", "1", "--json"]) == 0
    assert [item["item"] for item in json.loads(capsys.readouterr().out)["items"]] == ["topic-accuracy-1"]
    assert run_program(GROUP, "finetune", [*command, "--item", "absent"]) == 2
    assert "has no item 'absent'" in capsys.readouterr().err
    assert run_program(GROUP, "finetune", ["lineage", base, base, "--training-data", str(run), "--tasks", tasks]) == 0
    assert "No score changed" in capsys.readouterr().out
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "run.toml").touch()
    with pytest.raises(InputError, match=r"holds no dataset\.jsonl"):
        lineage(config(evaluations, tmp_path / "unfinished"))
