import pytest

from finetune.scores import scores
from tests.predicting import predictions


def test_means_have_their_numbers_and_what_the_interval_is_by():
    rows = predictions([1, 0, 1, 1]) + predictions([0.5, 0.25], "writing", "rouge_l")
    by_cluster = scores(rows, lambda p: p.cluster)
    topic = by_cluster["topic"]
    assert (topic.n, topic.n_tasks, topic.mean, topic.unit, topic.metric) == (4, 1, 0.75, "item", "accuracy")
    assert topic.standard_error == pytest.approx(0.25)
    assert topic.ci95[0] < 0.75 < topic.ci95[1]
    assert list(by_cluster) == ["topic", "writing"]


def test_many_tasks_are_the_unit():
    rows = [row for i in range(20) for row in predictions([i % 2] * 3, task=f"t{i}", prefix=f"{i}-")]
    (score,) = scores(rows, lambda p: p.metric).values()
    assert (score.n, score.n_tasks, score.unit) == (60, 20, "task")
    # Scores that differ by task alone are twenty, not sixty.
    assert score.ci95[1] - score.ci95[0] > 0.35


def test_a_single_score_has_no_error_and_none_has_no_score():
    (score,) = scores(predictions([1]), lambda p: p.cluster).values()
    assert (score.mean, score.standard_error, score.ci95) == (1, None, None)
    assert scores([], lambda p: p.cluster) == {}
