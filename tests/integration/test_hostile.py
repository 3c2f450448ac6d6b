"""Over 2,000 hostile texts from the teacher, through generation, to the terminal, cards and exports."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from finetune.cli import GROUP as FINETUNE
from selfinstruct.cli import GROUP as SELFINSTRUCT
from selfinstruct.command import run_program
from selfinstruct.files import write_jsonl
from tests.generating import ROOT, arguments, rows, summary
from tests.hostile import MODEL, everything_goes, generate_hostile, payloads
from tests.predicting import predictions, write
from tests.tiny import build_tiny_llama

PAYLOADS = payloads()
# What drives a terminal, or turns its text around; only new lines and tabs may come through.
DRIVES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
COLOUR = re.compile(r"\x1b\[[\d;]*m")
SHOWN_IN_CARDS = {
    "h1", "h2", "h3", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code", "pre", "a",
}  # fmt: skip


def stored(text: str) -> str:
    """Text as a field of a task keeps it: with a UTF-8 form, and trimmed."""
    return text.encode("utf-8", "replace").decode().strip()


def in_a_line(text: str) -> str:
    return " ".join(stored(text).split())


@pytest.fixture(scope="module")
def run(shared: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without filters: all of them are accepted."""
    out = tmp_path_factory.mktemp("hostile") / "run \x1b[31m<b>|x"
    assert generate_hostile(out, shared, without=everything_goes()) == 0
    return out


