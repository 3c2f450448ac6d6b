"""Ways to put a task, for measuring how much a score depends on the prompt's wording.

An item's own wordings come first, then those below, which fit any task: each puts the instruction otherwise and says
nothing that could help with the answer.
"""

from __future__ import annotations

from collections.abc import Callable

from selfinstruct.records import TaskItem

AS_WRITTEN = "as written"
Text = tuple[str, str]

_GENERAL: dict[str, Callable[[str, str], Text]] = {
    "polite": lambda instruction, given: (f"Could you please help me with this? {instruction}", given),
    "labelled": lambda instruction, given: (f"Task: {instruction}", f"Given: {given}" if given else ""),
    "urgent": lambda instruction, given: (f"I need this done. {instruction} Thanks!", given),
    "announced": lambda instruction, given: (
        f"Here is a short task for you to carry out. Reply with nothing but its result.\n\n{instruction}", given
    ),
    "quoted": lambda instruction, given: (f'Do what it says between the quotes: "{instruction}"', given),
}  # fmt: skip
N_GENERAL = 1 + len(_GENERAL)
"""How many wordings every item has, its own one included."""


def wordings(item: TaskItem, count: int) -> dict[str, Text]:
    """The first so many (instruction, input) of an item by the wording's name.

    Args:
        item: With its own further wordings, if it has any.
        count: At most; an item has `N_GENERAL` and its own further ones.
    """
    texts = {item.template or AS_WRITTEN: (item.instruction, item.input)}
    texts |= {f"variant {number}": (text, item.input) for number, text in enumerate(item.wordings, start=1)}
    texts |= {name: put(item.instruction, item.input) for name, put in _GENERAL.items()}
    return dict(list(texts.items())[:count])
