"""The ledger of a run: what is durable, what is refused, and that anybody can read it."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from selfinstruct.errors import Error, InputError, UsageError
from selfinstruct.ledger import (
    SCHEMA_VERSION,
    Activity,
    Asked,
    BatchRequest,
    JudgedSlot,
    Ledger,
    StrategyYield,
    only_process,
)
from selfinstruct.records import Candidate, Completion, Example, Instance, Neighbour, Source, Usage, Verdict

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
    return Completion(key, f"c-{key}", text, "stop", **fields)


async def answered(ledger: Ledger, key: str, slot: int = 0, cost: float | None = 0.5, **fields) -> None:
    attempt = await ledger.begin_attempt(key, slot, cost and 2 * cost)
    usage = Usage(5, 7)
    await ledger.complete_attempt(attempt, [completion(key, **fields)], slot, "list", {"n": 1}, cost, usage, 1.25)


async def judge(
    ledger: Ledger, number: int, *judged: tuple[Candidate, Verdict], closing=None, saturated: int = 0
) -> None:
    n_accepted = sum(verdict.rule is None for _, verdict in judged)
    rejected = Counter(verdict.rule for _, verdict in judged if verdict.rule)
    slot = JudgedSlot(number, "alpaca", len(judged), n_accepted, rejected, saturated)
    await ledger.record_slot(slot, ledger.n_judged(), judged, closing)


def test_plain_sqlite_reads_it_and_finds_it_explained(path):
    Ledger(path).close()
    assert query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    schema = dict(query(path, "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'view')"))
    tables = {"attempts", "batches", "batch_requests", "completions", "slots", "candidates", "verdicts", "facts"}
    assert set(schema) == tables | {"examples"}
    assert all("-- " in sql for name, sql in schema.items())


def test_reply_is_durable_once_awaited(ledger, path):
    asyncio.run(answered(ledger, "k", slot=4))
    assert ledger.completions("k") == (completion("k"),)
    assert ledger.completions("other") == ()
    # Another process would see it: it is in the file, though nothing was closed.
    columns = "choice, slot, step, request, text, finish_reason"
    assert query(path, f"SELECT {columns} FROM completions") == [(0, 4, "list", '{"n":1}', "A reply", "stop")]
    columns = "outcome, reserved_usd, cost_usd, prompt_tokens, completion_tokens, seconds"
    assert query(path, f"SELECT {columns} FROM attempts") == [("completed", 1.0, 0.5, 5, 7, 1.25)]


def test_several_replies_to_one_request(ledger, path):
    async def fill():
        attempt = await ledger.begin_attempt("k", 3, None)
        replies = [completion("k", "one"), completion("k", "two")]
        await ledger.complete_attempt(attempt, replies, 3, "list", {"n": 2}, None, Usage(5, 7), 1.0)

    asyncio.run(fill())
    assert [reply.text for reply in ledger.completions("k")] == ["one", "two"]
    assert query(path, "SELECT choice, request FROM completions") == [(0, '{"n":2}'), (1, None)]
    assert ledger.requests().completed == ledger.unused_completions(2) == 1


def test_attempt_is_durable_before_it_is_sent(ledger, path):
    asyncio.run(ledger.begin_attempt("k", 0, None))
    assert query(path, "SELECT prompt_key, outcome FROM attempts") == [("k", None)]


def test_totals(ledger):
    async def fill():
        await answered(ledger, "a")
        failed = await ledger.begin_attempt("b", 1, 1.0)
        await ledger.fail_attempt(failed, "429: busy", 0.0, Usage(0, 0), 0.1)
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


def test_prompt_that_failed_twice_was_retried_once(ledger):
    async def fill():
        for _ in range(2):
            attempt = await ledger.begin_attempt("k", 0, None)
            await ledger.fail_attempt(attempt, "429", None, Usage(), 0.1)

    asyncio.run(fill())
    assert (ledger.requests().sent, ledger.requests().retried) == (2, 1)


def test_throughput_is_of_the_last_minute(ledger, path):
    asyncio.run(answered(ledger, "a"))
    asyncio.run(answered(ledger, "b"))
    rate = ledger.throughput()
    assert (rate.requests_per_s, rate.tokens_per_s) == (2 / 60, 24 / 60)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE attempts SET started_at = '2020-01-01T00:00:00.000Z' WHERE prompt_key = 'a'")
    assert ledger.throughput().requests_per_s == 1 / 60
    assert ledger.mean_seconds() == 1.25


def test_activity_is_what_ended_in_each_stretch(ledger, path):
    async def fill():
        for key in "abc":
            await answered(ledger, key, cost=None if key == "c" else 0.5)
        failed = await ledger.begin_attempt("d", 0, 1.0)
        await ledger.fail_attempt(failed, "429", 0.0, Usage(), 0.1)
        await ledger.begin_attempt("e", 0, 1.0)  # has not ended

    asyncio.run(fill())
    with closing(sqlite3.connect(path)) as connection, connection:
        # Each takes 1.25 s, so that b and c end in the second stretch of ten seconds after the epoch.
        for key, second in (("a", "08.0"), ("b", "09.0"), ("c", "12.0"), ("d", "30.0"), ("e", "40.0")):
            at = f"1970-01-01T00:00:{second}00Z"
            connection.execute("UPDATE attempts SET started_at = ? WHERE prompt_key = ?", (at, key))
    assert ledger.activity(10) == [
        Activity(0, 1, 0, 12, 0.5), Activity(1, 2, 0, 24, None), Activity(3, 0, 1, 0, 0.0),
    ]  # fmt: skip


def test_slot_tells_what_was_asked_in_it(ledger):
    async def fill():
        request = {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Name one."}]}
        attempt = await ledger.begin_attempt("k", 3, None)
        replies = [completion("k", "Ob"), completion("k", "Lena")]
        await ledger.complete_attempt(attempt, replies, 3, "list", request, None, Usage(), 1.0)

    asyncio.run(fill())
    assert ledger.asked_in(3) == [Asked("list", "Be short.\n\nName one.", ledger.completions("k"))]
    assert [reply.text for reply in ledger.completions("k")] == ["Ob", "Lena"]
    assert ledger.asked_in(4) == []


def test_snapshot_sees_nothing_of_what_is_written_meanwhile(ledger, path):
    other = Ledger(path)
    asyncio.run(answered(ledger, "a"))
    with other.snapshot():
        assert other.requests().sent == 1
        asyncio.run(answered(ledger, "b"))
        assert other.requests().sent == 1
    assert other.requests().sent == 2
    other.close()


def test_batch_is_kept_until_all_its_requests_have_an_outcome(path):
    requests = [BatchRequest(f"k{n}", n, "list", {"max_tokens": n}, 0.5) for n in range(3)]
    first = Ledger(path)
    assert first.open_batches() == []
    batch = asyncio.run(first.begin_batch("teacher", requests))
    assert first.open_batches() == first.open_batches("teacher") == [(batch, None)]
    assert first.open_batches("judge") == []
    asyncio.run(first.name_batch(batch, "batch_x"))
    first.close()

    second = Ledger(path)
    assert asyncio.run(second.lose_open_attempts()) == 0  # it goes on at the endpoint
    assert (second.open_batches(), second.reserved_usd()) == ([(batch, "batch_x")], 1.5)
    found = second.open_requests(batch)
    assert [(r.prompt_key, r.slot, r.step, r.request, r.reserved_usd) for r in found] == [
        (f"k{n}", n, "list", {"max_tokens": n}, 0.5) for n in range(3)
    ]

    async def finish():
        for r in found[:2]:
            await second.complete_attempt(
                r.attempt, [completion(r.prompt_key)], r.slot, r.step, r.request, 0.25, Usage(5, 7), 1.0
            )
        assert [r.prompt_key for r in second.open_requests(batch)] == ["k2"]
        await second.fail_attempt(found[2].attempt, "expired", 0.0, Usage(0, 0), 1.0)
        await second.end_batch(batch, "expired")

    asyncio.run(finish())
    assert (second.open_batches(), second.open_requests(batch), second.reserved_usd()) == ([], [], 0)
    assert second.requests().cost_usd == 0.5
    assert query(path, "SELECT outcome FROM batches") == [("expired",)]
    assert query(path, "SELECT count(*) FROM batch_requests") == [(0,)]
    second.close()


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


def test_judgement_is_kept_in_order(ledger, path):
    accepted = Candidate("a", "Name a river.", (Instance("", "Lena"), Instance("x", "Ob")), True, SOURCE)
    rejected = Candidate("b", "", (), False, SOURCE)
    nearest = (Neighbour("seed-1", 0.7000000000000001), Neighbour("seed-2", 1 / 3))
    unsaid = Verdict("unparsable", "no task found: 'half an emoji'")

    async def fill():
        await judge(ledger, 0, (rejected, unsaid))
        await judge(ledger, 1, (accepted, Verdict(None, nearest=nearest)))
        await judge(ledger, 2)

    asyncio.run(fill())
    assert list(ledger.accepted()) == [
        Example("a", accepted.instruction, accepted.instances, True, source=SOURCE, nearest=nearest)
    ]
    assert list(ledger.pool()) == [Example("a", accepted.instruction, accepted.instances, True)]
    assert list(ledger.rejected()) == [(rejected, unsaid)]
    assert (ledger.rules(), ledger.n_accepted(), ledger.n_judged()) == ({"unparsable": 1}, 1, 2)
    assert list(ledger.recent("alpaca", 9)) == [("Name a river.", None), ("", "unparsable")]
    assert list(ledger.recent("alpaca", 1)) == [("Name a river.", None)]
    assert list(ledger.recent("self-instruct", 9)) == []
    assert [(s.number, s.n_candidates, s.n_accepted) for s in ledger.last_slots(2)] == [(1, 1, 1), (2, 0, 0)]
    assert ledger.strategies() == {"alpaca": StrategyYield(3, 2, 1, {"unparsable": 1})}
    assert query(path, "SELECT id FROM examples") == [("a",)]


def test_rows_are_given_by_their_place(ledger):
    candidates = [Candidate(f"{n}", f"Name river {n}.", (), False, SOURCE) for n in range(12)]
    judged = [(c, Verdict("novelty" if n % 3 == 2 else None)) for n, c in enumerate(candidates)]
    asyncio.run(judge(ledger, 0, *judged))
    assert [example.id for example in ledger.accepted([0, 2, 7])] == ["0", "3", "10"]
    assert [candidate.id for candidate, _ in ledger.rejected([1, 3])] == ["5", "11"]
    assert list(ledger.accepted([])) == []
    assert len(list(ledger.accepted())) == 8


def test_reopening_takes_back_the_last_slot_only(ledger):
    first, second = (Candidate(id, "Name a river.", (), False, SOURCE) for id in "ab")

    async def fill():
        await judge(ledger, 0, (first, Verdict(None)))
        await judge(ledger, 1, (second, Verdict(None)), (first, Verdict("target_reached")), closing={"slot": 1})
        assert ledger.fact("closing") == {"slot": 1}
        await ledger.reopen()

    asyncio.run(fill())
    assert [example.id for example in ledger.accepted()] == ["a"]
    assert (list(ledger.rejected()), ledger.fact("closing"), ledger.n_judged()) == ([], None, 1)
    assert [slot.number for slot in ledger.last_slots(9)] == [0]


def test_facts(ledger):
    assert ledger.fact("closing") is None
    asyncio.run(ledger.record_fact("closing", {"slot": 1}))
    asyncio.run(ledger.record_fact("closing", {"slot": 2}))
    assert ledger.fact("closing") == {"slot": 2}


def test_write_that_fails_is_heard_of_and_costs_the_others_nothing(ledger):
    """A hung writer would leave those who wait for it waiting for ever."""

    async def all_at_once():
        broken = answered(ledger, "broken", text="\ud800")
        return await asyncio.gather(answered(ledger, "a"), broken, answered(ledger, "b"), return_exceptions=True)

    results = asyncio.run(asyncio.wait_for(all_at_once(), timeout=20))
    assert [type(result) for result in results] == [type(None), UnicodeEncodeError, type(None)]
    assert ledger.completions("a") and ledger.completions("b")

    async def twice():
        await judge(ledger, 0)
        with pytest.raises(Error, match="UNIQUE constraint failed"):
            await judge(ledger, 0)

    asyncio.run(asyncio.wait_for(twice(), timeout=20))


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
        damaged.completions("k100")


@pytest.mark.parametrize(("step", "age"), [(1, "a newer"), (-1, "an older")])
def test_other_schema_is_refused_and_left_alone(path, step, age):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + step}")
    with pytest.raises(InputError, match=f"was written by {age} version"):
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
