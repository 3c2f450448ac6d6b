import base64
import hashlib
import json
import re
import threading
import time
from itertools import pairwise

import pytest

from selfinstruct.cli import GROUP
from selfinstruct.command import run_program
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import to_toml, write_json, write_text
from selfinstruct.report_page import ReportConfig, describe, report
from tests.reporting import (
    HOSTILE,
    make_comparison,
    make_evaluation,
    make_lineage,
    make_run,
    make_training,
    packed,
    written,
)


@pytest.fixture
def everything(tmp_path):
    return (
        make_run(tmp_path / "river" / "generate"),
        make_evaluation(tmp_path / "tuned", 0.55, "train/adapter"),
        make_training(tmp_path / "train"),
        make_evaluation(tmp_path / "base", 0.4, None),
    )


def test_answer_comes_first_and_says_what_got_better(tmp_path, everything):
    page, _, summary = written(tmp_path, *everything, compare=make_comparison(tmp_path / "compare.json"))
    answer = (
        "Of 77 candidate tasks 45 were accepted (58%), in 67 min; the cost is unknown. "
        "A model was fine-tuned on 44 rows; the loss on held-back rows went from 3.125 to 2.250. "
        "On 60 held-out items its accuracy went from 40.0 to 55.0 (+15.0 points, 95% interval +3.0 to +27.0): better. "
        "It got better on sentiment."
    )
    assert page.text.index("Instruction-tuning report river") < page.text.index(answer) < page.text.index("Yield")
    assert "Accepted 45 58.4% of 77 candidates" in page.text
    assert "sentiment accuracy, 60 items base 40.0 30.0 to 50.0 tuned 55.0 45.0 to 65.0 +15.0 +3.0 to +27.0 better" in (
        page.text
    )
    assert "base: 3 of 60 answers were cut" in page.text
    assert summary.missing == ()
    assert describe(summary).startswith("wrote ")


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"cost_usd": 0.0}, "the teacher cost nothing."),
        ({"cost_usd": 12.3456}, "the teacher cost $12.35."),
        ({"cost_usd": 0.0123}, "the teacher cost $0.0123."),
        ({"closed_by": "saturated"}, "hardly any candidate was new"),
        ({"closed_by": "cap"}, "can be resumed"),
    ],
)
def test_cost_and_end_in_words(tmp_path, figures, words):
    assert words in written(tmp_path, make_run(tmp_path / "run", **figures))[0].text


def test_no_change_is_said_plainly(tmp_path):
    compare = make_comparison(tmp_path / "compare.json", verdict="no significant change")
    page, _, _ = written(tmp_path, make_run(tmp_path / "run"), compare=compare)
    assert "On no single cluster" in page.text
    assert "better on" not in page.text


def test_first_rows_need_no_script_and_all_rows_are_there(tmp_path, everything):
    page, html, _ = written(tmp_path, *everything)
    assert "The first 10 of 45." in page.text
    shown = page.text[page.text.index("The first 10 of 45.") :]
    assert [int(n) for n in re.findall(r"Output answer (\d+)", shown)] == list(range(10))
    rows = packed(html, 'rows="accepted"')
    assert [row["title"] for row in rows] == [f"Name a river. {n}" for n in range(45)]
    assert rows[44]["parts"] == [
        ["Input", "Name a river. 44"], ["Output", "answer 44"], ["Most similar, 0.50", "Name a river. 43"],
    ]  # fmt: skip
    assert [row["rule"] for row in packed(html, 'rows="rejected"')] == ["novelty"] * 30 + ["unparsable"] * 2
    assert "in this page, evenly spread" not in page.text


def test_examples_of_each_rule_are_even_and_say_so(tmp_path, everything):
    page, _, _ = written(tmp_path, *everything)
    assert "novelty too similar to a task that is already there · 3 of 30 Name a river. again 0" in page.text
    assert "unparsable the reply could not be read as a task · 2 of 2" in page.text
    examples = page.text[page.text.index("Examples of each rule") :]
    assert [int(n) for n in re.findall(r"again (\d+)", examples)][:3] == [0, 14, 29]


