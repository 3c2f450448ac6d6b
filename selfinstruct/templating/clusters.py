"""Task clusters and their written templates: texts with gaps, and what has to hold of them for every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from selfinstruct.errors import InputError
from selfinstruct.files import read_toml, shipped, validate
from selfinstruct.labelled_data import TARGETS, FieldSpec, opening_of
from selfinstruct.tasks import Metric, Text


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
