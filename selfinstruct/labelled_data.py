"""Labelled data as others publish it: reads files and data sets, and finds the fields of a task in their rows.

A data set can be read again from the start, and is never held in memory as a whole. Text files may be gzipped.
"""

from __future__ import annotations

import csv
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from functools import partial
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from pydantic import BaseModel, ConfigDict, StrictStr

from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import decoded, opened, read_json, read_jsonl

_BATCH_ROWS = 1024
# The opening of a text is its first words, where so many more follow that they do not give it away.
_OPENING = re.compile(r"(\S+(?:\s+\S+){3})(?=(?:\s+\S+){4})")

Kind = Literal["text", "lines", "class", "choices", "choice", "answer"]
# The answer to a task is either free text in a plain field, or a field of one of these kinds.
TARGETS: tuple[Kind, ...] = ("class", "choice", "answer")


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One row.

    Attributes:
        values: By column; nested as JSON is.
        source: The file or the data set, for messages.
        line: 1-based: the line that it begins in, or its number where there are no lines. None in a JSON list, where
            the source has the place: "rows.json[2]".
    """

    values: Mapping[str, Any]
    source: str
    line: int | None

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return self.source if self.line is None else f"{self.source}:{self.line}"

    def column(self, path: str) -> Any:
        """The value of a column, None if there is none.

        Args:
            path: Name of a column; "a.b" is also b inside a (of every element, where a is a list), and "a,b" the list
                of both.
        """
        if path not in self.values and "," in path:
            return [self.column(part) for part in path.split(",")]
        return _found(self.values, path)

    def error(self, problem: str, field: str | None = None, remedy: str | None = None) -> InputError:
        """An error about this row."""
        return InputError(problem, path=self.source, line=self.line, field=field, remedy=remedy)


def _found(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return [_found(element, path) for element in value]
    if not isinstance(value, Mapping) or path in value:
        return value.get(path) if isinstance(value, Mapping) else None
    name, dot, rest = path.partition(".")
    return _found(value.get(name), rest) if dot else None


@dataclass(frozen=True, slots=True)
class LabelledData:
    """A data set, to be iterated over as often as needed.

    Attributes:
        name: As lineage shows it.
        n_rows: Number of rows.
    """

    name: str
    n_rows: int
    _rows: Callable[[], Iterator[LabelledRow]] = attribute(repr=False)

    def __iter__(self) -> Iterator[LabelledRow]:
        return self._rows()


def read_labelled(source: str) -> LabelledData:
    """Open a file or a data set.

    Args:
        source: Path of a .jsonl, .json (a list), .csv, .tsv (tabs, no quoting) or .parquet file, each also with .gz;
            or what `datasets` knows: a folder or a name, with its configuration and split, such as "glue/mrpc:train".

    Raises:
        InputError: For a file that is missing, of another kind, broken or empty. A broken row is reported when it is
            reached.
        UsageError: When a data set cannot be loaded, has several splits and none is named, or a package is missing.
    """
    path = Path(source)
    kind = Path(path.name.removesuffix(".gz")).suffix
    if kind in _TEXT_FILES and not path.is_dir():
        rows = partial(_TEXT_FILES[kind], path)
        data = LabelledData(path.name.split(".")[0], sum(1 for _ in rows()), rows)
    elif kind == ".parquet" and not path.is_dir():
        data = read_parquet(path)
    elif path.is_file():
        raise InputError("is of no kind that is read", path=path, remedy="give .jsonl, .json, .csv, .tsv or .parquet")
    else:
        data = _data_set(source)
    if not data.n_rows:
        raise InputError("holds no row", path=source, remedy="give a file with rows")
    return data


def _json_lines(path: Path) -> Iterator[LabelledRow]:
    for line, values in read_jsonl(path):
        yield LabelledRow(values, str(path), line)


def _json_list(path: Path) -> Iterator[LabelledRow]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise InputError("must be a list of rows", path=path, remedy="write [{...}, ...], or JSON lines as .jsonl")
    for index, values in enumerate(rows):
        place = f"{path}[{index}]"
        if not isinstance(values, dict):
            raise InputError("must be a JSON object", path=place, remedy="write [{...}, ...]")
        yield LabelledRow(values, place, None)


def _table(path: Path, **dialect: Any) -> Iterator[LabelledRow]:
    """Rows of a text table, by the names in its first line."""
    lines = _table_rows(path, dialect)
    line, header = next(lines, (1, []))
    if len(set(header)) < len(header):
        raise InputError("names a column twice", path=path, line=line, remedy="rename one of them")
    for line, cells in lines:
        if len(cells) != len(header):
            raise InputError(
                f"has {len(cells)} cells where the header has {len(header)}",
                path=path, line=line, remedy="mend the line; a cell with the separator in it needs quotes",
            )  # fmt: skip
        yield LabelledRow(dict(zip(header, cells, strict=True)), str(path), line)


def _table_rows(path: Path, dialect: Mapping[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """(line that it begins in, cells) of every row that is not blank."""
    csv.field_size_limit(sys.maxsize)  # a text may be longer than the 128 KiB that csv takes by itself
    with opened(path) as file:
        texts = (decoded(data, path, number) for number, data in enumerate(file, start=1))
        reader = csv.reader(texts, strict=True, **dialect)
        line = 1
        try:
            for cells in reader:
                if cells:
                    yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            raise InputError(f"is not valid CSV ({error})", path=path, line=line, remedy="mend the quotes") from error


_TEXT_FILES: dict[str, Callable[[Path], Iterator[LabelledRow]]] = {
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".csv": _table,
    ".tsv": partial(_table, delimiter="\t", quoting=csv.QUOTE_NONE),
}


def read_parquet(path: Path) -> LabelledData:
    """Open a Parquet file; one with .gz is unpacked into memory.

    Raises:
        InputError: For a file that is missing or not Parquet. A broken part is reported when it is reached.
        UsageError: When pyarrow is missing.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError(f"{path}: Parquet needs pyarrow: pip install 'selfinstruct[train]'") from error

    def content() -> Any:
        with opened(path) as file:  # says what is wrong with the path
            return pa.BufferReader(file.read()) if path.suffix == ".gz" else path

    def rows() -> Iterator[LabelledRow]:
        number = 0
        try:
            with pq.ParquetFile(content()) as file:
                for batch in file.iter_batches(_BATCH_ROWS):
                    for values in batch.to_pylist():
                        number += 1
                        yield LabelledRow(values, str(path), number)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"is broken ({error})", path=path, remedy="copy it again") from error

    try:
        return LabelledData(path.name.split(".")[0], pq.read_metadata(content()).num_rows, rows)
    except pa.ArrowException as error:
        raise InputError(f"is not Parquet ({error})", path=path) from error


