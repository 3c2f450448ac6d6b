"""Tasks that a reply gives as JSON, whole or broken, bare, fenced or between sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from selfinstruct.characters import storable
from selfinstruct.parsing.labels import Field, field_of, find_labels

_START = re.compile(r"^(?:[ \t]{0,16}```\w{0,16}[ \t]{0,16}\n?)?[ \t]{0,16}(?P<json>[\[{]\s{0,64}[\"{\[])", re.M)
_LISTED = re.compile(r"^[^\w\n]{0,16}\d{1,3}[.)．、）]", re.M)
_FENCE_END = re.compile(r"\n[ \t]{0,16}```[ \t]{0,16}$", re.M)
_BETWEEN = re.compile(r"[\s,]*")
_MAX_REPAIRED = 50_000  # characters; repair takes more than linear time on some texts
_DECODER = json.JSONDecoder(strict=False)


@dataclass(frozen=True, slots=True)
class Item:
    """A task or an instance in JSON.

    Attributes:
        fields: Text by field.
        cases: The same of its instances, where it has a list of them.
    """

    fields: dict[Field, str]
    cases: tuple[dict[Field, str], ...] = ()


def json_items(text: str) -> list[Item]:
    """The tasks or instances that a reply gives in JSON; none if labels or numbers come first, as then it is a part."""
    start = _START.search(text)
    if not start or _LISTED.search(text, 0, start.start()) or find_labels(text[: start.start()]):
        return []
    values = [item for value in _decoded(text, start.start("json")) for item in _items(value)]
    items = [Item(_fields(value), tuple(map(_fields, _cases(value)))) for value in values]
    return items if any(item.fields for item in items) else []


def _decoded(text: str, start: int) -> Iterator[Any]:
    """The values that follow each other from a place on; broken ones are repaired."""
    place, n_decoded = start, 0
    try:
        while place < len(text) and text[place] in "[{":
            value, end = _DECODER.raw_decode(text, place)
            yield value
            n_decoded += 1
            space = _BETWEEN.match(text, end)
            place = space.end() if space else end
    except (ValueError, RecursionError):
        if n_decoded == 0 and '"' in text[start : start + 200]:
            yield _repaired(text[start : start + _MAX_REPAIRED])


def _repaired(text: str) -> Any:
    import json_repair

    fence = _FENCE_END.search(text)
    try:
        return json_repair.loads(text[: fence.start()] if fence else text, skip_json_loads=True)
    except (ValueError, RecursionError):
        return None


def _items(value: Any) -> list[Any]:
    """The tasks in a value: a list, an object that holds lists or objects, or an object that is itself one."""
    if isinstance(value, list):
        return [item for inner in value for item in (inner if isinstance(inner, list) else [inner])]
    if not isinstance(value, dict):
        return []
    if {"instruction", "output", "label"} & set(_fields(value)):
        return [value]
    inside = [inner if isinstance(inner, list) else [inner] for inner in value.values() if not isinstance(inner, str)]
    return [item for inner in inside for item in inner]


def _fields(item: Any) -> dict[Field, str]:
    """The text of each field of a task; a bare string is an instruction."""
    if isinstance(item, str):
        return {"instruction": item}
    if not isinstance(item, dict):
        return {}
    named = [(field_of(str(key)), value) for key, value in item.items()]
    return {field: _text(value) for field, value in named if field}


def _cases(item: Any) -> list[Any]:
    """The instances of a task that has a list of them."""
    lists = [value for value in item.values() if isinstance(value, list)] if isinstance(item, dict) else []
    return next((cases for cases in lists if cases and all("output" in _fields(case) for case in cases)), [])


def _text(value: Any) -> str:
    if isinstance(value, str):
        return storable(value).strip()
    return "" if value in (None, [], {}) else storable(json.dumps(value, ensure_ascii=False))
