"""The ledger of a run: one SQLite file in which nothing that was paid for is ever lost.

An attempt is on disk before it is sent, a completion before it is used. Writes that wait while a commit is under way
share the next one (group commit), and a write returns once it is durable (WAL, synchronous=FULL).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
import orjson

from selfinstruct.errors import Error, InputError
from selfinstruct.files import hold, remove_unfinished, to_json_line
from selfinstruct.records import (
    Candidate,
    Completion,
    Example,
    Instance,
    Neighbour,
    Source,
    Usage,
    Verdict,
    conversation_text,
)

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE attempts (           -- every request that was sent, or was about to be when the program ended
  id                INTEGER PRIMARY KEY,
  prompt_key        TEXT NOT NULL,  -- which prompt; several attempts where one failed
  slot              INTEGER NOT NULL,
  batch             INTEGER REFERENCES batches (id),  -- NULL: sent by itself
  started_at        TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  reserved_usd      REAL,           -- the most it could cost; NULL: price unknown
  outcome           TEXT,           -- 'completed', 'failed', 'lost' (the program ended first); NULL: in flight
  error             TEXT,           -- why it failed
  cost_usd          REAL,           -- by the endpoint's usage figures; as reserved where its fate is unknown
  prompt_tokens     INTEGER,        -- as the endpoint counted them
  completion_tokens INTEGER,        -- thinking included
  seconds           REAL
);
CREATE INDEX attempts_uncompleted ON attempts (prompt_key) WHERE outcome IS NOT 'completed';
CREATE TABLE batches (            -- files of requests handed to the endpoint's batch API
  id          INTEGER PRIMARY KEY,
  owner       TEXT NOT NULL,      -- whose requests: the teacher's or the judge's
  endpoint_id TEXT,               -- the endpoint's name for it; NULL: it was about to be made
  started_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  outcome     TEXT                -- how it ended; NULL: under way
);
CREATE TABLE batch_requests (     -- what is needed to store the replies of a batch after a restart
  attempt INTEGER PRIMARY KEY REFERENCES attempts (id),
  batch   INTEGER NOT NULL REFERENCES batches (id),
  step    TEXT NOT NULL,
  request TEXT NOT NULL
);
CREATE INDEX batch_requests_batch ON batch_requests (batch);
CREATE TABLE completions (        -- every reply; the run is replayed from here
  prompt_key     TEXT NOT NULL,
  choice         INTEGER NOT NULL,  -- 0, 1, ... where several replies were asked for at once
  completion_key TEXT NOT NULL,
  slot           INTEGER NOT NULL,
  step           TEXT NOT NULL,     -- what was asked within the slot: 'instructions', 'instance/3', ...
  request        TEXT,              -- JSON of what was asked; with the first choice only
  text           TEXT NOT NULL,     -- the reply without thinking text
  finish_reason  TEXT NOT NULL,     -- 'stop', 'length', 'content_filter', or 'error' for a permanent error
  error          TEXT,              -- what the endpoint said, if it refused this request for good
  PRIMARY KEY (prompt_key, choice)
);
CREATE INDEX completions_slot ON completions (slot);
CREATE TABLE slots (              -- every judged slot, in order
  number       INTEGER PRIMARY KEY,
  strategy     TEXT NOT NULL,
  n_candidates INTEGER NOT NULL,
  n_accepted   INTEGER NOT NULL,
  rejected     TEXT NOT NULL,     -- JSON: how many candidates each rule rejected
  saturated    INTEGER NOT NULL   -- strategies that were saturated after it, as a bit set over their list
);
CREATE TABLE candidates (         -- every task that was parsed from the completions, in the order of judgement
  position          INTEGER PRIMARY KEY,
  id                TEXT NOT NULL,
  instruction       TEXT NOT NULL,
  instances         TEXT NOT NULL,    -- JSON list of {input, output}
  is_classification INTEGER NOT NULL,
  source            TEXT NOT NULL,    -- JSON: strategy, model, slot, prompt_key, completion_key, demonstrations, ...
  rejection         TEXT,             -- JSON of rule and detail where parsing rejected it
  screened          INTEGER NOT NULL, -- whether it was not completed, since a filter was certain to reject it
  scores            TEXT NOT NULL     -- JSON: what judges gave it
);
CREATE TABLE verdicts (           -- the decision on each candidate
  position INTEGER PRIMARY KEY REFERENCES candidates (position),
  rule     TEXT,                  -- what rejected it: 'novelty', 'too_short', 'unparsable', ...; NULL: accepted
  detail   TEXT NOT NULL,
  nearest  TEXT NOT NULL          -- JSON list of {id, score}: the most similar examples in the pool, highest first
);
CREATE INDEX verdicts_rule ON verdicts (rule);
CREATE VIEW examples AS           -- the accepted candidates: the data set
  SELECT c.*, v.nearest FROM candidates c JOIN verdicts v USING (position) WHERE v.rule IS NULL;
CREATE TABLE facts (              -- figures of the run as a whole
  name  TEXT PRIMARY KEY,         -- 'closing': slot, target and cause with which it closed; 'elapsed_s': time spent
  value TEXT NOT NULL             -- JSON
);
"""


