"""Candidates as the page's tables show them: texts with labels, and how each of them was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from selfinstruct.characters import cut, visible
from selfinstruct.ledger import Asked
from selfinstruct.page.generation import Judged, Run, Survey
from selfinstruct.page.packing import Packed, packed
from selfinstruct.page.words import meaning
from selfinstruct.results import evenly

# Characters of packed rows; with all else the page stays well under 25 MB.
ACCEPTED_BUDGET, REJECTED_BUDGET, STEPS_BUDGET = 13_000_000, 5_000_000, 2_000_000
# Rows that need no script, and rows that tell how well lineages pack.
N_FIRST, N_STEPS_SAMPLED = 10, 40
MAX_NEIGHBOUR, MAX_DEMONSTRATION, MAX_PROMPT, MAX_REQUESTS = 300, 120, 8000, 5
Labelled = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Task:
    """A candidate as a page shows it; every text can be seen as it stands, or says what is left out of it.

    Attributes:
        parts: Label and text of what is below the instruction.
        made: The same of how it came to be.
        rule: "" for an accepted one.
        similarity: ROUGE-L with the nearest task, 0 without one.
    """

    title: str
    parts: Labelled
    made: Labelled
    rule: str
    strategy: str
    similarity: float

    def as_row(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "title": self.title, "parts": self.parts, "made": self.made, "rule": self.rule, "strategy": self.strategy,
            "similarity": self.similarity,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """A table to be searched.

    Attributes:
        first: The first rows, each with what was asked and replied.
        rows: As many as fit.
        steps: What was asked and replied, of as many of those rows as fit, evenly spread.
        rules, strategies: What rows can be told apart by; empty where there is nothing to tell.
    """

    first: tuple[tuple[Task, Labelled], ...]
    rows: Packed
    steps: Packed
    rules: Mapping[str, int]
    strategies: tuple[str, ...]


class Tables:
    """Makes the tables of a run.

    Args:
        run: The run.
        seen: What is known of its rows.
    """

    def __init__(self, run: Run, seen: Survey) -> None:
        self._run, self._seen = run, seen
        self._seeds = {seed.id for seed in run.seeds}
        self._asked: Callable[[int], list[Asked]] = lru_cache(4)(run.asked)
        strategies = tuple(run.figures.strategies) if run.figures else ()
        self._strategies = strategies if len(strategies) > 1 else ()

    def accepted(self) -> Table:
        """The table of the accepted tasks."""
        n = self._run.rows.n_accepted
        return self._table(self._run.rows.accepted, n, self._seen.packed, {}, ACCEPTED_BUDGET)

    def rejected(self) -> Table:
        """The table of the rejected candidates."""
        rules = self._run.rows.n_rejected
        rows = self._run.rows.rejected
        return self._table(rows, sum(rules.values()), self._seen.packed_rejected, rules, REJECTED_BUDGET)

    def _table(
        self, rows: Callable[[Sequence[int]], Iterator[Judged]], n: int, sample: Sequence[Judged],
        rules: Mapping[str, int], budget: int,
    ) -> Table:  # fmt: skip
        packed_rows = packed(
            lambda wanted: (self.task(row).as_row() for row in rows(evenly(n, wanted))),
            [self.task(row).as_row() for row in sample],
            n,
            budget,
        )
        places = evenly(n, packed_rows.n)

        def steps(wanted: int) -> Iterator[Labelled]:
            return (self.steps(row) for row in rows([places[place] for place in evenly(len(places), wanted)]))

        few = [sample[index] for index in evenly(len(sample), N_STEPS_SAMPLED)]
        return Table(
            first=tuple((self.task(row), self.steps(row)) for row in rows(places[:N_FIRST])),
            rows=packed_rows,
            steps=packed(steps, [self.steps(row) for row in few], len(places), STEPS_BUDGET),
            rules=rules,
            strategies=self._strategies,
        )

    def task(self, row: Judged) -> Task:
        """A candidate as the page shows it."""
        return Task(
            title=_text(row.instruction) or "No instruction was found in the reply.",
            parts=tuple(self._parts(row)),
            made=tuple(_made(row)),
            rule=row.rule or "",
            strategy=row.source.strategy if row.source else "",
            similarity=round(row.nearest[0].score, 4) if row.nearest else 0.0,
        )

    def neighbour(self, row: Judged) -> str:
        """The instruction that a candidate's is most like; its id where the instruction is not known."""
        id = row.nearest[0].id
        return self._seen.instructions.get(id, id)

    def _parts(self, row: Judged) -> Iterator[tuple[str, str]]:
        for number, instance in enumerate(row.instances, start=1):
            which = f" {number}" if len(row.instances) > 1 else ""
            if instance.input:
                yield f"Input{which}", _text(instance.input)
            yield f"Output{which}", _text(instance.output)
        if row.rule:
            yield "Reason", _text(": ".join(filter(None, [meaning(row.rule), row.detail])))
        if row.nearest:
            yield f"Most similar, {row.nearest[0].score:.2f}", _text(self.neighbour(row), MAX_NEIGHBOUR)

    def steps(self, row: Judged) -> Labelled:
        """What was shown, asked and replied on the way to a candidate, as far as it is known."""
        known = tuple((label, visible(cut(text, MAX_PROMPT))) for label, text in self._steps(row))
        return known or (("Asked", "is not in a ledger any more"),)

    def _steps(self, row: Judged) -> Iterator[tuple[str, str]]:
        source = row.source
        if source is None:
            return
        if source.demonstrations:
            yield "Shown in the prompt", "\n".join(map(self._shown, source.demonstrations))
        asked = self._asked(source.slot)
        own = [(one, reply) for one in asked for reply in one.replies if reply.key == source.completion_key]
        # Later requests about one task repeat its instruction.
        later = [
            (one, one.replies[0])
            for one in asked
            if row.instruction and row.instruction in one.prompt and one.replies[0].prompt_key != source.prompt_key
        ]
        for one, reply in [*own[:1], *later[:MAX_REQUESTS]]:
            yield f"Asked ({one.step})", one.prompt
            yield f"Reply ({reply.finish_reason})", reply.text or reply.error or "nothing"

    def _shown(self, id: str) -> str:
        instruction = " ".join(self._seen.instructions.get(id, "is not there any more").split())
        return f"{'seed' if id in self._seeds else 'task'} {id}: {cut(instruction, MAX_DEMONSTRATION)}"


def _made(row: Judged) -> Iterator[tuple[str, str]]:
    if row.id:
        yield "Id", _text(row.id)
    if row.source:
        yield "Made by", _text(f"{row.source.strategy} with {row.source.model}, slot {row.source.slot}")
        if row.source.attributes:
            yield "Drawn for it", _text(", ".join(f"{name} {value}" for name, value in row.source.attributes.items()))
    if row.scores:
        yield "Grades", _text(", ".join(f"{name} {score:g}" for name, score in row.scores.items()))


def _text(text: str, most: int | None = None) -> str:
    return visible(cut(text, most) if most else cut(text))