def test_large_run_shows_what_fits_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("selfinstruct.page.tasks.ACCEPTED_BUDGET", 20_000)
    page, html, _ = written(tmp_path, make_run(tmp_path / "run", n=3000))
    rows = packed(html, 'rows="accepted"')
    assert 500 < len(rows) < 2000
    assert f"{len(rows):,} of 3,000 accepted tasks are in this page, evenly spread over the run" in page.text
    shown = [int(row["title"].split()[-1]) for row in rows]
    assert (shown[0], shown[-1]) == (0, 2999)
    assert len({b - a for a, b in pairwise(shown)}) == 2
    assert 10_000 < sum(map(len, re.findall('data-rows="accepted">([^<]*)<', html))) <= 20_000


def test_figures_of_the_yield(tmp_path, everything):
    page, _, _ = written(tmp_path, *everything)
    assert "candidates 77 100.0% novelty too similar to a task that is already there 30 39.0%" in page.text
    assert "accepted 45 58.4%" in page.text
    bars = [float(value) for tag, name, value in page.attributes if (tag, name) == ("rect", "width")]
    left = [100 * n / 77 for n in (0, 77, 47, 30, 45, 2, 0, 45)]  # left over and taken, row by row
    assert bars[: len(left)] == pytest.approx(left, abs=0.01)


def test_yield_is_told_apart_by_strategy(tmp_path):
    strategies = {
        name: {"slots": 3, "judged": n + 16, "accepted": n, "rejected": {"novelty": 15, "unparsable": 1}}
        for name, n in (("alpaca", 25), ("evol-instruct", 20))
    }
    page, _, _ = written(tmp_path, make_run(tmp_path / "run", strategies=strategies))
    assert "alpaca evol-instruct candidates 77 100.0% 41 36" in page.text
    assert "accepted 45 58.4% 25 20" in page.text


def test_long_text_is_cut_and_says_so(tmp_path):
    page, _, _ = written(tmp_path, make_run(tmp_path / "run", text="x" * 3000, n=1))
    assert "(1,002 more characters)" in page.text
    assert "x" * 2100 not in page.text


def test_what_was_just_accepted_and_just_rejected(tmp_path):
    _, html, _ = written(tmp_path, make_run(tmp_path / "run", n=5))
    section = html[html.index('id="threshold"') : html.index('id="examples"')]
    accepted, rejected = section.split("Just rejected")
    assert "0.500" in accepted
    assert "0.900" in rejected
    assert "".join(re.findall("<mark>(.*?)</mark>", accepted)).startswith("Nameariver")


def test_training_is_shown_with_tokens_and_dropped_rows(tmp_path, everything):
    page, html, _ = written(tmp_path, *everything)
    assert "Held-back loss 3.125 → 2.250" in page.text
    assert "too_long has more tokens than were allowed 1" in page.text
    assert '<span class="tok special">&lt;|user|&gt;</span>' in html
    assert '<span class="tok learnt">a⏎</span>' in html
    for name in ("loss", "learning-rate", "tokens-per-s"):
        assert ("figure", "id", name) in page.attributes


def test_training_under_way_shows_its_steps(tmp_path):
    train = make_training(tmp_path / "train")
    (train / "summary.json").unlink()
    with open(train / "metrics.jsonl", "a") as file:
        file.write('{"step": 41, "lo')
    page, _, summary = written(tmp_path, make_run(tmp_path / "run"), train)
    assert "The training has not ended; these are its steps so far." in page.text
    assert "train is not finished; the same finetune command resumes it." in summary.missing
    assert ("figure", "id", "loss") in page.attributes


def test_answers_and_their_changes_are_shown(tmp_path, everything):
    lineage = make_lineage(tmp_path / "lineage.json")
    page, _, _ = written(tmp_path, *everything, lineage=lineage)
    assert "Cluster Model Answers Ended Cut Empty Off format sentiment base 40 90.0% 7.5% 2.5% 25.0%" in page.text
    assert "2 of the 12 items whose score changed" in page.text
    assert "Before, 0.0 a lake After, 100.0 a river" in page.text
    assert "alpaca with m, slot 3" in page.text
    assert "seed seed-1: Which river is it?" in page.text
    assert "No training row has a word in common with it." in page.text


def test_further_comparisons_stand_side_by_side(tmp_path, everything):
    other = json.loads(make_comparison(tmp_path / "other.json").read_text()) | {"tuned": "runs/few-shot"}
    compare = make_comparison(tmp_path / "compare.json", further=[other], warnings=["3 prompts differ"])
    page, _, _ = written(tmp_path, *everything, compare=compare)
    assert page.text.count("few-shot 55.0 +15.0") == 3  # all items, and both clusters
    assert "the accuracy of few-shot went from 40.0 to 55.0" in page.text
    assert "tuned: 3 prompts differ." in page.text


