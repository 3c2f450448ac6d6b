"""Reads a run for the page: its figures, its rows, and a survey of what they are like.

Rows come from the ledger, also while the run goes on, or from the two JSONL files where there is no ledger to read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from selfinstruct.dataset import DATASET_FILE, read_dataset
from selfinstruct.errors import InputError
from selfinstruct.files import read_jsonl, read_toml, sha256_file, validate
from selfinstruct.ledger import Asked, Ledger
from selfinstruct.novelty import Tokenizer, tokenize
from selfinstruct.records import Candidate, Example, Instance, Neighbour, Source, Verdict
from selfinstruct.results import (
    RunFigures,
    StrategyFigures,
    evenly,
    figures_of_its_end,
    is_finished,
    read_figures,
)
from selfinstruct.seeds import read_seeds

T = TypeVar("T")
LEDGER_FILE, REJECTED_FILE, RECORD_FILE = "ledger.sqlite", "rejected.jsonl", "run.toml"
# How many texts give a histogram or the verbs, and how many rows tell how well all of them pack.
N_MEASURED, N_PACKED = 3000, 400
N_AT_THRESHOLD, N_PER_RULE, N_SHARES = 4, 3, 60
# Texts of up to so many words; the last bin holds the longer ones.
LENGTH_BINS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
N_SIMILARITY_BINS = 10
# Stretches of time in the charts, and a pause that they leave out.
N_STRETCHES, MIN_PAUSE_S = 120, 300


class _Read(BaseModel):
    # Further fields are for others to read.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=())


class _Task(_Read):
    id: str = ""
    instruction: str
    input: str = ""
    output: str = ""


class _Near(_Read):
    id: str
    score: float


class _Source(_Read):
    strategy: str
    model: str
    slot: int
    prompt_key: str
    completion_key: str
    demonstrations: tuple[str, ...]
    attributes: dict[str, str] = {}


class _Rejected(_Read):
    """A line of rejected.jsonl."""

    candidate: _Task
    rule: str
    detail: str
    nearest: list[_Near]
    source: _Source | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate with its verdict; `rule` is None for an accepted one."""

    id: str
    instruction: str
    instances: tuple[Instance, ...]
    source: Source | None
    nearest: tuple[Neighbour, ...]
    rule: str | None = None
    detail: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_example(cls, example: Example) -> Judged:
        """An accepted one."""
        return cls(
            example.id, example.instruction, example.instances, example.source, example.nearest, scores=example.scores
        )

    @classmethod
    def of_verdict(cls, candidate: Candidate, verdict: Verdict) -> Judged:
        """A rejected one."""
        return cls(
            candidate.id, candidate.instruction, candidate.instances, candidate.source, verdict.nearest, verdict.rule,
            verdict.detail,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rows:
    """The judged candidates of a run, in the order of judgement, to be gone through as often as need be.

    Attributes:
        n_rejected: By rule, the commonest first.
        accepted, rejected: Give those at ascending places among them, or all.
    """

    n_accepted: int
    n_rejected: Mapping[str, int]
    accepted: Callable[[Sequence[int] | None], Iterator[Judged]]
    rejected: Callable[[Sequence[int] | None], Iterator[Judged]]


@dataclass(frozen=True, slots=True)
class Pace:
    """Throughput and cost of a run over the time that it worked, pauses left out.

    Attributes:
        stretch_s: Seconds between two points.
        tokens_per_s, usd, tokens: (seconds of work, value); the latter two so far. No dollars when a price is unknown.
        n_pauses: How many were left out.
        failed: Requests that failed or were lost.
        until: When the last request ended.
    """

    stretch_s: int
    tokens_per_s: tuple[tuple[float, float], ...]
    usd: tuple[tuple[float, float], ...]
    tokens: tuple[tuple[float, float], ...]
    n_pauses: int
    failed: int
    until: datetime

    @property
    def elapsed_s(self) -> float:
        """Seconds of work."""
        return len(self.tokens_per_s) * float(self.stretch_s)


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder.

    Attributes:
        figures: None when there are neither a ledger nor a summary.
        seeds: Empty when their file is gone or has changed.
        threshold: Of the novelty filter, where the run recorded one.
        target: Accepted tasks that were wanted, where it recorded that.
        asked: The requests of a slot, as far as a ledger has them.
        pace: None where there is no ledger, or no request has ended.
        problem: Why the ledger is not shown, in a sentence; "" when it is, or there is none.
    """

    figures: RunFigures | None
    rows: Rows
    seeds: tuple[Example, ...]
    tokenizer: Tokenizer
    threshold: float | None
    target: int | None
    asked: Callable[[int], list[Asked]]
    pace: Pace | None
    problem: str

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.figures is None or self.figures.closed_by == "running"


@contextmanager
def opened_run(folder: Path) -> Iterator[Run]:
    """Open a run as it stands at this moment.

    Raises:
        InputError: For a folder that is none, or a broken file in it.
    """
    if not any((folder / name).exists() for name in (RECORD_FILE, LEDGER_FILE, "summary.json", DATASET_FILE)):
        problem = "holds no run" if folder.is_dir() else "no such folder"
        raise InputError(problem, path=folder, remedy="give the folder that `selfinstruct generate --out` wrote")
    record = read_toml(folder / RECORD_FILE) if (folder / RECORD_FILE).exists() else {}
    options = record.get("generate", {})
    tokenizer: Tokenizer = "unicode" if options.get("novelty_tokenizer") == "unicode" else "rouge"
    seeds = tuple(_seeds(options.get("seeds"), record.get("seeds_sha256")))
    with ExitStack() as stack:
        ledger, problem = _ledger(folder, stack)
        # A run that was judged again has its requests in the ledger of the first one.
        first = Path(str(record.get("refiltered_from", folder)))
        asked = ledger if first == folder else _ledger(first, stack)[0]
        pace = _pace(ledger) if ledger else None
        yield Run(
            figures=_figures(folder, ledger, pace),
            rows=_ledger_rows(ledger) if ledger else _file_rows(folder),
            seeds=seeds,
            tokenizer=tokenizer,
            threshold=_threshold(options),
            target=target if isinstance(target := options.get("num_instructions"), int) else None,
            asked=asked.asked_in if asked else lambda slot: [],
            pace=pace,
            problem=problem,
        )


def _ledger(folder: Path, stack: ExitStack) -> tuple[Ledger | None, str]:
    """(The ledger of a run, frozen as it stands; why it cannot be shown)."""
    path = folder / LEDGER_FILE
    if not path.is_file():
        return None, ""
    try:
        ledger = stack.enter_context(closing(Ledger(path)))
    except InputError as error:
        if not (folder / DATASET_FILE).exists():
            raise
        return None, f"Prompts, replies and times are not shown, as the ledger {error.problem}."
    stack.enter_context(ledger.snapshot())
    return ledger, ""


def _seeds(path: Any, sha256: Any) -> list[Example]:
    """The seed tasks of a run, if they are still what they were."""
    if not isinstance(path, str) or not Path(path).is_file() or sha256_file(Path(path)) != sha256:
        return []
    return read_seeds(Path(path))


def _threshold(options: Mapping[str, Any]) -> float | None:
    filters = [f for f in options.get("filter", ()) if isinstance(f, Mapping) and f.get("kind") == "novelty"]
    found = (filters[0] if filters else {}).get("threshold", options.get("novelty_threshold"))
    return float(found) if isinstance(found, int | float) else None


def _figures(folder: Path, ledger: Ledger | None, pace: Pace | None) -> RunFigures | None:
    if ledger is None:
        return read_figures(folder) if is_finished(folder) else None
    requests, accepted = ledger.requests(), ledger.n_accepted()
    if ended := figures_of_its_end(folder, accepted, requests.sent):
        return ended
    return RunFigures(
        accepted=accepted,
        rejected=ledger.rules(),
        requests={"sent": requests.sent, "retried": requests.retried, "failed": requests.failed},
        tokens={"prompt": requests.prompt_tokens, "completion": requests.completion_tokens},
        cost_usd=requests.cost_usd,
        elapsed_s=pace.elapsed_s if pace else 0.0,
        closed_by="running",
        strategies={
            name: StrategyFigures.model_validate(asdict(figures)) for name, figures in ledger.strategies().items()
        },
    )


def _ledger_rows(ledger: Ledger) -> Rows:
    return Rows(
        ledger.n_accepted(),
        ledger.rules(),
        lambda places: map(Judged.of_example, ledger.accepted(places)),
        lambda places: (Judged.of_verdict(*judged) for judged in ledger.rejected(places)),
    )


def _file_rows(folder: Path) -> Rows:
    dataset, rejected = folder / DATASET_FILE, folder / REJECTED_FILE
    # A run that accepted nothing has an empty data set.
    examples = read_dataset(dataset) if dataset.exists() and dataset.stat().st_size else []
    rules = Counter(str(values.get("rule")) for _, values in read_jsonl(rejected)) if rejected.exists() else Counter()
    return Rows(
        len(examples),
        dict(rules.most_common()),
        lambda places: map(Judged.of_example, _picked(examples, places)),
        lambda places: _picked(_rejected(rejected), places) if rejected.exists() else iter(()),
    )


def _picked(items: Iterable[T], places: Sequence[int] | None) -> Iterator[T]:
    """The items at ascending places, or all."""
    if places is None:
        yield from items
        return
    rest = iter(enumerate(items))
    for wanted in places:
        yield next(item for place, item in rest if place == wanted)


def _rejected(path: Path) -> Iterator[Judged]:
    for line, values in read_jsonl(path):
        row = validate(_Rejected, values, path=path, line=line)
        task = row.candidate
        instances = (Instance(task.input, task.output),) if task.input or task.output else ()
        source = Source.of_row(row.source.model_dump()) if row.source else None
        nearest = tuple(Neighbour(neighbour.id, neighbour.score) for neighbour in row.nearest)
        yield Judged(task.id, task.instruction, instances, source, nearest, row.rule, row.detail)


def _pace(ledger: Ledger) -> Pace | None:
    """Throughput and cost in stretches of time, as many as a chart can show."""
    minutes = ledger.activity(60)
    if not minutes:
        return None
    stretch_s = max(1, len(minutes) * 60 // N_STRETCHES)
    stretches = ledger.activity(stretch_s)
    most_idle = max(1, MIN_PAUSE_S // stretch_s)
    rates: list[float] = []
    spent: list[float | None] = []
    done: list[int] = []
    n_pauses, before = 0, stretches[0].number - 1
    for stretch in stretches:
        idle = stretch.number - before - 1
        n_pauses += idle > most_idle
        for _ in range(idle if idle <= most_idle else 0):
            rates.append(0.0)
            spent.append(spent[-1])
            done.append(done[-1])
        so_far = spent[-1] if spent else 0.0
        rates.append(stretch.tokens / stretch_s)
        spent.append(None if so_far is None or stretch.cost_usd is None else so_far + stretch.cost_usd)
        done.append((done[-1] if done else 0) + stretch.tokens)
        before = stretch.number
    times = [float(index * stretch_s) for index in range(1, len(rates) + 1)]
    return Pace(
        stretch_s,
        tokens_per_s=tuple(zip(times, rates, strict=True)),
        usd=tuple((time, usd) for time, usd in zip(times, spent, strict=True) if usd is not None),
        tokens=tuple((time, float(n)) for time, n in zip(times, done, strict=True)),
        n_pauses=n_pauses,
        failed=sum(stretch.failed for stretch in stretches),
        until=datetime.fromtimestamp((before + 1) * stretch_s, timezone.utc),
    )


# -- what the rows are like --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Survey:
    """What the rows of a run are like, from going through them once.

    Attributes:
        instructions: Of seeds and accepted tasks, by id.
        sample: Accepted tasks, evenly spread.
        packed, packed_rejected: Fewer of them, and of the rejected ones.
        lengths, seed_lengths: Kind of text to the number of texts in each bin of `LENGTH_BINS`.
        similarity: Number of accepted tasks in each bin of the score of the nearest task.
        just_accepted, just_rejected: Those nearest to the threshold of novelty, on either side.
        by_rule: A few candidates that each rule rejected.
        shares: (candidates judged so far, share accepted of the last ones).
    """

    instructions: Mapping[str, str]
    sample: tuple[Judged, ...]
    packed: tuple[Judged, ...]
    packed_rejected: tuple[Judged, ...]
    lengths: Mapping[str, Sequence[int]]
    seed_lengths: Mapping[str, Sequence[int]]
    similarity: Sequence[int]
    just_accepted: tuple[Judged, ...]
    just_rejected: tuple[Judged, ...]
    by_rule: Mapping[str, tuple[Judged, ...]]
    shares: tuple[tuple[float, float], ...]


def survey(run: Run) -> Survey:
    """Go through all rows of a run once, and keep what the page shows of them as a whole."""
    rows = run.rows
    n_rejected = sum(rows.n_rejected.values())
    instructions = {seed.id: seed.instruction for seed in run.seeds}
    similarity = [0] * N_SIMILARITY_BINS
    measured, packed = set(evenly(rows.n_accepted, N_MEASURED)), set(evenly(rows.n_accepted, N_PACKED))
    sample, packed_rows, packed_rejected = [], [], []
    just_accepted: list[Judged] = []
    slots: dict[int, list[int]] = {}  # to (judged, accepted)
    for index, row in enumerate(rows.accepted(None)):
        instructions[row.id] = row.instruction
        if row.nearest:
            similarity[min(int(row.nearest[0].score * N_SIMILARITY_BINS), N_SIMILARITY_BINS - 1)] += 1
            _keep(just_accepted, row, lambda row: -row.nearest[0].score)
        if index in measured:
            sample.append(row)
        if index in packed:
            packed_rows.append(row)
        _count(slots, row)
    by_rule: dict[str, list[Judged]] = {rule: [] for rule in rows.n_rejected}
    wanted = {rule: set(evenly(n, N_PER_RULE)) for rule, n in rows.n_rejected.items()}
    seen: Counter[str] = Counter()
    packed = set(evenly(n_rejected, N_PACKED))
    just_rejected: list[Judged] = []
    for index, row in enumerate(rows.rejected(None)):
        rule = str(row.rule)
        if seen[rule] in wanted[rule]:
            by_rule[rule].append(row)
        seen[rule] += 1
        if rule == "novelty" and row.nearest:
            _keep(just_rejected, row, lambda row: row.nearest[0].score)
        if index in packed:
            packed_rejected.append(row)
        _count(slots, row)
    return Survey(
        instructions=instructions,
        sample=tuple(sample),
        packed=tuple(packed_rows),
        packed_rejected=tuple(packed_rejected),
        lengths=_lengths([(row.instruction, row.instances) for row in sample], run.tokenizer),
        seed_lengths=_lengths([(seed.instruction, seed.instances) for seed in run.seeds], run.tokenizer),
        similarity=similarity,
        just_accepted=tuple(just_accepted),
        just_rejected=tuple(just_rejected),
        by_rule={rule: tuple(found) for rule, found in by_rule.items()},
        shares=tuple(_shares([slots[number] for number in sorted(slots)])),
    )


def _keep(kept: list[Judged], row: Judged, key: Callable[[Judged], float]) -> None:
    """Keep a row if it is among those with the lowest keys, earlier ones first."""
    if len(kept) < N_AT_THRESHOLD or key(row) < key(kept[-1]):
        kept.append(row)
        kept.sort(key=key)
        del kept[N_AT_THRESHOLD:]


def _count(slots: dict[int, list[int]], row: Judged) -> None:
    if row.source:
        counts = slots.setdefault(row.source.slot, [0, 0])
        counts[0] += 1
        counts[1] += row.rule is None


def _shares(slots: Sequence[Sequence[int]]) -> Iterator[tuple[float, float]]:
    """Shares over equal numbers of candidates, whole slots at a time."""
    least = max(20, sum(judged for judged, _ in slots) / N_SHARES)
    so_far = n_judged = n_accepted = 0
    for judged, accepted in slots:
        so_far, n_judged, n_accepted = so_far + judged, n_judged + judged, n_accepted + accepted
        if n_judged >= least:
            yield float(so_far), n_accepted / n_judged
            n_judged = n_accepted = 0


def _lengths(tasks: Sequence[tuple[str, tuple[Instance, ...]]], tokenizer: Tokenizer) -> dict[str, list[int]]:
    instances = [instance for _, of_task in tasks for instance in of_task]
    texts = {
        "instruction": [instruction for instruction, _ in tasks],
        "input": [instance.input for instance in instances if instance.input.strip()],
        "output": [instance.output for instance in instances],
    }
    return {kind: _binned([len(tokenize(text, tokenizer)) for text in some]) for kind, some in texts.items()}


def _binned(lengths: Sequence[int]) -> list[int]:
    counts = [0] * len(LENGTH_BINS)
    for length in lengths:
        counts[max(0, bisect_right(LENGTH_BINS, length) - 1)] += 1
    return counts