def _data_set(source: str) -> LabelledData:
    """A data set that the package `datasets` loads from a folder or by name."""
    name, _, split = source.rpartition(":") if ":" in source and not Path(source).is_dir() else (source, "", "")
    if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        raise InputError("no such file or folder", path=source, remedy="check the path")
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            f"there is no file '{source}', and data sets by name need the package datasets: "
            "pip install 'selfinstruct[train]'"
        ) from error
    datasets.disable_progress_bars()
    if not Path(name).is_dir() and not hub_can_be_found(datasets.config.HF_ENDPOINT):
        datasets.config.HF_HUB_OFFLINE = True
    try:
        found = _loaded(datasets, name)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UsageError(
            f"there is no file '{source}', and as a data set it cannot be loaded: {str(error).splitlines()[0]}"
        ) from error
    if isinstance(found, Mapping):
        splits = list(found)
        if not split and len(splits) > 1:
            raise UsageError(f"'{source}' has the splits {', '.join(splits)}; name one, such as {name}:{splits[0]}")
        if split and split not in splits:
            raise UsageError(f"'{name}' has no split '{split}'; it has {', '.join(splits)}")
        found = found[split or splits[0]]
    elif split:
        raise UsageError(f"'{name}' has no splits; leave out ':{split}'")
    # Classes are stored as numbers and published with their names.
    names = {column: kind.names for column, kind in found.features.items() if isinstance(kind, datasets.ClassLabel)}

    def rows() -> Iterator[LabelledRow]:
        for number, values in enumerate(found, start=1):
            yield LabelledRow(_with_class_names(values, names), source, number)

    lineage = Path(name).name if Path(name).is_dir() else name.replace("/", "_")
    return LabelledData(lineage, len(found), rows)


