"""The benchmark programs still run and measure what they say; how good the figures are is no test's business."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from benchmarks.crash_survival import KINDS, MOMENTS
from benchmarks.strategies import STRATEGIES
from benchmarks.texts import pool_and_candidates
from tests.generating import ROOT

ARGUMENTS = {
    "crash_survival": ("--kills", "3"),
    "ledger": ("--rows", "2000", "--accepted", "100"),
    "statistics_simulation": ("--experiments", "10"),
    "novelty": ("data/seed_tasks.jsonl", "--quick", "--pools", "150,2500"),
    "strategies": ("--model", "scripted", "--num-instructions", "20"),
}


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


@pytest.mark.parametrize("program", ["teacher", "server", "novelty_chart", "evaluation", "exports", *ARGUMENTS])
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


def test_novelty_is_measured_for_all_contenders_in_all_pools(results):
    figures, printed = results["novelty"]
    costs = figures["costs"]
    contenders = list(dict.fromkeys(cost["contender"] for cost in costs))
    assert [(cost["contender"], cost["n_pool"]) for cost in costs] == [(c, n) for n in (150, 2500) for c in contenders]
    assert all(f"| {contender} |" in printed for contender in contenders)
    assert all(cost["time"]["cpu_s"] > 0 for cost in costs)
    of = {cost["contender"]: cost for cost in costs}  # in the larger pool
    assert of["this index"]["time"]["cpu_s"] < of["rouge_score's loop"]["time"]["cpu_s"] / 100
    assert 0 < of["MinHash LSH, J >= 0.7"]["recall"] < 1
    for figure in figures["figures"]:
        assert figure["value"] > 0 and f"| {figure['what']} |" in printed


def test_texts_for_novelty_are_real_ones_then_made_ones():
    real = ["Name three birds of the sea.", "Name two rivers of the north.", "Describe the sea."]
    pool, candidates = pool_and_candidates(real, 500, 100)
    assert pool[:3] == real
    assert (pool, candidates) == pool_and_candidates(real, 500, 100)
    known = {word for text in real for word in text.split()}
    made = [word for text in [*pool[3:], *candidates] for word in text.split()]
    assert known & set(made)
    assert all(word in known or re.fullmatch(r"w\d+", word) for word in made)


def test_strategies_are_run_to_their_end(results):
    figures, printed = results["strategies"]
    yields = {one["strategy"]: one for one in figures["yields"]["scripted"]}
    assert list(yields) == list(STRATEGIES)
    for strategy, one in yields.items():
        assert f"| `{strategy}` | {one['requests']} |" in printed
        assert min(one["requests"], one["prompt_tokens"], one["completion_tokens"]) > 0
        assert (one["closed_by"], one["accepted"]) == ("target", 20) or "zh" in strategy
    # The endpoint writes English only.
    chinese = yields["self-instruct --language zh"]
    assert chinese["closed_by"] == "saturated"
    assert chinese["rejected"]["language"] > 10 * max(chinese["accepted"], 1)


def test_every_condition_is_simulated(results):
    figures, printed = results["statistics_simulation"]
    assert {(c["of"], c["scores"]) for c in figures["coverages"]} == {
        (of, scores) for of in ("mean", "difference") for scores in ("0 or 1", "ROUGE-like")
    }
    assert {c["correlation"] for c in figures["coverages"]} == {0, 0.25, 0.5}
    assert all(c["experiments"] == 10 and 0.5 < c["covered"] <= 1 for c in figures["coverages"])
    assert printed.count("| mean | ") == printed.count("| difference | ") == len(figures["coverages"]) / 2
    assert len(figures["false_verdicts"]) == 6
