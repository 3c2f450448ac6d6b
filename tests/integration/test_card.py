"""The cards of a data set and of an adapter, read by the hub's own classes and loaded by `datasets`."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData, metadata_load

from finetune.config import TrainConfig
from finetune.training import train
from selfinstruct.cli import GROUP
from selfinstruct.command import run_program
from selfinstruct.dataset_card import CardConfig, card, describe
from selfinstruct.errors import InputError, UsageError
from selfinstruct.formats import ExportConfig, export
from selfinstruct.refiltering import RefilterConfig, refilter
from tests.generating import generate, ledger, rows, summary
from tests.tiny import build_tiny_llama
from tests.training import EVAL_ROWS, ROWS, write

TERMS = "https://example.org/terms?of=use"


@pytest.fixture(scope="module")
def run(shared: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two strategies, with several instances a task, at a known price."""
    out = tmp_path_factory.mktemp("runs") / "first run"
    flags = {
        "strategy": ("alpaca:share=0.5", "self-instruct:share=0.5,instances=3"), "model": "org/teacher-1",
        "input_usd_per_mtok": 1.5, "output_usd_per_mtok": 2, "filter": "length:max_words=60", "without": "program",
    }  # fmt: skip
    assert generate(out, shared.base_url, num_instructions=24, **flags) == 0
    return out


def written(run: Path, folder: Path, **options: Any) -> DatasetCard:
    out = folder / "README.md"
    result = card(CardConfig(run=run, out=out, **options))
    assert result.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert str(out) in describe(result)
    return DatasetCard.load(out)


def allowed(field: str) -> set[str]:
    """The values that huggingface_hub documents for a field."""
    text = re.search(rf"{field} \(.*?Options are: (.*?)\.\n", DatasetCardData.__doc__ or "", re.S)
    assert text
    return set(re.findall(r"'([^']+)'", text[1]))


