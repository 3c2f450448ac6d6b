"""Clusters and data sets that must not be trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from selfinstruct.contamination import plain_name
from selfinstruct.errors import UsageError
from selfinstruct.tasks import read_tasks
from selfinstruct.templating.config import TemplatesConfig


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What must not be trained on.

    Attributes:
        names: Of clusters and data sets, as `plain_name` makes them; empty if nothing is held out.
        wanted: Whether it is what is to be written, and nothing else.
    """

    names: frozenset[str]
    wanted: bool

    @classmethod
    def of(cls, config: TemplatesConfig) -> HeldOut:
        """What the flags hold out: clusters, and the clusters and data sets of held-out tasks.

        Raises:
            InputError: When held-out tasks cannot be read.
        """
        names = set(config.hold_out)
        for item in read_tasks(config.hold_out_tasks) if config.hold_out_tasks else ():
            names |= {item.cluster, item.task}
        return cls(frozenset(map(plain_name, names)), config.format == "tasks")

    def keeps(self, cluster: str, dataset: str) -> bool:
        """Whether rows of this data set may be written."""
        return not self.names or bool({plain_name(cluster), plain_name(dataset)} & self.names) == self.wanted


def check_known(config: TemplatesConfig, clusters: Iterable[str]) -> None:
    """Refuse to hold out what does not exist, since then a slip of the pen would let it in.

    Raises:
        UsageError: For a cluster that is none of these.
    """
    known = {plain_name(cluster): cluster for cluster in clusters}
    for name in config.hold_out:
        if plain_name(name) not in known:
            raise UsageError(f"--hold-out: there is no cluster '{name}' here; there are {', '.join(known.values())}")
