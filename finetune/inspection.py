"""`finetune inspect`: training rows token by token, what is dropped, how long rows are, which layers are trained."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from finetune.config import TrainConfig
from finetune.contamination import Finding
from finetune.models import load_tokenizer, resolve
from finetune.rows import TrainingData, prepare
from finetune.tokens import InspectedRow, Token, inspected
from selfinstruct.characters import printable
from selfinstruct.command import table
from selfinstruct.render import renderer_for

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {"given": "dim", "learnt": "green"}
_SPECIAL_STYLE = "bold magenta"
_BAR_WIDTH = 40
# The part of a parameter's name that is not its layer's.
_WITHIN_LAYER = re.compile(r"\.(base_layer|lora_\w+|modules_to_save|original_module|weight|bias)(\..*)?$")


class InspectConfig(TrainConfig):
    """What to look at. All options of `train` are taken; those of data, model, template and adapters count."""

    out: Path = Field(Path(), description="Taken, so that a training's options can be; nothing is written.")
    rows: int = Field(3, ge=0, description="How many rows to print, the first ones.")


@dataclass(frozen=True, slots=True)
class Layer:
    """Layers that differ in their numbers only.

    Attributes:
        name: With "*" for the numbers.
        n: How many there are.
        parameters: Frozen ones, of all of them.
        trainable: Those of the adapters on them.
    """

    name: str
    n: int
    parameters: int
    trainable: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a training would see.

    Attributes:
        lengths: Tokens of a training row: least, quantiles, most.
        length_counts: (a power of two, number of rows of up to so many tokens and more than half).
        files: As train.toml records them.
    """

    rows: tuple[InspectedRow, ...]
    rows_used: int
    rows_dropped: dict[str, int]
    eval_rows: int
    eval_rows_dropped: dict[str, int]
    tokens: int
    supervised_tokens: int
    lengths: dict[str, int]
    length_counts: tuple[tuple[int, int], ...]
    files: tuple[dict[str, Any], ...]
    contaminated: tuple[Finding, ...]
    template: str
    template_sha256: str
    layers: tuple[Layer, ...]
    parameters: int
    trainable_parameters: int


def inspect(config: InspectConfig) -> Inspection:
    """Show training rows token by token, what is dropped, how long rows are, and which layers would be trained.

    Nothing is written, and no weight is loaded.

    Raises:
        InputError: For a file, a row or a template that cannot be used.
        UsageError: For settings that cannot work.
    """
    source = resolve(config.model)
    tokenizer = load_tokenizer(source)
    has_no_chat_template = config.template == "auto" and not tokenizer.chat_template
    renderer = renderer_for(tokenizer, "alpaca" if has_no_chat_template else config.template)
    data = prepare(config, renderer, tokenizer)

    from finetune.adapters import empty_model, with_adapter

    layers = _layers(with_adapter(empty_model(source), config))
    return Inspection(
        rows=tuple(inspected(row, tokenizer) for row in data.rows[: config.rows]),
        rows_used=len(data.rows),
        rows_dropped=dict(data.dropped),
        eval_rows=len(data.eval_rows),
        eval_rows_dropped=dict(data.eval_dropped),
        tokens=sum(len(row.input_ids) for row in data.rows),
        supervised_tokens=sum(row.supervised_tokens for row in data.rows),
        lengths=_lengths(data),
        length_counts=_length_counts(data),
        files=tuple(file.model_dump(mode="json") for file in data.files),
        contaminated=data.contaminated,
        template=renderer.name,
        template_sha256=renderer.sha256,
        layers=layers,
        parameters=sum(layer.parameters for layer in layers),
        trainable_parameters=sum(layer.trainable for layer in layers),
    )


def _lengths(data: TrainingData) -> dict[str, int]:
    lengths = sorted(len(row.input_ids) for row in data.rows)
    places = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: lengths[round(share * (len(lengths) - 1))] for name, share in places.items()}


def _length_counts(data: TrainingData) -> tuple[tuple[int, int], ...]:
    counts = Counter(1 << (len(row.input_ids) - 1).bit_length() for row in data.rows)
    return tuple(sorted(counts.items()))


