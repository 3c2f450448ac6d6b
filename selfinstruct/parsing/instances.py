"""Instances of one task: inputs with outputs, or class labels with inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from selfinstruct.parsing.borders import trimmed
from selfinstruct.parsing.labels import COLON, EXAMPLE_WORDS, SPACE, Label, find_labels
from selfinstruct.parsing.replies import real_input, unwrapped, without_plain_fence
from selfinstruct.parsing.structured import json_items
from selfinstruct.records import Instance

# "Example 2", "**示例 2：**", "### Example 2", at the start of a line.
_HEADING = re.compile(
    rf"^[ \t]{{0,16}}(?:#{{1,6}}[ \t]?)?(?:\*\*)?(?:{EXAMPLE_WORDS}){SPACE}?(?P<number>\d{{1,3}})[.)）]?(?:\*\*)?"
    rf"{COLON}?(?:\*\*)?[ \t]{{0,16}}",
    re.M | re.I,
)


def worked_instances(text: str) -> list[Instance]:
    """The instances of an input-first reply: "Input: ... Output: ..." again and again, or the bare answer.

    Labels inside an answer stay in it, unless they begin another instance: an input that an output follows.
    """
    if items := json_items(text):
        cases = [case for item in items for case in (item.cases or (item.fields,))]
        return [Instance(real_input(case.get("input", "")), case["output"]) for case in cases if case.get("output")]
    return [instance for part in _examples(unwrapped(text)) for instance in _worked(part)]


def labelled_instances(text: str) -> list[Instance]:
    """The instances of an output-first reply: "Class label: ..." and what belongs to it, again and again.

    Without an input of its own a task is complete in itself. A reply with inputs and outputs instead is read as such.
    """
    if items := json_items(text):
        cases = [case for item in items for case in (item.cases or (item.fields,))]
        named = [(case.get("input", ""), case.get("label") or case.get("output", "")) for case in cases]
        return [Instance(real_input(given), label) for given, label in named if label]
    text = unwrapped(text)
    labels = find_labels(text)
    starts = [label for label in labels if label.field == "label" and text[label.end :].strip()]
    if not starts:
        return worked_instances(text) if any(label.field == "output" for label in labels) else []
    inputs = [label for label in labels if label.field == "input"]
    if inputs and inputs[0].start < starts[0].start:
        parts = _split(text, _turns(inputs, starts))
    else:
        parts = _split(text, [label.start for label in starts[1:]])
    return [instance for part in parts if (instance := _labelled(part))]


def _examples(text: str) -> list[str]:
    """The text between headings like "Example 2" that a label follows; other ones belong to an answer."""
    headings = []
    for heading in _HEADING.finditer(text):
        line = text[heading.end() : heading.end() + 200].lstrip().split("\n")[0]
        if any(label.start == 0 for label in find_labels(line)):
            headings.append(heading)
    starts = [0, *(heading.end() for heading in headings)]
    ends = [*(heading.start() for heading in headings), len(text)]
    parts = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    is_introduction = len(parts) > 1 and not any(label.field == "output" for label in find_labels(parts[0]))
    return parts[is_introduction:]


def _turns(leading: Sequence[Label], following: Sequence[Label]) -> list[int]:
    """Where an instance begins after another: at a leading label that stands between two following ones."""
    places, is_complete = [], False
    for label in sorted([*leading, *following], key=lambda label: label.start):
        if label.field == following[0].field:
            is_complete = True
        elif is_complete and label.start < following[-1].start:
            places.append(label.start)
            is_complete = False
    return places


def _split(text: str, places: Sequence[int]) -> list[str]:
    parts = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
    return [trimmed(part, followed=n < len(parts)) for n, part in enumerate(parts, start=1)]


def _worked(text: str) -> list[Instance]:
    """Inputs with outputs, in either order, of a text without headings."""
    labels = find_labels(text)
    inputs = [label for label in labels if label.field == "input"]
    outputs = [label for label in labels if label.field == "output"]
    if not outputs:
        return [Instance("", text.strip())] if text.strip() and not inputs else []
    if _begins_with_input(text, inputs, outputs[0]):
        read, places = _input_then_output, _turns(inputs, outputs)
    else:
        read, places = _output_then_input, _turns(outputs, inputs) if inputs else []
    return [instance for part in _split(text, places) if (instance := read(part))]


def _begins_with_input(text: str, inputs: Sequence[Label], output: Label) -> bool:
    """Whether an input comes first; the prompt may have ended with its label."""
    before = text[: output.start].strip()
    is_introduction = not output.is_telling or before.endswith((":", "："))
    return any(label.start < output.start for label in inputs) or bool(before and not is_introduction)


def _input_then_output(text: str) -> Instance | None:
    labels = find_labels(text)
    output = next((label for label in labels if label.field == "output"), None)
    if not output:
        return None
    start = next((label.end for label in labels if label.field == "input" and label.start < output.start), 0)
    return _instance(text[start : output.start], text[output.end :])


def _output_then_input(text: str) -> Instance | None:
    labels = find_labels(text)
    output = next((label for label in labels if label.field == "output"), None)
    if not output:
        return None
    given = next((label for label in labels if label.field == "input"), None)
    return _instance(text[given.end :] if given else "", text[output.end : given.start if given else len(text)])


def _labelled(text: str) -> Instance | None:
    """A class label, which is one line, and the input before or after it."""
    labels = find_labels(text)
    start = next((label for label in labels if label.field == "label" and text[label.end :].strip()), None)
    if not start:
        return None
    before = [label for label in labels if label.field == "input" and label.start < start.start]
    after = [label for label in labels if label.field == "input" and label.start > start.start]
    answer = text[start.end : after[0].start if after else len(text)].strip()
    first, _, rest = answer.partition("\n")
    if before:
        rest = text[before[0].end : start.start]
    elif after:
        rest = text[after[0].end :]
    again = (label.start for label in find_labels(rest) if label.field == "output" and label.is_telling)
    return _instance(rest[: next(again, len(rest))], first)  # the label once more, as an answer to its own input


def _instance(given: str, output: str) -> Instance:
    parts = (_part(given, ("input",)), _part(output, ("output", "label")))
    return Instance(real_input(parts[0]), parts[1])


def _part(text: str, fields: Sequence[str]) -> str:
    """An input or output, without the label once more, where the prompt had ended with it."""
    text = text.lstrip()
    label = next(iter(find_labels(text[:80].split("\n")[0])), None)
    again = label and label.is_telling and label.field in fields
    return without_plain_fence(trimmed(text[label.end :] if label and again else text, followed=False))