@pytest.fixture(scope="module")
def filtered(shared: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the usual filters, which reject most of them, until no request is left."""
    out = tmp_path_factory.mktemp("filtered") / "run"
    assert generate_hostile(out, shared, saturation_window=10_000) == 4
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", hidden_size=64)


# -- data --------------------------------------------------------------------------------------------------------------


def test_there_are_enough_of_them() -> None:
    assert len(PAYLOADS) == len({payload.mark for payload in PAYLOADS}) > 2000
    assert all(payload.mark in payload.text for payload in PAYLOADS)


def test_every_text_is_kept_as_it_came(run: Path) -> None:
    assert summary(run)["accepted"] == len(PAYLOADS)
    found = rows(run / "dataset.jsonl")
    texts = [payload.text for payload in PAYLOADS]
    assert Counter(row["instruction"] for row in found) == Counter(map(in_a_line, texts))
    assert (
        Counter(row["input"] for row in found) == Counter(row["output"] for row in found) == Counter(map(stored, texts))
    )
    assert {row["source"]["model"] for row in found} == {MODEL}


def test_every_rejected_text_is_kept_with_a_reason(filtered: Path) -> None:
    found = [row["instruction"] for row in rows(filtered / "dataset.jsonl")]
    rejected = [row["candidate"]["instruction"] for row in rows(filtered / "rejected.jsonl")]
    assert len(rejected) > len(found) > 0
    assert Counter(found + rejected) == Counter(in_a_line(payload.text) for payload in PAYLOADS)
    assert all(row["rule"] for row in rows(filtered / "rejected.jsonl"))


@pytest.mark.parametrize("form", ["alpaca", "messages", "sharegpt", "completion", "parquet"])
def test_exports_are_valid_and_give_the_same_text_back(run: Path, form: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{'parquet' if form == 'parquet' else 'json'}"
    assert run_program(SELFINSTRUCT, "selfinstruct", ["export", str(run), "--format", form, "--out", str(out)]) == 0
    builder = "parquet" if form == "parquet" else "json"
    read = datasets.load_dataset(builder, data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    answer = {
        "messages": lambda row: row["messages"][1]["content"], "sharegpt": lambda row: row["conversations"][1]["value"],
        "completion": lambda row: row["completion"],
    }.get(form, lambda row: row["output"])  # fmt: skip
    assert [answer(row) for row in read] == [row["output"] for row in rows(run / "dataset.jsonl")]


# -- terminal ----------------------------------------------------------------------------------------------------------


def printed_by(command: list[str], capfd: pytest.CaptureFixture[str], code: int = 0) -> str:
    """What a command prints on both streams, without a terminal, so that no colour is its own."""
    group = FINETUNE if command[0] in ("inspect", "compare", "lineage") else SELFINSTRUCT
    assert run_program(group, "p", command) == code
    printed = capfd.readouterr()
    return printed.out + printed.err


def test_commands_on_a_run_drive_no_terminal(run: Path, filtered: Path, tmp_path: Path, capfd: Any) -> None:
    name = f"{run.name}\x9b2J\u202e"
    commands = [
        ["status", str(run)], ["status", str(run), "--json"], ["status", str(filtered)],
        ["export", str(run), "--out", str(tmp_path / f"{name}.json")],
        ["export", str(run), "--out", str(tmp_path / f"{name}.json"), "--overwrite", "--json"],
        ["card", str(run), "--out", str(tmp_path / f"{name}.md"), "--teacher-terms", MODEL],
        ["report", str(filtered), "--out", str(tmp_path / f"{name}.html")],
        ["refilter", str(filtered), "--out", str(tmp_path / f"{name} again")],
        ["novelty", str(filtered / "rejected.jsonl"), "--field", "detail", "--out", str(tmp_path / f"{name}.jsonl")],
        ["generate", "--out", str(run), "--model", MODEL, "--print-config"],
    ]  # fmt: skip
    for command in commands:
        printed = printed_by(command, capfd)
        assert printed
        assert not DRIVES.search(printed), command
    assert not DRIVES.search(printed_by(["status", str(tmp_path / name)], capfd, code=2))


def test_generation_drives_no_terminal(shared: Any, tmp_path: Path, capfd: Any) -> None:
    assert generate_hostile(tmp_path / "run\x1b[2J", shared, without=everything_goes()) == 0
    printed = "".join(capfd.readouterr())
    assert "2555 accepted" in printed
    assert not DRIVES.search(printed)
    # What an endpoint says of an error is printed too.
    shared.set(script={}, require_key="k")
    assert generate_hostile(tmp_path / "refused", shared) == 3
    assert not DRIVES.search("".join(capfd.readouterr()))


def test_progress_in_a_terminal_shows_nothing_of_the_texts(shared: Any, tmp_path: Path) -> None:
    generate_hostile(tmp_path / "first", shared)  # sets the script
    command = [
        *arguments(tmp_path / "run", shared.base_url), "--strategy", "alpaca:structured=true", "--endpoint", "chat",
        "--tasks-per-request", "50", "--max-requests", "40",
    ]  # fmt: skip
    seen = in_a_terminal([sys.executable, "-m", "selfinstruct", *command])
    assert "accepted" in seen
    assert not re.search(r"zq\d+x", seen)


def in_a_terminal(command: list[str], typed: bytes = b"") -> str:
    """What a command prints where both streams are a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True):
        os.close(theirs)
        os.write(ours, typed)
        seen = b""
        try:
            while block := os.read(ours, 1 << 16):
                seen += block
        except OSError:  # the other end was closed
            pass
    os.close(ours)
    return seen.decode("utf-8", "replace")


def test_inspect_drives_no_terminal(run: Path, model: Path, tmp_path: Path, capfd: Any) -> None:
    data = tmp_path / "rows\x9b7m.jsonl"
    write_jsonl(data, rows(run / "dataset.jsonl")[::10])
    command = ["inspect", "--data", str(data), "--model", str(model), "--rows", "300"]
    printed = printed_by(command, capfd)
    assert "row 200:" in printed  # some are too long to be trained on
    assert not DRIVES.search(printed)
    assert not DRIVES.search(printed_by([*command, "--json"], capfd))
    coloured = in_a_terminal([sys.executable, "-m", "finetune", *command])
    assert COLOUR.search(coloured)
    assert not DRIVES.search(COLOUR.sub("", coloured).replace("\r\n", "\n"))


