"""Reading and writing files: JSON lines (plain or .gz), TOML, atomic replacement, hashes.

Whatever is wrong with a file becomes an `InputError` that names the place.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from selfinstruct.errors import InputError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ModelT = TypeVar("ModelT", bound=BaseModel)


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """Open a file for reading, unpacking `.gz`, with every failure as an `InputError`."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError("no such file", path=path, remedy="check the path") from error
    except IsADirectoryError as error:
        raise InputError("is a folder, not a file", path=path) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"is a broken gzip file ({error})", path=path, remedy="copy it again") from error
    except OSError as error:
        raise InputError(
            f"may not be read ({error.strerror})", path=path, remedy="check the path and its permissions"
        ) from error


def decoded(data: bytes, path: Path, line: int = 1) -> str:
    """Text of a file, or of its part that begins at a line."""
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise InputError(
            f"is not UTF-8 text ({error.reason})", path=path, line=line, remedy="save it as UTF-8"
        ) from error


def read_text(path: Path) -> str:
    """Read a whole text file.

    Raises:
        InputError: For a file that cannot be read or is not UTF-8.
    """
    with opened(path) as file:
        return decoded(file.read(), path)


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based line, object) for every line that is not blank.

    Raises:
        InputError: For a file that cannot be read or a line that is not a JSON object.
    """
    with opened(path) as file:
        for number, data in enumerate(file, start=1):
            if (value := json_object(data, path, number)) is not None:
                yield number, value


def json_object(data: bytes, path: Path, line: int) -> dict[str, Any] | None:
    """The object in a line of a file; None for a blank one.

    Raises:
        InputError: For a line that is not a JSON object.
    """
    text = decoded(data, path, line)
    if not text.strip():
        return None
    value = _parsed_json(text, path, line)
    if not isinstance(value, dict):
        raise InputError("must be a JSON object", path=path, line=line, remedy="write one {...} a line")
    return value


def read_json(path: Path) -> Any:
    """Read a whole JSON file.

    Raises:
        InputError: For a file that cannot be read or is not JSON.
    """
    return _parsed_json(read_text(path), path)


def _parsed_json(text: str, path: Path, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        is_lines = line is None and error.msg == "Extra data"
        raise InputError(
            f"is not valid JSON ({error.msg}, column {error.colno})", path=path, line=line or error.lineno,
            remedy="name it .jsonl if each line is an object" if is_lines else "mend or remove the line",
        ) from error  # fmt: skip
    except (RecursionError, ValueError) as error:  # nested thousands deep; a number of thousands of digits
        raise InputError(f"is no JSON that can be read ({error})", path=path, line=line) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        InputError: For a file that cannot be read or is not TOML.
    """
    text = read_text(path)
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except (RecursionError, ValueError) as error:
        raise InputError(f"is not valid TOML: {error}", path=path) from error
    return values


def to_toml(values: Mapping[str, Any]) -> str:
    """TOML text of a configuration; None values are left out, since TOML has no null."""
    import tomli_w

    return tomli_w.dumps(_without_none(values))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list | tuple) else value


def validate(model: type[ModelT], values: Any, *, path: Path | None = None, line: int | None = None) -> ModelT:
    """Check values from a file against a pydantic model.

    Raises:
        InputError: Naming the first field that is wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        field, problem = first_problem(error)
        raise InputError(problem, path=path, line=line, field=field or None) from error


def first_problem(error: ValidationError) -> tuple[str, str]:
    """(field, what is wrong with it) of the first problem that pydantic found; no field when several do not agree."""
    return _problem(error.errors(include_url=False)[0])


def first_wrong_value(error: ValidationError) -> tuple[str, str] | None:
    """`first_problem` among the values that were given; None when some are only missing or do not agree."""
    wrong = (e for e in error.errors(include_url=False) if e["loc"] and e["type"] != "missing")
    return next(map(_problem, wrong), None)


def _problem(details: ErrorDetails) -> tuple[str, str]:
    field = ".".join(str(part) for part in details["loc"])
    kind, message = details["type"], details["msg"]
    if kind == "union_tag_invalid":
        known = details["ctx"]["expected_tags"].replace("'", "")
        return field, f"'{details['ctx']['tag']}' is none of {known}"
    # Without a field the input is everything that was given.
    shown = "" if not field or kind in ("missing", "extra_forbidden") else f", not {details['input']!r:.60}"
    problem = {
        "missing": "is missing",
        "extra_forbidden": "is not a known field",
    }.get(kind, message[0].lower() + message[1:])
    return field, problem.removeprefix("value error, ") + shown


def refuse_to_replace(path: Path, overwrite: bool, option: str = "--out") -> None:
    """Make sure that a file to be written replaces none that the user wants to keep.

    Args:
        path: Of the file.
        overwrite: Whether the user said that it may be replaced.
        option: That named it, for the message.

    Raises:
        UsageError: When the path is a folder, a device or the like, or a file that may not be overwritten.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{option} {path} is {'a folder' if path.is_dir() else 'no ordinary file'}; give a file")
    if path.exists() and not overwrite:
        raise UsageError(f"{option} {path} exists; give another file, or --overwrite")


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name complete and on disk, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, usual_mode())
            os.replace(file.name, path)
        except BaseException as error:
            os.unlink(file.name)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(path)  # a failed write does not say where
            raise


def usual_mode() -> int:
    """Permissions of a new file that anything else would have made."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of `atomic_file`; only while no other process writes into the folder."""
    for path in folder.glob(".*.*.tmp"):
        path.unlink(missing_ok=True)


def hold(file: IO[Any], folder: Path) -> None:
    """Lock an open file for this process alone, until it is closed or the process ends.

    Args:
        file: Any file in the folder.
        folder: What the lock stands for, for the message.

    Raises:
        UsageError: When another process holds it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise UsageError(f"another process is working on {folder}; wait for it or choose another --out") from error


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically; lone surrogates are replaced, since UTF-8 has none."""
    with atomic_file(path) as file:
        file.write(text.encode("utf-8", "replace"))


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically; indented, for people."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a JSON-lines file atomically."""
    with atomic_file(path) as file:
        for row in rows:
            file.write(to_json_line(row).encode() + b"\n")


def to_json_line(value: Any) -> str:
    """Compact JSON text of a value, non-ASCII kept; lone surrogates are replaced, since UTF-8 has none."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # half an emoji, a huge number
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace").decode()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest(value: Any, length: int = 16) -> str:
    """A short hexadecimal hash of a JSON value, the same on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def shipped(name: str) -> Path:
    """Path of a shipped data file or folder: inside the package in a wheel, beside it in a checkout.

    Raises:
        UsageError: When the installation lacks it.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "data", package.parent / "data"):
        if (root / name).exists():
            return root / name
    raise UsageError(f"there is no data/{name} in this installation of selfinstruct")
