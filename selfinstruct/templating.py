"""`selfinstruct templates`: labelled data becomes instruction data through written templates, without a teacher.

After FLAN (Wei et al., 2022): every row is put into the words of a template of its task cluster, some of which turn the
task around (section 2.1); a held-out cluster stays out of the training data (2.2); classes are listed as options (2.3).
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter, ascii_uppercase
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from selfinstruct.command import Config
from selfinstruct.errors import InputError, UsageError
from selfinstruct.files import atomic_file, digest, read_toml, refuse_to_replace, shipped, to_json_line, validate
from selfinstruct.labelled_data import (
    TARGETS,
    Case,
    Columns,
    FieldSpec,
    LabelledData,
    LabelledRow,
    opening_of,
    read_labelled,
    text_of,
)
from selfinstruct.progress import Progress
from selfinstruct.tasks import Metric, Text, read_tasks

P3 = "p3"
# Whether a row may lack it: some templates of P3 have no answer for some rows.
_P3_FIELDS = {"cluster": False, "dataset": False, "template": True, "prompt": False, "completion": True}
# FLAN's cap on the examples of one data set (section 2.4).
FLAN_MAX_ROWS = 30_000


class TemplatesConfig(Config):
    """Options of `selfinstruct templates`."""

    source: str = Field(
        description="Labelled rows: a .jsonl, .csv, .tsv or .parquet file (text also .gz), or what the package "
        "datasets loads, such as glue/mrpc:train or FOLDER:train."
    )
    task: str = Field(
        description="The kind of task: closed_book_qa, coreference, data_to_text, inference, multiple_choice, "
        "paraphrase, reading_comprehension, reasoning, sentiment, summarisation, topic or translation; a .toml file "
        "with templates of your own; or p3 for rows that are instructions already (cluster, dataset, template, prompt, "
        "completion).",
        json_schema_extra={"metavar": "CLUSTER"},
    )
    out: Path = Field(description="The file to write.")
    format: Literal["instructions", "tasks"] = Field(
        "instructions",
        description="instructions: rows for finetune train. tasks: held-out items for finetune evaluate.",
    )
    dataset: str | None = Field(None, description="Name of the data set, where the file's name is not a good one.")
    map: list[str] = Field(
        [],
        description="Which column holds a field, as in premise=sentence1. A dot reaches inside (choices=choices.text), "
        "commas make a list (choices=option1,option2).",
        json_schema_extra={"metavar": "FIELD=COLUMN"},
    )
    labels: list[str] = Field(
        [],
        description="What a label stands for, as in 0=entailment; name every class that the data has. Rows whose label "
        "stands for nothing (-1=) are left out. A label alone stands for itself.",
        json_schema_extra={"metavar": "LABEL=CLASS"},
    )
    constant: list[str] = Field(
        [],
        description="A field that is the same in all rows, as in target_language=German.",
        json_schema_extra={"metavar": "FIELD=TEXT"},
    )
    templates_per_row: int = Field(1, ge=1, description="How many templates each row is written in.")
    per_template_max: int | None = Field(None, ge=1, description="Most rows written in one template.")
    max_rows: int = Field(
        FLAN_MAX_ROWS, ge=0, description="Most rows used of a data set, drawn at random; 0 uses all. As in FLAN."
    )
    only: list[str] = Field([], description="Use only this template.", json_schema_extra={"metavar": "TEMPLATE"})
    reversed: bool = Field(True, description="Use templates that turn the task around too; tasks never do.")
    options: bool = Field(True, description='End with "OPTIONS:" and the classes where a template does not name them.')
    hold_out: list[str] = Field(
        [],
        description="A cluster not to be trained on: refused, or left out of p3. With --format tasks, one to write.",
        json_schema_extra={"metavar": "CLUSTER"},
    )
    hold_out_tasks: list[Path] = Field(
        [],
        description="A file or folder of held-out tasks: their clusters and data sets are held out.",
        json_schema_extra={"metavar": "FILE"},
    )
    seed: int = Field(0, description="Seed of the choice of templates and rows.")
    overwrite: bool = Field(False, description="Replace the file if it exists.")


@dataclass(frozen=True, slots=True)
class TemplatesSummary:
    """What was written.

    Attributes:
        rows_read: Rows of the input.
        rows_written: Rows of the output.
        left_out: Rows by reason: "held_out", "unusable" (its label is left out by --labels, its answer is empty in P3,
            or it lacks what the templates of --only need), "duplicate", "max_rows", and "per_template_max", which
            counts rows of the output.
        clusters, templates, labels: Rows of the output by cluster, by template and by class (or letter of the choice).
    """

    path: str
    rows_read: int
    rows_written: int
    left_out: dict[str, int]
    clusters: dict[str, int]
    templates: dict[str, int]
    labels: dict[str, int]


# -- templates ---------------------------------------------------------------------------------------------------------


class _TemplateRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: StrictStr = Field(pattern=r"^[a-z0-9_]+$")
    instruction: Text
    input: StrictStr = ""
    output: Text
    reversed: bool = False
    words: dict[str, Text] = {}


class _ClusterFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    about: Text
    metric: Metric | None = None
    class_sets: list[list[Text]] = []
    fields: dict[str, FieldSpec] = Field(min_length=2)
    templates: list[_TemplateRow] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text with named gaps, written as for `str.format`, but without attributes, conversions and formats.

    Attributes:
        parts: Literal texts, each with the gap that follows it, "" for none.
        gaps: Their names.
    """

    parts: tuple[tuple[str, str], ...]
    gaps: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern.

        Raises:
            ValueError: When a brace is neither part of a gap nor doubled, or a gap is more than a name.
        """
        parts = []
        for literal, gap, form, conversion in Formatter().parse(text):
            if gap is not None and (not gap.isidentifier() or form or conversion):
                raise ValueError(f"'{{{gap}}}' is not the plain name of a field")
            parts.append((literal, gap or ""))
        return cls(tuple(parts), frozenset(gap for _, gap in parts if gap))

    def filled(self, values: Mapping[str, str]) -> str:
        """The text with its gaps filled; braces in values have no meaning."""
        return "".join(literal + (values[gap] if gap else "") for literal, gap in self.parts)


@dataclass(frozen=True, slots=True)
class Template:
    """One way to put a row into words.

    Attributes:
        reversed: Whether it turns the task around: what usually is the answer is given.
        words: What it calls each class, in the order in which it names them; empty if it calls them by their names.
    """

    name: str
    instruction: Pattern
    input: Pattern
    output: Pattern
    reversed: bool
    words: Mapping[str, str]

    @property
    def prompt_gaps(self) -> frozenset[str]:
        """Gaps of instruction and input."""
        return self.instruction.gaps | self.input.gaps

    @property
    def is_gradable(self) -> bool:
        """Whether it asks for the answer and nothing else, so that evaluation can compare it."""
        return not self.reversed and len(self.output.parts) == 1 and self.output.parts[0][0] == ""

    def word(self, name: str) -> str:
        """What it calls a class."""
        return self.words[name] if self.words else name

    def ordered(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Classes in the order in which it names them."""
        return tuple(name for name in self.words or classes if name in classes)

    def options(self, classes: Sequence[str]) -> list[str]:
        """The words for classes, each once."""
        return list(dict.fromkeys(map(self.word, self.ordered(classes))))

    def fits(self, classes: Sequence[str]) -> bool:
        """Whether it has a word for every class, and does not call all of them the same when it asks which it is."""
        covers = not self.words or set(classes) <= set(self.words)
        return covers and (self.reversed or len(self.options(classes)) != 1)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A kind of task, with its fields and templates.

    Attributes:
        metric: How evaluation scores an answer that is not one of a few; None for its default.
        class_sets: Classes that the data sets of this kind have, the usual ones first; empty where each data set has
            classes of its own, or there are none.
        target, target_kind: The field of one of the kinds TARGETS, and its kind, else "".
        choices: The field of kind choices, else "".
    """

    name: str
    metric: str | None
    class_sets: tuple[tuple[str, ...], ...]
    fields: Mapping[str, FieldSpec]
    templates: tuple[Template, ...]
    target: str
    target_kind: str
    choices: str

    def origins(self) -> dict[str, str]:
        """The gaps that a template may have, each with the field whose content it shows, "" if none's."""
        origins = {name: name for name in self.fields}
        origins |= {opening_of(name): "" for name, spec in self.fields.items() if spec.kind == "text"}
        if self.target_kind == "class":
            origins["options"] = ""
        elif self.target_kind == "choice":
            origins |= {"lettered": self.choices, "letter": self.target}
        return origins


