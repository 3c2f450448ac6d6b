"""The ledger of a run: one SQLite file in which nothing that was paid for is ever lost.

An attempt is on disk before it is sent, a completion before it is used. Writes go through one thread, which commits
whatever has gathered in one transaction (group commit), and a write returns once it is durable (WAL, synchronous=FULL).
"""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfinstruct.errors import Error, InputError
from selfinstruct.files import hold, to_json_line
from selfinstruct.records import Candidate, Completion, Example, Instance, Neighbour, Source, Verdict

SCHEMA_VERSION = 1
_MAX_GROUP = 1000
_SCHEMA = """
CREATE TABLE attempts (           -- every request that was sent, or was about to be when the program ended
  id             INTEGER PRIMARY KEY,
  prompt_key     TEXT NOT NULL,   -- which prompt; several attempts where one failed
  slot           INTEGER NOT NULL,
  started_at     TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  reserved_usd   REAL,            -- the most it could cost; NULL: price unknown
  outcome        TEXT,            -- 'completed', 'failed: ...', 'lost' (the program ended first); NULL: in flight
  cost_usd       REAL,            -- what it cost by the endpoint's usage figures; as reserved where its fate is unknown
  seconds        REAL
);
CREATE INDEX attempts_open ON attempts (id) WHERE outcome IS NULL;
CREATE TABLE completions (        -- every reply; the run is replayed from here
  prompt_key        TEXT PRIMARY KEY,
  completion_key    TEXT NOT NULL,
  slot              INTEGER NOT NULL,
  step              TEXT NOT NULL,    -- what was asked within the slot: 'instructions', 'instance/3', ...
  request           TEXT NOT NULL,    -- JSON of what was asked
  text              TEXT NOT NULL,    -- the reply without thinking text
  finish_reason     TEXT NOT NULL,    -- 'stop', 'length', 'content_filter', or 'error' for a permanent error
  error             TEXT,             -- what the endpoint said, if it refused this request for good
  prompt_tokens     INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL  -- thinking included
);
CREATE INDEX completions_slot ON completions (slot);
CREATE TABLE candidates (         -- every task that was parsed from the completions, in the order of judgement
  position          INTEGER PRIMARY KEY,
  id                TEXT NOT NULL,
  instruction       TEXT NOT NULL,
  instances         TEXT NOT NULL,    -- JSON list of {input, output}
  is_classification INTEGER NOT NULL,
  source            TEXT NOT NULL     -- JSON: strategy, model, slot, prompt_key, completion_key, demonstrations
);
CREATE TABLE verdicts (           -- the decision on each candidate
  position INTEGER PRIMARY KEY REFERENCES candidates (position),
  rule     TEXT,                  -- what rejected it: 'novelty', 'too_short', 'unparsable', ...; NULL: accepted
  detail   TEXT NOT NULL,
  nearest  TEXT NOT NULL          -- JSON list of {id, score}: the most similar examples in the pool, highest first
);
CREATE VIEW examples AS           -- the accepted candidates: the data set
  SELECT c.*, v.nearest FROM candidates c JOIN verdicts v USING (position) WHERE v.rule IS NULL;
CREATE TABLE facts (              -- figures of the run as a whole
  name  TEXT PRIMARY KEY,         -- 'closing': slot and target at which the run closed; 'elapsed_s': time spent on it
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


@contextmanager
def only_process(run: Path) -> Iterator[None]:
    """Hold a run directory for this process alone.

    Raises:
        UsageError: When another process holds it.
    """
    with open(run / ".lock", "a") as file:
        hold(file, run)
        yield


def was_answered(path: Path) -> bool:
    """Whether a ledger exists and holds a completion.

    Raises:
        InputError: When the file is no ledger.
    """
    if not path.exists():
        return False
    ledger = Ledger(path)
    try:
        return ledger.requests().completed > 0
    finally:
        ledger.close()


class Ledger:
    """An open ledger. Reads are synchronous; writes that must be durable are awaited.

    Args:
        path: The SQLite file; made when missing.

    Raises:
        InputError: When the file is no ledger, or one of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _errors_of(path), ExitStack() as connections:
            self._reader = connections.enter_context(closing(_connect(path)))
            self._prepare()
            self._writer = connections.enter_context(closing(_connect(path)))
            self._connections = connections.pop_all()
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_groups, name="ledger", daemon=True)
        self._thread.start()

    def _prepare(self) -> None:
        version = self._reader.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise InputError(
                f"was written by a newer version (schema {version})", path=self._path, remedy="update selfinstruct"
            )
        if version == 0:
            self._reader.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def close(self) -> None:
        """Finish the writes that are waiting and close the file."""
        self._writes.put(None)
        self._thread.join()
        self._connections.close()

    def _rows(self, sql: str) -> Iterator[Any]:
        with _errors_of(self._path):
            yield from self._reader.execute(sql)

    def _row(self, sql: str, values: Sequence[Any] = ()) -> Any:
        with _errors_of(self._path):
            return self._reader.execute(sql, values).fetchone()

    # -- requests ----------------------------------------------------------------------------------------------

    def completion(self, prompt_key: str) -> Completion | None:
        """The stored reply to a prompt, if there is one."""
        row = self._row(
            "SELECT completion_key, text, finish_reason, prompt_tokens, completion_tokens, error"
            " FROM completions WHERE prompt_key = ?",
            (prompt_key,),
        )
        return Completion(prompt_key, *row) if row else None

    async def begin_attempt(self, prompt_key: str, slot: int, reserved_usd: float | None) -> int:
        """Record that a request is about to be sent; returns the attempt's number."""
        sql = "INSERT INTO attempts (prompt_key, slot, reserved_usd) VALUES (?, ?, ?)"
        return await self._write([(sql, (prompt_key, slot, reserved_usd))])

    async def fail_attempt(self, attempt: int, reason: str, cost_usd: float | None, seconds: float) -> None:
        """Record that a request failed."""
        await self._write([_end_attempt(attempt, f"failed: {reason}", cost_usd, seconds)])

    async def complete_attempt(
        self,
        attempt: int,
        completion: Completion,
        slot: int,
        step: str,
        request: Any,
        cost_usd: float | None,
        seconds: float,
    ) -> None:
        """Record a reply, and with it the end of its attempt."""
        c = completion
        row = (c.prompt_key, c.key, slot, step, to_json_line(request), c.text, c.finish_reason, c.error,
               c.prompt_tokens, c.completion_tokens)  # fmt: skip
        await self._write(
            [
                _end_attempt(attempt, "completed", cost_usd, seconds),
                ("INSERT OR REPLACE INTO completions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row),
            ]
        )

    async def lose_open_attempts(self) -> int:
        """Mark attempts that were in flight when an earlier process ended, charged as reserved; returns how many."""
        count: int = self._row("SELECT count(*) FROM attempts WHERE outcome IS NULL")[0]
        await self._write([("UPDATE attempts SET outcome = 'lost', cost_usd = reserved_usd WHERE outcome IS NULL", ())])
        return count

    def requests(self) -> Requests:
        """Totals over all attempts so far. The cost is None when the price of any of them is unknown."""
        sent, completed, failed, lost, unpriced, cost, retried = self._row(
            "SELECT count(*), coalesce(sum(outcome = 'completed'), 0), coalesce(sum(outcome LIKE 'failed:%'), 0),"
            " coalesce(sum(outcome = 'lost'), 0), coalesce(sum(coalesce(cost_usd, reserved_usd) IS NULL), 0),"
            " coalesce(sum(coalesce(cost_usd, reserved_usd)), 0.0), count(*) - count(DISTINCT prompt_key) FROM attempts"
        )
        tokens = self._row(
            "SELECT coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) FROM completions"
        )
        return Requests(sent, completed, retried, failed, lost, None if unpriced else cost, *tokens)

    def unused_completions(self, last_slot: int) -> int:
        """How many completions belong to slots after the one in which the run closed."""
        return int(self._row("SELECT count(*) FROM completions WHERE slot > ?", (last_slot,))[0])

    # -- judgement ---------------------------------------------------------------------------------------------

    async def forget_judgement(self) -> None:
        """Drop candidates and verdicts, which a replay derives anew from the completions."""
        await self._write([("DELETE FROM verdicts", ()), ("DELETE FROM candidates", ())])

    async def record_judgement(self, position: int, judged: Iterable[tuple[Candidate, Verdict]]) -> None:
        """Record candidates with their verdicts, in order.

        Args:
            position: Number of the first one, counted over the whole run.
        """
        statements: list[_Statement] = []
        for number, (c, v) in enumerate(judged, start=position):
            instances = to_json_line([asdict(i) for i in c.instances])
            row = (number, c.id, c.instruction, instances, c.is_classification, to_json_line(asdict(c.source)))
            statements.append(("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?)", row))
            nearest = to_json_line([asdict(n) for n in v.nearest])
            statements.append(("INSERT INTO verdicts VALUES (?, ?, ?, ?)", (number, v.rule, v.detail, nearest)))
        await self._write(statements)

    def accepted(self) -> Iterator[Example]:
        """The data set so far, in order."""
        for row in self._rows(
            "SELECT id, instruction, instances, is_classification, source, nearest FROM examples ORDER BY position"
        ):
            yield Example(
                row[0], row[1], _instances(row[2]), bool(row[3]), source=_source(row[4]), nearest=_near(row[5])
            )

    def rejected(self) -> Iterator[tuple[Candidate, Verdict]]:
        """The rejected candidates with their verdicts, in order."""
        for row in self._rows(
            "SELECT id, instruction, instances, is_classification, source, rule, detail, nearest"
            " FROM candidates JOIN verdicts USING (position) WHERE rule IS NOT NULL ORDER BY position"
        ):
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

    # -- facts -------------------------------------------------------------------------------------------------

    def fact(self, name: str) -> Any:
        """A figure of the run as a whole, or None."""
        row = self._row("SELECT value FROM facts WHERE name = ?", (name,))
        return json.loads(row[0]) if row else None

    async def record_fact(self, name: str, value: Any) -> None:
        """Set a figure of the run as a whole."""
        await self._write([("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))])

    # -- the writer --------------------------------------------------------------------------------------------

    async def _write(self, statements: Sequence[_Statement]) -> int:
        """Run statements in one transaction; returns the last inserted row's number once they are durable."""
        loop = asyncio.get_running_loop()
        write = _Write(statements, loop.create_future(), loop)
        self._writes.put(write)
        return await write.done

    def _write_groups(self) -> None:
        while (first := self._writes.get()) is not None:
            group: list[_Write] = [first]
            closing = False
            while len(group) < _MAX_GROUP and not self._writes.empty():
                following = self._writes.get()
                if following is None:
                    closing = True
                    break
                group.append(following)
            self._commit(group)
            if closing:
                return

    def _commit(self, group: list[_Write]) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            rows = [write.run(self._writer) for write in group]
            self._writer.execute("COMMIT")
        except Exception as error:  # whatever it is, those who wait must hear of it
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            for write in group:
                write.fail(_converted(error, self._path) if isinstance(error, sqlite3.Error) else error)
        else:
            for write, row in zip(group, rows, strict=True):
                write.succeed(row)


_Statement = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class _Write:
    statements: Sequence[_Statement]
    done: asyncio.Future[int]
    loop: asyncio.AbstractEventLoop

    def run(self, connection: sqlite3.Connection) -> int:
        row = 0
        for sql, values in self.statements:
            row = connection.execute(sql, values).lastrowid or 0
        return row

    def succeed(self, row: int) -> None:
        self._soon(lambda: self.done.set_result(row))

    def fail(self, error: Exception) -> None:
        self._soon(lambda: self.done.set_exception(error))

    def _soon(self, settle: Callable[[], None]) -> None:
        def unless_cancelled() -> None:
            if not self.done.cancelled():
                settle()

        self.loop.call_soon_threadsafe(unless_cancelled)


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


def _end_attempt(attempt: int, outcome: str, cost_usd: float | None, seconds: float) -> _Statement:
    sql = "UPDATE attempts SET outcome = ?, cost_usd = ?, seconds = ? WHERE id = ?"
    return sql, (outcome, cost_usd, round(seconds, 3), attempt)


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


def _instances(text: str) -> tuple[Instance, ...]:
    return tuple(Instance(**instance) for instance in json.loads(text))


def _source(text: str) -> Source:
    values = json.loads(text)
    return Source(**{**values, "demonstrations": tuple(values["demonstrations"])})


def _near(text: str) -> tuple[Neighbour, ...]:
    return tuple(Neighbour(**neighbour) for neighbour in json.loads(text))
