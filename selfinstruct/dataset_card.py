"""The card of a data set: what it consists of, how it came about, what is not known about it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, TypeAdapter

from selfinstruct.address import OPENAI_URL
from selfinstruct.characters import cut
from selfinstruct.command import Config
from selfinstruct.dataset import DATASET_FILE, dataset_path, dataset_rows, read_dataset
from selfinstruct.diversity import Diversity, describe_diversity
from selfinstruct.embedded import public_name
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import read_json, read_toml, refuse_to_replace, sha256_file, shipped, validate, write_text
from selfinstruct.filters.selection import selected
from selfinstruct.languages import language_name
from selfinstruct.markdown import block, front_matter, inline, linked, table
from selfinstruct.records import Example, conversation_text
from selfinstruct.results import RECORD_FILES, SUMMARY_FILE, RunFigures, name_of
from selfinstruct.run_config import GenerateConfig
from selfinstruct.specs import Spec

NOT_STATED = "not stated"
MAX_CHARACTERS = 4000  # of a prompt or a row that is shown
# huggingface.co/docs/hub/datasets-cards; the last one is open.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "1M<n<10M"
_SEEDS = ("seed_tasks.jsonl", "seed_tasks.zh.jsonl")
# Options of a filter that say where it ran, not what it did.
_PRIVATE = ("base_url", "api_key_env")

_COLUMNS = ("id", "instruction", "input", "output", "is_classification")

_CARD = """\
{front}
# {name}

{rows:,} rows of {tasks:,} instruction tasks in {language}, written by the language model {teacher}. No person has
checked them.

{facts}

## Use

{use}
A row, as the run has it; there it says as well where it came from and what it resembles:

{row}

## How it came about

{strategies}

Seed of the random choices: {seed}; slots in flight: {window}. A fresh run samples anew and gives other rows.

### Filters

In the order of judgement; a candidate is rejected by the first that objects.

{filters}

Of {candidates:,} candidates {accepted:,} were accepted ({share:.1%}); what rejected the others:

{rejected}

### Prompts

{prompts}

## Figures

{figures}

## Limitations

{limitations}

## Licence and terms

{terms}

## Versions

{versions}
"""

_LOAD = """\
```python
from datasets import load_dataset

rows = load_dataset("path/to/this/folder", split="train")
```

