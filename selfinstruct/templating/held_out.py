"""Clusters and data sets that must not be trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from selfinstruct.errors import UsageError
from selfinstruct.tasks import read_tasks
from selfinstruct.templating.config import TemplatesConfig


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What must not be trained on.

    Attributes:
        names: Of clusters and data sets, as `_plain` makes them; empty if nothing is held out.
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
        return cls(frozenset(map(_plain, names)), config.format == "tasks")

    def keeps(self, cluster: str, dataset: str) -> bool:
        """Whether rows of this data set may be written."""
        return not self.names or bool({_plain(cluster), _plain(dataset)} & self.names) == self.wanted


def _plain(name: str) -> str:
    """A name without what differs between collections: "Data-to-Text" is data_to_text, summarization is with s."""
    return re.sub(r"[\W_]+", "_", name.casefold()).replace("ization", "isation")


def check_known(config: TemplatesConfig, clusters: Iterable[str]) -> None:
    """Refuse to hold out what does not exist, since then a slip of the pen would let it in.

    Raises:
        UsageError: For a cluster that is none of these.
    """
    known = {_plain(cluster): cluster for cluster in clusters}
    for name in config.hold_out:
        if _plain(name) not in known:
            raise UsageError(f"--hold-out: there is no cluster '{name}' here; there are {', '.join(known.values())}")