def shipped_clusters() -> dict[str, Path]:
    """The template files that come with the package, by cluster."""
    return {path.stem: path for path in sorted(shipped("templates").glob("*.toml"))}


def read_cluster(path: Path) -> Cluster:
    """Read the templates of a cluster, and check that none of them can be wrong by its form.

    Raises:
        InputError: Naming the template, for an unknown field, an answer that stands in its prompt, a class without a
            word, choices that are not shown, or a text that is no pattern.
    """
    file = validate(_ClusterFile, read_toml(path), path=path)
    targets = [name for name, spec in file.fields.items() if spec.kind in TARGETS]
    choices = [name for name, spec in file.fields.items() if spec.kind == "choices"]
    kinds = [file.fields[name].kind for name in targets]
    if len(targets) > 1 or len(choices) != kinds.count("choice"):
        raise InputError(
            "may hold one class, one answer, or one choice and its choices", path=path, field="fields",
            remedy="make the others plain texts",
        )  # fmt: skip
    always_text = {name for name, spec in file.fields.items() if spec.kind == "text" and not spec.optional}
    for name, spec in file.fields.items():
        if spec.once_in and not {name, spec.once_in} <= always_text:
            raise InputError("once_in is for texts that no row lacks", path=path, field=f"fields.{name}")
    cluster = Cluster(
        path.stem, file.metric, tuple(map(tuple, file.class_sets)), file.fields,
        tuple(_template(row, path) for row in file.templates),
        target="".join(targets), target_kind="".join(kinds), choices="".join(choices),
    )  # fmt: skip
    names: set[str] = set()
    for template in cluster.templates:
        problem = "is a name used twice" if template.name in names else _problem(template, cluster)
        if problem:
            raise InputError(problem, path=path, field=f"templates.{template.name}")
        names.add(template.name)
    return cluster


