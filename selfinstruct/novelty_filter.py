"""`selfinstruct novelty`: every row of a data set judged by what it resembles, in order and in one pass.

The result grows in a hidden file beside --out, so that the same command goes on with it after an interruption: it reads
what is there, adds the accepted rows to the index again and judges the rest.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import accumulate, compress, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

import orjson
from pydantic import BaseModel, Field, StrictInt, StrictStr, model_validator

from selfinstruct.command import Config
from selfinstruct.errors import InputError, Interrupted, UsageError
from selfinstruct.files import (
    hold,
    json_object,
    opened,
    read_json,
    refuse_to_replace,
    sha256_file,
    to_json_line,
    validate,
    write_json,
)
from selfinstruct.progress import Progress

if TYPE_CHECKING:
    from selfinstruct.novelty import Judged, NoveltyIndex

# What is judged at a time, and lost by a kill.
_BATCH_ROWS = 4096
_BATCH_LETTERS = 1 << 22
# What is added at a time; the index lays out its records in parts of so many.
_BULK_ROWS = 1 << 16
_BYTE_ORDER_MARK_AND_SPACE = b"\xef\xbb\xbf \t\r\n"


class NoveltyConfig(Config):
    """Options of `selfinstruct novelty`."""

    source: Path = Field(description="The rows: JSONL (also .gz) or Parquet.")
    out: Path = Field(
        description="JSONL to write: every row in order, with accepted and nearest.",
        json_schema_extra={"metavar": "FILE"},
    )
    against: list[Path] = Field(
        [],
        description="Rows that new ones must not resemble either: JSONL, Parquet, or one file of --save-index, which "
        "then comes first.",
        json_schema_extra={"metavar": "POOL"},
    )
    field: list[str] = Field(
        ["instruction"], min_length=1, description="Field with the text; several are joined by a space."
    )
    threshold: float = Field(0.7, ge=0, le=1, description="Reject a row whose ROUGE-L F with any other is above this.")
    top_k: int = Field(1, ge=1, description="How many of the most similar rows to name.")
    tokenizer: Literal["rouge", "unicode"] = Field(
        "rouge", description="Tokens to compare: rouge sees only a-z and 0-9, unicode all scripts."
    )
    engine: Literal["local", "ray"] = Field(
        "local", description="Where the index lies: in this process, or spread over a Ray cluster."
    )
    threads: int | None = Field(None, ge=1, description="Threads of the local engine; all cores by default.")
    shards: int | None = Field(None, ge=1, description="Parts of the ray engine; one a core of the cluster by default.")
    ray_address: str | None = Field(
        None, description="Ray cluster, as ray.init takes it; by default one is started on this machine."
    )
    save_index: Path | None = Field(
        None,
        description="Write the index here, for a later --against: the pools and the accepted rows.",
        json_schema_extra={"metavar": "FILE"},
    )
    overwrite: bool = Field(
        False, description="Replace files that exist, and an unfinished result of other options or data."
    )

    @model_validator(mode="after")
    def _agree(self) -> NoveltyConfig:
        if {"accepted", "nearest"} & set(self.field):
            raise ValueError("--field: 'accepted' and 'nearest' are what is written; name another")
        if self.engine == "ray" and (self.save_index or self.threads):
            raise ValueError("--save-index and --threads belong to --engine local")
        if self.engine == "local" and (self.shards or self.ray_address):
            raise ValueError("--shards and --ray-address belong to --engine ray")
        return self


@dataclass(frozen=True, slots=True)
class NoveltySummary:
    """What became of the rows.

    Attributes:
        path: Where they are.
        seconds: Of this call.
        rows_per_s: Of those that this call judged.
        index_bytes: Size of the index in memory; None if that is a cluster's.
    """

    path: str
    rows: int
    accepted: int
    rejected: int
    seconds: float
    rows_per_s: float
    index_bytes: int | None


def judge_novelty(config: NoveltyConfig) -> NoveltySummary:
    """Mark every row of a data set as new or too similar, to rows accepted before it or to other pools.

    Rows are judged one after the other, and each one that is accepted counts for those after it. ROUGE-L is exact:
    what rouge_score computes for the two texts. A row without a token is accepted. The same command resumes.

    Raises:
        InputError: For a broken file, or a row without the field; all rows are looked at before any is judged.
        UsageError: For an output that exists, an unfinished one of other options or data, a saved index with another
            tokenizer, or a missing package.
        Interrupted: By SIGINT or SIGTERM; what was judged is kept.
    """
    started = time.monotonic()
    _check_places(config)
    indexes = [path for path in config.against if _is_index(path)]
    pools = [_survey(path, config.field) for path in config.against if path not in indexes]
    data = _survey(config.source, config.field)
    saved = _saved_index(config, indexes)
    n_rows = data.n_rows + sum(source.n_rows for source in pools)
    with _unfinished(config, _settings(config, data, pools)) as file:

        def reread() -> Iterator[str]:
            for source in pools:
                yield from (row.text for row in source.rows())
            yield from (row.text for row, is_accepted, _ in _finished(Path(file.name), data) if is_accepted)

        with _new_pool(config, n_rows, saved, reread) as pool, _interruptible():
            _fill(pool, pools)
            pool.open(None)
            n_finished, n_accepted = _take_up(pool, data, file)
            n_accepted = _judge(config, pool, data, n_finished, n_accepted, file)
            if config.save_index:
                os.fsync(file.fileno())
                pool.save(config.save_index, data.name)
    seconds = time.monotonic() - started
    return NoveltySummary(
        path=str(config.out), rows=data.n_rows, accepted=n_accepted, rejected=data.n_rows - n_accepted,
        seconds=round(seconds, 3), rows_per_s=round((data.n_rows - n_finished) / seconds, 1),
        index_bytes=pool.local.nbytes if pool.local else None,
    )  # fmt: skip


def describe(summary: NoveltySummary) -> str:
    """The summary in words."""
    index = "" if summary.index_bytes is None else f"; the index takes {summary.index_bytes / 1e6:,.1f} MB"
    return (
        f"{summary.path}: {summary.rows:,} rows, {summary.accepted:,} accepted, {summary.rejected:,} rejected\n"
        f"{summary.seconds:.1f} s, {summary.rows_per_s:,.0f} rows/s{index}"
    )


def _check_places(config: NoveltyConfig) -> None:
    """Refuse to read what can be read only once, and to write where something stands that is wanted."""
    read = (config.source, *config.against)
    for path in read:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError("is no ordinary file, and is read several times", path=path, remedy="write it to a file")
    for option, written in (("--out", config.out), ("--save-index", config.save_index)):
        if written is None:
            continue
        if written.exists() and any(other.exists() and written.samefile(other) for other in read):
            raise UsageError(f"{option} {written} is what is to be read; give another file")
        refuse_to_replace(written, config.overwrite, option)
    if config.save_index and config.save_index.absolute() == config.out.absolute():
        raise UsageError(f"--save-index {config.save_index} is --out; give another file")


@contextmanager
def _interruptible() -> Iterator[None]:
    """End at SIGTERM as at Ctrl-C, and say that what was judged is kept."""
    in_main = threading.current_thread() is threading.main_thread()  # the only one that hears signals
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main else None
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted; everything so far is kept, and the same command resumes") from error
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


# -- rows --------------------------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    """A row of a file.

    Attributes:
        line: 0-based line of a text file, or number of the row.
        text: What is compared.
        data: A line of JSON, or the values.
        was_judged: Whether it has values that are to be replaced.
    """

    line: int
    text: str
    data: bytes | dict[str, Any]
    was_judged: bool


@dataclass(frozen=True, slots=True)
class _Source:
    """A file whose rows are known to have the fields.

    Attributes:
        sha256: Of its bytes.
    """

    path: Path
    fields: Sequence[str]
    n_rows: int
    sha256: str

    @property
    def name(self) -> str:
        """As `nearest` shows it."""
        return _name(self.path)

    def rows(self) -> Iterator[_Row]:
        """All rows, read anew."""
        return _rows(self.path, self.fields)


def _name(path: Path) -> str:
    return str(path).encode("utf-8", "replace").decode()


def _survey(path: Path, fields: Sequence[str]) -> _Source:
    """Look at all rows, so that a broken one is found before hours of work."""
    n_rows = sum(1 for _ in _rows(path, fields))
    return _Source(path, fields, n_rows, sha256_file(path))


def _rows(path: Path, fields: Sequence[str]) -> Iterator[_Row]:
    values: dict[str, Any] | None
    if path.suffix == ".parquet":
        from selfinstruct.labelled_data import read_parquet

        for number, row in enumerate(read_parquet(path)):
            values = dict(row.values)
            yield _Row(number, _text(values, fields, path, number + 1), values, True)
        return
    with opened(path) as file:
        for line, data in enumerate(file):
            if (values := _parsed(data, path, line + 1)) is not None:
                was_judged = "accepted" in values or "nearest" in values
                yield _Row(line, _text(values, fields, path, line + 1), data, was_judged)


def _parsed(data: bytes, path: Path, line: int) -> dict[str, Any] | None:
    """The object in a line; None for a blank one."""
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError:  # blank, broken, or JSON as Python also reads it: half an emoji, NaN
        return json_object(data, path, line)
    return values if isinstance(values, dict) else json_object(data, path, line)


def _text(values: dict[str, Any], fields: Sequence[str], path: Path, line: int) -> str:
    texts = [values.get(field) for field in fields]
    for field, text in zip(fields, texts, strict=True):
        if not isinstance(text, str):
            problem = "is missing" if field not in values else f"must be a text, not {to_json_line(text):.60}"
            remedy = f"name the field with --field; the row has {', '.join(values)}" if values else "mend the row"
            raise InputError(problem, path=path, line=line, field=field, remedy=remedy)
    return " ".join(texts) if len(texts) > 1 else texts[0]  # type: ignore[arg-type, return-value]


def _opening(row: _Row, path: Path) -> bytes:
    """A row as it is written, up to its last brace: byte for byte as it was read, where that is possible."""
    if isinstance(row.data, bytes) and not row.was_judged:
        return row.data.strip(_BYTE_ORDER_MARK_AND_SPACE)[:-1]
    values = json_object(row.data, path, row.line + 1) if isinstance(row.data, bytes) else row.data
    assert values is not None
    kept = {name: value for name, value in values.items() if name not in ("accepted", "nearest")}
    try:
        return to_json_line(kept).encode()[:-1]
    except TypeError as error:  # a column of bytes, decimals, ...
        raise InputError(
            f"cannot be written as JSON ({error})", path=path, line=row.line + 1, remedy="leave that column out"
        ) from error


def _parts(rows: Iterable[_Row], max_rows: int) -> Iterator[list[_Row]]:
    """Rows that follow each other; fewer of them where texts are long."""
    part: list[_Row] = []
    n_letters = 0
    for row in rows:
        part.append(row)
        n_letters += len(row.text)
        if len(part) == max_rows or n_letters >= _BATCH_LETTERS:
            yield part
            part, n_letters = [], 0
    if part:
        yield part


# -- the pool ----------------------------------------------------------------------------------------------------------


class _File(NamedTuple):
    """Rows of one file in the index, one after the other.

    Attributes:
        name: Of the file; None for the one that is judged.
        begin: Position of the first one.
        lines: 0-based, ascending.
    """

    name: str | None
    begin: int
    lines: array[int]


class _SavedFile(BaseModel):
    """What a saved index says of a file: the first line, then how many lines further each row is."""

    name: StrictStr
    steps: list[StrictInt]


class _Saved(BaseModel):
    """What a saved index says of all its records, in the order of their positions."""

    files: list[_SavedFile]


class _Pool:
    """The index, and the row that each of its positions stands for.

    Args:
        add: The index's.
        judge: The index's.
        local: The index itself, if it is in this process.
    """

    def __init__(
        self,
        add: Callable[[Sequence[str]], None],
        judge: Callable[[Sequence[str], float, int], Judged],
        local: NoveltyIndex | None = None,
    ) -> None:
        self.local = local
        self._add, self._judge = add, judge
        self._files: list[_File] = []

    def open(self, name: str | None) -> array[int]:
        """Begin with the rows of another file; gives what takes up their lines."""
        last = self._files[-1] if self._files else None
        self._files.append(_File(name, last.begin + len(last.lines) if last else 0, array("q")))
        return self._files[-1].lines

    def add(self, rows: Sequence[_Row]) -> None:
        """Add rows of the file that was opened last."""
        self._add([row.text for row in rows])
        self._files[-1].lines.extend(row.line for row in rows)

    def judge(self, rows: Sequence[_Row], threshold: float, k: int) -> Iterator[dict[str, Any]]:
        """Decide on rows of the file that was opened last, and name what they resemble."""
        judged = self._judge([row.text for row in rows], threshold, k)
        accepted: list[bool] = judged.accepted.tolist()
        self._files[-1].lines.extend(compress((row.line for row in rows), accepted))
        begins = [file.begin for file in self._files]
        matches = zip(judged.matches.positions.tolist(), judged.matches.scores.tolist(), strict=True)
        for is_accepted, (positions, scores) in zip(accepted, matches, strict=True):
            nearest = [self._named(p, s, begins) for p, s in zip(positions, scores, strict=True) if s > 0]
            yield {"accepted": is_accepted, "nearest": nearest}

    def save(self, path: Path, own_name: str) -> None:
        """Write the index to a file."""
        from selfinstruct.novelty import storage

        assert self.local
        files = [
            _SavedFile(name=own_name if file.name is None else file.name, steps=_steps(file.lines))
            for file in self._files
        ]
        storage.save(self.local.compiled(), path, _Saved(files=files).model_dump())

    def _named(self, position: int, score: float, begins: Sequence[int]) -> dict[str, Any]:
        """A match as it is written."""
        name, begin, lines = self._files[bisect_right(begins, position) - 1]
        line = lines[position - begin]
        return {"line": line, "score": score} if name is None else {"against": name, "line": line, "score": score}


def _steps(lines: array[int]) -> list[int]:
    return [line - before for before, line in zip([0, *lines[:-1]], lines, strict=True)]


class _SavedIndex(NamedTuple):
    """What a file of --save-index holds."""

    local: NoveltyIndex
    files: list[_SavedFile]


def _is_index(path: Path) -> bool:
    if path.suffix in (".jsonl", ".gz", ".parquet") or not path.is_file():
        return False
    from selfinstruct.novelty.storage import is_index  # which loads compiled code

    return is_index(path)


def _saved_index(config: NoveltyConfig, paths: Sequence[Path]) -> _SavedIndex | None:
    if not paths:
        return None
    if config.engine == "ray":
        raise UsageError(f"--against {paths[0]} holds no texts, which --engine ray needs; give the data itself")
    if len(paths) > 1:
        raise UsageError(f"--against: {paths[0]} and {paths[1]} are both saved indexes; give the data of all but one")
    from selfinstruct.novelty import NoveltyIndex, storage

    path = paths[0]
    index, about = storage.load(path, _threads(config))
    tokenizer = index.vocabulary.tokenizer
    if tokenizer != config.tokenizer:
        raise UsageError(f"--against {path} was made with --tokenizer {tokenizer}, not {config.tokenizer}")
    files = validate(_Saved, about, path=path).files
    if sum(len(file.steps) for file in files) != index.next_id:
        raise InputError("does not say where its records come from", path=path, remedy="make it with --save-index")
    return _SavedIndex(NoveltyIndex.of(index), files)


def _threads(config: NoveltyConfig) -> int:
    from selfinstruct.embedded import available_threads

    return config.threads or available_threads()


@contextmanager
def _new_pool(
    config: NoveltyConfig, n_rows: int, saved: _SavedIndex | None, reread: Callable[[], Iterator[str]]
) -> Iterator[_Pool]:
    """The pool with what was saved.

    Args:
        config: Of the command.
        n_rows: That will be added or judged.
        saved: An index to begin with.
        reread: Gives the texts of all rows that were added or accepted, in the order of their positions.
    """
    if config.engine == "ray":
        from selfinstruct.novelty.shards import ShardedIndex

        with closing(ShardedIndex(config.tokenizer, config.shards, config.ray_address, reread)) as shards:
            yield _Pool(shards.add, shards.judge)
        return
    from selfinstruct.novelty import NoveltyIndex

    local = saved.local if saved else NoveltyIndex(config.tokenizer, _threads(config), n_rows)
    pool = _Pool(lambda texts: local.add(*texts), local.judge, local)
    for file in saved.files if saved else ():
        pool.open(file.name).extend(accumulate(file.steps))
    yield pool


# -- the result --------------------------------------------------------------------------------------------------------


class _Finished(NamedTuple):
    """A row that stands in the unfinished result, and the bytes that it takes there."""

    row: _Row
    is_accepted: bool
    n_bytes: int


def _finished(result: Path, data: _Source) -> Iterator[_Finished]:
    """The rows that are finished: those before the first line that is torn or no row of the data."""
    with open(result, "rb") as file:
        for row, line in zip(data.rows(), file, strict=False):
            opening = _opening(row, data.path)
            try:
                decision = orjson.loads(b"{" + line[len(opening) + 1 :])
            except orjson.JSONDecodeError:  # torn, or a part that never reached the disk
                return
            if not (line.startswith(opening + b',"accepted":') and line.endswith(b"]}\n")):
                return
            is_accepted = decision["accepted"]
            yield _Finished(row, is_accepted, len(line))


def _settings(config: NoveltyConfig, data: _Source, pools: Sequence[_Source]) -> dict[str, Any]:
    """All that the result depends on."""
    contents = {source.name: source.sha256 for source in pools}
    indexes = (path for path in config.against if _name(path) not in contents)
    contents |= {_name(path): sha256_file(path) for path in indexes}
    options = {
        "against": [_name(path) for path in config.against], "field": config.field, "threshold": config.threshold,
        "top-k": config.top_k, "tokenizer": config.tokenizer,
    }  # fmt: skip
    return {"rows": data.sha256, "contents": contents, "options": options}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Between two settings, for people."""
    old, new = before["options"], now["options"]
    changed = [name for name, sha256 in now["contents"].items() if before["contents"].get(name, sha256) != sha256]
    return [
        *(f"--{name}: {_shown(old[name])} then, {_shown(new[name])} now" for name in new if old[name] != new[name]),
        *(f"{name}: its content has changed" for name in changed),
        *(["the rows to judge have changed"] if before["rows"] != now["rows"] else []),
    ]


