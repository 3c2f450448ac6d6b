import json
import math
from dataclasses import asdict, replace

import pytest

from finetune.cli import GROUP
from finetune.comparison import CompareConfig, compare, describe
from finetune.predictions import Prediction
from selfinstruct.command import run_program
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import write_jsonl


def predictions(scores, cluster="topic", metric="accuracy", prompt="Which?"):
    return [
        Prediction(
            item=f"{cluster}-{metric}-{i}", task="t", cluster=cluster, prompt=f"{prompt} {i}", prediction="a",
            references=("a",), options=("a", "b"), option_scores=(-1.0, -2.0), metric=metric, score=float(score),
            stop=None, truncated=False,
        )
        for i, score in enumerate(scores)
    ]  # fmt: skip


def write(folder, rows):
    write_jsonl(folder / "predictions.jsonl", map(asdict, rows))
    return folder


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
