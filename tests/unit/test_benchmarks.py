"""The benchmark programs still run and measure what they say; how good the figures are is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.crash_survival import KINDS, MOMENTS
from tests.generating import ROOT

ARGUMENTS = {"crash_survival": ("--kills", "3"), "ledger": ("--rows", "2000", "--accepted", "100")}


def start(program, *arguments):
    command = [sys.executable, "-m", f"benchmarks.{program}", *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """(Raw figures, what is printed) of each program; they run at the same time, since they mostly wait."""
    folder, results = tmp_path_factory.mktemp("benchmarks"), {}
    processes = {name: start(name, *given, "--out", str(folder / name)) for name, given in ARGUMENTS.items()}
    for name, process in processes.items():
        printed, errors = process.communicate(timeout=300)
        assert process.returncode == 0, printed + errors
        results[name] = json.loads((folder / name).read_text()), printed
    return results


@pytest.mark.parametrize("program", ["teacher", "server", "crash_survival", "ledger", "evaluation"])
def test_every_program_has_help(program):
    printed, errors = start(program, "--help").communicate(timeout=60)
    assert printed.startswith("usage:"), errors


def test_killed_runs_are_counted(results):
    figures, printed = results["crash_survival"]
    runs = figures["runs"]
    kills = [kill for run in runs for kill in run["kills"]]
    assert len(kills) >= 3
    assert all(kill["moment"] in MOMENTS and kill["began_s"] < kill["at_s"] for kill in kills)
    for run in runs:
        assert run["kind"] in map(str, KINDS)
        assert run["identical"]
        assert run["answered"] >= 10
        assert 0 < run["billed_usd"] <= run["charged_usd"]
        assert run["twice"] == run["twice_in_flight"] <= sum(kill["n_open"] for kill in run["kills"])
    table = {row.split("|")[1].strip(): row.split("|")[-2].strip() for row in printed.splitlines() if "|" in row}
    assert (table["runs"], table["kills"]) == (str(len(runs)), str(len(kills)))
    assert table["data sets identical"] == str(len(runs))


def test_ledgers_of_both_lengths_are_measured(results):
    figures, printed = results["ledger"]
    costs = figures["costs"]
    assert [cost["rows"] for cost in costs] == [200] * 5 + [2000] * 5
    assert all(0 < cost["seconds"] < 60 and 10 < cost["peak_mib"] < 1000 for cost in costs)
    assert all(f"| {cost['what']} |" in printed for cost in costs)
