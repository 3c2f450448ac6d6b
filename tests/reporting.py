"""What the tests of the report share: folders as the commands leave them, and a page taken apart."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser

from selfinstruct.dataset import dataset_rows
from selfinstruct.files import to_toml, write_json, write_jsonl, write_text
from selfinstruct.records import Example, Instance, Neighbour, Source
from selfinstruct.report_page import ReportConfig, report

HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7 * 7 }}\x1b[31m\u202e"
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


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
    tokens = [("<|user|>", "given", True), (text, "given", False), ("a\n", "learnt", False)]
    row = {"place": f"{text}:1", "tokens": [{"id": 1, "text": t, "label": k, "special": s} for t, k, s in tokens]}
    write_json(folder / "tokens.json", {"rows": [row]})
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
    figures = {
        "n": 60, "generated": 40, "stop_rate": 0.9, "truncated": 3, "empty": 1, "off_format": 10,
        "mean_answer_characters": 5.0,
    }  # fmt: skip
    write_jsonl(folder / "predictions.jsonl", [])
    write_json(
        folder / "summary.json",
        {
            "model": "m", "adapter": adapter, "n": 60, "overall": {"accuracy": score}, "clusters": {cluster: score},
            "tasks": {}, "truncated": 3, "answers": {"clusters": {cluster: figures}}, "unscored": 0, "elapsed_s": 1.0,
        },
    )  # fmt: skip
    return folder


def make_lineage(path, text="Which river is it?"):
    origin = {
        "strategy": "alpaca", "model": "m", "slot": 3, "prompt": f"Write tasks. {text}", "seeds": ["seed-1"],
        "demonstrations": [{"id": "seed-1", "kind": "seed", "instruction": text}],
    }  # fmt: skip
    row = {
        "place": "run/dataset.jsonl:7", "id": "7", "score": 0.61, "instruction": f"Near: {text}", "input": "",
        "output": "the answer there", "origin": origin,
    }  # fmt: skip
    item = {
        "item": "topic-1", "task": "t", "cluster": "topic", "base": 0.0, "tuned": 1.0, "asked": text,
        "base_answer": "a lake", "tuned_answer": "a river", "rows": [row, {**row, "origin": None}],
    }  # fmt: skip
    write_json(path, {"base": "base", "tuned": "tuned", "n_changed": 12, "items": [item, {**item, "rows": []}]})
    return path


def make_comparison(path, cluster="sentiment", verdict="better", **more):
    change = {
        "metric": "accuracy", "n": 60, "base": 0.4, "tuned": 0.55, "delta": 0.15, "ci95": [0.03, 0.27], "p": 0.01,
        "minimal_detectable_effect": 0.12, "verdict": verdict,
    }  # fmt: skip
    clusters = {cluster: change, "topic": {**change, "verdict": "no significant change", "ci95": None}}
    folders = {"base": str(path.parent / "base"), "tuned": str(path.parent / "tuned")}
    write_json(path, {**folders, "clusters": clusters, "overall": {"accuracy": change}, **more})
    return path


def packed(html, name):
    """The packed rows of a table."""
    chunks = re.findall(f'<script type="application/octet-stream" data-{name}>([^<]*)</script>', html)
    return [row for chunk in chunks for row in json.loads(zlib.decompress(base64.b64decode(chunk)))]


def written(tmp_path, run, *others, **options):
    out = tmp_path / "report.html"
    summary = report(ReportConfig(run=run, others=list(others), out=out, **options))
    html = out.read_text()
    assert summary.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    return Page(html), html, summary