def _template(row: _TemplateRow, path: Path) -> Template:
    def pattern(part: str) -> Pattern:
        try:
            return Pattern.parse(getattr(row, part))
        except ValueError as error:
            raise InputError(
                str(error), path=path, field=f"templates.{row.name}.{part}", remedy="write {{ and }} for braces"
            ) from error

    return Template(row.name, pattern("instruction"), pattern("input"), pattern("output"), row.reversed, row.words)


def _problem(template: Template, cluster: Cluster) -> str | None:
    """Why a template would be wrong for some row, if it would."""
    origins, shown, asked = cluster.origins(), template.prompt_gaps, template.output.gaps
    if unknown := (shown | asked) - origins.keys():
        return f"'{{{min(unknown)}}}' is none of its fields: {', '.join(origins)}"
    if given := {origins[gap] for gap in shown} & {origins[gap] for gap in asked} - {""}:
        return f"gives the '{min(given)}' that it asks for"
    if not {origins[gap] for gap in asked} - {""}:
        return "asks for no field"
    if cluster.target and template.reversed == (cluster.target in {origins[gap] for gap in asked}):
        return f"must be reversed exactly if it does not ask for '{cluster.target}'"
    if cluster.choices and not template.reversed:
        listings = {"lettered"} if "letter" in asked else {"lettered", cluster.choices}
        if not listings & shown:
            return f"must show {' or '.join(f'{{{listing}}}' for listing in sorted(listings))}"
    if template.words.keys() - {name for names in cluster.class_sets for name in names}:
        return "has words for what is no class"
    if cluster.class_sets and not any(template.words and template.fits(names) for names in cluster.class_sets):
        return "needs a word for every class, and at least two different ones"
    return None