@dataclass(frozen=True, slots=True)
class Requests:
    """How many requests a run has made, and what came of them."""

    sent: int
    completed: int
    retried: int
    failed: int
    lost: int
    cost_usd: float | None
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Replies of the last minute, a second."""

    requests_per_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Activity:
    """What ended within one stretch of time.

    Attributes:
        number: Of the stretch, counted from 1970 in stretches of its length.
        completed, failed: Requests; those that were lost count as failed.
        tokens: Of prompts and completions.
        cost_usd: None when the price of any of them is unknown.
    """

    number: int
    completed: int
    failed: int
    tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of a slot with its replies.

    Attributes:
        step: What was asked within the slot: "instructions", "instance/3", ...
        prompt: The messages, one after the other.
    """

    step: str
    prompt: str
    replies: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class JudgedSlot:
    """A slot with its verdicts given; see the table."""

    number: int
    strategy: str
    n_candidates: int
    n_accepted: int
    rejected: Mapping[str, int]
    saturated: int


@dataclass(frozen=True, slots=True)
class StrategyYield:
    """What came of a strategy: slots, candidates judged, accepted, and rejected by rule."""

    slots: int
    judged: int
    accepted: int
    rejected: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One request of a batch: what its reply is stored with.

    Attributes:
        attempt: Number of the attempt; 0 before it is recorded.
    """

    prompt_key: str
    slot: int
    step: str
    request: Mapping[str, Any]
    reserved_usd: float | None
    attempt: int = 0


@contextmanager
def only_process(run: Path) -> Iterator[None]:
    """Hold a run directory for this process alone.

    Raises:
        UsageError: When another process holds it.
    """
    with open(run / ".lock", "a") as file:
        hold(file, run)
        remove_unfinished(run)
        yield


def was_answered(path: Path) -> bool:
    """Whether a ledger exists and holds a completion.

    Raises:
        InputError: When the file is no ledger.
    """
    if not path.exists():
        return False
    with closing(Ledger(path)) as ledger:
        return ledger.has_completions()


class Ledger:
    """An open ledger. Reads are synchronous; writes are awaited until they are durable.

    Args:
        path: The SQLite file; made when missing.

    Raises:
        InputError: When the file is no ledger, or one of another schema version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _errors_of(path), ExitStack() as connections:
            self._reader = connections.enter_context(closing(_connect(path)))
            self._prepare()
            self._writer = connections.enter_context(closing(_connect(path)))
            self._connections = connections.pop_all()
        self._waiting: list[_Write] = []
        self._committing: asyncio.Task[None] | None = None
        # Only the synchronisation with the disk is waited for elsewhere: a thread that ran the statements too would
        # have to fight for the interpreter at each of them.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    def _prepare(self) -> None:
        version = self._reader.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._reader.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            age = "a newer" if version > SCHEMA_VERSION else "an older"
            raise InputError(
                f"was written by {age} version (schema {version}, this one knows {SCHEMA_VERSION})", path=self._path,
                remedy="go on with that version of selfinstruct, or choose another --out",
            )  # fmt: skip

    def close(self) -> None:
        """Let a commit under way finish and close the file."""
        self._disk.shutdown(wait=True)
        self._connections.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read everything within as it stands at one moment, whatever other processes write meanwhile."""
        with _errors_of(self._path):
            self._reader.execute("BEGIN")
        try:
            yield
        finally:
            self._reader.execute("COMMIT")

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        with _errors_of(self._path):
            yield from self._reader.execute(sql, values)

    def _row(self, sql: str, values: Sequence[Any] = ()) -> Any:
        with _errors_of(self._path):
            return self._reader.execute(sql, values).fetchone()

    # -- requests ----------------------------------------------------------------------------------------------

    def completions(self, prompt_key: str) -> tuple[Completion, ...]:
        """The stored replies to a prompt; empty when there is none."""
        rows = self._rows(
            "SELECT completion_key, text, finish_reason, error FROM completions WHERE prompt_key = ? ORDER BY choice",
            (prompt_key,),
        )
        return tuple(Completion(prompt_key, *row) for row in rows)

    def request(self, prompt_key: str) -> dict[str, Any] | None:
        """What was asked under a key, as `Prompt.as_request` gives it; None where nothing was answered."""
        row = self._row("SELECT request FROM completions WHERE prompt_key = ? AND choice = 0", (prompt_key,))
        return json.loads(row[0]) if row else None

    def asked_in(self, slot: int) -> list[Asked]:
        """What was asked in a slot and answered, in the order of the answers."""
        rows = self._rows(
            "SELECT prompt_key, step, request FROM completions WHERE slot = ? AND choice = 0 ORDER BY rowid", (slot,)
        )
        return [
            Asked(step, conversation_text(orjson.loads(request)["messages"]), self.completions(key))
            for key, step, request in rows
        ]

    def has_completions(self) -> bool:
        """Whether anything was ever answered."""
        return self._row("SELECT 1 FROM completions LIMIT 1") is not None

    async def begin_attempt(self, prompt_key: str, slot: int, reserved_usd: float | None) -> int:
        """Record that a request is about to be sent; returns the attempt's number."""
        return await self._write([_begin_attempt(prompt_key, slot, None, reserved_usd)])

    async def fail_attempt(
        self, attempt: int, error: str, cost_usd: float | None, usage: Usage, seconds: float
    ) -> None:
        """Record that a request failed."""
        await self._write([_end_attempt(attempt, "failed", error, cost_usd, usage, seconds)])

    async def complete_attempt(
        self,
        attempt: int,
        completions: Sequence[Completion],
        slot: int,
        step: str,
        request: Mapping[str, Any],
        cost_usd: float | None,
        usage: Usage,
        seconds: float,
    ) -> None:
        """Record the replies to a request, and with them the end of its attempt."""
        asked = to_json_line(request)
        statements = [_end_attempt(attempt, "completed", None, cost_usd, usage, seconds)]
        sql = "INSERT OR REPLACE INTO completions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        for choice, c in enumerate(completions):
            row = (c.prompt_key, choice, c.key, slot, step, None if choice else asked, c.text, c.finish_reason, c.error)
            statements.append((sql, row))
        await self._write(statements)

    async def lose_open_attempts(self) -> int:
        """Mark attempts that were in flight when an earlier process ended, charged as reserved; returns how many.

        Those of a batch are not lost: it goes on at the endpoint.
        """
        is_open = "outcome IS NOT 'completed' AND outcome IS NULL AND batch IS NULL"
        count: int = self._row(f"SELECT count(*) FROM attempts WHERE {is_open}")[0]  # noqa: S608
        sql = f"UPDATE attempts SET outcome = 'lost', cost_usd = reserved_usd WHERE {is_open}"  # noqa: S608
        await self._write([(sql, ())])
        return count

    def requests(self) -> Requests:
        """Totals over all attempts so far. The cost is None when the price of any of them is unknown."""
        sent, completed, failed, lost, unpriced, cost, prompt_tokens, completion_tokens = self._row(
            "SELECT count(*), coalesce(sum(outcome = 'completed'), 0), coalesce(sum(outcome = 'failed'), 0),"
            " coalesce(sum(outcome = 'lost'), 0), coalesce(sum(coalesce(cost_usd, reserved_usd) IS NULL), 0),"
            " coalesce(sum(coalesce(cost_usd, reserved_usd)), 0.0),"
            " coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM attempts"
        )
        # Sent again: all attempts but the first at each prompt. A prompt is completed once.
        unanswered = self._row(
            "SELECT count(DISTINCT prompt_key) FROM attempts WHERE outcome IS NOT 'completed'"
            " AND NOT EXISTS (SELECT 1 FROM completions WHERE completions.prompt_key = attempts.prompt_key)"
        )[0]
        return Requests(
            sent, completed, sent - completed - unanswered, failed, lost, None if unpriced else cost,
            prompt_tokens, completion_tokens,
        )  # fmt: skip

    def taken(self, judged: bool) -> tuple[int, int, int, float | None]:
        """(requests, prompt tokens, completion tokens, US dollars) of all replies to judged slots, or to later ones."""
        n, prompt_tokens, completion_tokens, unpriced, cost = self._row(
            "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0),"
            " coalesce(sum(cost_usd IS NULL), 0), coalesce(sum(cost_usd), 0.0) FROM attempts"
            " WHERE outcome = 'completed' AND (slot <= (SELECT coalesce(max(number), -1) FROM slots)) = ?",
            (judged,),
        )
        return n, prompt_tokens, completion_tokens, None if unpriced else cost

    def period(self) -> tuple[str, str] | None:
        """The days (ISO 8601, UTC) on which the first and the last request was sent, if any was."""
        first, last = self._row("SELECT date(min(started_at)), date(max(started_at)) FROM attempts")
        return (first, last) if first else None

    def reserved_usd(self) -> float:
        """What is reserved for requests whose outcome is open, and part of the cost above."""
        is_open = "outcome IS NOT 'completed' AND outcome IS NULL"
        return float(self._row(f"SELECT coalesce(sum(reserved_usd), 0) FROM attempts WHERE {is_open}")[0])  # noqa: S608

    def throughput(self) -> Throughput:
        """Replies of the last minute, among the last 100,000 attempts."""
        count, tokens = self._row(
            "SELECT count(*), coalesce(sum(prompt_tokens + completion_tokens), 0)"
            " FROM (SELECT * FROM attempts ORDER BY id DESC LIMIT 100000) WHERE outcome = 'completed'"
            " AND julianday(started_at) + seconds / 86400 > julianday('now') - 60 / 86400.0"
        )
        return Throughput(count / 60, tokens / 60)

    def activity(self, stretch_s: int) -> list[Activity]:
        """What ended when: the stretches of so many seconds in which anything did, in order."""
        rows = self._rows(
            "SELECT CAST((julianday(started_at) - 2440587.5) * 86400 + coalesce(seconds, 0) AS INTEGER) / ? AS number,"
            " sum(outcome = 'completed'), sum(outcome != 'completed'),"
            " sum(coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0)),"
            " CASE WHEN sum(cost_usd IS NULL) = 0 THEN sum(cost_usd) END"
            " FROM attempts WHERE outcome IS NOT NULL GROUP BY 1 ORDER BY 1",
            (stretch_s,),
        )
        return [Activity(*row) for row in rows]

    def mean_seconds(self) -> float | None:
        """Mean time to a reply, over the last 1,000; None before the first."""
        row = self._row(
            "SELECT avg(seconds) FROM (SELECT seconds FROM attempts WHERE outcome = 'completed' AND batch IS NULL"
            " ORDER BY id DESC LIMIT 1000)"
        )
        return None if row[0] is None else float(row[0])

    def unused_completions(self, last_slot: int) -> int:
        """How many answered requests belong to slots after the one in which the run closed."""
        return int(self._row("SELECT count(*) FROM completions WHERE slot > ? AND choice = 0", (last_slot,))[0])

    # -- batches -----------------------------------------------------------------------------------------------

    async def begin_batch(self, owner: str, requests: Sequence[BatchRequest]) -> int:
        """Record that a batch is about to be made, with an attempt for each request; returns its number."""
        batch = self._row("SELECT coalesce(max(id), 0) + 1 FROM batches")[0]
        statements: list[_Statement] = [("INSERT INTO batches (id, owner) VALUES (?, ?)", (batch, owner))]
        for r in requests:
            statements.append(_begin_attempt(r.prompt_key, r.slot, batch, r.reserved_usd))
            sql = "INSERT INTO batch_requests VALUES (last_insert_rowid(), ?, ?, ?)"
            statements.append((sql, (batch, r.step, to_json_line(r.request))))
        await self._write(statements)
        return int(batch)

    async def name_batch(self, batch: int, endpoint_id: str) -> None:
        """Record what the endpoint calls a batch."""
        await self._write([("UPDATE batches SET endpoint_id = ? WHERE id = ?", (endpoint_id, batch))])

    def open_batches(self, owner: str | None = None) -> list[tuple[int, str | None]]:
        """(number, the endpoint's name or None) of the batches under way, of one owner or of all."""
        sql = "SELECT id, endpoint_id FROM batches WHERE outcome IS NULL AND coalesce(owner = ?, true) ORDER BY id"
        return list(self._rows(sql, (owner,)))

    def open_requests(self, batch: int) -> list[BatchRequest]:
        """The requests of a batch without an outcome."""
        rows = self._rows(
            "SELECT prompt_key, slot, step, request, reserved_usd, attempts.id"
            " FROM batch_requests JOIN attempts ON attempts.id = attempt"
            " WHERE batch_requests.batch = ? AND outcome IS NULL ORDER BY attempt",
            (batch,),
        )
        return [BatchRequest(key, slot, step, json.loads(request), *rest) for key, slot, step, request, *rest in rows]

    async def end_batch(self, batch: int, outcome: str) -> None:
        """Record that all requests of a batch have their outcome."""
        await self._write(
            [
                ("UPDATE batches SET outcome = ? WHERE id = ?", (outcome, batch)),
                ("DELETE FROM batch_requests WHERE batch = ?", (batch,)),
            ]
        )

    # -- judgement ---------------------------------------------------------------------------------------------

    async def record_slot(
        self,
        slot: JudgedSlot,
        position: int,
        judged: Iterable[tuple[Candidate, Verdict]],
        closing: Mapping[str, Any] | None,
    ) -> None:
        """Record a slot and its candidates with their verdicts, in order.

        Args:
            slot: The slot.
            position: Number of its first candidate, counted over the whole run.
            judged: Candidates and verdicts.
            closing: The fact of that name, when the run closes with this slot.
        """
        statements: list[_Statement] = [
            (
                "INSERT INTO slots VALUES (?, ?, ?, ?, ?, ?)",
                (
                    slot.number,
                    slot.strategy,
                    slot.n_candidates,
                    slot.n_accepted,
                    to_json_line(slot.rejected),
                    slot.saturated,
                ),
            )
        ]
        for number, (c, v) in enumerate(judged, start=position):
            instances = to_json_line([asdict(i) for i in c.instances])
            rejection = c.rejection and to_json_line({"rule": c.rejection.rule, "detail": c.rejection.detail})
            row = (
                number, c.id, c.instruction, instances, c.is_classification, to_json_line(c.source.as_row()), rejection,
                c.screened, to_json_line(dict(c.scores)),
            )  # fmt: skip
            statements.append(("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row))
            nearest = to_json_line([asdict(n) for n in v.nearest])
            statements.append(("INSERT INTO verdicts VALUES (?, ?, ?, ?)", (number, v.rule, v.detail, nearest)))
        if closing:
            statements.append(_record_fact("closing", closing))
        await self._write(statements)

    async def reopen(self) -> None:
        """Take back that the run closed, with the judgement of its last slot, which a larger target may change."""
        last = self._row("SELECT number, n_candidates FROM slots ORDER BY number DESC LIMIT 1")
        statements: list[_Statement] = [("DELETE FROM facts WHERE name = 'closing'", ())]
        if last:
            first = self.n_judged() - last[1]
            statements += [
                ("DELETE FROM verdicts WHERE position >= ?", (first,)),
                ("DELETE FROM candidates WHERE position >= ?", (first,)),
                ("DELETE FROM slots WHERE number = ?", (last[0],)),
            ]
        await self._write(statements)

    def last_slots(self, n: int) -> list[JudgedSlot]:
        """The last n judged slots, in order."""
        rows = self._rows("SELECT * FROM slots ORDER BY number DESC LIMIT ?", (n,))
        return [
            JudgedSlot(number, strategy, n_candidates, n_accepted, json.loads(rejected), saturated)
            for number, strategy, n_candidates, n_accepted, rejected, saturated in rows
        ][::-1]

    def strategies(self) -> dict[str, StrategyYield]:
        """What came of each strategy, in order of first use."""
        rejected: dict[str, dict[str, int]] = {}
        for name, rule, n in self._rows(
            "SELECT strategy, key, sum(value) FROM slots, json_each(rejected) GROUP BY 1, 2 ORDER BY 3 DESC, 2"
        ):
            rejected.setdefault(name, {})[rule] = n
        rows = self._rows(
            "SELECT strategy, count(*), sum(n_candidates), sum(n_accepted) FROM slots GROUP BY 1 ORDER BY min(number)"
        )
        return {
            name: StrategyYield(slots, judged, accepted, rejected.get(name, {}))
            for name, slots, judged, accepted in rows
        }

    def pool(self) -> Iterator[Example]:
        """The accepted tasks so far as `bootstrap.pooled` keeps them: without neighbours, mostly without source."""
        for id, instruction, instances, is_classification, source in self._rows(
            "SELECT id, instruction, instances, is_classification,"
            " CASE WHEN source ->> 'attributes' IS NOT NULL THEN source END FROM examples ORDER BY position"
        ):
            yield Example(
                id, instruction, _instances(instances), bool(is_classification), source=source and _source(source)
            )

    def recent(self, strategy: str, n: int) -> Iterator[tuple[str, str | None]]:
        """(instruction, rule) of the last n candidates of a strategy, the latest first."""
        yield from self._rows(
            "SELECT instruction, rule FROM candidates JOIN verdicts USING (position)"
            " WHERE source ->> 'strategy' = ? ORDER BY position DESC LIMIT ?",
            (strategy, n),
        )

    def accepted(self, places: Sequence[int] | None = None) -> Iterator[Example]:
        """The data set so far, in order.

        Args:
            places: Those to give, counted among the accepted ones; all by default.
        """
        wanted, values = _placed("IS NULL", places)
        fields = "id, instruction, instances, is_classification, source, nearest, scores"
        sql = f"SELECT {fields} FROM examples JOIN ({wanted}) USING (position) ORDER BY position"  # noqa: S608
        for row in self._rows(sql, values):
            yield Example(
                row[0], row[1], _instances(row[2]), bool(row[3]), source=_source(row[4]), nearest=_near(row[5]),
                scores=json.loads(row[6]),
            )  # fmt: skip

    def candidates(self) -> Iterator[Candidate]:
        """All candidates, in the order of judgement."""
        for row in self._rows(
            "SELECT id, instruction, instances, is_classification, source, rejection, screened, scores FROM candidates"
            " ORDER BY position"
        ):
            rejection = Verdict(**json.loads(row[5])) if row[5] else None
            yield Candidate(
                row[0], row[1], _instances(row[2]), bool(row[3]), _source(row[4]), rejection, bool(row[6]),
                json.loads(row[7]),
            )  # fmt: skip

    def rejected(self, places: Sequence[int] | None = None) -> Iterator[tuple[Candidate, Verdict]]:
        """The rejected candidates with their verdicts, in order.

        Args:
            places: Those to give, counted among the rejected ones; all by default.
        """
        wanted, values = _placed("IS NOT NULL", places)
        fields = "id, instruction, instances, is_classification, source, rule, detail, nearest"
        judged = f"candidates JOIN verdicts USING (position) JOIN ({wanted}) USING (position)"
        for row in self._rows(f"SELECT {fields} FROM {judged} ORDER BY position", values):  # noqa: S608
            candidate = Candidate(row[0], row[1], _instances(row[2]), bool(row[3]), _source(row[4]))
            yield candidate, Verdict(row[5], row[6], _near(row[7]))

    def rules(self) -> dict[str, int]:
        """How many candidates each rule rejected, most first."""
        rows = self._rows(
            "SELECT rule, count(*) FROM verdicts WHERE rule IS NOT NULL GROUP BY rule ORDER BY count(*) DESC, rule"
        )
        return dict(rows)

    def n_accepted(self) -> int:
        """How many candidates were accepted so far."""
        return int(self._row("SELECT count(*) FROM verdicts WHERE rule IS NULL")[0])

    def n_judged(self) -> int:
        """How many candidates have a verdict."""
        return int(self._row("SELECT coalesce(max(position) + 1, 0) FROM verdicts")[0])

    # -- facts -------------------------------------------------------------------------------------------------

    def fact(self, name: str) -> Any:
        """A figure of the run as a whole, or None."""
        row = self._row("SELECT value FROM facts WHERE name = ?", (name,))
        return json.loads(row[0]) if row else None

    async def record_fact(self, name: str, value: Any) -> None:
        """Set a figure of the run as a whole."""
        await self._write([_record_fact(name, value)])

    # -- group commit ------------------------------------------------------------------------------------------

    async def _write(self, statements: Sequence[_Statement]) -> int:
        """Run statements in one transaction; returns the last inserted row's number once they are durable.

        That is waited for whatever is cancelled meanwhile: who began an attempt has to hear its number to end it.
        """
        loop = asyncio.get_running_loop()
        write = _Write(statements, loop.create_future())
        self._waiting.append(write)
        if self._committing is None or self._committing.done():
            self._committing = loop.create_task(self._commit_groups())
        with anyio.CancelScope(shield=True):
            await write.done
        return write.done.result()

    async def _commit_groups(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            await self._commit(group)

    async def _commit(self, group: Sequence[_Write]) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            rows = [write.run(self._writer) for write in group]
            await asyncio.get_running_loop().run_in_executor(self._disk, self._writer.execute, "COMMIT")
        except Exception as error:  # whatever it is, those who wait must hear of it
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            if len(group) > 1:  # what one of them did wrong must not cost the others theirs
                for write in group:
                    await self._commit([write])
            else:
                group[0].fail(_converted(error, self._path) if isinstance(error, sqlite3.Error) else error)
        else:
            for write, row in zip(group, rows, strict=True):
                write.succeed(row)


_Statement = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class _Write:
    statements: Sequence[_Statement]
    done: asyncio.Future[int]

    def run(self, connection: sqlite3.Connection) -> int:
        row = 0
        for sql, values in self.statements:
            row = connection.execute(sql, values).lastrowid or 0
        return row

    def succeed(self, row: int) -> None:
        if not self.done.done():
            self.done.set_result(row)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _converted(error, path) from error


def _begin_attempt(prompt_key: str, slot: int, batch: int | None, reserved_usd: float | None) -> _Statement:
    sql = "INSERT INTO attempts (prompt_key, slot, batch, reserved_usd) VALUES (?, ?, ?, ?)"
    return sql, (prompt_key, slot, batch, reserved_usd)


def _end_attempt(
    attempt: int, outcome: str, error: str | None, cost_usd: float | None, usage: Usage, seconds: float
) -> _Statement:
    sql = (
        "UPDATE attempts SET outcome = ?, error = ?, cost_usd = ?, prompt_tokens = ?, completion_tokens = ?,"
        " seconds = ? WHERE id = ?"
    )
    tokens = usage.prompt_tokens, usage.completion_tokens
    return sql, (outcome, error, cost_usd, *tokens, round(seconds, 3), attempt)


def _record_fact(name: str, value: Any) -> _Statement:
    return "INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value))


def _converted(error: sqlite3.Error, path: Path) -> Error:
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return Error(
            f"{path}: could not be written ({text}): is the disk full? Free some space and run the same command again,"
            " which resumes"
        )
    if "not a database" in text or "malformed" in text:
        return InputError(f"is damaged or no ledger ({text})", path=path, remedy="restore it or use another --out")
    return Error(f"{path}: {text}")


def _placed(rule: str, places: Sequence[int] | None) -> _Statement:
    """A query for the positions of candidates with such a rule: of all, or of those at some places among them."""
    if places is None:
        return f"SELECT position FROM verdicts WHERE rule {rule}", ()  # noqa: S608
    ranked = f"SELECT position, row_number() OVER (ORDER BY position) - 1 AS place FROM verdicts WHERE rule {rule}"  # noqa: S608
    sql = f"SELECT position FROM ({ranked}) WHERE place IN (SELECT value FROM json_each(?))"  # noqa: S608
    return sql, (json.dumps(list(places)),)


def _instances(text: str) -> tuple[Instance, ...]:
    return tuple(Instance(**instance) for instance in orjson.loads(text))


def _source(text: str) -> Source:
    return Source.of_row(orjson.loads(text))


def _near(text: str) -> tuple[Neighbour, ...]:
    return tuple(Neighbour(**neighbour) for neighbour in orjson.loads(text))
