"""A pool larger than one machine: its records lie in actors of a Ray cluster, and decisions are those of one index.

Every shard answers for its part of the pool with its best matches. The best of all shards is the best of the pool, and
the candidates of a batch are then settled against each other in order, as they would be in one index.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from selfinstruct.errors import Error, UsageError
from selfinstruct.novelty.compiled import CompiledIndex
from selfinstruct.novelty.matches import Judged, Matches
from selfinstruct.novelty.tokens import Tokenizer

logger = logging.getLogger(__name__)

_BLOCK = 1024  # texts that follow each other in the pool go to one shard
_REFILL = 64 * _BLOCK  # texts that are read at a time to fill a shard again
_MAX_LOSSES = 10  # in a row: then the shards do not get far enough to answer


class Shard:
    """What runs in an actor: a part of the pool."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._index = CompiledIndex(tokenizer)

    def add(self, texts: Sequence[str], positions: Sequence[int]) -> None:
        """Add texts with their positions in the whole pool."""
        self._index.add(texts, np.asarray(positions, np.uint32))

    def search(self, texts: Sequence[str], k: int) -> Matches:
        """The best matches in this part."""
        return self._index.search(texts, k)


class ShardedIndex:
    """A pool spread over the actors of a Ray cluster.

    An actor that is lost, with its node or alone, is started anew and filled again with what it had.

    Args:
        tokenizer: See `tokens.tokenize`.
        shards: How many actors; None for as many as the cluster has processors.
        address: Of the cluster, "auto" for the one that this machine belongs to; None to start one on this machine.
        reread: Gives all texts of the pool in the order of their positions, once they have been added or accepted.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self, tokenizer: Tokenizer, shards: int | None, address: str | None, reread: Callable[[], Iterator[str]]
    ) -> None:
        self._ray = _connected(address)
        self._tokenizer = tokenizer
        self._reread = reread
        self._size = 0
        n = shards or max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
        # No processor is reserved, so that a lost actor finds a place when its node is gone too.
        self._new_actor = self._ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy="SPREAD")(Shard)
        self._actors = [self._new_actor.remote(tokenizer) for _ in range(n)]
        self._pending: list[list[Any]] = [[] for _ in range(n)]  # additions that are not known to be done

    def __len__(self) -> int:
        return self._size

    def add(self, texts: Sequence[str]) -> None:
        """Add texts."""
        for shard, (own, positions) in enumerate(self._shares(texts, self._size)):
            if own:
                self._pending[shard].append(self._actors[shard].add.remote(own, positions))
        self._size += len(texts)

    def judge(self, texts: Sequence[str], threshold: float, k: int = 1) -> Judged:
        """Decide on texts in order, see `compiled.CompiledIndex.judge`."""
        known = self._search(texts, k) if self._size else Matches.none(len(texts), k)
        batch = CompiledIndex(self._tokenizer)
        batch.next_id = self._size
        judged = batch.judge(texts, threshold, k, known)
        self.add([text for text, accepted in zip(texts, judged.accepted, strict=True) if accepted])
        return judged

    def close(self) -> None:
        """Leave the cluster; its actors end."""
        self._ray.shutdown()

    def _search(self, texts: Sequence[str], k: int) -> Matches:
        """The best matches of texts in the pool."""
        shared = self._ray.put(list(texts))
        asked = [actor.search.remote(shared, k) for actor in self._actors]
        return _best([self._answer(shard, asked[shard], shared, k) for shard in range(len(asked))], k)

    def _answer(self, shard: int, asked: Any, texts: Any, k: int) -> Matches:
        """What a shard answers, however often it has to be started again."""
        lost = (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError)
        for _ in range(_MAX_LOSSES):
            try:
                *_, matches = self._ray.get([*self._pending[shard], asked])
                self._pending[shard] = []
                # What comes from the object store may not be written to.
                return Matches(matches.scores.copy(), matches.positions.copy())
            except lost as error:
                logger.warning("shard %d is lost (%s); it is filled again", shard, type(error).__name__)
                self._refill(shard)
                asked = self._actors[shard].search.remote(texts, k)
        raise Error(f"shard {shard} was lost {_MAX_LOSSES} times in a row; do the nodes have enough memory?")

    def _refill(self, shard: int) -> None:
        self._ray.kill(self._actors[shard])
        self._actors[shard] = self._new_actor.remote(self._tokenizer)
        self._pending[shard] = []
        texts = self._reread()
        begin = 0
        while begin < self._size:
            part = list(islice(texts, min(_REFILL, self._size - begin)))
            if not part:
                raise Error(f"{self._size} texts were accepted, but only {begin} can be read again")
            own, positions = self._shares(part, begin)[shard]
            self._pending[shard].append(self._actors[shard].add.remote(own, positions))
            begin += len(part)

    def _shares(self, texts: Sequence[str], begin: int) -> list[tuple[list[str], list[int]]]:
        """For each shard its texts among those from a position on, and their positions."""
        shares: list[tuple[list[str], list[int]]] = [([], []) for _ in self._actors]
        for position, text in enumerate(texts, begin):
            own, positions = shares[position // _BLOCK % len(shares)]
            own.append(text)
            positions.append(position)
        return shares


def _best(parts: Sequence[Matches], k: int) -> Matches:
    """The best matches over all parts of a pool, by (F descending, position ascending)."""
    scores = np.concatenate([part.scores for part in parts], axis=1)
    positions = np.concatenate([part.positions for part in parts], axis=1)
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    best = Matches(np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1))
    return Matches(np.ascontiguousarray(best.scores), np.ascontiguousarray(best.positions))


def _check_reachable(address: str | None) -> None:
    """Ray itself tries for minutes to reach a cluster that is not there."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host.rpartition("/")[2], int(port)), timeout=10).close()
        except OSError as error:
            raise UsageError(f"no Ray cluster at {address}: {error}") from error


def _connected(address: str | None) -> Any:
    """The module `ray`, connected to a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UsageError('--engine ray needs Ray: pip install "selfinstruct[ray]"') from error
    if not ray.is_initialized():
        _check_reachable(address)
        try:
            ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False,
                     logging_level=logging.ERROR)  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"no Ray cluster at {address}: {error}") from error
    return ray