# -- from rows to drafts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """A row in the words of a template.

    Attributes:
        key: Hash of what the row says.
        references: Acceptable answers, the one to learn first.
        options: All possible answers, where they are few.
        metric: How evaluation scores an answer without options; None for its default.
        label: Class, or letter of the choice, else "".
    """

    key: str
    cluster: str
    dataset: str
    template: str
    instruction: str
    input: str
    references: tuple[str, ...]
    options: tuple[str, ...] = ()
    metric: str | None = None
    label: str = ""

    @property
    def id(self) -> str:
        """Follows from the content, so that other rows do not change it."""
        return "/".join(filter(None, (self.dataset, self.key, self.template)))

    def as_instruction(self) -> dict[str, Any]:
        """A row to train on."""
        return {
            "id": self.id, "instruction": self.instruction, "input": self.input, "output": self.references[0],
            "cluster": self.cluster, "dataset": self.dataset, "template": self.template,
        }  # fmt: skip

    def as_task(self) -> dict[str, Any]:
        """A held-out item; the data set is its task."""
        scored = {"options": list(self.options)} if self.options else {"metric": self.metric} if self.metric else {}
        return {
            "id": self.id, "task": self.dataset, "cluster": self.cluster, "instruction": self.instruction,
            "input": self.input, "references": list(self.references), **scored,
        }  # fmt: skip


class TemplateDrafts:
    """Puts the rows of a data set into the words of templates.

    Args:
        cluster: The kind of task.
        dataset: Name of the data set.
        config: Says where the fields stand and which templates to use.

    Raises:
        UsageError: For a field, class or template that the cluster does not have, or when no template is left.
    """

    def __init__(self, cluster: Cluster, dataset: str, config: TemplatesConfig) -> None:
        self._cluster, self._dataset, self._config = cluster, dataset, config
        self._columns = _columns(config, list(cluster.fields))
        self._classes = _classes(cluster, self._columns.labels)
        self._templates = _chosen(cluster, self._classes, config)
        plain = {name for name, spec in cluster.fields.items() if spec.kind in ("text", "lines")}
        self._plain_gaps = plain | {opening_of(name) for name in plain}

    def __call__(self, row: LabelledRow) -> list[Draft]:
        """The row in `templates_per_row` templates, or in fewer if no more suit it; in none if its label is left out.

        Raises:
            InputError: When the row lacks a field or holds a wrong value.
        """
        case = self._columns.case(row, self._cluster.fields, self._classes)
        if case is None:
            return []
        lacking = self._plain_gaps - case.texts.keys()
        suitable = [t for t in self._templates if not lacking & (t.prompt_gaps | t.output.gaps)]
        key = digest([case.texts, case.right, case.choices])
        # By content and not by place, so that what other rows there are changes nothing.
        drawn = heapq.nsmallest(
            self._config.templates_per_row, suitable, key=lambda t: digest(f"{self._config.seed}/{key}/{t.name}")
        )
        return [self._draft(template, case, key) for template in drawn]

    def _draft(self, template: Template, case: Case, key: str) -> Draft:
        kind = self._cluster.target_kind
        values = self._values(template, case, case.right[0] if case.right else "")
        instruction, input = template.instruction.filled(values), template.input.filled(values)
        options: tuple[str, ...] = ()
        if not template.reversed:
            options = template.ordered(self._classes) if kind == "class" else case.choices
            if kind == "class" and self._config.options and "options" not in template.prompt_gaps:
                listing = "\n\nOPTIONS:" + "".join(f"\n- {word}" for word in template.options(self._classes))
                instruction, input = (instruction, input + listing) if input else (instruction + listing, "")
        letters = dict(zip(case.choices, ascii_uppercase, strict=False))
        return Draft(
            key, self._cluster.name, self._dataset, template.name, instruction, input,
            references=self._outputs(template, case, case.right or [""]),
            options=self._outputs(template, case, options),
            metric=self._cluster.metric,
            label="" if kind == "answer" or not case.right else letters.get(case.right[0], case.right[0]),
        )  # fmt: skip

    def _outputs(self, template: Template, case: Case, targets: Iterable[str]) -> tuple[str, ...]:
        """The answers that a template would have, were these the values of the target."""
        outputs = (template.output.filled(self._values(template, case, target)) for target in targets)
        return tuple(dict.fromkeys(outputs))

    def _values(self, template: Template, case: Case, target: str) -> dict[str, str]:
        """What goes into the gaps of a template, were this the value of the target."""
        cluster, values = self._cluster, {**case.texts}
        if cluster.target_kind == "class":
            options = template.options(self._classes)
            values["options"] = " or ".join(filter(None, [", ".join(options[:-1]), options[-1]]))
            values[cluster.target] = template.word(target)
        elif cluster.target_kind == "choice":
            letters = dict(zip(case.choices, ascii_uppercase, strict=False))
            values[cluster.choices] = "\n".join(f"- {choice}" for choice in case.choices)
            values["lettered"] = "\n".join(f"{letter}. {choice}" for choice, letter in letters.items())
            values |= {cluster.target: target, "letter": letters[target]}
        elif cluster.target:
            values[cluster.target] = target
        return values


def _columns(config: TemplatesConfig, fields: Sequence[str]) -> Columns:
    """Where the fields stand, from the flags.

    Raises:
        UsageError: For a flag that is no pair, is given twice, or names no field.
    """
    columns, constants = _pairs("--map", config.map), _pairs("--constant", config.constant)
    for flag, given in (("--map", columns), ("--constant", constants)):
        for name in given:
            if name not in fields:
                raise UsageError(f"{flag}: there is no field '{name}'; the fields are {', '.join(fields)}")
    # A label alone stands for itself.
    labels = [label if "=" in label else f"{label}={label}" for label in config.labels]
    return Columns(columns, constants, _pairs("--labels", labels, may_be_empty=True))


def _pairs(flag: str, given: Iterable[str], may_be_empty: bool = False) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not (name and sign and (value or may_be_empty)):
            raise UsageError(f"{flag} '{text}' must be NAME=VALUE")
        if pairs.setdefault(name, value) != value:
            raise UsageError(f"{flag}: '{name}' is given twice")
    return pairs


def _classes(cluster: Cluster, labels: Mapping[str, str]) -> tuple[str, ...]:
    """The classes of a data set: those that its labels stand for, or else the usual ones; empty if there are none.

    Raises:
        UsageError: When they are not known, are not those of the cluster, or there are labels and no field for them.
    """
    named = tuple(dict.fromkeys(filter(None, labels.values())))
    if labels and not cluster.target:
        raise UsageError(f"--labels: there are none in {cluster.name}")
    if cluster.target_kind != "class":
        return ()
    if named or not cluster.class_sets:
        if len(named) < 2:
            raise UsageError(f"--labels: name the classes of the data, as in {_example(cluster)}")
        if cluster.class_sets and not any(set(named) <= set(classes) for classes in cluster.class_sets):
            known = "; or ".join(", ".join(classes) for classes in cluster.class_sets)
            raise UsageError(f"--labels: {', '.join(named)} are no classes of {cluster.name}, which are {known}")
        return named
    return cluster.class_sets[0]


def _example(cluster: Cluster) -> str:
    classes = cluster.class_sets[0] if cluster.class_sets else ("sport", "politics")
    return " ".join(f"--labels {number}={name}" for number, name in enumerate(classes))


def _chosen(cluster: Cluster, classes: Sequence[str], config: TemplatesConfig) -> list[Template]:
    """The templates that the flags leave.

    Raises:
        UsageError: When one is not known or none is left.
    """
    names = [template.name for template in cluster.templates]
    if unknown := [name for name in config.only if name not in names]:
        raise UsageError(f"--only: there is no template '{unknown[0]}'; the templates are {', '.join(names)}")
    chosen = [
        template
        for template in cluster.templates
        if template.name in (config.only or names)
        and (config.reversed or not template.reversed)
        and (config.format == "instructions" or template.is_gradable)
        and template.fits(classes)
    ]
    if not chosen:
        raise UsageError("no template is left; tasks are written in those that ask for the answer alone")
    return chosen


class P3Drafts:
    """Takes rows that are prompts with completions already, as P3 has them, as they are.

    Args:
        config: Says where the fields stand.

    Raises:
        UsageError: For options that are about templates.
    """

    def __init__(self, config: TemplatesConfig) -> None:
        for name in ("dataset", "labels", "only", "templates_per_row", "reversed", "options"):
            if getattr(config, name) != TemplatesConfig.model_fields[name].get_default(call_default_factory=True):
                raise UsageError(f"--{name.replace('_', '-')} has no meaning with --task {P3}")
        self._columns = _columns(config, list(_P3_FIELDS))

    def __call__(self, row: LabelledRow) -> list[Draft]:
        """The row; with an empty answer if it has none.

        Raises:
            InputError: When it lacks another field or holds what is no text.
        """
        values = {name: self._columns.value(row, name, optional) for name, optional in _P3_FIELDS.items()}
        texts = {name: "" if value is None else text_of(row, name, value) for name, value in values.items()}
        # These two keep the white space around them.
        texts |= {name: str(values[name]) for name in ("prompt", "completion") if texts[name]}
        return [
            Draft(
                digest(texts), texts["cluster"], texts["dataset"], texts["template"], texts["prompt"], "",
                references=(texts["completion"],),
            )
        ]  # fmt: skip


# -- which rows are written --------------------------------------------------------------------------------------------

# A place among all rows: pseudo-random by content, then the number of the row, in which two with one content differ.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What must not be trained on.

    Attributes:
        names: Of clusters and data sets, as `_plain` makes them; empty if nothing is held out.
        wanted: Whether it is what is to be written, and nothing else.
    """

    names: frozenset[str]
    wanted: bool

    def keeps(self, cluster: str, dataset: str) -> bool:
        """Whether rows of this data set may be written."""
        return not self.names or bool({_plain(cluster), _plain(dataset)} & self.names) == self.wanted