def _shown(value: Any) -> str:
    return " ".join(value) or "nothing" if isinstance(value, list) else str(value)


@contextmanager
def _unfinished(config: NoveltyConfig, settings: dict[str, Any]) -> Iterator[IO[bytes]]:
    """The result under its hidden name, to write on at its end; it gets its own name when all is done.

    Raises:
        UsageError: When one is there that was begun with other settings, or another process writes it.
    """
    out = config.out
    out.parent.mkdir(parents=True, exist_ok=True)
    path, begun_with = out.with_name(f".{out.name}.unfinished"), out.with_name(f".{out.name}.unfinished.json")
    try:
        with open(path, "ab") as file:
            hold(file, out)
            try:
                before = read_json(begun_with) if begun_with.exists() else None
                if before != settings:
                    if before and path.stat().st_size and not config.overwrite:
                        raise UsageError(
                            f"{out} is unfinished and was begun with other options or data; give those again, or "
                            "--overwrite to begin anew:\n  " + "\n  ".join(_differences(before, settings))
                        )
                    file.truncate(0)
                    write_json(begun_with, settings)
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(path, out)
                begun_with.unlink()
            finally:
                if path.exists() and not path.stat().st_size:
                    path.unlink()
                    begun_with.unlink(missing_ok=True)
    except OSError as error:
        error.filename = error.filename or str(out)  # a failed write does not say where
        raise


