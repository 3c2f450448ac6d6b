"""Training rows that held-out tasks have too: found before training, by the decision of the filter `contamination`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.sources import ChatRow, Row
from selfinstruct.filters.contamination import Contamination
from selfinstruct.records import Instance


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that has something in common with a held-out task.

    Attributes:
        place: Of the row.
        detail: What they have in common.
    """

    place: str
    detail: str


def contaminated(rows: Sequence[Row], held_out: Sequence[Path]) -> dict[int, Finding]:
    """Find rows that share 13 tokens in a row with a held-out prompt or answer, or resemble a held-out prompt.

    Args:
        rows: Rows to be trained on.
        held_out: Files or folders of held-out tasks, in any form that evaluation reads.

    Returns:
        Index in rows to what was found.

    Raises:
        InputError: When held-out tasks cannot be read.
    """
    found: dict[int, Finding] = {}
    for path in held_out:
        tasks = Contamination(tasks=path)
        for index, row in enumerate(rows):
            if index not in found and (detail := next(filter(None, _common(tasks, row)), None)):
                found[index] = Finding(row.place, detail)
    return dict(sorted(found.items()))


def _common(tasks: Contamination, row: Row) -> Iterator[str | None]:
    """What each part of a row has in common with a held-out task."""
    if not isinstance(row, ChatRow):
        yield tasks.common(row.instruction, [Instance(row.input, row.output)])
        return
    if row.messages[0]["role"] == "system":
        yield tasks.common(row.messages[0]["content"], [])
    for question, answer in zip(row.asked, row.answers, strict=True):
        yield tasks.common(question, [Instance("", answer)])