def hub_can_be_found(endpoint: str) -> bool:
    """Whether the hub's name resolves; without a network the libraries would try again for most of a minute.

    Args:
        endpoint: Address of the hub.
    """
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(endpoint).hostname, None)
    except OSError:
        return False
    return True


def _with_class_names(values: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A row with names for class numbers; one without a class keeps what it has, None or -1."""
    classes = {
        column: known[values[column]]
        for column, known in names.items()
        if values[column] is not None and 0 <= values[column] < len(known)
    }
    return {**values, **classes}


def _loaded(datasets: Any, name: str) -> Any:
    """A data set or its splits.

    Args:
        datasets: The package.
        name: A folder, or "name", "name/configuration", "owner/name" or "owner/name/configuration".
    """
    folder = Path(name)
    if any((folder / file).is_file() for file in ("dataset_dict.json", "state.json")):
        return datasets.load_from_disk(name)
    owner_and_name, _, configuration = name.rpartition("/")
    if folder.is_dir() or not owner_and_name:
        return datasets.load_dataset(name)
    if "/" in owner_and_name:
        return datasets.load_dataset(owner_and_name, configuration)
    try:
        return datasets.load_dataset(name)
    except datasets.exceptions.DatasetNotFoundError:
        return datasets.load_dataset(owner_and_name, configuration)


# -- fields ------------------------------------------------------------------------------------------------------------


class FieldSpec(BaseModel):
    """A field of a task.

    Attributes:
        about: What it holds.
        kind: "text"; "lines", facts shown one a line; "class", one of a few; "choices", a list of texts; "choice", the
            right one of them, by its text or its letter; "answer", one or more acceptable texts.
        optional: Whether rows may lack it.
        once_in: A text field in which this one stands exactly once, else "".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: StrictStr
    kind: Kind = "text"
    optional: bool = False
    once_in: StrictStr = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A labelled row with its fields found.

    Attributes:
        texts: Fields of the kinds text and lines; "<field>_opening" has the first words of a longer text.
        right: The class, the right choice, or all acceptable answers, the first one to be learnt; empty where the
            answer is a plain field.
        choices: What there was to choose from.
    """

    texts: Mapping[str, str]
    right: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """Where fields stand in the rows.

    Attributes:
        columns: Column by field (see `LabelledRow.column`); a field that is not in it has the column of its own name.
        constants: Texts of fields that stand in no column.
        labels: What a label stands for: a class, a letter, an answer, or "" if rows with it are to be left out.
    """

    columns: Mapping[str, str]
    constants: Mapping[str, str]
    labels: Mapping[str, str]

    def value(self, row: LabelledRow, field: str, optional: bool = False) -> Any:
        """The value of a field as it stands in the row; None for an optional one that is missing.

        Raises:
            InputError: When another one is missing.
        """
        column = self.columns.get(field, field)
        value = self.constants[field] if field in self.constants else row.column(column)
        if not _is_missing(value):
            return value
        if optional:
            return None
        raise row.error(
            f"has no value in column '{column}'", field,
            f"name the column with --map {field}=COLUMN; the row has {', '.join(map(str, row.values))}",
        )  # fmt: skip

    def case(self, row: LabelledRow, fields: Mapping[str, FieldSpec], classes: Sequence[str]) -> Case | None:
        """Find the fields of a row.

        Args:
            row: As read.
            fields: What the task needs.
            classes: What a field of kind class may hold.

        Returns:
            None for a row whose label is to be left out.

        Raises:
            InputError: When a field is missing, or holds what it may not.
        """
        texts: dict[str, str] = {}
        right: tuple[str, ...] = ()
        choices: tuple[str, ...] = ()
        for name, spec in fields.items():
            value = self.value(row, name, spec.optional)
            if value is None:
                continue
            if spec.kind in TARGETS:
                target = name
                right = tuple(dict.fromkeys(self._meant(row, name, label) for label in _listed(value)))
            elif spec.kind == "choices":
                choices = _choices(row, name, value)
            else:
                texts[name] = _lines(row, name, value) if spec.kind == "lines" else text_of(row, name, value)
        if "" in right:
            return None
        if right and fields[target].kind != "answer":
            right = (_only_one(row, target, right, choices, classes),)
        for name, spec in fields.items():
            if spec.once_in:
                _check_once(row, name, spec.once_in, texts)
        openings = {
            opening_of(name): found[1]
            for name, text in texts.items()
            if fields[name].kind == "text" and (found := _OPENING.match(text))
        }
        return Case(texts | openings, right, choices)

    def _meant(self, row: LabelledRow, field: str, label: Any) -> str:
        """What a label stands for; true and false are written as in JSON."""
        written = str(label).lower() if isinstance(label, bool) else str(label).strip()
        if written in self.labels:
            return self.labels[written]
        if isinstance(label, bool):
            raise row.error(f"is {written}", field, "say what that stands for: --labels true=yes --labels false=no")
        return text_of(row, field, label)


def opening_of(field: str) -> str:
    """Name under which the first words of a text stand."""
    return f"{field}_opening"


def text_of(row: LabelledRow, field: str, value: Any) -> str:
    """A value that is a text or a number, without white space around it.

    Raises:
        InputError: When it is neither.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise row.error(f"must be text, not {value!r:.60}", field, f"name the column with --map {field}=COLUMN")
    return str(value).strip()


def _is_missing(value: Any) -> bool:
    if isinstance(value, list):
        return not value or any(map(_is_missing, value))
    return value is None or (isinstance(value, str) and not value.strip())


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _lines(row: LabelledRow, field: str, value: Any) -> str:
    """Facts one a line: a text as it is, a record as "name: value", a tuple with bars between."""
    if isinstance(value, Mapping):
        return "\n".join(_pairs(row, field, value))
    return "\n".join(_line(row, field, line) for line in _listed(value))


def _line(row: LabelledRow, field: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(_pairs(row, field, value))
    return " | ".join(text_of(row, field, part) for part in _listed(value))


def _pairs(row: LabelledRow, field: str, record: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {text_of(row, field, value)}" for name, value in record.items() if not _is_missing(value)]


def _choices(row: LabelledRow, field: str, value: Any) -> tuple[str, ...]:
    choices = tuple(text_of(row, field, choice) for choice in _listed(value))
    if not 2 <= len(choices) <= len(ascii_uppercase) or len(set(choices)) < len(choices):
        raise row.error(
            f"must be a list of 2 to {len(ascii_uppercase)} different texts", field,
            f"name the columns that hold them: --map {field}=COLUMN,COLUMN",
        )  # fmt: skip
    return choices


def _only_one(
    row: LabelledRow, field: str, given: Sequence[str], choices: Sequence[str], classes: Sequence[str]
) -> str:
    """The one class or choice that is right."""
    if len(given) > 1:
        raise row.error(f"must be one label, not {len(given)}", field, f"name the column with --map {field}=COLUMN")
    label = given[0]
    if not choices:
        if label in classes:
            return label
        raise row.error(
            f"'{label}' is none of {', '.join(classes)}", field,
            f"name each label of the data, as in --labels '{label}=CLASS'; with no class, its rows are left out",
        )  # fmt: skip
    lettered = dict(zip(ascii_uppercase, choices, strict=False))
    if label in choices and lettered.get(label, label) != label:
        raise row.error(f"'{label}' is a choice and the letter of another", field, "give the text of the choice")
    if label in choices or label in lettered:
        return lettered.get(label, label)
    raise row.error(
        f"'{label}' is neither a choice nor the letter of one", field, "say which: --labels 0=A --labels 1=B ..."
    )


def _check_once(row: LabelledRow, field: str, once_in: str, texts: Mapping[str, str]) -> None:
    n = len(re.findall(rf"(?<!\w){re.escape(texts[field])}(?!\w)", texts[once_in]))
    if n != 1:
        raise row.error(
            f"'{texts[field]}' stands {n} times in '{once_in}' and not once", field,
            "mark the one that is meant in both fields, such as [it]",
        )  # fmt: skip