def test_evaluations_without_comparison_stand_side_by_side(tmp_path, everything):
    page, _, summary = written(tmp_path, *everything)
    assert "sentiment accuracy, 60 items base 40.0 30.0 to 50.0 tuned 55.0 45.0 to 65.0" in page.text
    assert "Verdict" not in page.text[page.text.index("Held-out results Scores") :]
    assert any("without a verdict" in sentence for sentence in summary.missing)


def test_missing_parts_are_left_out_with_a_sentence(tmp_path):
    (tmp_path / "run").mkdir()
    write_text(tmp_path / "run" / "run.toml", "")
    write_text(tmp_path / "train" / "train.toml", "x = 1")
    page, html, summary = written(tmp_path, tmp_path / "run", tmp_path / "train")
    assert len(summary.missing) == 3
    assert all(sentence in page.text for sentence in summary.missing)
    assert "There is nothing to report yet." in page.text
    assert "train is not finished" in page.text
    assert re.findall("<h2[^>]*>([^<]*)", html) == ["Configuration and versions"]
    assert [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")] == ["#main", "#settings"]


def test_hostile_text_stays_text(tmp_path):
    strategies = {name: {"slots": 1, "judged": 1, "accepted": 1, "rejected": {HOSTILE: 1}} for name in (HOSTILE, "b")}
    figures = {"rejected": {HOSTILE: 3}, "closed_by": HOSTILE, "strategies": strategies}
    run = make_run(tmp_path / "run", text=HOSTILE, **figures)
    evaluation = make_evaluation(tmp_path / "base", 0.4, None, cluster=HOSTILE)
    compare = make_comparison(tmp_path / "c.json", cluster=HOSTILE, verdict=HOSTILE, warnings=[HOSTILE])
    lineage = make_lineage(tmp_path / "l.json", text=HOSTILE)
    page, html, _ = written(
        tmp_path, run, make_training(tmp_path / "train", HOSTILE), evaluation, compare=compare, lineage=lineage
    )
    assert {"img", "iframe", "object"} & set(page.tags) == set()
    kinds = [value for tag, name, value in page.attributes if (tag, name) == ("script", "type")]
    assert page.tags.count("script") == len(kinds) + 1  # our own
    assert set(kinds) == {"application/octet-stream"}
    assert [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"] == []
    assert html.count("</style>") == 1
    assert html.count("</script>") == len(kinds) + 1
    assert not {"\x1b", "\u202e"} & set(html)
    assert "{{ 7 * 7 }}" in page.text
    assert html.count("&lt;script&gt;") > 20
    texts = json.dumps([packed(html, 'rows="accepted"'), packed(html, 'rows="rejected"')], ensure_ascii=False)
    assert "<script>" in texts  # only ever put into text nodes
    assert not {"\x1b", "\u202e"} & set(texts)


def test_nothing_is_loaded_and_only_our_style_and_script_apply(tmp_path, everything):
    page, html, _ = written(tmp_path, *everything, compare=make_comparison(tmp_path / "compare.json"))
    assert "http:" not in html
    assert "https:" not in html
    assert [value for _, name, value in page.attributes if name in ("src", "srcset", "action", "data")] == []
    links = [value for _, name, value in page.attributes if name == "href"]
    assert all(link.startswith("#") or link == "data:," for link in links)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert len(ids) == len(set(ids))
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and value.startswith("default-src"))
    for kind in ("style", "script"):
        (own,) = re.findall(f"<{kind}>(.*?)</{kind}>", html, re.S)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_page_is_accessible(tmp_path, everything):
    page, html, _ = written(tmp_path, *everything, compare=make_comparison(tmp_path / "compare.json"))
    assert ("html", "lang", "en") in page.attributes
    assert page.tags.count("h1") == 1
    assert page.tags.count("caption") == page.tags.count("table") > 3
    for svg in re.findall("<svg.*?>", html, re.S):
        assert 'role="img" aria-label=' in svg or 'aria-hidden="true"' in svg
    assert len(re.findall('<figure id="[^"]*">.*?</figure>', html, re.S)) > 5
    for figure in re.findall('<figure id="[^"]*">.*?</figure>', html, re.S):
        assert "<table>" in figure  # the figures behind the chart


def test_home_folder_is_not_named(tmp_path, everything, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_text(everything[0] / "run.toml", to_toml({"generate": {"out": str(tmp_path / "river")}}))
    page, html, _ = written(tmp_path, *everything)
    assert "generate.out ~/river" in page.text
    assert str(tmp_path) not in html


def test_same_input_gives_the_same_page(tmp_path, everything):
    _, first, _ = written(tmp_path, *everything)
    (tmp_path / "report.html").unlink()
    assert written(tmp_path, *everything)[1] == first


def test_report_is_not_replaced_unasked(tmp_path):
    run, out = make_run(tmp_path / "run"), tmp_path / "report.html"
    out.write_text("precious")
    with pytest.raises(UsageError, match="--overwrite"):
        report(ReportConfig(run=run, out=out))
    assert out.read_text() == "precious"
    report(ReportConfig(run=run, out=out, overwrite=True))
    assert out.read_text() != "precious"


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (lambda root: (root / "empty").mkdir(), "holds neither a training nor an evaluation"),
        (lambda root: None, "no such folder"),
        (lambda root: write_text(make_training(root / "empty") / "metrics.jsonl", '{"step": 1}\n'), "metrics.jsonl:1"),
        (lambda root: write_json(make_training(root / "empty") / "summary.json", {}), "field 'rows_used': is missing"),
    ],
)
def test_wrong_folder_or_file_is_named(tmp_path, break_it, problem):
    run = make_run(tmp_path / "run")
    break_it(tmp_path)
    with pytest.raises(InputError, match=problem):
        written(tmp_path, run, tmp_path / "empty")
    assert not (tmp_path / "report.html").exists()


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        written(tmp_path, tmp_path)


