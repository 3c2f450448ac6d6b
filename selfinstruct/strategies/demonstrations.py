"""Which tasks a prompt shows."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from selfinstruct.records import Example

N_HUMAN, N_MACHINE = 6, 2
_MAX_CHARACTERS = 360


def demonstrations(rng: Random, seeds: Sequence[Example], accepted: Sequence[Example]) -> list[Example]:
    """Six seed tasks and two accepted ones, shuffled; seed tasks instead while there are not enough accepted."""
    machine = rng.sample(accepted, min(N_MACHINE, len(accepted)))
    human = rng.sample(seeds, min(N_HUMAN + N_MACHINE - len(machine), len(seeds)))
    shown = [*human, *machine]
    rng.shuffle(shown)
    return shown


def short_ones(rng: Random, tasks: Sequence[Example], n: int) -> list[Example]:
    """Short tasks, drawn; long demonstrations would only cost tokens."""
    short = [
        t for t in tasks if len(t.instruction) + len(t.instances[0].input + t.instances[0].output) < _MAX_CHARACTERS
    ]
    pool = short if len(short) >= n else list(tasks)
    return rng.sample(pool, min(n, len(pool)))


def of_class(tasks: Sequence[Example], is_classification: bool) -> list[Example]:
    """The tasks that are classification, or those that are not; all if there are none."""
    return [task for task in tasks if task.is_classification == is_classification] or list(tasks)
