"""The verdict on one candidate: which filter speaks first, and the novelty threshold to the last bit."""

from __future__ import annotations

import pytest

from selfinstruct.bootstrap import Pool, judge, screen
from selfinstruct.records import Candidate, Example, Instance, Source, Verdict

SOURCE = Source("alpaca", "m", 0, "p", "c")
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def candidate(instruction="Name a river of Asia.", output="Ob", rejection=None):
    return Candidate("x", instruction, (Instance("", output),), False, SOURCE, rejection)


def pool_of(*instructions, threshold=0.7):
    seeds = [Example(f"seed-{n}", text, (), False) for n, text in enumerate(instructions)]
    return Pool(seeds, "rouge", threshold)


def test_accepted_one_carries_its_neighbours():
    verdict = judge(
        candidate(), pool_of("Name a big mountain.", "Sing!", "Name the longest river of Europe"), "en", target=9
    )
    assert verdict.rule is None
    assert [neighbour.id for neighbour in verdict.nearest] == ["seed-2", "seed-0"]


@pytest.mark.parametrize(
    ("m", "n", "lcs", "score", "rule"),
    [
        (10, 10, 7, 0.7, None),  # equal is not above
        (7, 13, 7, 0.7000000000000001, "novelty"),  # exactly 0.7 too, but not in floating point, as in both originals
        (10, 10, 9, 0.9, "novelty"),
    ],
)
def test_threshold_is_passed_strictly(m, n, lcs, score, rule):
    instruction = " ".join(LETTERS[:m])
    other = " ".join([*LETTERS[:lcs], *LETTERS[m : m + n - lcs]])
    verdict = judge(candidate(instruction), pool_of(other), "en", target=9)
    assert (verdict.rule, verdict.nearest[0].score) == (rule, score)


def test_cheap_filters_speak_before_novelty_and_novelty_before_the_target():
    pool = pool_of("Show the image of it.", "Name a river of Asia.")
    assert judge(candidate("Show the image of it."), pool, "en", 9).rule == "keyword"
    assert judge(candidate(output=""), pool, "en", 9).rule == "empty_output"
    assert judge(candidate(), pool, "en", 0).rule == "novelty"
    assert judge(candidate("Count all your sheep tonight."), pool, "en", 0).rule == "target_reached"
    cut = Verdict("truncated", "cut")
    assert judge(candidate(rejection=cut), pool, "en", 9) is cut


def test_screened_task_gets_its_verdict_from_the_pool_as_it_stands_in_the_end():
    """What was certain early stays certain, but its neighbours are those of the moment of judgement."""
    pool = pool_of("Name a big river of Asia.")
    early = screen(pool, 0, "en")("Name a river of Asia.")
    assert early is not None
    assert early.rule == "novelty"
    pool.add(Example("closer", "Name a river of Asia", (), False))
    verdict = judge(candidate(rejection=early), pool, "en", 9)
    assert (verdict.rule, verdict.nearest[0].id) == ("novelty", "closer")


def test_screen_looks_at_the_pool_of_its_slot_only():
    """Else what is asked would depend on how many slots happen to be judged by then."""
    pool = pool_of("Sing something nice.")
    pool.add(Example("a", "Name a river of Asia", (), False))
    assert screen(pool, 0, "en")("Name a river of Asia now") is None
    assert screen(pool, 1, "en")("Name a river of Asia now") == Verdict("novelty")