def test_folders_that_cannot_be_shown_together(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(UsageError, match="both trainings"):
        written(tmp_path, run, make_training(tmp_path / "a"), make_training(tmp_path / "b"))
    twins = [make_evaluation(tmp_path / parent / "base", 0.4, None) for parent in "ab"]
    with pytest.raises(UsageError, match="are called 'base'"):
        written(tmp_path, run, *twins)


# -- while a run goes on -----------------------------------------------------------------------------------------------


def test_watching_ends_with_the_run(tmp_path, caplog):
    run, out = make_run(tmp_path / "run"), tmp_path / "report.html"
    summary_text = (run / "summary.json").read_text()
    (run / "summary.json").unlink()

    def end_it():
        while not out.exists():
            time.sleep(0.01)
        assert 'data-reload-s="0.05"' in out.read_text()
        write_text(run / "summary.json", summary_text)

    ending = threading.Thread(target=end_it)
    ending.start()
    summary = report(ReportConfig(run=run, out=out, watch=0.05))
    ending.join()
    assert hashlib.sha256(out.read_bytes()).hexdigest() == summary.sha256
    assert "data-reload-s=" not in out.read_text()
    assert "Of 77 candidate tasks" in out.read_text()
    assert "is written anew every 0.05 s" in caplog.text


def test_watching_waits_for_training_and_evaluations(tmp_path, everything):
    train = everything[2]
    summary_text = (train / "summary.json").read_text()
    (train / "summary.json").unlink()
    out = tmp_path / "report.html"
    watching = threading.Thread(
        target=report, args=[ReportConfig(run=everything[0], others=list(everything[1:]), out=out, watch=0.05)]
    )
    watching.start()
    while not out.exists():
        time.sleep(0.01)
    time.sleep(0.2)
    assert watching.is_alive()
    write_text(train / "summary.json", summary_text)
    watching.join(timeout=20)
    assert not watching.is_alive()


def test_ctrl_c_ends_watching_with_its_own_exit_code(tmp_path, monkeypatch, capsys):
    run, out = make_run(tmp_path / "run"), tmp_path / "report.html"
    (run / "summary.json").unlink()
    monkeypatch.setattr(time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run_program(GROUP, "selfinstruct", ["report", str(run), "--out", str(out), "--watch"]) == 130
    assert f"{out} is as it was written last" in capsys.readouterr().err
    assert "Accepted tasks" in out.read_text()


def test_folder_of_a_recipe_is_taken_apart(tmp_path):
    root = tmp_path / "demo"
    make_run(root / "generate")
    make_training(root / "train")
    make_evaluation(root / "evaluate-base", 0.4, None)
    write_text(root / "evaluate-base" / "evaluate.toml", "x = 1")
    page, _, _ = written(tmp_path, root)
    assert "Instruction-tuning report demo" in page.text
    assert {"#training", "#results"} <= {value for _, name, value in page.attributes if name == "href"}