def _plain(name: str) -> str:
    """A name without what differs between collections: "Data-to-Text" is data_to_text, summarization is with s."""
    return re.sub(r"[\W_]+", "_", name.casefold()).replace("ization", "isation")


def _held_out(config: TemplatesConfig) -> HeldOut:
    names = set(config.hold_out)
    for item in read_tasks(config.hold_out_tasks) if config.hold_out_tasks else ():
        names |= {item.cluster, item.task}
    return HeldOut(frozenset(map(_plain, names)), config.format == "tasks")


def _check_known(config: TemplatesConfig, clusters: Iterable[str]) -> None:
    """Refuse to hold out what does not exist, since then a slip of the pen would let it in."""
    known = {_plain(cluster): cluster for cluster in clusters}
    for name in config.hold_out:
        if _plain(name) not in known:
            raise UsageError(f"--hold-out: there is no cluster '{name}' here; there are {', '.join(known.values())}")


class _Smallest:
    """The k smallest of the places that were added."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._largest_first: list[Place] = []

    def add(self, place: Place) -> None:
        negative = (-place[0], -place[1])
        if len(self._largest_first) < self._k:
            heapq.heappush(self._largest_first, negative)
        else:
            heapq.heappushpop(self._largest_first, negative)

    def __contains__(self, place: Place) -> bool:
        return len(self._largest_first) < self._k or (-place[0], -place[1]) >= self._largest_first[0]


class Caps:
    """At most so many rows of a data set and of a template: those whose places are the smallest.

    Since both caps take the smallest, the one leaves out nothing that the other would have put in its place.

    Args:
        max_rows: Of a data set; 0 for no cap.
        per_template_max: Of a template; None for no cap.
    """

    def __init__(self, max_rows: int, per_template_max: int | None) -> None:
        self._max_rows, self._per_template_max = max_rows, per_template_max
        self._rows: dict[str, _Smallest] = defaultdict(lambda: _Smallest(max_rows))
        self._templates: dict[tuple[str, str], _Smallest] = defaultdict(lambda: _Smallest(per_template_max or 0))

    def may_bind(self, n_rows: int) -> bool:
        """Whether so many rows could be too many, so that all have to be counted first."""
        return self._per_template_max is not None or 0 < self._max_rows < n_rows

    def add(self, place: Place, drafts: Sequence[Draft]) -> None:
        """Count a row."""
        if self._max_rows:
            self._rows[drafts[0].dataset].add(place)
        if self._per_template_max:
            for draft in drafts:
                self._templates[draft.dataset, draft.template].add(place)

    def allow_row(self, place: Place, draft: Draft) -> bool:
        """Whether the row that this is a draft of is among those of its data set."""
        return not self._max_rows or place in self._rows[draft.dataset]

    def allow_draft(self, place: Place, draft: Draft) -> bool:
        """Whether it is among those in its template."""
        return self._per_template_max is None or place in self._templates[draft.dataset, draft.template]


# -- the command -------------------------------------------------------------------------------------------------------


def templates(config: TemplatesConfig) -> TemplatesSummary:
    """Put labelled data into the words of written templates, as instruction data or held-out tasks.

    Memory does not grow with the input beyond a number for each row that is written.

    Raises:
        InputError: For a broken input or template file, or a row that lacks a field or has a wrong value in it.
        UsageError: For held-out data that would be trained on, an unknown cluster, field, class or template, an output
            that exists, or when no row is left.
    """
    refuse_to_replace(config.out, config.overwrite)
    if config.out.exists() and Path(config.source).exists() and config.out.samefile(config.source):
        raise UsageError(f"--out {config.out} is the labelled data itself; give another file")
    held_out = _held_out(config)
    drafts_of: Callable[[LabelledRow], list[Draft]]
    if config.task == P3:
        drafts_of = P3Drafts(config)
        data = read_labelled(config.source)
    else:
        shipped_here = shipped_clusters()
        cluster = read_cluster(_template_file(config.task, shipped_here))
        _check_known(config, sorted({*shipped_here, cluster.name}))
        data = read_labelled(config.source)
        dataset = config.dataset or data.name
        if not held_out.keeps(cluster.name, dataset):
            raise UsageError(_refusal(cluster.name, dataset, held_out))
        drafts_of = TemplateDrafts(cluster, dataset, config)
    return _write(config, data, drafts_of, held_out)


def _template_file(task: str, known: Mapping[str, Path]) -> Path:
    if task.endswith(".toml"):
        return Path(task)
    if task not in known:
        raise UsageError(f"--task: there is no '{task}'; give one of {', '.join(known)}, {P3}, or a .toml file")
    return known[task]


def _refusal(cluster: str, dataset: str, held_out: HeldOut) -> str:
    if held_out.wanted:
        return f"cluster '{cluster}' is not held out, so no held-out tasks are written of it"
    return (
        f"cluster '{cluster}' or data set '{dataset}' is held out, so it must not be trained on; "
        "to write held-out tasks of it, add --format tasks"
    )


def _write(
    config: TemplatesConfig,
    data: LabelledData,
    drafts_of: Callable[[LabelledRow], list[Draft]],
    held_out: HeldOut,
) -> TemplatesSummary:
    caps = _caps(config, data, drafts_of, held_out)
    left_out, clusters, used, labels = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    met: dict[str, None] = {}
    keys: set[int] = set()
    n_rows = n_written = 0
    with atomic_file(config.out) as file, Progress("row", data.n_rows) as progress:
        for n_rows, row in enumerate(data, start=1):
            drafts = drafts_of(row)
            met |= dict.fromkeys(draft.cluster for draft in drafts)
            place = _place(config, drafts, n_rows)
            reason = _unwanted(drafts, held_out)
            if not reason and not caps.allow_row(place, drafts[0]):
                reason = "max_rows"
            if not reason and (key := int(drafts[0].key, 16)) in keys:
                reason = "duplicate"
            if reason:
                left_out[reason] += 1
            else:
                keys.add(key)
                written = [draft for draft in drafts if caps.allow_draft(place, draft)]
                left_out["per_template_max"] += len(drafts) - len(written)
                for draft in written:
                    values = draft.as_task() if config.format == "tasks" else draft.as_instruction()
                    file.write(to_json_line(values).encode() + b"\n")
                clusters.update(draft.cluster for draft in written)
                used.update(draft.template for draft in written if draft.template)
                labels.update(draft.label for draft in written if draft.label)
                n_written += len(written)
            progress.update(n_rows, f"{n_written} written")
        if config.task == P3:
            _check_known(config, met)
        if not n_written:
            raise UsageError(f"no row is left: {', '.join(f'{n} {reason}' for reason, n in left_out.items())}")
    counts = ({name: counts[name] for name in sorted(counts)} for counts in (+left_out, clusters, used, labels))
    return TemplatesSummary(str(config.out), n_rows, n_written, *counts)


def _unwanted(drafts: Sequence[Draft], held_out: HeldOut) -> str | None:
    """Why a row is not written, whatever other rows there are."""
    if drafts and not held_out.keeps(drafts[0].cluster, drafts[0].dataset):
        return "held_out"
    return None if drafts and drafts[0].references[0] else "unusable"


def _caps(
    config: TemplatesConfig,
    data: LabelledData,
    drafts_of: Callable[[LabelledRow], list[Draft]],
    held_out: HeldOut,
) -> Caps:
    """The caps, with all rows counted if there may be more than they allow."""
    caps = Caps(config.max_rows, config.per_template_max)
    if caps.may_bind(data.n_rows):
        with Progress("row counted", data.n_rows) as progress:
            for number, row in enumerate(data, start=1):
                drafts = drafts_of(row)
                if not _unwanted(drafts, held_out):
                    caps.add(_place(config, drafts, number), drafts)
                progress.update(number, "")
    return caps


def _place(config: TemplatesConfig, drafts: Sequence[Draft], number: int) -> Place:
    return int(digest(f"{config.seed}/{drafts[0].key}"), 16) if drafts else 0, number


def describe(summary: TemplatesSummary) -> str:
    """The summary in words."""
    lines = [f"{summary.path}: {summary.rows_written} rows written, {summary.rows_read} read"]
    for title, counts in (
        ("left out", summary.left_out), ("cluster", summary.clusters), ("label", summary.labels),
        ("template", summary.templates),
    ):  # fmt: skip
        lines += [f"  {title:<8}  {n:>7}  {name}" for name, n in counts.items()]
    return "\n".join(lines)
