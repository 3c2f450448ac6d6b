"""From the text of a reply to its parts: numbered lists, instances, blocks of tasks. Pure; never raises.

Every expression is bounded or anchored, so that the time is linear in the reply, whatever a model repeats.
"""

from selfinstruct.parsing.blocks import Block, task_blocks
from selfinstruct.parsing.instances import labelled_instances, worked_instances
from selfinstruct.parsing.lists import numbered_items
from selfinstruct.parsing.replies import is_yes, real_input, without_thinking

__all__ = [
    "Block", "is_yes", "labelled_instances", "numbered_items", "real_input", "task_blocks", "without_thinking",
    "worked_instances",
]  # fmt: skip