def test_compare_and_lineage_drive_no_terminal(run: Path, tmp_path: Path, capfd: Any) -> None:
    texts = [payload.text for payload in PAYLOADS[::4]]
    base = [
        replace(p, cluster=f"c{number % 3}\x9b2J\x1b[1m", task=MODEL, prompt=text, prediction=text)
        for number, (p, text) in enumerate(zip(predictions([0] * len(texts)), texts, strict=True))
    ]
    tuned = [replace(p, prediction=f"{p.prediction}!", score=1.0) for p in base]
    write_jsonl(tmp_path / "tasks.jsonl", [
        {"id": p.item, "task": "t", "cluster": "c", "instruction": text, "input": text, "references": ["a"]}
        for p, text in zip(base, texts, strict=True)
    ])  # fmt: skip
    folders = [str(write(tmp_path / name, rows)) for name, rows in (("base\x1b[7m", base), ("tuned", tuned))]
    for command in (
        ["compare", *folders], ["compare", *folders, "--json"],
        ["lineage", *folders, "--training-data", str(run), "--tasks", str(tmp_path / "tasks.jsonl"), "--limit", "1000"],
        ["lineage", *folders, "--training-data", str(run), "--tasks", str(tmp_path / "tasks.jsonl"), "--json"],
    ):  # fmt: skip
        printed = printed_by(command, capfd)
        assert len(printed) > 1000
        assert not DRIVES.search(printed), command[0]


def test_chat_drives_no_terminal(model: Path) -> None:
    """A model with random weights says whatever bytes it likes."""
    messages = "".join(f"{in_a_line(payload.text)[:200]}\n" for payload in PAYLOADS[::120])
    command = [
        sys.executable,
        "-m",
        "finetune",
        "chat",
        "--model",
        str(model),
        "--max-tokens",
        "40",
        "--temperature",
        "2",
    ]
    done = subprocess.run(command, cwd=ROOT, input=messages.encode(), capture_output=True, timeout=120, check=False)
    printed = (done.stdout + done.stderr).decode("utf-8")
    assert "alert" not in printed
    assert "\\x" in printed  # it did say some
    assert not DRIVES.search(printed)


def test_errors_drive_no_terminal(tmp_path: Path, capfd: Any) -> None:
    for number, payload in enumerate(PAYLOADS[::40]):
        path = tmp_path / f"{number}\x9b.jsonl"
        path.write_text(json.dumps({payload.text: 1, "instruction": payload.text, "output": [payload.text]}) + "\n")
        printed = printed_by(["export", str(path), "--out", str(tmp_path / "out")], capfd, code=2)
        assert "error: " in printed
        assert not DRIVES.search(printed)


# -- cards -------------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Tags and attributes of what a Markdown renderer made of a card, HTML let through."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str, str | None]] = set()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(tag, name, value) for name, value in attrs}

    def handle_comment(self, data: str) -> None:
        self.tags.add("!--")

    def handle_decl(self, decl: str) -> None:
        self.tags.add("!")


@pytest.mark.parametrize("place", range(0, len(PAYLOADS), 37))
def test_nothing_takes_effect_in_a_card(place: int, run: Path, tmp_path: Path) -> None:
    """A card of a run whose name, teacher, first task and terms are hostile."""
    text = PAYLOADS[place].text
    name = in_a_line(text).replace("\0", "")[:2000]
    out = tmp_path / "README.md"
    command = ["card", str(run), "--out", str(out), "--pretty-name", name, "--teacher-terms", name]
    assert run_program(SELFINSTRUCT, "selfinstruct", command) == 0
    content = out.read_text("utf-8")
    assert not DRIVES.search(content)
    read = DatasetCard.load(out)
    assert read.data.pretty_name == name
    assert set(yaml.safe_load(content.split("\n---\n")[0].removeprefix("---\n"))) == set(read.data.to_dict())
    page = Tags(MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(read.text))
    assert page.tags <= SHOWN_IN_CARDS
    allowed = {("code", "class", f"language-{language}") for language in ("json", "text", "python")}
    links = {(tag, key, value) for tag, key, value in page.attributes - allowed if tag == "a" and value == name}
    assert page.attributes - allowed == links
    assert all(value and value.startswith("https://") for _, _, value in links)
