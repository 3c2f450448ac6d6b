"""Self-Instruct's fourth step: which instances of a task are kept (`prepare_for_finetuning.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from selfinstruct.records import Instance, Verdict

MAX_INSTANCES = 5  # of a task, as in the original


def prepared(
    instances: Sequence[Instance], cut: bool, colons: tuple[str, ...] = (":", "：")
) -> tuple[list[Instance], Verdict | None]:
    """The instances worth keeping, or all of them with what is wrong with the task.

    In the original's order: on a length stop the last is dropped; then those that are flawed; then the whole task if
    the same input has different outputs; then repeated ones.

    Args:
        instances: As parsed.
        cut: Whether the reply reached its token limit.
        colons: An input or output that ends with one of these breaks off.
    """
    whole = instances[:-1] if cut else instances
    if not whole:
        return list(instances), Verdict("truncated", "the answer reached its token limit") if cut else None
    kept = [instance for instance in whole if not flaw(instance, colons)]
    if not kept:
        return list(whole), flaw(whole[0], colons)
    outputs: dict[str, str] = {}
    for instance in kept:
        if instance.input and outputs.setdefault(instance.input, instance.output) != instance.output:
            return kept, Verdict("contradictory", f"different outputs for the same input: {instance.input[:200]!r}")
    return list(dict.fromkeys(kept)), None


def flaw(instance: Instance, colons: tuple[str, ...]) -> Verdict | None:
    """What makes an instance useless."""
    if instance.input == instance.output:
        return Verdict("input_is_output")
    if not instance.output:
        return Verdict("empty_output")
    for field, text in (("input", instance.input), ("output", instance.output)):
        if text.endswith(colons):
            return Verdict("incomplete", f"{field} ends with a colon")
    return None