`{file}` holds {n_bytes:,} bytes with the SHA-256 `{sha256}`.
"""
_NO_DATA = "`selfinstruct export` writes the rows in the forms that trainers read.\n"


class CardConfig(Config):
    """Options of `selfinstruct card`."""

    run: Path = Field(description="A finished run folder.")
    out: Path = Field(description="The card to write.", json_schema_extra={"metavar": "README.md"})
    data: Path | None = Field(
        None, description="The file that is shared, as export wrote it, in the card's folder: how to load it is stated."
    )
    pretty_name: str | None = Field(
        None, min_length=1, description="Name of the data set; the run folder's if not given."
    )
    license: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9.+-]*$",
        description="The hub's identifier of the licence that you choose, as cc-by-4.0; none is assumed.",
        json_schema_extra={"metavar": "ID"},
    )
    teacher_terms: str | None = Field(
        None, min_length=1, description="Terms of the teacher's provider that apply to what it wrote: name or address."
    )
    overwrite: bool = Field(False, description="Replace the card if it exists.")


@dataclass(frozen=True, slots=True)
class CardSummary:
    """What was written.

    Attributes:
        rows: Number of rows that the card describes.
        sha256: Of the card.
        not_stated: What only the user can add.
    """

    rows: int
    path: str
    sha256: str
    not_stated: tuple[str, ...]


class _Figures(RunFigures):
    dataset_sha256: str


class _Record(BaseModel):
    """run.toml."""

    generate: GenerateConfig
    seeds_sha256: str
    versions: dict[str, str]
    refiltered_from: str | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    """A run as its folder shows it.

    Attributes:
        period: First and last day of asking, if the ledger is there.
        prompts: The first accepted task's request, by strategy, as far as the ledger has it.
    """

    folder: Path
    options: GenerateConfig
    record: _Record
    figures: _Figures
    examples: Sequence[Example]
    period: tuple[str, str] | None
    prompts: Mapping[str, str]

    @property
    def teacher(self) -> str:
        return public_name(self.options.model)


def card(config: CardConfig) -> CardSummary:
    """Write the card of a run's data set: Markdown with the front matter that the hub reads.

    Raises:
        InputError: When the folder is no finished run, or its data set has changed since; for missing --data.
        UsageError: When the card exists, or --data is in another folder.
    """
    refuse_to_replace(config.out, config.overwrite)
    if config.data and not config.data.is_file():
        raise InputError("no such file", path=config.data, remedy="write it with selfinstruct export")
    if config.data and config.data.resolve().parent != config.out.resolve().parent:
        raise UsageError(f"--data {config.data}: must be in the folder of the card, {config.out.resolve().parent}")
    run = _read(config.run / "generate" if (config.run / "generate" / DATASET_FILE).is_file() else config.run)
    n_rows = sum(len(example.instances) for example in run.examples)
    write_text(config.out, _text(config, run, n_rows))
    stated = {"licence": config.license, "terms of the teacher's provider": config.teacher_terms}
    missing = tuple(name for name, value in stated.items() if value is None)
    return CardSummary(n_rows, str(config.out), sha256_file(config.out), missing)


def describe(summary: CardSummary) -> str:
    """The summary in words."""
    lines = [f"wrote {summary.path} about {summary.rows} rows; read it before you share it"]
    return "\n".join(lines + [f"{NOT_STATED}: {name}" for name in summary.not_stated])


# -- reading -----------------------------------------------------------------------------------------------------------


def _read(folder: Path) -> _Run:
    for name in (RECORD_FILES[0], SUMMARY_FILE):
        if not (folder / name).is_file():
            problem = f"holds no {name}" if folder.is_dir() else "no such folder"
            raise InputError(problem, path=folder, remedy="give a finished run of `selfinstruct generate`")
    path, summary = folder / RECORD_FILES[0], folder / SUMMARY_FILE
    record = validate(_Record, read_toml(path), path=path)
    figures = validate(_Figures, read_json(summary), path=summary)
    dataset = dataset_path(folder)
    if sha256_file(dataset) != figures.dataset_sha256:
        raise InputError(
            "has changed since the run, so that the run's figures do not fit it", path=dataset,
            remedy="restore it; the same selfinstruct generate writes it again",
        )  # fmt: skip
    examples = read_dataset(dataset)
    return _Run(folder, record.generate, record, figures, examples, *_asked(folder / "ledger.sqlite", examples))


def _asked(path: Path, examples: Sequence[Example]) -> tuple[tuple[str, str] | None, dict[str, str]]:
    """(first and last day of asking, a prompt of each strategy) as the ledger has them, if there is one."""
    from selfinstruct.ledger import Ledger

    if not path.is_file():
        return None, {}
    firsts = {example.source.strategy: example.source for example in reversed(examples) if example.source}
    with closing(Ledger(path)) as ledger:
        requests = {strategy: ledger.request(source.prompt_key) for strategy, source in firsts.items()}
        return ledger.period(), {
            strategy: conversation_text(request["messages"]) for strategy, request in requests.items() if request
        }


# -- the card ----------------------------------------------------------------------------------------------------------


def _text(config: CardConfig, run: _Run, n_rows: int) -> str:
    name = config.pretty_name or name_of(run.folder)
    figures = run.figures
    diversity = TypeAdapter(Diversity).validate_python(figures.diversity) if figures.diversity else None
    return _CARD.format(
        front=front_matter(_metadata(config, run, name, n_rows)),
        name=inline(name),
        rows=n_rows,
        tasks=len(run.examples),
        language=inline(language_name(run.options.language)),
        teacher=inline(run.teacher),
        facts=table(("", ""), _facts(config, run, n_rows)),
        use=_use(config.data) if config.data else _NO_DATA,
        row=block(cut(_row(run.examples[0]), MAX_CHARACTERS), "json"),
        strategies=table(("Strategy", "Options", "Tasks", "Rows", "Candidates", "Accepted"), _strategies(run)),
        seed=run.options.seed,
        window=run.options.window,
        filters=table(("Filter", "What it rejects", "Options"), _filters(run.options)),
        candidates=figures.candidates,
        accepted=figures.accepted,
        share=figures.accepted / max(1, figures.candidates),
        rejected=table(("Rule", "Candidates"), _by_number(figures.rejected)) if figures.rejected else "Nothing.",
        prompts="\n\n".join(_prompts(run)),
        figures=block(describe_diversity(diversity)) if diversity else "Not measured by the version of this run.",
        limitations="\n".join(f"- {line}" for line in _limitations(run)),
        terms="\n".join(f"- {line}" for line in _terms(config, run)),
        versions=inline(", ".join(f"{name} {version}" for name, version in run.record.versions.items())),
    )


def _row(example: Example) -> str:
    """The first row of a task, without its source, which may name a local path."""
    row = next(dataset_rows(example))
    return json.dumps({name: row[name] for name in _COLUMNS}, ensure_ascii=False, indent=2)


def _metadata(config: CardConfig, run: _Run, name: str, n_rows: int) -> dict[str, Any]:
    """Fields of the hub's data set cards (huggingface.co/docs/hub/datasets-cards)."""
    files = [{"split": "train", "path": config.data.name}] if config.data else []
    return {
        "pretty_name": name,
        "license": config.license,
        "language": [re.split("[-_]", run.options.language.lower())[0]],
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "multilinguality": ["monolingual"],
        "size_categories": [next((size for limit, size in _SIZES if n_rows < limit), _LARGEST)],
        "source_datasets": ["original"],
        "task_categories": ["text-generation"],
        "tags": ["instruction-tuning", "synthetic", *dict.fromkeys(s.kind for s in run.options.strategy)],
        "configs": [{"config_name": "default", "data_files": files}] if files else None,
    }


