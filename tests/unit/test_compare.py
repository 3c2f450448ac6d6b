import json
import math
import shutil
from dataclasses import replace

import pytest

from finetune.cli import GROUP
from finetune.comparison import CompareConfig, compare, describe
from selfinstruct.command import run_program
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import write_jsonl
from tests.predicting import predictions, write


@pytest.fixture
def folders(tmp_path):
    base = predictions([0] * 20 + [1] * 10) + predictions([0.5, 0.25] * 10, "writing", "rouge_l")
    tuned = predictions([1] * 20 + [1] * 10) + predictions([0.25, 0.5] * 10, "writing", "rouge_l")
    return write(tmp_path / "base", base), write(tmp_path / "tuned", tuned)


def test_means_differences_and_verdicts(folders):
    comparison = compare(CompareConfig(base=folders[0], tuned=[folders[1]]))
    topic, writing = comparison.clusters["topic"], comparison.clusters["writing"]
    assert (topic.n, topic.base, topic.tuned, topic.delta) == (30, pytest.approx(1 / 3), 1, pytest.approx(2 / 3))
    assert topic.verdict == "better"
    assert topic.ci95[0] > 0
    assert topic.p < topic.p_holm < 0.05
    assert (writing.delta, writing.p, writing.verdict) == (0, 1, "no significant change")
    assert writing.ci95[0] < 0 < writing.ci95[1]
    assert list(comparison.overall) == ["accuracy", "rouge_l"]
    assert comparison.warnings == ()


def test_the_file_holds_what_the_contract_promises(folders, tmp_path):
    out = tmp_path / "compare.json"
    compare(CompareConfig(base=folders[0], tuned=[folders[1]], out=out))
    written = json.loads(out.read_text())
    promised = {"metric", "n", "base", "tuned", "delta", "ci95", "p", "verdict"}
    assert promised | {"minimal_detectable_effect"} <= written["clusters"]["topic"].keys()
    assert promised <= written["overall"]["accuracy"].keys()
    with pytest.raises(UsageError, match="--overwrite"):
        compare(CompareConfig(base=folders[0], tuned=[folders[1]], out=out))


def test_the_text_says_what_changed_and_what_cannot_be_told(folders):
    text = describe(compare(CompareConfig(base=folders[0], tuned=[folders[1]])))
    assert "Better: topic (+0.667)." in text
    assert "Worse: no cluster." in text
    assert "writing: with 20 items only differences above about" in text
    assert "!" not in text


def test_too_few_items_are_said_to_be_too_few(tmp_path):
    base, tuned = write(tmp_path / "b", predictions([0, 0, 0])), write(tmp_path / "t", predictions([1, 1, 1]))
    comparison = compare(CompareConfig(base=base, tuned=[tuned]))
    assert comparison.clusters["topic"].minimal_detectable_effect is None
    assert "with 3 items no difference can be significant" in describe(comparison)


def test_a_single_item_has_no_interval(tmp_path):
    base, tuned = write(tmp_path / "b", predictions([0])), write(tmp_path / "t", predictions([1]))
    change = compare(CompareConfig(base=base, tuned=[tuned])).clusters["topic"]
    assert (change.ci95, change.items_needed, change.p) == (None, None, 1)


def test_a_cluster_of_several_metrics_is_judged_whole(tmp_path):
    base = predictions([0] * 8) + predictions([0] * 8, metric="exact_match")
    tuned = predictions([1] * 8) + predictions([1] * 8, metric="exact_match")
    comparison = compare(CompareConfig(base=write(tmp_path / "b", base), tuned=[write(tmp_path / "t", tuned)]))
    assert comparison.clusters["topic"].metric == "accuracy + exact_match"
    assert comparison.clusters["topic"].n == 16
    assert comparison.clusters["topic"].verdict == "better"


