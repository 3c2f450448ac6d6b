"""`selfinstruct generate` against a real server: what a run promises of its data, its ends, its resuming, its caps."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import stat
import threading
import time
from pathlib import Path
from random import Random

import pytest
from rouge_score import rouge_scorer, tokenize

from selfinstruct.dataset import read_dataset
from selfinstruct.files import read_toml, sha256_file, shipped
from selfinstruct.generation import GenerateConfig, RunSummary
from selfinstruct.generation import generate as generate_function
from selfinstruct.seeds import read_seeds
from tests.corpus import LABELLING, kind_of
from tests.generating import FreshServer, data, generate, ledger, rows, start, summary

HEURISTICS = {"too_short", "keyword", "program", "punctuation"}
CANARY = "sk-canary-5f2d8c1b9a7e4036"
PRICES = {"input_usd_per_mtok": 1000, "output_usd_per_mtok": 2000}


@pytest.fixture(scope="module")
def reference(shared, tmp_path_factory):
    """An uninterrupted run of 30 tasks; all others with the same options must end with the same bytes."""
    out = tmp_path_factory.mktemp("reference")
    assert generate(out, FreshServer(shared).base_url) == 0
    return data(out)


def wait_until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm"))}


# -- the data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("strategy", ["self-instruct", "alpaca"])
def test_run_closes_at_its_target_with_every_candidate_accounted_for(server, tmp_path, strategy, endpoint):
    server.set(near_duplicates=0.2, broken=0.2)
    assert generate(tmp_path, server.base_url, strategy=strategy, endpoint=endpoint) == 0
    accepted, rejected = rows(tmp_path / "dataset.jsonl"), rows(tmp_path / "rejected.jsonl")
    log, counted = server.log(), summary(tmp_path)
    assert {entry["path"] for entry in log} == {"/v1/chat/completions" if endpoint == "chat" else "/v1/completions"}

    assert len(accepted) == counted["accepted"] == 30
    assert counted["closed_by"] == "target"
    assert sum(counted["rejected"].values()) == len(rejected)
    assert ledger(tmp_path, "SELECT count(*) FROM candidates") == [(30 + len(rejected),)]
    assert counted["requests"]["sent"] == counted["requests"]["completed"] == len(log)
    assert counted["tokens"]["prompt"] == sum(entry["prompt_tokens"] for entry in log)
    assert counted["tokens"]["completion"] == sum(entry["completion_tokens"] for entry in log)
    assert counted["dataset_sha256"] == sha256_file(tmp_path / "dataset.jsonl")
    assert counted["cost_usd"] is None

    kinds = {"accepted": {kind_of(row["instruction"]) for row in accepted}}
    for row in rejected:
        kinds.setdefault(row["rule"], set()).add(kind_of(row["candidate"]["instruction"]))
    # The list prompt's requirements are numbered too: repeating one of them is no near-duplicate of a task.
    assert kinds["accepted"] <= {"fresh", "near_duplicate"}
    pool = [*read_seeds(shipped("seed_tasks.jsonl")), *read_dataset(tmp_path / "dataset.jsonl")]
    assert not {f"{task.instruction} please" for task in pool} & {row["instruction"] for row in accepted}
    assert "near_duplicate" in kinds["novelty"]
    assert all("fresh" not in kinds[rule] for rule in HEURISTICS & set(kinds))
    assert "broken" not in kinds["accepted"]

    closing_slot = max(row["source"]["slot"] for row in accepted)
    assert closing_slot == max(row["source"]["slot"] for row in rejected + accepted)
    assert {r["source"]["slot"] for r in rejected if r["rule"] == "target_reached"} <= {closing_slot}
    unused = ledger(tmp_path, f"SELECT count(*) FROM completions WHERE slot > {closing_slot}")
    assert [(counted["requests"]["unused"],)] == unused
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700 or tmp_path.stat().st_uid != os.getuid()


@pytest.mark.parametrize("strategy", ["self-instruct", "alpaca"])
def test_rows_have_the_promised_fields(server, tmp_path, strategy):
    assert generate(tmp_path, server.base_url, strategy=strategy) == 0
    seeds = {seed.id for seed in read_seeds(shipped("seed_tasks.jsonl"))}
    prompts = dict(ledger(tmp_path, "SELECT prompt_key, completion_key FROM completions"))
    known = set(seeds)
    assert len(read_dataset(tmp_path / "dataset.jsonl")) == 30
    for row in rows(tmp_path / "dataset.jsonl"):
        assert list(row) == ["id", "instruction", "input", "output", "is_classification", "source", "nearest"]
        source = row["source"]
        assert list(source) == ["strategy", "model", "slot", "prompt_key", "completion_key", "demonstrations"]
        assert (source["strategy"], source["model"]) == (strategy, "m")
        assert prompts[source["prompt_key"]] == source["completion_key"]
        assert set(source["demonstrations"]) <= known
        assert {neighbour["id"] for neighbour in row["nearest"]} <= known
        if strategy == "self-instruct":
            assert row["is_classification"] == row["instruction"].startswith(LABELLING)
        assert row["id"] not in known
        known.add(row["id"])
    for row in rows(tmp_path / "rejected.jsonl"):
        assert list(row) == ["candidate", "rule", "detail", "nearest", "source"]
        assert {"instruction", "input", "output"} < set(row["candidate"])
        assert {neighbour["id"] for neighbour in row["nearest"]} <= known
        assert bool(row["nearest"]) == (row["rule"] in ("novelty", "target_reached"))
        scores = [neighbour["score"] for neighbour in row["nearest"]]
        assert scores == sorted(scores, reverse=True)


def test_novelty_decisions_are_rouge_scores(server, tmp_path):
    server.set(near_duplicates=0.5)
    assert generate(tmp_path, server.base_url, strategy="alpaca", num_instructions=70) == 0

    def tokens(text):
        return tokenize.tokenize(text, None)

    pool = [(seed.id, tokens(seed.instruction)) for seed in read_seeds(shipped("seed_tasks.jsonl"))]
    sql = "SELECT id, instruction, rule, nearest FROM candidates JOIN verdicts USING (position) ORDER BY position"
    judged = [row for row in ledger(tmp_path, sql) if row[2] in (None, "novelty", "target_reached")]
    for id, instruction, rule, nearest in judged:
        query = tokens(instruction)
        scores = [rouge_scorer._score_lcs(text, query).fmeasure for _, text in pool]
        assert (rule == "novelty") == (max(scores) > 0.7)
        best = json.loads(nearest)[0]
        assert (best["score"], best["id"]) == (max(scores), pool[scores.index(max(scores))][0])
        if rule is None:
            pool.append((id, query))
    assert sum(rule == "novelty" for _, _, rule, _ in judged) > 5


@pytest.mark.parametrize(
    ("filters", "n_accepted"),
    [
        (("novelty:over=task", "duplicate:over=task"), 3),
        (("novelty:over=task",), 1),
        (("duplicate:over=task",), 1),
        (None, 1),
    ],
)
def test_over_whole_tasks_an_instruction_comes_again_with_another_input(server, tmp_path, filters, n_accepted):
    task, again = "Say which of these comes last.", "PLUM,  fig"
    inputs = ("plum, fig", "seven, three, nine, eleven", again, "north, south, east, west, up and down")
    blocks = [f"{n}. Instruction: {task}\n{n}. Input:\n{i}\n{n}. Output:\nok" for n, i in enumerate(inputs, 4)]
    server.set(script={"Instruction:": "\n###\n".join(blocks).removeprefix("4. Instruction:")})
    flags = {"strategy": "alpaca", "saturation_window": 68, "window": 1, "filter": filters}
    assert generate(tmp_path, server.base_url, **flags) == 5
    accepted = rows(tmp_path / "dataset.jsonl")
    assert {row["instruction"] for row in accepted} == {task}
    assert [row["input"] for row in accepted] == [inputs[0], inputs[1], inputs[3]][:n_accepted]
    repeated = next(row for row in rows(tmp_path / "rejected.jsonl") if row["candidate"]["input"] == again)
    assert (repeated["rule"], repeated["nearest"][0]) == ("duplicate", {"id": accepted[0]["id"], "score": 1.0})


@pytest.mark.parametrize("strategy", ["self-instruct", "alpaca"])
def test_timing_and_faults_shape_nothing(server, tmp_path, strategy):
    flags = {"strategy": strategy, "num_instructions": 50, "tasks_per_request": 6}
    assert generate(tmp_path / "1", server.base_url, concurrency=8, **flags) == 0
    server.set(latency_s=(0.0, 0.08), faults={"429_retry_after": 0.15, "no_usage": 0.2}, retry_after_s=0.03)
    assert generate(tmp_path / "2", server.base_url, concurrency=3, **flags) == 0
    server.set(latency_s=(0.0, 0.2), faults={})
    assert generate(tmp_path / "3", server.base_url, concurrency=30, **flags) == 0
    assert data(tmp_path / "1") == data(tmp_path / "2") == data(tmp_path / "3")
    if strategy == "self-instruct":  # later prompts show what earlier ones yielded
        accepted = rows(tmp_path / "1" / "dataset.jsonl")
        shown = {id for row in accepted for id in row["source"]["demonstrations"]}
        assert len(shown & {row["id"] for row in accepted}) > 2
    server.set(latency_s=0)
    assert generate(tmp_path / "4", server.base_url, seed=43, **flags) == 0
    assert data(tmp_path / "4") != data(tmp_path / "1")


# -- resuming --------------------------------------------------------------------------------------------------------


def assert_nothing_stored_was_asked_again(server, run, max_lost):
    done = "SELECT id, prompt_key FROM attempts WHERE outcome = 'completed'"
    assert ledger(run, f"SELECT * FROM attempts a JOIN ({done}) b USING (prompt_key) WHERE a.id > b.id") == []
    outcomes = ("= 'completed'", "= 'lost'", "NOT IN ('completed', 'lost')")
    counts = ", ".join(f"sum(outcome {outcome})" for outcome in outcomes)
    ((completed, lost, other),) = ledger(run, f"SELECT {counts} FROM attempts")
    assert ledger(run, "SELECT count(*) FROM completions") == [(completed,)]
    assert other == 0
    assert lost <= max_lost
    assert completed <= len(server.log()) <= completed + lost


@pytest.mark.parametrize("kills", [5, 4])
def test_killed_again_and_again_ends_with_the_same_bytes(server, reference, tmp_path, kills):
    server.set(latency_s=(0.04, 0.12))
    rng, n_killed = Random(kills), 0
    for _ in range(kills):
        goal = len(server.log()) + rng.randint(1, 8)
        with start(tmp_path, server.base_url, concurrency=4) as process:
            wait_until(lambda goal=goal, process=process: len(server.log()) >= goal or process.poll() is not None)
            time.sleep(rng.uniform(0, 0.05))
            n_killed += process.poll() is None
            process.kill()
    assert n_killed >= 3  # while it worked
    server.set(latency_s=0)
    assert generate(tmp_path, server.base_url, concurrency=4) == 0
    assert data(tmp_path) == reference
    assert_nothing_stored_was_asked_again(server, tmp_path, max_lost=4 * kills)


def test_finished_run_is_replayed_without_a_request(server, reference, tmp_path):
    assert generate(tmp_path, server.base_url) == 0
    before, counted = len(server.log()), summary(tmp_path)
    assert generate(tmp_path, "http://127.0.0.1:9/v1", concurrency=3, timeout_s=9) == 0  # these are free to change
    assert len(server.log()) == before
    assert data(tmp_path) == reference
    again = summary(tmp_path)
    assert again.pop("elapsed_s") >= counted.pop("elapsed_s")
    assert again == counted


def test_larger_target_goes_on_as_if_it_had_been_so_from_the_start(server, reference, tmp_path):
    assert generate(tmp_path, server.base_url, num_instructions=11) == 0
    assert reference[0].startswith((tmp_path / "dataset.jsonl").read_bytes())
    assert generate(tmp_path, server.base_url, num_instructions=30) == 0
    assert data(tmp_path) == reference
    assert_nothing_stored_was_asked_again(server, tmp_path, max_lost=0)
    assert read_toml(tmp_path / "run.toml")["generate"]["num_instructions"] == 30


@pytest.fixture(scope="module")
def finished(shared, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    assert generate(out, FreshServer(shared).base_url, strategy="alpaca", num_instructions=12) == 0
    return out


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("num_instructions", 11, "num_instructions: 12 in the run"),
        ("novelty_threshold", 0.6, "novelty_threshold: 0.7 in the run, 0.6 now"),
        ("seed", 1, "seed: 42 in the run, 1 now"),
        ("strategy", "self-instruct", "strategy: alpaca in the run, self-instruct now"),
        ("model", "n", "model: m in the run, n now"),
        ("endpoint", "completions", "endpoint: chat in the run"),
        ("window", 9, "window: 3 in the run, 9 now"),
        ("language", "de", "language: en in the run, de now"),
        ("seeds", "changed", "seeds: the file's content has changed"),
    ],
)
def test_other_settings_are_refused_with_a_diff(server, finished, tmp_path, capsys, name, value, told):
    if name == "seeds":
        lines = shipped("seed_tasks.jsonl").read_text("utf-8").splitlines(keepends=True)
        value = tmp_path / "seeds.jsonl"
        value.write_text("".join(lines[1:]), "utf-8")
    before = everything(finished)
    flags = {"strategy": "alpaca", "num_instructions": 12, name: value}
    assert generate(finished, server.base_url, **flags) == 2
    assert told in capsys.readouterr().err
    assert everything(finished) == before
    assert server.log() == []


def test_moved_seeds_file_with_the_same_content_is_the_same_run(server, finished, tmp_path):
    copy = tmp_path / "copied.jsonl"
    shutil.copy(shipped("seed_tasks.jsonl"), copy)
    assert generate(finished, server.base_url, strategy="alpaca", num_instructions=12, seeds=copy) == 0


def test_options_may_change_until_something_was_answered(server, tmp_path):
    assert generate(tmp_path, "http://127.0.0.1:9/v1", model="misspelt", outage_s=0.1) == 5
    assert generate(tmp_path, server.base_url, strategy="alpaca") == 0
    assert read_toml(tmp_path / "run.toml")["generate"]["strategy"][0]["kind"] == "alpaca"


def test_second_process_is_refused(server, reference, tmp_path, capsys):
    server.set(latency_s=0.1)
    with start(tmp_path, server.base_url) as process:
        wait_until(lambda: server.log())
        assert generate(tmp_path, server.base_url) == 2
        assert "another process is working on" in capsys.readouterr().err
        assert process.wait(timeout=60) == 0
    assert data(tmp_path) == reference


# -- as the originals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["self-instruct", "alpaca"])
@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_faithful_run_goes_by_the_originals_prompts_and_filters(server, tmp_path, strategy, endpoint):
    flags = {"strategy": strategy, "endpoint": endpoint, "faithful": True, "num_instructions": 20}
    server.set(broken=0.3, list_length=20)
    assert generate(tmp_path, server.base_url, **flags) == 0
    first = server.log()[0]["body"]
    assert first["max_tokens"] == (3072 if strategy == "alpaca" else 1024)
    assert first.get("presence_penalty") == (None if strategy == "alpaca" else 2)
    (recorded,) = read_toml(tmp_path / "run.toml")["generate"]["strategy"]
    assert recorded["faithful"]
    rules = {row["rule"] for row in rows(tmp_path / "rejected.jsonl")}
    assert rules & {"keyword", "too_short", "program", "punctuation"}
    assert not rules & {"tools", "language", "missing_input", "duplicate", "format"}
    before, files = len(server.log()), data(tmp_path)
    assert generate(tmp_path, server.base_url, **flags) == 0
    assert (len(server.log()), data(tmp_path)) == (before, files)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"strategy": "evol-instruct"}, "only self-instruct and alpaca have an original"),
        ({"tasks_per_request": 5}, "faithful leaves no choice of tasks_per_request"),
        ({"language": "de"}, "the originals know English only"),
    ],
)
def test_faithful_where_there_is_nothing_to_be_faithful_to(server, tmp_path, capsys, flags, told):
    assert generate(tmp_path, server.base_url, faithful=True, **flags) == 2
    assert told in capsys.readouterr().err
    assert server.log() == []


# -- caps ------------------------------------------------------------------------------------------------------------


def test_cap_on_requests_is_never_passed(server, reference, tmp_path, capsys):
    server.set(faults={"429_retry_after": 0.1}, retry_after_s=0.01, latency_s=(0.0, 0.02))
    for cap in (1, 23, 40):
        assert generate(tmp_path, server.base_url, max_requests=cap) == 4
        assert f"--max-requests {cap} is reached" in capsys.readouterr().err
        assert len(server.log()) == cap
        assert summary(tmp_path)["closed_by"] == "cap"
        assert reference[0].startswith((tmp_path / "dataset.jsonl").read_bytes())
        files = data(tmp_path)
        assert generate(tmp_path, server.base_url, max_requests=cap) == 4  # again: no request, and nothing gets lost
        assert (len(server.log()), data(tmp_path)) == (cap, files)
    assert files[0] != b""
    assert generate(tmp_path, server.base_url) == 0
    assert data(tmp_path) == reference


def test_cap_leaves_every_slot_judged_that_was_paid_for(server, tmp_path):
    server.set(latency_s=(0.0, 0.1))
    for cap in (3, 5):
        assert generate(tmp_path, server.base_url, strategy="alpaca", num_instructions=150, max_requests=cap) == 4
        slots = {row["source"]["slot"] for name in ("dataset", "rejected") for row in rows(tmp_path / f"{name}.jsonl")}
        assert slots == set(range(cap))
        assert summary(tmp_path)["requests"]["unused"] == 0


def test_cap_on_money_is_never_passed(server, reference, tmp_path, capsys):
    def billed():
        return sum(entry["prompt_tokens"] * 1e-3 + entry["completion_tokens"] * 2e-3 for entry in server.log())

    # Some replies are billed though they never arrive.
    server.set(faults={"reset": 0.04, "truncated": 0.04, "429_retry_after": 0.1, "no_usage": 0.1}, retry_after_s=0.01)
    for cap in (3, 12, 25):
        before = len(server.log())
        assert generate(tmp_path, server.base_url, max_cost_usd=cap, **PRICES) == 4
        assert f"pass --max-cost-usd {cap}" in capsys.readouterr().err
        assert billed() <= summary(tmp_path)["cost_usd"] <= cap
        assert len(server.log()) > before
    assert billed() > 0
    server.set(faults={})
    assert generate(tmp_path, server.base_url, **PRICES) == 0
    assert data(tmp_path) == reference


def test_cost_is_what_the_endpoint_billed(server, tmp_path):
    assert generate(tmp_path, server.base_url, strategy="alpaca", max_cost_usd=100, **PRICES) == 0
    billed = sum(entry["prompt_tokens"] * 1e-3 + entry["completion_tokens"] * 2e-3 for entry in server.log())
    assert summary(tmp_path)["cost_usd"] == pytest.approx(billed)


def test_cap_on_money_needs_a_price(server, tmp_path, capsys):
    assert generate(tmp_path, server.base_url, max_cost_usd=1) == 2
    assert "--input-usd-per-mtok" in capsys.readouterr().err
    assert server.log() == []
    # Nor can it be kept where part of the run was sent without a price.
    assert generate(tmp_path, server.base_url, max_requests=5) == 4
    assert generate(tmp_path, server.base_url, max_cost_usd=1, **PRICES) == 2
    assert "while their price was unknown" in capsys.readouterr().err
    assert len(server.log()) == 5


# -- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_signal_drains_what_is_in_flight(server, reference, tmp_path, kind):
    server.set(latency_s=0.4)
    with start(tmp_path, server.base_url) as process:
        wait_until(lambda: len(server.log()) >= 12)
        process.send_signal(kind)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    log = server.log()
    assert all(entry["status"] == 200 for entry in log)
    assert ledger(tmp_path, "SELECT count(*) FROM completions") == [(len(log),)]
    assert summary(tmp_path)["closed_by"] == "interrupted"
    assert reference[0].startswith((tmp_path / "dataset.jsonl").read_bytes())
    server.set(latency_s=0)
    assert generate(tmp_path, server.base_url) == 0
    assert data(tmp_path) == reference
    assert_nothing_stored_was_asked_again(server, tmp_path, max_lost=0)


def test_signal_ends_the_waiting_for_another_try(server, tmp_path):
    server.set(faults={"429_retry_after": range(2, 999)}, retry_after_s=90)
    with start(tmp_path, server.base_url, outage_s=100) as process:
        wait_until(lambda: len(server.log()) >= 3)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130


def test_second_signal_aborts(server, reference, tmp_path):
    assert generate(tmp_path, server.base_url, max_requests=30) == 4
    files = data(tmp_path)
    server.set(latency_s=60)
    with start(tmp_path, server.base_url) as process:
        wait_until(lambda: len(server.log()) > 30)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None  # it waits for the reply
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "aborted" in err
    assert data(tmp_path) == files
    assert ledger(tmp_path, "SELECT count(*) > 0 FROM attempts WHERE error = 'aborted'") == [(1,)]
    server.set(latency_s=0)
    assert generate(tmp_path, server.base_url) == 0
    assert data(tmp_path) == reference


def test_saturated_pool_ends_the_run_with_the_work_kept(server, tmp_path, capsys):
    server.set(pool=15, near_duplicates=0)
    flags = {"strategy": "alpaca", "num_instructions": 100, "saturation_window": 40}
    assert generate(tmp_path, server.base_url, **flags) == 5
    assert "saturated" in capsys.readouterr().err
    assert summary(tmp_path)["closed_by"] == "saturated"
    assert 5 <= len(rows(tmp_path / "dataset.jsonl")) == summary(tmp_path)["accepted"] <= 15
    before, files = len(server.log()), data(tmp_path)
    assert generate(tmp_path, server.base_url, **flags) == 5
    assert (len(server.log()), data(tmp_path)) == (before, files)


def test_full_disk_is_said_and_survived(server, reference, tmp_path):
    server.set(latency_s=0.2)
    wal = tmp_path / "ledger.sqlite-wal"
    with start(tmp_path, server.base_url) as process:
        wait_until(lambda: len(server.log()) >= 15)
        full = wal.stat().st_size
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (full, full))
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "is the disk full? Free some space and run the same command again" in err
    assert "Traceback" not in err
    assert not (tmp_path / "dataset.jsonl").exists()
    server.set(latency_s=0)
    assert generate(tmp_path, server.base_url) == 0
    assert data(tmp_path) == reference


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("ledger.sqlite", lambda old: b"no data base at all" * 50, "is damaged or no ledger"),
        ("ledger.sqlite", lambda old: old[:4096] + b"\xa5" * (len(old) - 4096), "is damaged or no ledger"),
        ("run.toml", lambda old: b"[generate]\nnum_instr", "is not valid TOML"),
        ("run.toml", lambda old: b"seeds_sha256 = 'x'\n[versions]\n", "field 'generate': is missing"),
        ("run.toml", None, "has a ledger but no run.toml"),
    ],
)
def test_damaged_run_is_refused_and_left_alone(server, finished, tmp_path, capsys, name, damage, told):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    if damage:
        (run / name).write_bytes(damage((run / name).read_bytes()))
    else:
        (run / name).unlink()
    before = everything(run)
    assert generate(run, server.base_url, strategy="alpaca", num_instructions=12) == 2
    assert told in capsys.readouterr().err
    after = everything(run)
    assert {n: after[n] for n in before if n != "run.toml"} == {n: before[n] for n in before if n != "run.toml"}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"base_url": "ftp://somewhere/v1"}, "--base-url: must start with https:// or http://"),
        ({"base_url": "https://me:secret@somewhere/v1"}, "--base-url: holds a password"),
        ({"base_url": "http://192.0.2.1/v1", "api_key_env": "TEACHER_KEY"}, "a key must not travel unencrypted"),
        ({"num_instructions": 0}, "--num-instructions"),
        ({"novelty_threshold": 1.5}, "--novelty-threshold"),
        ({"input_usd_per_mtok": 1}, "go together"),
        ({"model": "embedded"}, "--base-url: the embedded model is local"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_made(server, tmp_path, monkeypatch, capsys, flags, told):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    url = flags.pop("base_url", server.base_url)
    assert generate(tmp_path / "run", url, **flags) == 2
    err = capsys.readouterr().err
    assert told in err
    assert "secret" not in err
    assert not (tmp_path / "run").exists()
    assert server.log() == []


def test_bad_seeds_and_bad_place(server, tmp_path, capsys):
    seeds, file = tmp_path / "seeds.jsonl", tmp_path / "file"
    seeds.write_text('{"id": "a"}\n')
    file.write_text("mine")
    assert generate(tmp_path / "run", server.base_url, seeds=seeds) == 2
    assert f"{seeds}:1: field 'name': is missing" in capsys.readouterr().err
    assert generate(file, server.base_url) == 2
    assert file.read_text() == "mine"


# -- what is printed -------------------------------------------------------------------------------------------------


def test_dry_run_sends_nothing_and_makes_nothing(server, tmp_path, capsys):
    assert generate(tmp_path / "run", server.base_url, dry_run=True, json=True, **PRICES) == 0
    forecast = json.loads(capsys.readouterr().out)
    for name in ("requests", "prompt_tokens", "completion_tokens", "cost_usd"):
        low, high = forecast[name]
        assert 0 < low < high
    assert server.log() == []
    assert not (tmp_path / "run").exists()


def test_json_prints_one_object(server, finished, tmp_path, capsys):
    assert generate(finished, server.base_url, strategy="alpaca", num_instructions=12, json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("run") == str(finished)
    assert printed == summary(finished)
    assert generate(tmp_path, server.base_url, max_requests=1, json=True) == 4
    failure = json.loads(capsys.readouterr().out)
    assert failure["exit_code"] == 4
    assert "--max-requests 1 is reached" in failure["error"]


def test_function_works_in_a_thread(server, reference, tmp_path):
    results = []
    config = GenerateConfig(
        out=tmp_path, model="m", base_url=server.base_url, api_key_env="", num_instructions=30, concurrency=8, window=3
    )
    thread = threading.Thread(target=lambda: results.append(generate_function(config)))
    thread.start()
    thread.join()
    assert isinstance(results[0], RunSummary)
    assert data(tmp_path) == reference
