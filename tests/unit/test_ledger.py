"""The ledger of a run: what is durable, what is refused, and that anybody can read it."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from selfinstruct.errors import Error, InputError, UsageError
from selfinstruct.ledger import SCHEMA_VERSION, Ledger, only_process
from selfinstruct.records import Candidate, Completion, Example, Instance, Neighbour, Source, Verdict

SOURCE = Source("alpaca", "m", 3, "p", "c", ("seed-1",))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    ledger = Ledger(path)
    yield ledger
    ledger.close()


def query(path: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def completion(key: str, text: str = "A reply", **fields) -> Completion:
    return Completion(key, f"c-{key}", text, "stop", 5, 7, **fields)


async def answered(ledger: Ledger, key: str, slot: int = 0, cost: float | None = 0.5, **fields) -> None:
    attempt = await ledger.begin_attempt(key, slot, cost and 2 * cost)
    await ledger.complete_attempt(attempt, completion(key, **fields), slot, "list", {"n": 1}, cost, 1.25)


def test_plain_sqlite_reads_it_and_finds_it_explained(path):
    Ledger(path).close()
    assert query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    schema = dict(query(path, "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'view')"))
    assert set(schema) == {"attempts", "completions", "candidates", "verdicts", "examples", "facts"}
    assert all("-- " in sql for name, sql in schema.items())


def test_reply_is_durable_once_awaited(ledger, path):
    asyncio.run(answered(ledger, "k", slot=4))
    assert ledger.completion("k") == completion("k")
    assert ledger.completion("other") is None
    # Another process would see it: it is in the file, though nothing was closed.
    columns = "slot, step, request, text, finish_reason, prompt_tokens, completion_tokens"
    assert query(path, f"SELECT {columns} FROM completions") == [(4, "list", '{"n":1}', "A reply", "stop", 5, 7)]
    assert query(path, "SELECT outcome, reserved_usd, cost_usd, seconds FROM attempts") == [
        ("completed", 1.0, 0.5, 1.25)
    ]


def test_attempt_is_durable_before_it_is_sent(ledger, path):
    asyncio.run(ledger.begin_attempt("k", 0, None))
    assert query(path, "SELECT prompt_key, outcome FROM attempts") == [("k", None)]


def test_totals(ledger):
    async def fill():
        await answered(ledger, "a")
        failed = await ledger.begin_attempt("b", 1, 1.0)
        await ledger.fail_attempt(failed, "429: busy", 0.0, 0.1)
        await answered(ledger, "b", slot=1)
        await ledger.begin_attempt("c", 2, 0.25)
        return await ledger.lose_open_attempts()

    assert asyncio.run(fill()) == 1
    totals = ledger.requests()
    assert (totals.sent, totals.completed, totals.retried, totals.failed, totals.lost) == (4, 2, 1, 1, 1)
    assert totals.cost_usd == 0.5 + 0.0 + 0.5 + 0.25  # the lost one as reserved
    assert (totals.prompt_tokens, totals.completion_tokens) == (10, 14)
    assert ledger.unused_completions(0) == 1
    assert asyncio.run(ledger.lose_open_attempts()) == 0


def test_one_unknown_price_makes_the_cost_unknown(ledger):
    assert ledger.requests().cost_usd == 0

    async def fill():
        await answered(ledger, "a")
        await answered(ledger, "b", cost=None)

    asyncio.run(fill())
    assert ledger.requests().cost_usd is None


def test_lost_attempts_of_an_earlier_process(path):
    first = Ledger(path)
    asyncio.run(first.begin_attempt("k", 0, 0.75))
    first.close()
    second = Ledger(path)
    assert asyncio.run(second.lose_open_attempts()) == 1
    assert second.requests().lost == 1
    second.close()
    assert query(path, "SELECT outcome, cost_usd FROM attempts") == [("lost", 0.75)]


def test_many_writes_share_a_commit(ledger, path):
    """Every writer waits for its own durability; a commit for each of them would take hundreds of synchronisations."""
    commits = []
    with closing(sqlite3.connect(path)) as watcher:

        async def write(number):
            await ledger.record_fact(f"fact-{number}", number)
            commits.append(watcher.execute("PRAGMA data_version").fetchone()[0])

        async def write_all():
            await asyncio.gather(*(write(number) for number in range(500)))

        asyncio.run(write_all())
    assert len(commits) == 500
    assert len(set(commits)) < 100
    assert query(path, "SELECT count(*) FROM facts") == [(500,)]


def test_judgement_is_kept_in_order_and_can_be_forgotten(ledger, path):
    accepted = Candidate("a", "Name a river.", (Instance("", "Lena"), Instance("x", "Ob")), True, SOURCE)
    rejected = Candidate("b", "", (), False, SOURCE)
    nearest = (Neighbour("seed-1", 0.7000000000000001), Neighbour("seed-2", 1 / 3))
    unsaid = Verdict("unparsable", "no task found: 'half an emoji'")

    async def judge():
        await ledger.record_judgement(0, [(rejected, unsaid)])
        await ledger.record_judgement(1, [(accepted, Verdict(None, nearest=nearest))])

    asyncio.run(judge())
    assert list(ledger.accepted()) == [
        Example("a", accepted.instruction, accepted.instances, True, source=SOURCE, nearest=nearest)
    ]
    assert list(ledger.rejected()) == [(rejected, unsaid)]
    assert (ledger.rules(), ledger.n_accepted()) == ({"unparsable": 1}, 1)
    assert query(path, "SELECT id FROM examples") == [("a",)]
    asyncio.run(ledger.forget_judgement())
    assert (list(ledger.accepted()), ledger.rules()) == ([], {})


def test_facts(ledger):
    assert ledger.fact("closing") is None
    asyncio.run(ledger.record_fact("closing", {"slot": 1}))
    asyncio.run(ledger.record_fact("closing", {"slot": 2}))
    assert ledger.fact("closing") == {"slot": 2}


def test_write_that_fails_is_heard_of(ledger):
    """A hung writer would leave those who wait for it waiting for ever."""

    async def twice():
        with pytest.raises(UnicodeEncodeError):
            await answered(ledger, "k", text="\ud800")
        with pytest.raises(Error, match="UNIQUE constraint failed"):
            candidate = Candidate("a", "i", (), False, SOURCE)
            await ledger.record_judgement(0, [(candidate, Verdict("x"))])
            await ledger.record_judgement(0, [(candidate, Verdict("x"))])
        await answered(ledger, "k")

    asyncio.run(asyncio.wait_for(twice(), timeout=20))
    assert ledger.completion("k") == completion("k")


def test_foreign_file_is_refused_and_left_alone(path):
    path.write_bytes(b"no data base" * 100)
    with pytest.raises(InputError, match="is damaged or no ledger") as caught:
        Ledger(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2
    assert path.read_bytes() == b"no data base" * 100


def test_damage_found_later_is_said_too(path):
    ledger = Ledger(path)

    async def fill():
        for number in range(200):
            await answered(ledger, f"k{number}", text="word " * 100)

    asyncio.run(fill())
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(InputError, match="is damaged or no ledger"), closing(Ledger(path)) as damaged:
        damaged.completion("k100")


def test_newer_schema_is_refused_and_left_alone(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(InputError, match="was written by a newer version"):
        Ledger(path)
    assert query(path, "SELECT count(*) FROM sqlite_master") == [(0,)]


def test_place_that_cannot_hold_a_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(Error, match="unable to open database file"):
        Ledger(tmp_path / "folder")


def test_only_one_process_holds_a_run(tmp_path):
    code = (
        "import sys, pathlib; from selfinstruct.ledger import only_process; from selfinstruct.errors import Error\n"
        "try:\n    with only_process(pathlib.Path(sys.argv[1])): print('held')\n"
        "except Error as error: print(type(error).__name__, error)"
    )

    def other_process() -> str:
        command = [sys.executable, "-c", code, str(tmp_path)]
        root = Path(__file__).parents[2]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    with only_process(tmp_path):
        assert other_process().startswith(f"UsageError another process is working on {tmp_path}")
        with pytest.raises(UsageError), only_process(tmp_path):
            pass
    assert other_process() == "held"