def _layers(model: Any) -> tuple[Layer, ...]:
    """The layers of a model with adapters, in its order, those that differ in their numbers only together."""
    names: dict[str, set[str]] = {}
    frozen, trainable = Counter[str](), Counter[str]()
    for parameter_name, parameter in model.named_parameters():
        name = _WITHIN_LAYER.sub("", parameter_name.removeprefix("base_model.model."))
        kind = re.sub(r"\.\d+(?=\.|$)", ".*", name)
        names.setdefault(kind, set()).add(name)
        (trainable if parameter.requires_grad else frozen)[kind] += parameter.numel()
    return tuple(Layer(kind, len(names[kind]), frozen[kind], trainable[kind]) for kind in names)


# -- in words ----------------------------------------------------------------------------------------------------------


def describe(result: Inspection) -> Text:
    """The result of `inspect` in words, with colours for a terminal; without them it says the same."""
    from rich.text import Text

    text = Text()
    if result.rows:
        text.append("given", _STYLES["given"]).append(" is only read, ").append("learnt", _STYLES["learnt"])
        text.append(" is trained on; ").append("«special»", _SPECIAL_STYLE)
        text.append(" tokens in «», tokens divided by │, ⏎ is a line feed\n\n")
    for number, row in enumerate(result.rows, start=1):
        _append_row(text, number, row)
    for line in _summary(result):
        text.append(f"{printable(line)}\n")
    text.right_crop(1)
    return text


def _append_row(text: Text, number: int, row: InspectedRow) -> None:
    n_learnt = sum(token.label == "learnt" for token in row.tokens)
    heading = f"--- row {number}: {printable(row.place)}, {len(row.tokens)} tokens, {n_learnt} learnt ---\n"
    text.append(heading, "bold cyan")
    for label, tokens in groupby(row.tokens, key=lambda token: token.label):
        text.append(f"{label:6}  ", _STYLES[label])
        for part in _lines(tokens):
            for index, token in enumerate(part):
                text.append("│" if index else "", "dim")
                text.append(_shown(token), _SPECIAL_STYLE if token.special else _STYLES[label])
            text.append("\n" + " " * 8)
        text.right_crop(8)
    text.append("\n")


def _lines(tokens: Iterable[Token]) -> Iterator[list[Token]]:
    """Tokens line by line of the text that they stand for."""
    line: list[Token] = []
    for token in tokens:
        line.append(token)
        if token.text.endswith("\n"):
            yield line
            line = []
    if line:
        yield line


def _shown(token: Token) -> str:
    text = printable(token.text.replace("\n", "⏎").replace("\t", "⇥"))
    return f"«{text}»" if token.special else text


def _summary(result: Inspection) -> Iterator[str]:
    sources = [["source", "rows", "used"]]
    sources += [
        [file["path"], f"{file['rows']:,}", f"{file['used']:,}"] for file in result.files if file["role"] != "held_out"
    ]
    yield from [table(sources), ""]
    yield f"{result.rows_used:,} rows to train on{_dropped(result.rows_dropped)}"
    if result.eval_rows or result.eval_rows_dropped:
        yield f"{result.eval_rows:,} rows to evaluate on{_dropped(result.eval_rows_dropped)}"
    for finding in result.contaminated:
        yield f"held out: {finding.place}: {finding.detail}"
    yield f"{result.tokens:,} tokens an epoch, {result.supervised_tokens:,} of them learnt"
    yield f"template {result.template} ({result.template_sha256[:16]})"
    yield f"tokens a row: {', '.join(f'{name} {length:,}' for name, length in result.lengths.items())}"
    most = max(n for _, n in result.length_counts)
    for bound, n in result.length_counts:
        yield f"  up to {bound:>6,}  {'#' * max(1, round(_BAR_WIDTH * n / most))} {n:,}"
    yield ""
    yield table([["layer", "number", "parameters", "trainable"], *_layer_rows(result)])


def _dropped(reasons: dict[str, int]) -> str:
    return "".join(f", {n:,} dropped ({reason})" for reason, n in reasons.items())


def _layer_rows(result: Inspection) -> Sequence[Sequence[str]]:
    rows = [[layer.name, f"{layer.n}", f"{layer.parameters:,}", f"{layer.trainable:,}"] for layer in result.layers]
    n_layers = sum(layer.n for layer in result.layers)
    return [*rows, ["all", f"{n_layers}", f"{result.parameters:,}", f"{result.trainable_parameters:,}"]]
