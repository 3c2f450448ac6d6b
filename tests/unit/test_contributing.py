"""What CONTRIBUTING.md says of new filters and strategies: its examples, added to a copy of the package as it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpus import instruction
from tests.generating import ROOT, arguments, rows
from tests.server import running_server

EXAMPLE = re.compile(r"`(selfinstruct/\w+/\w+\.py)`, whole:\n\n```python\n(.*?)```", re.S)
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
UNIONS = {"filters": "AnyFilter", "strategies": "AnyStrategy"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A checkout whose package has the examples: each in its file, imported and named in its union."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "selfinstruct", root / "selfinstruct", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "data").symlink_to(ROOT / "data")
    examples = EXAMPLE.findall(TEXT)
    assert {Path(path).parent.name for path, _ in examples} == set(UNIONS)
    for path, code in examples:
        assert not (root / path).exists()
        (root / path).write_text(code, "utf-8")
        folder, module = Path(path).parent.name, Path(path).stem
        name = re.findall(r"^class (\w+)", code, re.M)[0]
        union = root / "selfinstruct" / folder / "union.py"
        text, n = re.subn(rf"({UNIONS[folder]} = Annotated\[\s*)", rf"\g<1>{name} | ", union.read_text("utf-8"))
        assert n == 1
        line = f"from selfinstruct.{folder}.{module} import {name}\n"
        union.write_text(text.replace("from selfinstruct.specs", f"{line}from selfinstruct.specs", 1), "utf-8")
    return root


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def test_the_filter_judges(copy):
    code = """
from selfinstruct.filters import Case
from selfinstruct.records import Candidate, Instance, Source
from selfinstruct.run_config import GenerateConfig

[one] = GenerateConfig(out=".", filter=["max-output-words:words=3"]).filter
for output in ("One two three.", "One two three four."):
    candidate = Candidate("x", "Count.", (Instance("", output),), False, Source("pair", "m", 0, "p", "c"))
    print(one, one.judge(Case(candidate, "en")))
"""
    done = run(copy, "-c", code)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "max-output-words:words=3 None",
        "max-output-words:words=3 Verdict(rule='too_wordy', detail='4 words, at most 3 wanted', nearest=())",
    ]


def test_the_strategy_and_the_filter_run(copy, tmp_path):
    answers = [
        f"Question: {instruction(31 * n + n)}\nAnswer: {'It is so. ' * (1 + n % 2)}" if n % 5 else "Nothing to ask."
        for n in range(60)
    ]
    with running_server(script={"^Here is a task: ": answers}) as server:
        flags = arguments(tmp_path, server.base_url, strategy="pair", filter="max-output-words:words=4")
        done = run(copy, "-m", "selfinstruct", *flags, "--num-instructions", "12")
        assert done.returncode == 0, done.stderr
    accepted, rejected = rows(tmp_path / "dataset.jsonl"), rows(tmp_path / "rejected.jsonl")
    assert [row["output"] for row in accepted] == 12 * ["It is so."]
    assert {row["source"]["strategy"] for row in accepted} == {"pair"}
    assert {"too_wordy", "unparsable"} <= {row["rule"] for row in rejected}


def test_the_examples_keep_the_house_rules(copy):
    files = [path for path, _ in EXAMPLE.findall(TEXT)]
    shutil.copy(ROOT / "pyproject.toml", copy)
    for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        done = run(copy, "-m", *command, *files)
        assert done.returncode == 0, done.stdout
