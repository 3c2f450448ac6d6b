"""Tables of tasks, turned into the labelled text that they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from selfinstruct.parsing.labels import field_of

_ROW = re.compile(r"[ \t]*\|(.*)\|[ \t]*")
_CELL_END = re.compile(r"(?<!\\)\|")
_BREAK = re.compile(r"<br[ \t]?/?>", re.I)


def without_tables(text: str) -> str:
    """A reply whose tables have become "Instruction: ..." and so on.

    Tables that have no column and no row of that name belong to answers and stay.
    """
    lines = text.split("\n")
    rows = [_cells(line) for line in lines]
    if not any(field_of(cell) == "instruction" for row in rows for cell in row[:8]):
        return text
    return "\n".join(_labelled(lines, rows))


def _labelled(lines: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    columns: list[str | None] = []  # of the table that the line is in
    for line, row in zip(lines, rows, strict=True):
        if not row:
            columns = []
            yield line
        elif "instruction" in (fields := [field_of(cell) for cell in row]) and len({*fields} - {None}) > 1:
            columns = list(fields)
        elif columns:
            if not _is_rule(row):
                yield from (f"{field}: {_text(cell)}" for field, cell in zip(columns, row, strict=False) if field)
        elif len(row) == 2 and fields[0]:
            yield f"{fields[0]}: {_text(row[1])}"
        elif not (_is_rule(row) or (len(row) == 2 and len("".join(row)) < 20)):  # the head of a table of fields
            yield line


def _cells(line: str) -> list[str]:
    row = _ROW.fullmatch(line)
    return [cell.strip() for cell in _CELL_END.split(row[1])] if row else []


def _is_rule(row: Sequence[str]) -> bool:
    return not "".join(row).strip("-: ")


def _text(cell: str) -> str:
    return _BREAK.sub("\n", cell.replace("\\|", "|"))