def _facts(config: CardConfig, run: _Run, n_rows: int) -> Iterator[tuple[str, str]]:
    options, figures = run.options, run.figures
    n_labelled = sum(example.is_classification for example in run.examples)
    yield "Tasks, and rows with one instance each", f"{len(run.examples):,}, {n_rows:,}"
    yield "Classification tasks, and others", f"{n_labelled:,}, {len(run.examples) - n_labelled:,}"
    yield "Language", inline(f"{language_name(options.language)} ({options.language})")
    yield "Seed tasks", _seeds(run)
    yield "Teacher", inline(run.teacher)
    yield "Asked through", _endpoint(options)
    yield "Asked", " to ".join(dict.fromkeys(run.period)) if run.period else "not recorded"
    sent = figures.requests.get("sent", 0)
    yield "Requests", f"{sent:,}" if sent else "none: candidates of another run were judged again"
    yield (
        "Tokens of prompts and replies",
        f"{figures.tokens.get('prompt', 0):,}, {figures.tokens.get('completion', 0):,}",
    )
    yield "Price", _price(options)
    yield "Cost", "not known" if figures.cost_usd is None else f"{figures.cost_usd:.4f} USD"
    yield "Ended by", inline(figures.closed_by)
    yield "SHA-256 of the run's data set", f"`{figures.dataset_sha256}`"
    yield "Licence", inline(config.license or NOT_STATED)
    yield "Terms of the teacher's provider", linked(config.teacher_terms or NOT_STATED)


def _seeds(run: _Run) -> str:
    """How many, whose, and which file."""
    sha256, path = run.record.seeds_sha256, run.options.seeds
    n = run.figures.diversity.get("seeds", {}).get("n_tasks")
    shipped_one = next((name for name in _SEEDS if sha256_file(shipped(name)) == sha256), None)
    whose = (
        f"{shipped_one}, which selfinstruct ships" if shipped_one else f"{path.name if path else ''}, the user's own"
    )
    return f"{f'{n:,}: ' if n else ''}{inline(whose)}; SHA-256 `{sha256}`"


def _endpoint(options: GenerateConfig) -> str:
    api = {"chat": "chat completions", "completions": "plain completions", None: "completions"}[options.endpoint]
    if options.embedded:
        return f"the embedded model's server on the same machine, {api}"
    url = options.base_url or OPENAI_URL
    host = urlsplit(url).hostname or ""
    # The name of a machine in a network of one's own, or an address, is nothing to share.
    host = inline(host) if re.fullmatch(r".+\.[a-z-]+", host) else "a private address"
    return f"OpenAI-compatible endpoint at {host}, {api}{', batches' if options.batch else ''}"


