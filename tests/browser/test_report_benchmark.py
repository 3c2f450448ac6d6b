"""The benchmark of large pages still runs and measures what it says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.browser.conftest import browser_path
from tests.generating import ROOT


def test_pages_are_written_opened_and_used(tmp_path):
    pytest.importorskip("playwright", reason="the package playwright is not installed")
    if browser_path() is None:
        pytest.skip("no browser is installed")
    command = [sys.executable, "-m", "benchmarks.report", "--rows", "60,600", "--repeat", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    costs = json.loads((tmp_path / "out").read_text())["costs"]
    assert [(one["rows"], one["shown"]) for one in costs] == [(60, 60), (600, 600)]
    assert costs[0]["mb"] < costs[1]["mb"] < 25
    assert all(0 < one[name] < 60 for one in costs for name in ("usable_s", "first_search_s", "search_s", "turn_s"))
    assert "| 60 rows | 600 rows |" in done.stdout
