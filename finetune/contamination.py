"""Training rows and held-out items that have something in common, by `selfinstruct.contamination.HeldOut`.

What is learnt by heart from such a row says nothing of other tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.sources import Row
from selfinstruct.contamination import Common, HeldOut
from selfinstruct.records import Instance, TaskItem


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that has something in common with a held-out task.

    Attributes:
        place: Of the row.
        detail: What they have in common.
    """

    place: str
    detail: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """What an item and a training row have in common.

    Attributes:
        item: Its id.
        row: Where the training row stands.
        reason: In words.
    """

    item: str
    row: str
    reason: str


def contaminated(rows: Sequence[Row], held_out: Sequence[Path]) -> dict[int, Finding]:
    """Find rows that have something in common with held-out tasks.

    Args:
        rows: Rows to be trained on.
        held_out: Files or folders of held-out tasks, in any form that evaluation reads.

    Returns:
        Index in rows to what was found first.

    Raises:
        InputError: When held-out tasks cannot be read.
    """
    if not held_out:
        return {}
    tasks = HeldOut.read(held_out)
    first = ((index, next(_common(tasks, row), None)) for index, row in enumerate(rows))
    return {index: Finding(rows[index].place, str(common)) for index, common in first if common}


def overlaps(items: Iterable[TaskItem], rows: Iterable[Row]) -> list[Overlap]:
    """Find held-out items that have something in common with training rows.

    Returns:
        At most one for each item, with the first such row, in the items' order.
    """
    tasks = HeldOut()
    ids = []
    for item in items:
        tasks.add(item, item.id)
        ids.append(item.id)
    found: dict[str, Overlap] = {}
    for row in rows:
        for common in _common(tasks, row):
            found.setdefault(common.item, Overlap(common.item, row.place, f"{common.what} with it"))
    return [found[id] for id in ids if id in found]


def _common(tasks: HeldOut, row: Row) -> Iterator[Common]:
    for exchange in row.exchanges:
        yield from tasks.common(exchange.instruction, [Instance(exchange.input, exchange.output)])
