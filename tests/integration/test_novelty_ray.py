"""The pool spread over a cluster: the same decisions as one index, also when actors and nodes are lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random

import numpy as np
import pytest

from selfinstruct.errors import Error, UsageError
from selfinstruct.novelty.compiled import CompiledIndex
from selfinstruct.novelty.matches import Matches
from selfinstruct.novelty.shards import ShardedIndex, _best

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:::ray", "ignore::ResourceWarning", "ignore::FutureWarning")

WORDS = [f"w{number}" for number in range(60)]
STORE = 80 * 2**20  # bytes; the least that Ray takes


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def texts() -> list[str]:
    rng = Random(3)
    return [" ".join(rng.choices(WORDS, k=rng.choice([0, 1, 3, 5, 8]))) for _ in range(9_000)]


def judged_in_parts(index, texts, accepted, before=lambda number: None):
    parts = []
    for number, begin in enumerate(range(0, len(texts), 1_500)):
        before(number)
        part = texts[begin : begin + 1_500]
        judged = index.judge(part, 0.7, 3)
        accepted += [text for text, keep in zip(part, judged.accepted, strict=True) if keep]
        parts.append(judged)
    return (
        np.concatenate([part.accepted for part in parts]),
        np.concatenate([part.matches.scores for part in parts]),
        np.concatenate([part.matches.positions for part in parts]),
    )


def node_with_a_shard(cluster, index):
    """Ray alone decides where actors lie; the head can't be taken away."""
    # Not a named function: the actors can't import this module.
    asked = [actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for actor in index._actors]
    nodes = set(ray.get(asked))
    return next(node for node in cluster.worker_nodes if node.node_id in nodes)


def test_decisions_are_those_of_one_index_whatever_is_lost(cluster, texts, caplog):
    pool, stream = texts[:2_000], texts[2_000:]
    local = CompiledIndex("rouge")
    local.add(pool)
    expected = judged_in_parts(local, stream, [])
    assert 0 < expected[0].sum() < len(stream)

    accepted = list(pool)
    index = ShardedIndex("rouge", None, cluster.address, lambda: iter(accepted))
    assert len(index._actors) == 3

    def lose(number: int) -> None:
        if number == 1:
            ray.kill(index._actors[1])
        if number == 3:
            cluster.remove_node(node_with_a_shard(cluster, index))

    try:
        index.add(pool)
        with caplog.at_level(logging.WARNING, "selfinstruct"):
            found = judged_in_parts(index, stream, accepted, lose)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert len(index) == len(accepted) == len(pool) + expected[0].sum()
        assert "shard 1 is lost" in caplog.text and len(caplog.messages) >= 2

        # What cannot be read again is not made up.
        ray.kill(index._actors[0])
        accepted.pop()
        with pytest.raises(Error, match=f"{len(index)} texts were accepted, but only {len(accepted)}"):
            index.judge(["w1 w2"], 0.7)
    finally:
        index.close()


def test_no_cluster_at_the_address():
    with pytest.raises(UsageError, match=r"no Ray cluster at 127\.0\.0\.1:9"):
        ShardedIndex("rouge", 1, "127.0.0.1:9", lambda: iter(()))


def test_the_best_of_parts_are_the_best():
    one = Matches(np.array([[0.5, 0.25]]), np.array([[7, 1]]))
    other = Matches(np.array([[0.5, 0.5]]), np.array([[2, 9]]))
    best = _best([one, other], 3)
    assert best.of(0) == ((2, 0.5), (7, 0.5), (9, 0.5))