# -- the work ----------------------------------------------------------------------------------------------------------


def _fill(pool: _Pool, sources: Sequence[_Source]) -> None:
    """Add all rows of other files."""
    n_rows = sum(source.n_rows for source in sources)
    n_added = 0
    with Progress("row of the pool", n_rows, shown=n_rows > 0) as progress:
        for source in sources:
            pool.open(source.name)
            for part in _parts(source.rows(), _BULK_ROWS):
                pool.add(part)
                n_added += len(part)
                progress.update(n_added, "")


def _take_up(pool: _Pool, data: _Source, file: IO[bytes]) -> tuple[int, int]:
    """Add accepted rows again, and cut off what is torn; gives (rows finished, of them accepted)."""
    n_finished = n_accepted = n_bytes = 0

    def accepted() -> Iterator[_Row]:
        nonlocal n_finished, n_accepted, n_bytes
        for row, is_accepted, size in _finished(Path(file.name), data):
            n_finished += 1
            n_accepted += is_accepted
            n_bytes += size
            if is_accepted:
                yield row

    for part in _parts(accepted(), _BULK_ROWS):
        pool.add(part)
    file.truncate(n_bytes)
    return n_finished, n_accepted


def _judge(config: NoveltyConfig, pool: _Pool, data: _Source, n_finished: int, n_accepted: int, file: IO[bytes]) -> int:
    """Judge and write the rest; gives the rows accepted in all."""
    n_done = n_finished
    began = time.monotonic()
    with Progress("row", data.n_rows, n_done) as progress:
        for part in _parts(islice(data.rows(), n_finished, None), _BATCH_ROWS):
            lines = []
            for row, decision in zip(part, pool.judge(part, config.threshold, config.top_k), strict=True):
                lines.append(_opening(row, data.path) + b"," + to_json_line(decision)[1:].encode() + b"\n")
                n_accepted += decision["accepted"]
            file.write(b"".join(lines))
            file.flush()
            n_done += len(part)
            pace = (n_done - n_finished) / (time.monotonic() - began)
            progress.update(n_done, f"{n_accepted / n_done:.0%} accepted, {pace:,.0f} rows/s")
    return n_accepted
