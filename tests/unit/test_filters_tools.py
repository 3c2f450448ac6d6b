"""Which tasks need more than reading and writing: instructions by the right verdict, one a line in tests/wordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfinstruct.filters.keyword import Keyword
from selfinstruct.filters.originals import AlpacaHeuristics
from selfinstruct.filters.tools import Tools
from tests.judging import case_of

WORDINGS = Path(__file__).parents[1] / "wordings"


def wordings(name: str) -> list[str]:
    return (WORDINGS / f"{name}.txt").read_text("utf-8").splitlines()


IMPOSSIBLE = wordings("impossible")  # cannot be done by reading and writing alone
POSSIBLE = wordings("possible")  # nothing but reading and writing, though it may sound otherwise
# Only the context of some tells what they need, and no pattern reads that.
WRONG = {
    "Add some piano chords behind the vocals.",
    "Build a model of the Eiffel Tower out of matches.",
    "Change the language of the app to Spanish.",
    "Count the people in the crowd shown above.",
    "Describe how the coffee in my cup smells.",
    "Design a logo is an example of which verb mood?",
    "Find three news stories from this morning about the strike.",
    "Help my grandmother cross the street.",
    "Is the handwriting on the cheque that of a left-handed person?",
    "Make a flyer with a photo of our new shop.",
    "Pick the ripe tomatoes in the garden.",
    "Put together a slideshow of the class trip.",
    "Render the company name in 3D letters.",
    "Retrieve the lost suitcase from the airport.",
    "Take notes in a new file and name it ideas.txt.",
    "Tell me what kind of tree stands in front of the school.",
    "What does the man in the poster hold in his left hand?",
    "Which bus should I take now to be at work by nine?",
    "Who left the kitchen in such a mess?",
}


def objection(instruction: str) -> str | None:
    case = case_of(instruction)
    verdict = Keyword().judge(case) or Tools().judge(case)
    return verdict.rule if verdict else None


def named_by_the_originals(instruction: str) -> str | None:
    verdict = AlpacaHeuristics().judge(case_of(instruction))
    return verdict.rule if verdict and verdict.rule == "keyword" else None


def recall_and_precision(judge, impossible, possible) -> tuple[float, float]:
    found, wrong = sum(map(bool, map(judge, impossible))), sum(map(bool, map(judge, possible)))
    return found / len(impossible), found / (found + wrong)


@pytest.mark.parametrize("instruction", [text for text in IMPOSSIBLE if text not in WRONG])
def test_impossible(instruction):
    assert objection(instruction) in ("keyword", "tools")


@pytest.mark.parametrize("instruction", [text for text in POSSIBLE if text not in WRONG])
def test_possible(instruction):
    assert objection(instruction) is None


@pytest.mark.parametrize("instruction", sorted(WRONG))
def test_known_to_be_wrong(instruction):
    """To be taken from the list once it is right."""
    assert (objection(instruction) is None) == (instruction in IMPOSSIBLE)


def test_no_instruction_stands_twice():
    every = [*IMPOSSIBLE, *POSSIBLE, *wordings("held_out_impossible"), *wordings("held_out_possible")]
    assert len(every) > 1100
    assert len(set(every)) == len(every)


def test_what_the_patterns_were_not_made_from_is_told_apart_too():
    """These were written when the patterns were finished; what changed later was made from other instructions."""
    held_out = wordings("held_out_impossible"), wordings("held_out_possible")
    assert min(map(len, held_out)) >= 40
    recall, precision = recall_and_precision(objection, *held_out)
    assert recall >= 0.8
    assert precision >= 0.95
    assert recall > 4 * recall_and_precision(named_by_the_originals, *held_out)[0]


def test_what_the_originals_list_makes_of_these():
    """Why there are two filters here: it finds a sixth of the impossible ones, and is as often wrong as right."""
    recall, precision = recall_and_precision(named_by_the_originals, IMPOSSIBLE, POSSIBLE)
    assert 0.1 < recall < 0.25
    assert 0.35 < precision < 0.55


def test_detail_quotes_the_demand():
    verdict = Tools().judge(case_of("Please set an alarm for seven o'clock."))
    assert verdict is not None
    assert verdict.detail == "'set an alarm'"
