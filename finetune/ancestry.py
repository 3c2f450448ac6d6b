"""Where a generated training row came from: its prompt, what was shown in that, and the seeds behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.sources import RUN_DATA
from selfinstruct.files import read_jsonl, read_toml
from selfinstruct.ledger import Ledger
from selfinstruct.records import Source, conversation_text
from selfinstruct.seeds import read_seeds

LEDGER, RECORD = "ledger.sqlite", "run.toml"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An example that was shown in a prompt.

    Attributes:
        kind: "seed"; "task": one that the run had accepted before; "absent": neither is there any more.
        instruction: "" where it is absent.
    """

    id: str
    kind: Literal["seed", "task", "absent"]
    instruction: str


@dataclass(frozen=True, slots=True)
class Origin:
    """How a row was made.

    Attributes:
        prompt: What the teacher was asked, with the demonstrations in it; None where the ledger is gone.
        demonstrations: Those of this prompt.
        seeds: Ids of all seed tasks that it goes back to, through the tasks that were shown too.
    """

    strategy: str
    model: str
    slot: int
    prompt: str | None
    demonstrations: tuple[Demonstration, ...]
    seeds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GeneratedRow:
    """A row of a run's data set."""

    id: str
    instruction: str
    source: Source


class Ancestry:
    """The rows of one run, asked how they were made.

    Args:
        run: Its folder. What is missing there is missing in the answers.
    """

    def __init__(self, run: Path) -> None:
        data = run / RUN_DATA
        self._rows = {
            f"{data}:{line}": GeneratedRow(row["id"], row["instruction"], Source.of_row(row["source"]))
            for line, row in read_jsonl(data)
        }
        record = read_toml(run / RECORD) if (run / RECORD).is_file() else {}
        ledgers = [run / LEDGER, Path(record.get("refiltered_from", run)) / LEDGER]
        self._ledgers = [path for path in dict.fromkeys(ledgers) if path.is_file()]
        seeds = Path(record.get("generate", {}).get("seeds", ""))
        self._seeds = {seed.id: seed.instruction for seed in read_seeds(seeds)} if seeds.is_file() else {}
        self._tasks = {row.id: row for row in self._rows.values()}

    def row(self, place: str) -> GeneratedRow:
        """The row at a place: "RUN/dataset.jsonl:3"."""
        return self._rows[place]

    def origin(self, source: Source) -> Origin:
        """How a row with this source was made."""
        return Origin(
            source.strategy,
            source.model,
            source.slot,
            self._prompt(source.prompt_key),
            tuple(map(self._demonstration, source.demonstrations)),
            tuple(dict.fromkeys(self._seeds_behind(source.demonstrations))),
        )

    def _prompt(self, prompt_key: str) -> str | None:
        for path in self._ledgers:
            with closing(Ledger(path)) as ledger:
                if request := ledger.request(prompt_key):
                    return conversation_text(request["messages"])
        return None

    def _demonstration(self, id: str) -> Demonstration:
        if id in self._seeds:
            return Demonstration(id, "seed", self._seeds[id])
        task = self._tasks.get(id)
        return Demonstration(id, "task", task.instruction) if task else Demonstration(id, "absent", "")

    def _seeds_behind(self, ids: Sequence[str]) -> Iterator[str]:
        # A task is shown after it was accepted only, so that no chain leads back to its beginning.
        waiting, met = list(ids), set(ids)
        while waiting:
            id = waiting.pop(0)
            if id in self._seeds:
                yield id
            elif task := self._tasks.get(id):
                further = [shown for shown in task.source.demonstrations if shown not in met]
                met.update(further)
                waiting += further
