"""Filters judge whatever text there is: without an error, always alike, and in time that grows with its length."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.files import shipped
from selfinstruct.filters import Case, Filter, asked
from selfinstruct.filters.contamination import Contamination
from selfinstruct.filters.keyword import Keyword
from selfinstruct.filters.personal_data import luhn
from selfinstruct.filters.tools import Tools
from selfinstruct.filters.union import USUAL
from selfinstruct.records import Candidate, Instance, Verdict
from tests.judging import SOURCE, case_of

ALL: tuple[Filter, ...] = (*USUAL, Contamination(tasks=shipped("heldout")))
# Pieces that the filters look for, so that texts come near their edges.
PIECES = (
    "the following paragraph", "Draw a map", "as an AI language model, I", "I'm sorry, but", "Output:", "### ", "</s>",
    "[insert text here]", "a@b.org", "+49 30 901820", "4539 1488 0343 6467", "send an e-mail to", "today's weather",
    "```", "，", "“", "(", ")", '"', "\n", " ", ":", "...", "Über", "请翻译", "и", "then ", "!", "\x00", "\ud800",
    "\N{REPLACEMENT CHARACTER}",
)  # fmt: skip
TEXTS = st.one_of(
    st.text(st.characters(), max_size=200), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
)  # st.characters() has lone surrogates too
CASES = st.builds(
    lambda instruction, fields, language: Case(
        Candidate("x", instruction, tuple(Instance(*field) for field in fields), False, SOURCE), language
    ),
    TEXTS,
    st.lists(st.tuples(TEXTS, TEXTS), max_size=3),
    st.sampled_from(["en", "de", "zh", "ar", "xx"]),
)


@settings(max_examples=300, deadline=None)
@given(CASES)
def test_any_text_is_judged_and_always_alike(case):
    for one in ALL:
        verdict = one.judge(case)
        assert verdict is None or (isinstance(verdict, Verdict) and verdict.rule)
        again = Case(case.candidate, case.language)
        assert one.judge(again) == verdict


@settings(max_examples=200, deadline=None)
@given(CASES)
def test_objection_to_an_instruction_stays_whatever_instances_follow(case):
    bare = Case(Candidate("x", case.instruction, (), False, SOURCE), case.language)
    for one in ALL:
        if one.by_instruction and (verdict := one.judge(bare)):
            assert one.judge(case) == verdict


@settings(max_examples=50, deadline=None)
@given(CASES, st.permutations(range(len(ALL))))
def test_order_decides_the_rule_but_not_the_verdict(case, order):
    in_order = any(one.judge(case) for one in ALL)
    assert any(ALL[number].judge(case) for number in order) == in_order


LONG = (
    " ", "\n", "\t", "a", "word ", '"', "'a ", "(", "``` ", "1", "12 ", "+4 ", ". ", "a: ", "#", "a@", "a.b-", "- ",
    "*", "then please ", "draw a very ", "send my ", "the following ", "as an ai ", "i'm sorry, but ", "<|", "[insert ",
    "_ ", "Task 1: ", "\N{FIRE}", "current weather price ", "作为AI",
)  # fmt: skip


@pytest.mark.parametrize("piece", LONG, ids=repr)
def test_a_megabyte_takes_seconds(piece):
    """A pattern that tries again at every place would take hours."""
    text = piece * (1_000_000 // len(piece))
    case = Case(Candidate("x", f"{text}x", (Instance(text, f"{text}x"),), False, SOURCE), "en")
    for one in USUAL:
        before = time.process_time()
        one.judge(case)
        assert time.process_time() - before < 5, one.kind


WORDY = (
    "a ", "the ", "then ", "then please ", "; ", ". ", "! ", "; what is the ", "; what my ", "; find me the ",
    "; is the ", "then send a b c d ", "; wash a b of c ", "then put x in ", "what the photo in ", "given a ",
    "the left of the ", "how many ", "today ", "map ! ", "map", "create a new ", "my ", "and send it ", "could you ",
    "'a ", "“", "«", "`",
)  # fmt: skip


@pytest.mark.parametrize("piece", WORDY, ids=repr)
def test_what_an_instruction_asks_is_found_in_a_time_that_grows_with_its_length(piece, monkeypatch):
    """However much of an instruction is looked at: here it is all of it."""
    monkeypatch.setattr(asked, "MAX_CHARACTERS", 10**6)

    def shortest_time(one, length):
        case = case_of("Say it and " + piece * (length // len(piece)))
        times = []
        for _ in range(3):
            start = time.process_time()
            one.judge(case)
            times.append(time.process_time() - start)
        return min(times)

    for one in (Keyword(), Tools()):  # eight times the text; its square would be 64 times the time
        assert shortest_time(one, 16_000) < 32 * shortest_time(one, 2_000), one.kind


@given(st.text("0123456789", min_size=1, max_size=18))
def test_every_number_has_one_check_digit(digits):
    assert sum(luhn(digits + check) for check in "0123456789") == 1


def test_filters_are_told_apart_by_kind_and_file():
    assert len({one.kind for one in ALL}) == len(ALL)
    assert all(one.__class__.__module__.endswith(one.kind.replace("-", "_")) for one in ALL)