def _price(options: GenerateConfig) -> str:
    if options.embedded:
        return "none"
    if options.input_usd_per_mtok is not None and options.output_usd_per_mtok is not None:
        price, origin = (options.input_usd_per_mtok, options.output_usd_per_mtok), "given for the run"
    else:
        from selfinstruct.budget import price_of

        listed = price_of(options.model, options.base_url or OPENAI_URL, None, None)
        if listed is None:
            return "not known"
        # Of a thousand: some prices rise with the length of a prompt.
        price, origin = (1000 * listed(1000, 0), 1000 * listed(0, 1000)), "as genai-prices lists it"
    half = "; a batch takes half" if options.batch else ""
    return f"{price[0]:g} and {price[1]:g} USD for a million tokens of prompts and of replies, {origin}{half}"


def _use(data: Path) -> str:
    return _LOAD.format(file=inline(data.name), n_bytes=data.stat().st_size, sha256=sha256_file(data))


def _strategies(run: _Run) -> Iterator[tuple[str, ...]]:
    """Options and yield of each strategy; rows by what their sources say."""
    tasks, rows = Counter[str](), Counter[str]()
    for example in run.examples:
        name = example.source.strategy if example.source else "not recorded"
        tasks[name] += 1
        rows[name] += len(example.instances)
    options = {str(strategy.kind): _options(strategy) for strategy in run.options.strategy}
    for name in dict.fromkeys([*options, *tasks]):
        figures = run.figures.strategies.get(name)
        judged = (f"{figures.judged:,}", f"{figures.accepted / max(1, figures.judged):.1%}") if figures else ("", "")
        yield (inline(name), inline(options.get(name, "")), f"{tasks[name]:,}", f"{rows[name]:,}", *judged)


def _filters(options: GenerateConfig) -> Iterator[tuple[str, str, str]]:
    """Kind, first line of the documentation, and options of each filter."""
    for rule in selected(options.filter, options.without, options.novelty_threshold, options.original):
        meaning = " ".join((type(rule).__doc__ or "").split("\n\n")[0].split())
        yield inline(rule.kind), inline(meaning), inline(_options(rule))


def _options(part: Spec) -> str:
    """Every option of a strategy or filter; of a path its last part, since a card holds no local path."""
    shown = {name: value for name, value in part if name not in ("kind", *_PRIVATE) and value is not None}
    return ", ".join(f"{name}={v.name if isinstance(v, Path) else v}" for name, v in shown.items())


def _by_number(rules: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for rule, n in sorted(rules.items(), key=lambda item: (-item[1], item[0])):
        yield inline(rule), f"{n:,}"


def _prompts(run: _Run) -> Iterator[str]:
    if not run.prompts:
        yield "Not here: this run's ledger holds no requests."
        return
    yield "Seed tasks or accepted ones are shown in them; the ledger of the run has every one. The first that was used:"
    for strategy, prompt in run.prompts.items():
        yield f"{inline(strategy)}:"
        yield block(cut(prompt, MAX_CHARACTERS))


def _limitations(run: _Run) -> Iterator[str]:
    kinds = {kind for kind, _, _ in _filters(run.options)}
    yield "A model wrote instructions, inputs and answers. No answer was verified: it may be wrong, biased or made up."
    yield "Filters go by words and patterns and let some of what they look for pass; none looks for harmful content."
    yield "Novelty compares words (ROUGE-L): tasks that say the same in other words stand beside each other."
    if "personal-data" not in kinds:
        yield "Nothing looked for personal data."
    if "contamination" not in kinds:
        yield "Nothing compared the rows with tasks that are held out for evaluation."
    yield "What the seed tasks and the teacher know little of, the rows know little of."


def _terms(config: CardConfig, run: _Run) -> Iterator[str]:
    yield f"Licence of the data set: {inline(config.license or NOT_STATED)}."
    terms = linked(config.teacher_terms or NOT_STATED)
    yield (
        f"Terms of the provider of {inline(run.teacher)} for what it wrote: {terms}. Whether they allow to share the"
        " rows, or to train a model on them, is for whoever does so to check."
    )
