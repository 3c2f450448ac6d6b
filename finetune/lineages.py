"""`finetune lineage`: from items whose scores changed to the training rows nearest to them, and to what made those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from pydantic import Field

from finetune.ancestry import LEDGER, RECORD, Ancestry, Origin
from finetune.predictions import Prediction, asked_items, read_predictions
from finetune.sources import RUN_DATA, Source, read_source
from selfinstruct.command import Config
from selfinstruct.errors import InputError
from selfinstruct.files import refuse_to_replace, write_json
from selfinstruct.novelty import NoveltyIndex
from selfinstruct.render import joined

_SHOWN = 90  # characters of a text in the tree


class LineageConfig(Config):
    """Which items, and where to look for what changed them."""

    base: Path = Field(description="Evaluation before training.")
    tuned: Path = Field(description="Evaluation of the same items afterwards.")
    training_data: list[Path] = Field(
        min_length=1,
        description="What was trained on: run folders, which lead back to prompts and seeds, or files of rows.",
        json_schema_extra={"metavar": "FILE|RUN"},
    )
    item: list[str] = Field(
        [], description="Item to explain. Default: those that changed most.", json_schema_extra={"metavar": "ID"}
    )
    limit: int = Field(5, ge=1, description="Items at most, where none is named.")
    nearest: int = Field(3, ge=1, description="Training rows of each.")
    tasks: list[Path] = Field([], description="Held-out tasks, where they are not where evaluate.toml says.")
    out: Path | None = Field(None, description="File for the lineage as JSON, with whole texts.")
    overwrite: bool = Field(False, description="Replace --out if it exists.")


@dataclass(frozen=True, slots=True)
class NearRow:
    """A training row near to an item.

    Attributes:
        id: Its id in the run that made it, else "".
        score: ROUGE-L F of instruction and input, 0 to 1.
        instruction, input, output: In a conversation one thing that the user says, "", and the answer to it.
        origin: How it was made; None for a row that says nothing of it.
    """

    place: str
    id: str
    score: float
    instruction: str
    input: str
    output: str
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class ItemLineage:
    """An item, how its answer and score changed, and the training rows nearest to it, nearest first."""

    item: str
    task: str
    cluster: str
    base: float
    tuned: float
    asked: str
    base_answer: str
    tuned_answer: str
    rows: tuple[NearRow, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """What the training data has to do with changed scores; nearness is a hint, no proof.

    Attributes:
        n_changed: Items whose score changed, explained or not.
    """

    base: str
    tuned: str
    n_changed: int
    items: tuple[ItemLineage, ...]


def lineage(config: LineageConfig) -> Lineage:
    """Show the training rows nearest to items whose scores changed, and the prompts and seeds that made those rows.

    Near is ROUGE-L of instruction and input over Unicode words. Rows of a plain file are where it ends.

    Raises:
        InputError: When evaluations, training data or held-out tasks cannot be read, or --item is not in both.
        UsageError: When --out exists.
    """
    if config.out:
        refuse_to_replace(config.out, config.overwrite)
    base, tuned = read_predictions(config.base), read_predictions(config.tuned)
    for folder, predictions in ((config.base, base), (config.tuned, tuned)):
        if missing := [id for id in config.item if id not in predictions]:
            raise InputError(f"has no item '{missing[0]}'", path=folder, remedy="give items of both evaluations")
    changed = [id for id in base if id in tuned and base[id].score != tuned[id].score]
    # Sorting is stable: equal changes stay in the items' order.
    wanted = config.item or sorted(changed, key=lambda id: -abs(base[id].score - tuned[id].score))[: config.limit]
    items = asked_items(config.base, config.tasks, wanted) if wanted else {}
    asked = {id: joined(item.instruction, item.input) for id, item in items.items()}
    rows = _nearest(asked, [read_source(path) for path in config.training_data], config.nearest)
    result = Lineage(
        str(config.base),
        str(config.tuned),
        len(changed),
        tuple(_item(base[id], tuned[id], asked[id], rows[id]) for id in wanted),
    )
    if config.out:
        write_json(config.out, asdict(result))
    return result


def _nearest(asked: Mapping[str, str], sources: Sequence[Source], k: int) -> dict[str, tuple[NearRow, ...]]:
    exchanges = [
        (source, exchange) for source in sources for row in source.rows for exchange in row.exchanges if exchange.output
    ]
    index = NoveltyIndex("unicode")
    index.add(*(joined(exchange.instruction, exchange.input) for _, exchange in exchanges))
    matches = index.search(list(asked.values()), k)
    ancestry = cache(Ancestry)

    def near(position: int, score: float) -> NearRow:
        source, exchange = exchanges[position]
        run = _run(source)
        row = ancestry(run).row(exchange.place) if run else None
        return NearRow(
            exchange.place, row.id if row else "", round(score, 4), exchange.instruction, exchange.input,
            exchange.output, ancestry(run).origin(row.source) if run and row else None,
        )  # fmt: skip

    return {id: tuple(near(*match) for match in matches.of(number)) for number, id in enumerate(asked)}


def _run(source: Source) -> Path | None:
    """The folder of the run that made a source."""
    path = Path(source.path)
    is_run = path.name == RUN_DATA and any((path.parent / name).is_file() for name in (RECORD, LEDGER))
    return path.parent if is_run else None


def _item(before: Prediction, after: Prediction, asked: str, rows: tuple[NearRow, ...]) -> ItemLineage:
    return ItemLineage(
        before.item, before.task, before.cluster, before.score, after.score, asked, before.prediction,
        after.prediction, rows,
    )  # fmt: skip


def describe(result: Lineage) -> str:
    """A tree for each item."""
    if not result.items:
        return "No score changed, so there is nothing to explain; --item ID shows the rows near any item."
    head = f"{len(result.items)} items, {result.n_changed} changed in all. Nearness is a hint, no proof of a cause."
    return "\n\n".join([head, *("\n".join(_tree(item)) for item in result.items)])


def _tree(item: ItemLineage) -> list[str]:
    lines = [
        f"{item.item} ({item.cluster}, {item.task}): {item.base:.3f} -> {item.tuned:.3f}",
        f"  asked   {_short(item.asked)}",
        f"  base    {_short(item.base_answer)}",
        f"  tuned   {_short(item.tuned_answer)}",
    ]
    if not item.rows:
        lines.append("  no training row has a word in common with it")
    for row in item.rows:
        lines.append(f"  +- {row.score:.2f}  {row.place}  {_short(joined(row.instruction, row.input))}")
        lines.append(f"  |    answer  {_short(row.output)}")
        lines += [f"  |    {line}" for line in _origin(row.origin)]
    return lines


def _origin(origin: Origin | None) -> list[str]:
    if origin is None:
        return []
    prompt = "not in a ledger any more" if origin.prompt is None else _short(origin.prompt)
    lines = [f"made by {origin.strategy} with {origin.model}, slot {origin.slot}", f"prompt  {prompt}"]
    lines += [f"+- shown  {shown.kind} {shown.id}  {_short(shown.instruction)}" for shown in origin.demonstrations]
    return [*lines, f"seeds behind it: {', '.join(origin.seeds) or 'none'}"]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."
