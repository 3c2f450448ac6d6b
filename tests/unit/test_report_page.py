import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from selfinstruct.dataset import dataset_rows
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import to_toml, write_json, write_jsonl, write_text
from selfinstruct.records import Example, Instance, Neighbour, Source
from selfinstruct.report_page import ReportConfig, describe, report

HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7 * 7 }}\x1b[31m\u202e"
VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on one that is not well nested."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def example(index, text):
    return Example(
        str(index), text, (Instance(text, f"answer {index}"),), False,
        source=Source("alpaca", "m", index, "p", "c", ()), nearest=(Neighbour(str(index - 1), 0.5),),
    )  # fmt: skip


def make_run(folder, text="Name a river.", n=45, **summary):
    write_jsonl(folder / "dataset.jsonl", (r for i in range(n) for r in dataset_rows(example(i, f"{text} {i}"))))
    rejected = [("novelty", i) for i in range(30)] + [("unparsable", 0)] * 2
    write_jsonl(
        folder / "rejected.jsonl",
        (
            {
                "candidate": {"instruction": f"{text} again {i}", "input": "", "output": ""}, "rule": rule,
                "detail": f"detail {text}", "nearest": [{"id": "1", "score": 0.9}], "source": None,
            }
            for rule, i in rejected
        ),
    )  # fmt: skip
    figures = {
        "accepted": n, "rejected": {"unparsable": 2, "novelty": 30}, "requests": {"sent": 50, "unused": 1},
        "tokens": {"prompt": 12345, "completion": 678}, "cost_usd": None, "elapsed_s": 4000.0, "closed_by": "target",
        "dataset_sha256": "0",
    }  # fmt: skip
    write_json(folder / "summary.json", figures | summary)
    write_text(folder / "run.toml", to_toml({"generate": {"model": text, "seed": 7}, "versions": {"openai": "3.1"}}))
    return folder


def make_training(folder, text="too_long"):
    lines = [{"step": s, "loss": 3 - s / 50, "learning_rate": 2e-4, "tokens_per_s": 90.0} for s in range(1, 41)]
    lines[-1]["eval_loss"] = 2.25
    write_jsonl(folder / "metrics.jsonl", lines)
    write_text(folder / "train.toml", to_toml({"config": {"rank": 16}, "files": [{"path": text}]}))
    write_json(
        folder / "summary.json",
        {
            "rows_used": 44, "rows_dropped": {text: 1}, "train_loss": 2.6, "eval_loss_before": 3.125, "eval_loss": 2.25,
            "tokens_per_s": 91.0, "elapsed_s": 60.0, "mfu": None,
        },
    )  # fmt: skip
    return folder


def make_evaluation(folder, mean, adapter, cluster="sentiment"):
    score = {"metric": "accuracy", "n": 60, "mean": mean, "ci95": [mean - 0.1, mean + 0.1]}
    write_jsonl(folder / "predictions.jsonl", [])
    write_json(
        folder / "summary.json",
        {
            "model": "m", "adapter": adapter, "n": 60, "overall": {"accuracy": score}, "clusters": {cluster: score},
            "tasks": {}, "truncated": 3, "unscored": 0, "elapsed_s": 1.0,
        },
    )  # fmt: skip
    return folder


def make_comparison(path, cluster="sentiment", verdict="better", **more):
    change = {
        "metric": "accuracy", "n": 60, "base": 0.4, "tuned": 0.55, "delta": 0.15, "ci95": [0.03, 0.27], "p": 0.01,
        "minimal_detectable_effect": 0.12, "verdict": verdict,
    }  # fmt: skip
    clusters = {cluster: change, "topic": {**change, "verdict": "no significant change", "ci95": None}}
    folders = {"base": str(path.parent / "base"), "tuned": str(path.parent / "tuned")}
    write_json(path, {**folders, "clusters": clusters, "overall": {"accuracy": change}, **more})
    return path


def written(tmp_path, run, *others, compare=None):
    out = tmp_path / "report.html"
    summary = report(ReportConfig(run=run, others=list(others), compare=compare, out=out))
    html = out.read_text()
    assert summary.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    return Page(html), html, summary


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
    assert "sentiment: base 40.0 (30.0 to 50.0), tuned 55.0 (45.0 to 65.0)" in page.text
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


def test_samples_are_even_and_say_so(tmp_path, everything):
    page, _, _ = written(tmp_path, *everything)
    assert "20 of 45, evenly spread over the run" in page.text
    shown = [int(n) for n in re.findall(r"Output answer (\d+)", page.text)]
    assert (len(shown), shown[0], shown[-1]) == (20, 0, 44)
    assert {b - a for a, b in pairwise(shown)} == {2, 3}
    assert "10 of 30, evenly spread. Name a river. again 0" in page.text
    assert "All 2." in page.text
    assert "Most similar, ROUGE-L 0.50: Name a river. 43" in page.text
    assert "10 of 40 logged steps" in page.text


def test_figures_of_the_yield(tmp_path, everything):
    page, _, _ = written(tmp_path, *everything)
    assert "45 of 77" in page.text
    assert "novelty too similar to a task that is already there 30 39.0%" in page.text
    bars = [float(value) for tag, name, value in page.attributes if (tag, name) == ("rect", "width")]
    assert bars == pytest.approx([4500 / 77, 3000 / 77, 200 / 77])


def test_long_text_is_cut_and_says_so(tmp_path):
    page, _, _ = written(tmp_path, make_run(tmp_path / "run", text="x" * 2000, n=1))
    assert "(502 more characters)" in page.text
    assert "x" * 1600 not in page.text


def test_further_comparisons_have_their_own_table(tmp_path, everything):
    other = json.loads(make_comparison(tmp_path / "other.json").read_text()) | {"tuned": "runs/few-shot"}
    compare = make_comparison(tmp_path / "compare.json", further=[other], warnings=["3 prompts differ"])
    page, _, _ = written(tmp_path, *everything, compare=compare)
    assert page.text.count("Tuned: ") == 2
    assert "Tuned: few-shot" in page.text
    assert "3 prompts differ" in page.text


def test_evaluations_without_comparison_stand_side_by_side(tmp_path, everything):
    page, _, summary = written(tmp_path, *everything)
    assert "Cluster base tuned sentiment 40.0 (30.0 to 50.0) 55.0 (45.0 to 65.0)" in page.text
    assert any("without a verdict" in sentence for sentence in summary.missing)


def test_missing_parts_are_left_out_with_a_sentence(tmp_path):
    (tmp_path / "run").mkdir()
    write_text(tmp_path / "run" / "run.toml", "")
    write_text(tmp_path / "train" / "train.toml", "")
    page, html, summary = written(tmp_path, tmp_path / "run", tmp_path / "train")
    assert len(summary.missing) == 3
    assert all(sentence in page.text for sentence in summary.missing)
    assert "There is nothing to report yet." in page.text
    assert "train is not finished" in page.text
    assert re.findall("<h2[^>]*>([^<]*)", html) == ["Configuration and versions"]


def test_hostile_text_stays_text(tmp_path):
    run = make_run(tmp_path / "run", text=HOSTILE, rejected={HOSTILE: 3}, closed_by=HOSTILE)
    evaluation = make_evaluation(tmp_path / "base", 0.4, None, cluster=HOSTILE)
    compare = make_comparison(tmp_path / "c.json", cluster=HOSTILE, verdict=HOSTILE, warnings=[HOSTILE])
    page, html, _ = written(tmp_path, run, make_training(tmp_path / "train", HOSTILE), evaluation, compare=compare)
    assert {"script", "img", "iframe", "object"} & set(page.tags) == set()
    assert [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"] == []
    assert html.count("</style>") == 1
    assert not {"\x1b", "\u202e"} & set(html)
    assert "{{ 7 * 7 }}" in page.text
    assert html.count("&lt;script&gt;") > 20


def test_nothing_is_loaded_and_only_our_style_applies(tmp_path, everything):
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
    style = re.search("<style>(.*?)</style>", html, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_page_is_accessible(tmp_path, everything):
    page, html, _ = written(tmp_path, *everything, compare=make_comparison(tmp_path / "compare.json"))
    assert ("html", "lang", "en") in page.attributes
    assert page.tags.count("h1") == 1
    assert page.tags.count("caption") == page.tags.count("table") > 3
    for svg in re.findall("<svg.*?</svg>", html, re.S):
        assert "<title>" in svg or 'aria-hidden="true"' in svg


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