def cells(text: str) -> dict[str, str]:
    """The first and the last cell of each line of the card's tables."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: line[-1] for line in lines}


def test_the_hub_reads_every_field_as_it_was_meant(run: Path, tmp_path: Path) -> None:
    export(ExportConfig(run=run, out=tmp_path / "train.parquet", format="parquet"))
    read = written(
        run, tmp_path, data=tmp_path / "train.parquet", pretty_name='Tasks: "no" #1', license="cc-by-4.0",
        teacher_terms=TERMS,
    )  # fmt: skip
    expected = {
        "pretty_name": 'Tasks: "no" #1',
        "license": "cc-by-4.0",
        "language": ["en"],
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "multilinguality": ["monolingual"],
        "size_categories": ["n<1K"],
        "source_datasets": ["original"],
        "task_categories": ["text-generation"],
        "tags": ["instruction-tuning", "synthetic", "alpaca", "self-instruct"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train.parquet"}]}],
    }
    assert read.data.to_dict() == expected == metadata_load(tmp_path / "README.md")
    for field in ("annotations_creators", "language_creators", "multilinguality", "size_categories"):
        assert set(expected[field]) <= allowed(field), field
    # Written by the hub's class and read again, it is the same card.
    again = DatasetCard(f"---\n{DatasetCardData(**expected).to_yaml()}\n---\n{read.text}")
    assert (again.data.to_dict(), again.text.strip()) == (expected, read.text.strip())
    assert f"<{TERMS}>" in read.text


def test_nothing_that_only_the_user_can_know_is_made_up(run: Path, tmp_path: Path) -> None:
    read = written(run, tmp_path)
    assert {"license", "configs", "license_name"}.isdisjoint(read.data.to_dict())
    assert read.data.pretty_name == "first run"
    facts = cells(read.text)
    assert facts["Licence"] == facts["Terms of the teacher's provider"] == "not stated"
    result = card(CardConfig(run=run, out=tmp_path / "2.md"))
    assert result.not_stated == ("licence", "terms of the teacher's provider")
    assert "not stated: licence" in describe(result)
    assert card(CardConfig(run=run, out=tmp_path / "3.md", license="mit", teacher_terms="x")).not_stated == ()


def test_the_figures_are_those_of_the_run(run: Path, tmp_path: Path) -> None:
    text, data, figures = written(run, tmp_path).text, rows(run / "dataset.jsonl"), summary(run)
    tasks = [row for row in data if not re.search(r"/\d+$", row["id"])]
    labelled = sum(row["is_classification"] for row in tasks)
    assert len(tasks) == 24 < len(data)
    assert 0 < labelled < 24
    assert f"{len(data)} rows of 24 instruction tasks in English" in text
    facts = cells(text)
    assert facts["Tasks, and rows with one instance each"] == f"24, {len(data)}"
    assert facts["Classification tasks, and others"] == f"{labelled}, {24 - labelled}"
    assert (
        facts["SHA-256 of the run's data set"]
        == f"`{hashlib.sha256((run / 'dataset.jsonl').read_bytes()).hexdigest()}`"
    )
    assert facts["Price"].startswith("1.5 and 2 USD for a million tokens")
    assert facts["Cost"] == f"{figures['cost_usd']:.4f} USD"
    assert facts["Requests"] == str(figures["requests"]["sent"])
    assert facts["Asked"] == ledger(run, "SELECT date(min(started_at)) FROM attempts")[0][0]
    assert facts["Asked through"] == "OpenAI-compatible endpoint at a private address, chat completions"
    assert facts["Seed tasks"].startswith("175: seed_tasks.jsonl, which selfinstruct ships; SHA-256 `")
    for strategy in ("alpaca", "self-instruct"):
        own = [row for row in data if row["source"]["strategy"] == strategy]
        n_tasks = sum(row in tasks for row in own)
        figures_of = figures["strategies"][strategy]
        share = f"{figures_of['accepted'] / figures_of['judged']:.1%}"
        assert re.search(
            rf"^\| {strategy} \|.*\| {n_tasks} \| {len(own)} \| {figures_of['judged']} \| {share} \|$", text, re.M
        )
    filters, rejected = text.split("### Filters")[1].split("what rejected the others:")
    assert {rule: int(n) for rule, n in list(cells(rejected.split("###")[0]).items())[2:]} == figures["rejected"]
    assert "min_words=4, max_words=60" in cells(filters)["length"]
    assert "threshold=0.7" in cells(filters)["novelty"]
    assert "program" not in cells(filters)
    assert "words of an instruction" in text
    prompt = ledger(run, f"SELECT request FROM completions WHERE prompt_key = '{tasks[0]['source']['prompt_key']}'")[0][
        0
    ]
    assert json.loads(prompt)["messages"][0]["content"][:300] in text
    assert "No answer was verified" in text
    assert "selfinstruct 0.1.0" in text


def test_no_local_path_is_told(run: Path, tmp_path: Path, server: Any) -> None:
    seeds = tmp_path / "deep" / "own seeds.jsonl"
    seeds.parent.mkdir()
    shutil.copy(Path(__file__).parents[2] / "data" / "seed_tasks.jsonl", seeds)
    with seeds.open("a") as file:
        instance = {"input": "", "output": "Fine."}
        own = {
            "id": "own",
            "name": "own",
            "instruction": "Say how you are.",
            "instances": [instance],
            "is_classification": False,
        }
        file.write(json.dumps(own) + "\n")
    held_out = tmp_path / "deep" / "held.jsonl"
    write(held_out, [{"task": "t", "cluster": "c", "instruction": "Add.", "input": "1 1", "references": ["2"]}])
    out = tmp_path / "run"
    assert generate(
        out, server.base_url, num_instructions=3, seeds=seeds, model="/models/deep/local-model.gguf",
        filter=f"contamination:tasks={held_out}",
    ) == 0  # fmt: skip
    read = written(out, tmp_path / "share")
    assert str(tmp_path) not in read.content
    assert "/models" not in read.content
    facts = cells(read.text)
    assert facts["Teacher"] == "local-model.gguf"
    assert facts["Seed tasks"].startswith("176: own seeds.jsonl, the user's own")
    assert "tasks=held.jsonl" in facts["contamination"]
    assert "Nothing compared the rows" not in read.text


@pytest.mark.parametrize(
    ("form", "name"), [("parquet", "train.parquet"), ("alpaca", "rows.json"), ("messages", "chat.jsonl")]
)
def test_the_card_loads_the_data(run: Path, tmp_path: Path, form: Any, name: str) -> None:
    """`datasets` finds split and file by the card; beside it lies another file, which it is not to take."""
    folder = tmp_path / "share"
    export(ExportConfig(run=run, out=folder / name, format=form))
    (folder / "other.json").write_text('[{"x": 1}]')
    text = written(run, folder, data=folder / name).text
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() in text
    code = text.split("```python\n")[1].split("```")[0].replace('"path/to/this/folder"', repr(str(folder)))
    names: dict[str, Any] = {}
    exec(code, names)
    assert isinstance(names["rows"], datasets.Dataset)
    assert len(names["rows"]) == len(rows(run / "dataset.jsonl"))
    assert "x" not in names["rows"].column_names


def test_a_refiltered_run_has_a_card(run: Path, tmp_path: Path) -> None:
    refilter(RefilterConfig(run=run, out=tmp_path / "run2", novelty_threshold=0.3))
    text = written(tmp_path / "run2", tmp_path).text
    facts = cells(text)
    assert facts["Requests"].startswith("none")
    assert facts["Asked"] == "not recorded"
    assert "| threshold=0.3, over=instruction |" in text


def test_the_folder_of_a_recipe_is_taken(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "whole" / "generate")
    assert written(tmp_path / "whole", tmp_path).data.pretty_name == "whole"


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "README.md"
    arguments = ["card", str(run), "--out", str(out), "--license", "cc-by-4.0", "--json"]
    assert run_program(GROUP, "selfinstruct", arguments) == 0
    assert json.loads(capsys.readouterr().out)["not_stated"] == ["terms of the teacher's provider"]
    assert run_program(GROUP, "selfinstruct", arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run_program(GROUP, "selfinstruct", [*arguments, "--overwrite", "--license", "CC BY"]) == 2
    assert "--license" in capsys.readouterr().err


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    with (copy / "dataset.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="has changed since the run"):
        written(copy, tmp_path)
    (copy / "summary.json").unlink()
    with pytest.raises(InputError, match=r"holds no summary\.json"):
        written(copy, tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        written(tmp_path / "absent", tmp_path)
    write(tmp_path / "elsewhere.jsonl", ROWS)
    with pytest.raises(UsageError, match="must be in the folder of the card"):
        written(run, tmp_path / "share", data=tmp_path / "elsewhere.jsonl")
    with pytest.raises(InputError, match="no such file"):
        written(run, tmp_path, data=tmp_path / "absent.jsonl")
    assert not (tmp_path / "README.md").exists()


def test_the_hub_reads_the_card_of_a_trained_adapter(tmp_path: Path) -> None:
    model = build_tiny_llama(tmp_path / "a `b` | <c>: \"d'", hidden_size=64)
    data, held = write(tmp_path / "rows | <b>.jsonl", ROWS), write(tmp_path / "eval.jsonl", EVAL_ROWS)
    train(TrainConfig(data=[data], eval_data=held, model=str(model), out=tmp_path / "out", max_steps=2))
    path = tmp_path / "out" / "adapter" / "README.md"
    read = ModelCard.load(path)
    expected = {
        "base_model": model.name,
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "instruction-tuning"],
    }
    assert read.data.to_dict() == expected == metadata_load(path)
    assert read.data.eval_results is None
    again = ModelCard(f"---\n{ModelCardData(**expected).to_yaml()}\n---\n{read.text}")
    assert (again.data.to_dict(), again.text.strip()) == (expected, read.text.strip())
    assert "<c>" not in re.sub(r"```.*?```", "", read.text, flags=re.S)
    assert str(tmp_path) not in read.content
    sha256 = hashlib.sha256(data.read_bytes()).hexdigest()
    assert f"| train | rows \\| &lt;b&gt;.jsonl | {len(ROWS)} | {sha256} |" in read.text
    compile(read.text.split("```python\n")[1].split("```")[0], "card", "exec")