def test_pairs_are_found_by_item_whatever_the_order(folders, tmp_path):
    rows = [json.loads(line) for line in (folders[1] / "predictions.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "shuffled" / "predictions.jsonl", rows[::-1])
    one = compare(CompareConfig(base=folders[0], tuned=[folders[1]]))
    other = compare(CompareConfig(base=folders[0], tuned=[tmp_path / "shuffled"]))
    assert one.clusters == other.clusters


def test_further_folders_are_compared_with_the_first(folders):
    comparison = compare(CompareConfig(base=folders[0], tuned=[folders[1], folders[0]]))
    assert len(comparison.further) == 1
    assert comparison.further[0].base == str(folders[0])
    assert comparison.further[0].clusters["topic"].delta == 0
    assert describe(comparison).count("Better:") == 2


def test_folders_of_one_name_are_told_apart(folders, tmp_path):
    shutil.copytree(folders[1], tmp_path / "other" / "tuned")
    text = describe(compare(CompareConfig(base=folders[0], tuned=[folders[1], tmp_path / "other" / "tuned"])))
    header = next(line for line in text.splitlines() if line.startswith("cluster "))
    assert header.split()[3:] == [str(folders[0]), str(folders[1]), str(tmp_path / "other" / "tuned")]


def test_unequal_items_are_refused(tmp_path):
    base = write(tmp_path / "b", predictions([0] * 8))
    fewer = write(tmp_path / "t", predictions([0] * 3))
    with pytest.raises(InputError, match=r"/t: lacks 5 items .*topic-accuracy-3, topic-accuracy-4, .*\.\.\..*--limit"):
        compare(CompareConfig(base=base, tuned=[fewer]))
    with pytest.raises(InputError, match=r"/t: lacks 5 items of the other"):
        compare(CompareConfig(base=fewer, tuned=[base]))


@pytest.mark.parametrize("change", [{"metric": "exact_match"}, {"references": ("b",)}, {"cluster": "other"}])
def test_items_scored_otherwise_are_refused(tmp_path, change):
    rows = predictions([0] * 8)
    base = write(tmp_path / "b", rows)
    tuned = write(tmp_path / "t", [replace(rows[0], **change), *rows[1:]])
    with pytest.raises(InputError, match="1 items have another cluster, metric, options or references"):
        compare(CompareConfig(base=base, tuned=[tuned]))


def test_differing_prompts_are_warned_of(tmp_path, caplog):
    base = write(tmp_path / "b", predictions([0] * 8))
    tuned = write(tmp_path / "t", predictions([0] * 8, prompt="### Instruction"))
    comparison = compare(CompareConfig(base=base, tuned=[tuned]))
    assert "8 of 8 prompts differ" in caplog.text
    assert "Careful: 8 of 8 prompts differ" in describe(comparison)


def test_bad_folders_are_named(tmp_path):
    good = write(tmp_path / "good", predictions([0] * 8))
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "predictions.partial.jsonl").touch()
    (tmp_path / "empty").mkdir()
    for name, problem in (("unfinished", "unfinished evaluation"), ("empty", "holds no predictions.jsonl"),
                          ("nowhere", "no such folder")):  # fmt: skip
        with pytest.raises(InputError, match=f"{name}: .*{problem}"):
            compare(CompareConfig(base=good, tuned=[tmp_path / name]))


@pytest.mark.parametrize(
    ("score", "problem"), [(1.5, "less than or equal to 1"), (math.nan, "less than|finite|nan|valid number")]
)
def test_broken_lines_are_named(tmp_path, score, problem):
    rows = predictions([0] * 8)
    rows[3] = replace(rows[3], score=score)
    folder = write(tmp_path / "b", rows)
    with pytest.raises(InputError, match=rf"predictions.jsonl:4: field 'score': .*({problem})"):
        compare(CompareConfig(base=folder, tuned=[folder]))


def test_an_item_that_is_there_twice_is_refused(tmp_path):
    folder = write(tmp_path / "b", predictions([0]) * 2)
    with pytest.raises(InputError, match=r"predictions.jsonl:2: field 'item': .*twice"):
        compare(CompareConfig(base=folder, tuned=[folder]))


def test_command_line(folders, tmp_path, capsys):
    base, tuned = map(str, folders)
    assert run_program(GROUP, "finetune", ["compare", base, tuned, "--out", str(tmp_path / "c.json")]) == 0
    assert "better" in capsys.readouterr().out
    assert run_program(GROUP, "finetune", ["compare", base, tuned, base, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["further"]) == 1
    assert run_program(GROUP, "finetune", ["compare", base]) == 2
    assert "TUNED" in capsys.readouterr().err


# -- honesty -----------------------------------------------------------------------------------------------------------


def by_task(scores, n_tasks=20):
    return [row for i in range(n_tasks) for row in predictions(scores(i), task=f"t{i}", prefix=f"{i}-")]


def test_from_twenty_tasks_on_all_is_by_task_and_said_so(tmp_path):
    base = write(tmp_path / "base", by_task(lambda i: [0] * 4))
    tuned = write(tmp_path / "tuned", by_task(lambda i: [int(i < 6)] * 4))
    comparison = compare(CompareConfig(base=base, tuned=[tuned]))
    topic = comparison.clusters["topic"]
    assert (topic.n, topic.n_tasks, topic.unit, topic.delta) == (80, 20, "task", pytest.approx(0.3))
    assert topic.p == pytest.approx(2 / 64)
    assert comparison.tasks["t0"].delta == 1
    assert comparison.tasks["t0"].unit == "item"
    assert "by task, as every line has at least 20" in describe(comparison)
    few = [write(tmp_path / f"few{score}", by_task(lambda i: [score] * 4, 19)) for score in (0, 1)]  # noqa: B023
    assert "by item, as no line has 20 tasks" in describe(compare(CompareConfig(base=few[0], tuned=[few[1]])))


def generated(texts, scores, stop="eos"):
    return [
        replace(row, options=(), option_scores=(), metric="exact_match", prediction=text, stop=stop,
                truncated=stop == "length", references=("Oslo",), empty=not text)
        for row, text in zip(predictions(scores, "capital", "exact_match"), texts, strict=True)
    ]  # fmt: skip


def test_how_answers_were_stands_beside_the_scores(tmp_path):
    base = write(tmp_path / "base", predictions([0] * 4) + generated(["", "It is Oslo.", "Rome"], [0] * 3, "length"))
    tuned = write(tmp_path / "tuned", predictions([1] * 4) + generated(["Oslo", "oslo", "Rome"], [1, 1, 0]))
    comparison = compare(CompareConfig(base=base, tuned=[tuned]))
    before, after = (comparison.clusters["capital"].answers[name] for name in ("base", "tuned"))
    assert (before["generated"], before["stop_rate"], before["truncated"], before["empty"]) == (3, 0, 3, 1)
    assert (after["stop_rate"], after["truncated"], after["empty"]) == (1, 0, 0)
    assert before["mean_answer_characters"] == 5
    assert comparison.clusters["topic"].answers == {}
    text = describe(comparison)
    lines = [line.split() for line in text.splitlines() if line.startswith("capital ")]
    assert lines[1][:6] == ["capital", "base", "3", "0%", "3", "1"]
    assert lines[2][:6] == ["capital", "tuned", "3", "100%", "0", "0"]


def test_ranked_and_generated_scores_are_apart(tmp_path):
    mixed = [
        [replace(row, cluster="mixed") for row in predictions([score] * 6) + generated(["x"] * 6, [score] * 6)]
        for score in (0, 1)
    ]
    folders = [write(tmp_path / name, rows) for name, rows in zip(("base", "tuned"), mixed, strict=True)]
    comparison = compare(CompareConfig(base=folders[0], tuned=[folders[1], folders[0]]))
    assert comparison.clusters["mixed"].n == 12
    assert comparison.kinds["ranked"]["mixed"].metric == "accuracy"
    assert comparison.kinds["generated"]["mixed"].n == 6
    text = describe(comparison)
    (row,) = [line for line in text.splitlines() if line.startswith("mixed ") and "accuracy + exact_match" in line]
    assert row.split()[-6:] == ["0.000", "1.000", "(+1.000", "better)", "0.000", "(+0.000)"]
    assert text.index("  ranked ") < text.index("  generated ") < text.index("all accuracy")


def test_changed_items_are_listed_and_unscored_ones_too(folders):
    (folders[0] / "summary.json").write_text(json.dumps({"unscored_items": [{"item": "long/1", "reason": "too long"}]}))
    comparison = compare(CompareConfig(base=folders[0], tuned=[folders[1]]))
    assert len(comparison.changed_items) == 40
    assert [change.tuned - change.base for change in comparison.changed_items[:20]] == [1] * 20
    assert comparison.changed_items[-1].tuned - comparison.changed_items[-1].base == -0.25
    assert comparison.unscored == {str(folders[0]): {"long/1": "too long"}}
    assert "left 1 items out of its scores: long/1." in describe(comparison)


QUESTION = "Which of these four towns lies farthest to the north, and which of them farthest to the west of all?"


@pytest.fixture
def contaminated(folders, tmp_path):
    """The held-out tasks of the folders, and training data that holds two of their items."""
    ids = [json.loads(line)["item"] for line in (folders[0] / "predictions.jsonl").read_text().splitlines()]
    held_out = [
        {"id": id, "task": "t", "cluster": "c", "instruction": f"Question {i}", "input": "", "references": ["a"]}
        for i, id in enumerate(ids)
    ]
    held_out[0]["input"] = QUESTION
    held_out[-1]["references"] = ["A herd of goats crossed the river at dawn on Tuesday."]
    rows = [
        {
            "instruction": "Look at the map.",
            "input": QUESTION.replace("Which of these", "Tell me which"),
            "output": "b",
        },
        {"instruction": "Say it.", "input": "", "output": "A herd of sheep crossed the river at dawn on Tuesday."},
        {"instruction": "Name a colour.", "input": "", "output": "a"},
    ]
    write_jsonl(tmp_path / "tasks.jsonl", held_out)
    write_jsonl(tmp_path / "training.jsonl", rows)
    return tmp_path / "tasks.jsonl", tmp_path / "training.jsonl"


def test_items_of_the_training_data_are_scored_apart(folders, contaminated):
    tasks, training = contaminated
    config = CompareConfig(base=folders[0], tuned=[folders[1]], training_data=[training], tasks=[tasks])
    found = compare(config).contamination
    assert [(o.item, o.row) for o in found.items] == [
        ("topic-accuracy-0", f"{training}:1"), ("writing-rouge_l-19", f"{training}:2"),
    ]  # fmt: skip
    assert found.items[0].reason == "the task shares 13 tokens in a row with it"
    assert found.items[1].reason == "the answer has ROUGE-L 0.909 with it"
    assert (found.rows, found.clean["topic"].n, found.contaminated["topic"].n) == (3, 29, 1)
    assert (found.clean["all rouge_l"].n, found.contaminated["all rouge_l"].n) == (19, 1)
    text = describe(compare(config))
    assert (
        text.index("Contaminated: 2 items") < text.index("Clean items alone:") < text.index("Contaminated items alone:")
    )


def test_clean_training_data_is_said_to_be_clean(folders, contaminated, tmp_path):
    write_jsonl(tmp_path / "clean.jsonl", [{"instruction": "Name a colour.", "output": "a"}])
    config = CompareConfig(
        base=folders[0], tuned=[folders[1]], training_data=[tmp_path / "clean.jsonl"], tasks=[contaminated[0]]
    )
    comparison = compare(config)
    assert comparison.contamination.items == ()
    assert comparison.contamination.contaminated == {}
    assert comparison.contamination.clean["topic"] == comparison.clusters["topic"]
    assert "No item is contaminated" in describe(comparison)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--training-data", "{training}"], "holds no evaluate.toml. Say with --tasks"),
        (["--training-data", "{training}", "--tasks", "{other}"], "lacks 50 items"),
        (["--training-data", "{tasks}", "--tasks", "{tasks}"], "field 'output': is missing"),
        (["--training-data", "{empty}", "--tasks", "{tasks}"], "empty.jsonl: holds no row"),
    ],
)
def test_bad_training_data_is_named(folders, contaminated, tmp_path, capsys, flags, problem):
    shutil.copy(contaminated[1], tmp_path / "other.jsonl")
    (tmp_path / "empty.jsonl").touch()
    places = {"tasks": contaminated[0], "training": contaminated[1], "other": tmp_path / "other.jsonl",
              "empty": tmp_path / "empty.jsonl"}  # fmt: skip
    given = [flag.format(**places) for flag in flags]
    assert run_program(GROUP, "finetune", ["compare", *map(str, folders), *given]) == 2
    assert problem in capsys.readouterr().err
