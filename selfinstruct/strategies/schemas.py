"""The JSON that a chat endpoint can be held to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def tasks_schema(task: Mapping[str, Any], n: int) -> dict[str, Any]:
    """The schema of an object with a list of tasks.

    Args:
        task: Schema of one of them.
        n: The most that are asked for; a model that is held to nothing else may never end the list.
    """
    return {
        "type": "object",
        "properties": {"tasks": {"type": "array", "items": task, "maxItems": n}},
        "required": ["tasks"],
        "additionalProperties": False,
    }
