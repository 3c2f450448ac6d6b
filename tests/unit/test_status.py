import asyncio
import json

import pytest

from selfinstruct.cli import GROUP
from selfinstruct.command import run_program
from selfinstruct.errors import InputError
from selfinstruct.files import to_toml, write_json, write_text
from selfinstruct.generation import GenerateConfig, generate
from selfinstruct.ledger import JudgedSlot, Ledger
from selfinstruct.records import Candidate, Completion, Instance, Source, Usage, Verdict
from selfinstruct.run_status import Status, StatusConfig, status
from tests.server import running_server

VERDICTS = [Verdict(None), Verdict("novelty"), Verdict("too_short"), Verdict("novelty"), Verdict(None)]


def candidate(number):
    source = Source("self-instruct", "m", number, f"p{number}", f"c{number}")
    return Candidate(f"id-{number}", f"Do {number}.", (Instance("", "x"),), False, source)


async def filled(ledger, cost_usd):
    """A run in which one request was answered, one failed and was answered when asked again, one is in flight."""
    for key, outcomes in {"p0": ["completed"], "p1": ["failed", "completed"], "p2": [None]}.items():
        for outcome in outcomes:
            attempt = await ledger.begin_attempt(key, 0, cost_usd)
            if outcome == "failed":
                await ledger.fail_attempt(attempt, "500", 0.0, Usage(0, 0), 1.0)
            elif outcome == "completed":
                completions = [Completion(key, f"c-{key}", "text", "stop")]
                await ledger.complete_attempt(
                    attempt, completions, 0, "instructions", {}, cost_usd, Usage(100, 20), 1.0
                )
    judged = [(candidate(number), verdict) for number, verdict in enumerate(VERDICTS)]
    await ledger.record_slot(JudgedSlot(0, "self-instruct", len(judged), 2, {}, 0), 0, judged, None)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", 0.25)


def make_run(folder, cost_usd):
    folder.mkdir()
    ledger = Ledger(folder / "ledger.sqlite")
    asyncio.run(filled(ledger, cost_usd))
    ledger.close()
    write_text(folder / "run.toml", to_toml({"generate": {"num_instructions": 8, "model": "m"}, "seeds_sha256": ""}))
    return folder


def close(run, **changes):
    figures = {
        "accepted": 2,
        "rejected": {"novelty": 2, "too_short": 1},
        "requests": {"sent": 4, "completed": 2},
        "tokens": {"prompt": 200, "completion": 40},
        "cost_usd": 0.75,
        "elapsed_s": 1.0,
        "dataset_sha256": "00",
        "closed_by": "cap",
    }
    write_json(run / "summary.json", {**figures, **changes})


def test_figures_of_a_run_that_goes_on(run):
    assert status(StatusConfig(run=run)) == Status(
        run=str(run),
        state="unfinished",
        accepted=2,
        target=8,
        rejected={"novelty": 2, "too_short": 1},
        requests={"sent": 4, "completed": 2, "retried": 1, "failed": 1, "lost": 0},
        tokens={"prompt": 200, "completion": 40},
        cost_usd=0.75,  # what is in flight counts as reserved
        throughput={"requests_per_s": 2 / 60, "tokens_per_s": 4.0},
        strategies={"self-instruct": {"slots": 1, "judged": 5, "accepted": 2, "rejected": {}}},
        diversity={},
    )


def test_reads_beside_an_open_ledger(run):
    ledger = Ledger(run / "ledger.sqlite")
    try:
        judged = [(candidate(9), Verdict(None))]
        asyncio.run(ledger.record_slot(JudgedSlot(1, "self-instruct", 1, 1, {}, 0), len(VERDICTS), judged, None))
        assert status(StatusConfig(run=run)).accepted == 3
    finally:
        ledger.close()


def test_state_is_how_the_run_ended_until_it_goes_on(run):
    close(run)
    assert status(StatusConfig(run=run)).state == "cap"
    ledger = Ledger(run / "ledger.sqlite")
    asyncio.run(ledger.begin_attempt("p3", 1, 0.25))
    ledger.close()
    assert status(StatusConfig(run=run)).state == "unfinished"


def test_finished_run_has_the_figures_of_its_summary(tmp_path):
    with running_server() as server:
        options = {"model": "m", "base_url": server.base_url, "api_key_env": "", "num_instructions": 10}
        summary = generate(GenerateConfig(out=tmp_path / "run", concurrency=4, window=4, **options))
    found = status(StatusConfig(run=tmp_path / "run"))
    assert (found.state, found.accepted, found.target) == ("target", 10, 10)
    assert (found.rejected, found.tokens, found.cost_usd) == (summary.rejected, summary.tokens, summary.cost_usd)
    assert found.requests.items() <= {**summary.requests, "lost": 0}.items()


def test_unknown_price_is_an_unknown_cost(tmp_path):
    assert status(StatusConfig(run=make_run(tmp_path / "run", None))).cost_usd is None


def test_in_words_and_as_json(run, capsys, tmp_path):
    assert run_program(GROUP, "selfinstruct", ["status", str(run)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{run}: unfinished",
        "  accepted  2 of 8 wanted (40% of 5 judged)",
        "  rejected       2  novelty",
        "  rejected       1  too_short",
        "  requests  4 sent, 2 completed, 1 retried, 1 failed, 0 lost",
        "  tokens    200 prompt, 40 completion",
        "  cost      0.7500 USD",
        "  now       0.0 requests/s, 4 tokens/s",
    ]
    assert run_program(GROUP, "selfinstruct", ["status", str(make_run(tmp_path / "free", None)), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["accepted"], values["cost_usd"], values["requests"]["sent"]) == (2, None, 4)


def test_run_without_any_judgement_has_no_share(tmp_path, capsys):
    folder = make_run(tmp_path / "run", None)
    ledger = Ledger(folder / "ledger.sqlite")
    asyncio.run(ledger.reopen())
    ledger.close()
    assert run_program(GROUP, "selfinstruct", ["status", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "accepted  0 of 8 wanted\n" in out
    assert "cost      unknown" in out


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "ledger.sqlite").unlink(), "no ledger.sqlite here, so this is no run. Give the --out"),
        (lambda run: (run / "run.toml").unlink(), "run.toml: no such file"),
        (lambda run: (run / "run.toml").write_text("[generate\n"), "run.toml: is not valid TOML"),
        (lambda run: (run / "run.toml").write_text("seed = 3\n"), "run.toml: field 'generate': is missing"),
        (lambda run: (run / "summary.json").write_text("{}"), "summary.json: field 'accepted': is missing"),
        (lambda run: (run / "ledger.sqlite").write_bytes(b"not a database" * 100), "is damaged or no ledger"),
    ],
)
def test_broken_run_is_named(run, spoil, message):
    spoil(run)
    with pytest.raises(InputError, match=message):
        status(StatusConfig(run=run))
