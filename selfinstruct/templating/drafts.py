"""Labelled rows in the words of templates; rows that are prompts with completions already are taken as they are."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from selfinstruct.errors import UsageError
from selfinstruct.files import digest
from selfinstruct.labelled_data import Case, Columns, LabelledRow, opening_of, text_of
from selfinstruct.templating.clusters import Cluster, Template
from selfinstruct.templating.config import P3, TemplatesConfig

# Whether a row may lack it: some templates of P3 have no answer for some rows.
_P3_FIELDS = {"cluster": False, "dataset": False, "template": True, "prompt": False, "completion": True}


@dataclass(frozen=True, slots=True)
class Draft:
    """A row in the words of a template.

    Attributes:
        key: Hash of what the row says.
        references: Acceptable answers, the one to learn first.
        options: All possible answers, where they are few.
        metric: How evaluation scores an answer without options; None for its default.
        label: Class, or letter of the choice, else "".
        is_classification: Whether the answer is one of a few; None where that is not known.
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
    is_classification: bool | None = None

    @property
    def id(self) -> str:
        """Follows from the content, so that other rows do not change it."""
        return "/".join(filter(None, (self.dataset, self.key, self.template)))

    def as_instruction(self) -> dict[str, Any]:
        """A row to train on."""
        kind = {} if self.is_classification is None else {"is_classification": self.is_classification}
        return {
            "id": self.id, "instruction": self.instruction, "input": self.input, "output": self.references[0], **kind,
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
            is_classification=bool(options),
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
