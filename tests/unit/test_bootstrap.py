"""The verdict on one candidate: which filter speaks first, and the novelty threshold to the last bit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfinstruct.bootstrap import Plan, Pool, screen
from selfinstruct.bootstrap import judge as judge_with
from selfinstruct.filters.duplicate import Duplicate
from selfinstruct.filters.novelty import Novelty
from selfinstruct.filters.union import USUAL
from selfinstruct.records import Candidate, Example, Instance, Source, Verdict

SOURCE = Source("alpaca", "m", 0, "p", "c")
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


PLAN = Plan(
    strategies=(), filters=USUAL, model="m", endpoint="chat", language="en", seed=0, request_seed=None, target=9,
    pause_at=None, window=1, novelty_tokenizer="rouge", max_output_tokens=9, saturation_window=9, min_yield=0.0,
)  # fmt: skip


def candidate(instruction="Name a river of Asia.", output="Ob", **fields):
    return Candidate("x", instruction, (Instance("", output),), False, SOURCE, **fields)


def pool_of(*instructions):
    return Pool([Example(f"seed-{n}", text, (), False) for n, text in enumerate(instructions)], "rouge")


def judge(candidate, pool, target=9, filters=USUAL):
    return judge_with(candidate, replace(PLAN, target=target, filters=filters), pool)


def test_accepted_one_carries_its_neighbours():
    verdict = judge(candidate(), pool_of("Name a big mountain.", "Sing!", "Name the longest river of Europe"))
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
    verdict = judge(candidate(instruction), pool_of(other))
    assert (verdict.rule, verdict.nearest[0].score) == (rule, score)


def test_cheap_filters_speak_before_novelty_and_novelty_before_the_target():
    pool = pool_of("Show the image of it.", "Name a river of Asia.")
    assert judge(candidate("Show the image of it."), pool).rule == "keyword"
    assert judge(candidate(output=""), pool).rule == "empty_output"
    assert judge(candidate("Name any river of Asia."), pool, 0).rule == "novelty"
    assert judge(candidate("Describe an old wooden clock."), pool, 0).rule == "target_reached"
    cut = Verdict("truncated", "cut")
    assert judge(candidate(rejection=cut), pool) is cut


def test_screened_task_gets_its_verdict_from_the_pool_as_it_stands_in_the_end():
    """What was certain early stays certain, but its neighbours are those of the moment of judgement."""
    pool = pool_of("Name a big river of Asia.")
    assert screen(PLAN, pool, 0)("Name a river of Asia.")
    pool.add(Example("closer", "Name a river of Asia", (), False))
    verdict = judge(candidate("Name one river of Asia.", output="", screened=True), pool)
    assert (verdict.rule, verdict.nearest[0].id) == ("novelty", "closer")


def test_screen_looks_at_the_pool_of_its_slot_only():
    """Else what is asked would depend on how many slots happen to be judged by then."""
    pool = pool_of("Sing something nice.")
    pool.add(Example("a", "Name a river of Asia", (), False))
    assert not screen(PLAN, pool, 0)("Name a river of Asia now")
    assert screen(PLAN, pool, 1)("Name a river of Asia now")
    assert not screen(PLAN, pool, 0)("Name a river of Asia")  # nor for the same one
    assert screen(PLAN, pool, 1)("Name a river of Asia")


def test_duplicate_is_one_whatever_its_case_and_punctuation():
    verdict = judge(candidate(), pool_of("Name a RIVER, of Asia!"))
    assert (verdict.rule, verdict.detail, verdict.nearest[0].id) == ("duplicate", "same as seed-0", "seed-0")
    chinese = judge_with(candidate("你好，世界！你好"), replace(PLAN, language="zh"), pool_of("你好世界你好"))
    assert chinese.rule == "duplicate"


def whole(instruction, input, id="x"):
    """A task with its input, as it stands in the pool and as a candidate."""
    instances = (Instance(input, "An answer."),)
    return Example(id, instruction, instances, False), Candidate(id, instruction, instances, False, SOURCE)


@pytest.mark.parametrize(
    ("instruction", "input", "rule"),
    [
        ("Add up the two numbers.", "3 + 4", "duplicate"),
        ("add up: the TWO numbers", " 3  +\n4 ", "duplicate"),
        ("Add up the two numbers.", "3 - 4", "novelty"),  # to ROUGE a sign is nothing
        ("Add up the two numbers.", "seventeen thousand and twenty-three apples", None),
        ("Add up these two numbers.", "3 + 4", "novelty"),
        ("Add up the two numbers.", "", "novelty"),
    ],
)
def test_over_whole_tasks_an_instruction_may_come_again_with_another_input(instruction, input, rule):
    over_task = tuple(replace_over(f) for f in USUAL)
    old, _ = whole("Add up the two numbers.", "3 + 4", "old")
    pool = Pool([old], "rouge", whole_tasks=True)
    _, new = whole(instruction, input)
    assert judge(new, pool, filters=over_task).rule == rule
    assert judge(new, pool).rule in ("duplicate", "novelty")  # by instruction none of them is new
    assert not screen(replace(PLAN, filters=over_task), pool, 0)(instruction)


def replace_over(one):
    return one.model_copy(update={"over": "task"}) if isinstance(one, Duplicate | Novelty) else one


def test_either_filter_may_go_over_tasks_alone():
    """Then the other one is the stricter: no instruction twice, or none that is similar."""
    old, _ = whole("Add up the two numbers.", "3 + 4", "old")
    pool = Pool([old], "rouge", whole_tasks=True)
    _, new = whole("Add up the two numbers.", "seventeen thousand and twenty-three apples")
    assert judge(new, pool, filters=(Duplicate(), Novelty(over="task"))).rule == "duplicate"
    assert judge(new, pool, filters=(Duplicate(over="task"), Novelty())).rule == "novelty"


def test_a_sign_makes_another_input_where_no_word_does():
    old, _ = whole("Compute.", "3 + 4", "old")
    pool = Pool([old], "rouge", whole_tasks=True)
    for input, rule in (("3 + 4", "duplicate"), ("3 - 4", None)):
        assert judge(whole("Compute.", input)[1], pool, filters=(Duplicate(over="task"),)).rule == rule


def test_a_later_task_is_no_duplicate_for_an_earlier_slot():
    pool = Pool([], "rouge", whole_tasks=True)
    old, new = whole("Compute.", "3 + 4", "old")
    pool.add(old)
    assert pool.case(new, "en", n_accepted=0).find_duplicate("task") is None
    assert pool.case(new, "en", n_accepted=1).find_duplicate("task") == "old"


def test_other_threshold():
    pool, mild = pool_of("Name a river of Asia"), [Novelty(threshold=0.95)]
    assert judge(candidate("Name a big river of Asia."), pool).rule == "novelty"
    assert judge(candidate("Name a big river of Asia."), pool, filters=mild).rule is None
