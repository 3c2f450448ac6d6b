import dataclasses
import json
import os
from pathlib import Path

import pytest

from selfinstruct.cli import GROUP
from selfinstruct.command import run_program
from selfinstruct.errors import InputError
from selfinstruct.files import read_toml, shipped
from selfinstruct.recipe import DemoConfig, RunConfig, demo, plan, read_recipe, run, shipped_recipe

SHIPPED = sorted(shipped_recipe("").glob("*.toml"))
STAGES = ["generate", "train", "evaluate-base", "evaluate-tuned", "compare", "lineage", "report"]
RECIPE = """
title = "small"
[generate]
num_instructions = 5
[train]
rank = 4
template = "chat"
[evaluate]
limit = 3
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """Somewhere else than the recipe, so that paths relative to it show."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def test_four_recipes_are_shipped():
    assert [path.name for path in SHIPPED] == ["embedded-smoke.toml", "embedded.toml", "endpoint.toml", "gpu.toml"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipe_is_checked_and_makes_nothing_when_dry(path, tmp_path):
    assert read_toml(path)["title"]
    result = run(RunConfig(recipe=path, out=tmp_path / "out", dry_run=True))
    assert list(result.stages) == STAGES
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("smoke", [True, False])
def test_demo_is_a_shipped_recipe(tmp_path, smoke):
    result = demo(DemoConfig(out=tmp_path / "out", smoke=smoke, dry_run=True))
    assert "--model embedded" in result.stages["evaluate-base"]


def test_dry_run_says_what_would_run_and_what_it_would_cost(tmp_path, capfd):
    recipe = written(tmp_path, RECIPE)
    assert run_program(GROUP, "selfinstruct", ["run", str(recipe), "--out", "o", "--dry-run"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        "would run:",
        "  selfinstruct generate --config o/recipe.toml --out o/generate",
        "  finetune train --config o/recipe.toml --data o/generate --out o/train",
        "  finetune evaluate --config o/recipe.toml --model embedded --out o/evaluate-base",
        "  finetune evaluate --config o/recipe.toml --model embedded --adapter o/train/adapter --out o/evaluate-tuned",
        "  finetune compare o/evaluate-base o/evaluate-tuned --training-data o/generate --out o/compare.json"
        " --overwrite",
        "  finetune lineage o/evaluate-base o/evaluate-tuned --training-data o/generate --out o/lineage.json"
        " --overwrite",
        "  selfinstruct report o/generate o/train o/evaluate-base o/evaluate-tuned --compare o/compare.json"
        " --lineage o/lineage.json --out o/report.html --overwrite",
    ]
    assert "nothing was sent" in err
    assert run_program(GROUP, "selfinstruct", ["run", str(recipe), "--out", "o", "--dry-run", "--json"]) == 0
    assert list(json.loads(capfd.readouterr().out)["stages"]) == STAGES
    assert os.listdir() == []


def test_paths_are_relative_to_the_recipe_or_shipped(tmp_path):
    (tmp_path / "my seeds.jsonl").write_bytes(shipped("seed_tasks.jsonl").read_bytes())
    (tmp_path / "tasks").mkdir()
    text = """
    [generate]
    seeds = "my seeds.jsonl"
    [train]
    eval_data = "shipped:validation.jsonl"
    model = "org/name"
    [evaluate]
    tasks = ["tasks", "shipped:heldout/topic.jsonl"]
    """
    path = written(tmp_path, text)
    recipe = read_recipe(path)
    assert recipe.generate["seeds"] == str(tmp_path / "my seeds.jsonl")
    assert recipe.train["eval_data"] == str(shipped("validation.jsonl"))
    assert recipe.evaluate["tasks"] == [str(tmp_path / "tasks"), str(shipped("heldout/topic.jsonl"))]
    run(RunConfig(recipe=path, out=tmp_path / "out", dry_run=True))  # the forecast reads the seeds


def test_stages_have_their_inputs_and_share_template_and_model(tmp_path):
    recipe = read_recipe(written(tmp_path, RECIPE))
    stages = {stage.name: stage for stage in plan(recipe, Path("out"))}
    made = [path for stage in stages.values() for path in stage.outputs]
    assert len(set(made)) == len(made)
    assert all(path.is_relative_to("out") for path in made)
    for stage in stages.values():
        for path in stage.inputs:
            assert path.exists() or path in made  # nothing comes from nowhere
    assert shipped("heldout/topic.jsonl") in stages["evaluate-base"].inputs
    assert Path("out/train/adapter/adapter_model.safetensors") in stages["evaluate-tuned"].inputs
    # Base and tuned model are asked in the form that was trained.
    assert stages["evaluate-base"].options == stages["evaluate-tuned"].options
    assert stages["evaluate-base"].options["template"] == "chat"


def test_evaluate_may_be_left_out(tmp_path):
    path = written(tmp_path, "[generate]\n[train]\ntemplate = 'alpaca'\n")
    assert read_recipe(path).evaluate == {"template": "alpaca"}
    assert list(run(RunConfig(recipe=path, out=tmp_path / "out", dry_run=True)).stages) == STAGES


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        (RECIPE + "[publish]\n", "publish", "is not a known field"),
        ("[generate]\n", "train", "is missing"),
        ("[train]\n", "generate", "is missing"),
        ("train = 3\n[generate]\n", "train", "valid dictionary"),
        (RECIPE + "out = 'x'\n", "evaluate.out", "is set by the recipe's own folders. Leave it out"),
        (RECIPE + "model = 'x'\n", "evaluate.model", "is set by the recipe's own folders"),
        (
            RECIPE + "tasks = ['absent.jsonl']\n",
            "evaluate.tasks",
            "no such file: .*/absent.jsonl. Paths are relative to",
        ),
        (RECIPE + "tasks = ['shipped:absent.jsonl']\n", "evaluate.tasks", "there is no data/absent.jsonl"),
        (RECIPE + "tasks = [3]\n", "evaluate.tasks", "must be a path. Write it in quotes"),
        ("[generate]\n[train]\ndata = ['x']\n", "train.data", "is set by the recipe's own folders"),
    ],
)
def test_wrong_recipe_names_file_and_field(tmp_path, text, field, problem):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=problem) as caught:
        run(RunConfig(recipe=path, out=tmp_path / "out"))
    assert (caught.value.path, caught.value.field) == (path, field)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("section", "line", "problem"),
    [
        (
            "generate",
            "num_instructions = 0",
            "field 'generate.num_instructions': input should be greater than 0, not 0",
        ),
        ("generate", "num_instruction = 9", "field 'generate.num_instruction': is not a known field. Did you mean"),
        ("train", "rank = 2.5", "field 'train.rank': input should be a valid integer"),
        ("train", "schedule = 'cubic'", "field 'train.schedule': input should be 'constant', 'linear' or 'cosine'"),
        ("train", "eval_fraction = 0.1\neval_data = 'shipped:validation.jsonl'", "exclude each other"),
        ("evaluate", "shots = -1", "field 'evaluate.shots': input should be greater than or equal to 0"),
        ("evaluate", "limits = 3", "field 'evaluate.limits': is not a known field. Did you mean 'limit'?"),
    ],
)
def test_wrong_option_of_any_stage_is_found_before_the_first_begins(tmp_path, capfd, section, line, problem):
    sections = {"generate": "", "train": "", "evaluate": ""} | {section: line}
    path = written(tmp_path, "".join(f"[{name}]\n{text}\n" for name, text in sections.items()))
    assert run_program(GROUP, "selfinstruct", ["run", str(path), "--out", str(tmp_path / "out")]) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ")
    assert problem in err
    if line.count("=") == 1:
        assert f"{path}: " in err
    assert not (tmp_path / "out").exists()


def test_forecast_that_fails_fails_the_dry_run(tmp_path, capfd):
    (tmp_path / "seeds.jsonl").write_text('{"id": "a"}\n')
    path = written(tmp_path, "[generate]\nseeds = 'seeds.jsonl'\n[train]\n")
    assert run_program(GROUP, "selfinstruct", ["run", str(path), "--out", "o", "--dry-run"]) == 2
    assert "seeds.jsonl:1: field 'name': is missing" in capfd.readouterr().err


def test_command_of_a_stage_can_be_typed(tmp_path):
    stage = plan(read_recipe(written(tmp_path, RECIPE)), Path("my runs"))[0]
    assert stage.command == "selfinstruct generate --config 'my runs/recipe.toml' --out 'my runs/generate'"
    assert dataclasses.replace(stage, arguments=("a b",)).command == "selfinstruct 'a b'"
