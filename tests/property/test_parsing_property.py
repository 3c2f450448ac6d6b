"""No parser raises, hangs or loses text on any reply, and what was written in the asked-for form is read back."""

from __future__ import annotations

import asyncio
import re
import time
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfinstruct.filters import Case
from selfinstruct.filters.union import USUAL
from selfinstruct.parsing import (
    Block,
    labelled_instances,
    numbered_items,
    originals,
    real_input,
    task_blocks,
    without_thinking,
    worked_instances,
)
from selfinstruct.records import Instance
from selfinstruct.strategies.alpaca import Alpaca
from selfinstruct.strategies.self_instruct import SelfInstruct
from tests.proposing import slot
from tests.replies import make

PIECES = st.sampled_from(
    ["9.", "10.", "1)", "(2)", "Task 3:", "###", "\n###\n", "---", "**", "```", "\n", "\n\n", " ", ":", "Input:",
     "Output:", "Instruction:", "4. Instruction:", "4. Input:", "5. Output:", "Class label:", "Example 2", "<think>",
     "</think>", "<noinput>", "word", "2020.", "\N{FIRE}", "\x00", "\ud800", "指令：", "5、输入：", "输出：", "１．",
     "| Instruction | Output |\n", "| a | b |\n", '{"instruction": "', '", "output": "', '"}', "[", "]", "\r\n", "> "]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=30).map("".join))
REPLIES = [row["text"] for rows in make.corpus().values() for row in rows]


@st.composite
def mutated(draw):
    """A reply of the corpus, cut, renumbered, with lines repeated, left out or moved, or with pieces put in."""
    text = draw(st.sampled_from(REPLIES))
    rng = Random(draw(st.integers(0, 2**32)))
    for _ in range(rng.randrange(4)):
        lines = text.split("\n")
        place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        change = rng.randrange(6)
        if change == 0:
            text = text[: rng.randrange(len(text) + 1)]
        elif change == 1:
            text = re.sub(r"\b\d{1,2}(?=[.)])", lambda _: str(rng.randrange(30)), text)
        elif change == 2:
            text = "\n".join([*lines[:place], lines[other], *lines[place:]])
        elif change == 3:
            text = "\n".join([*lines[:place], *lines[place + 1 :]])
        elif change == 4:
            lines[place], lines[other] = lines[other], lines[place]
            text = "\n".join(lines)
        else:
            piece, at = draw(PIECES), rng.randrange(len(text) + 1)
            text = text[:at] + piece + text[at:]
    return text


def parsers(text):
    numbered_items(text)
    numbered_items(text, first=9)
    worked_instances(text)
    labelled_instances(text)
    task_blocks(text)
    without_thinking(text)
    real_input(text)
    originals.listed_instructions(text)
    originals.generation_instances(text)
    originals.classification_instances(text)
    originals.numbered_blocks(text, 4)


LENIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


@settings(max_examples=4000, **LENIENT)
@given(st.one_of(mutated(), TEXTS))
def test_no_text_raises(text):
    parsers(text)


# -- nothing is lost or counted twice ---------------------------------------------------------------------------------


def assert_in_order(pieces, text):
    """Each line of each piece stands in the text, after the one before it; spaces and bars of tables aside."""
    text, place = re.sub(r"[\s|>*`\\]", "", text), 0
    for piece in pieces:
        for line in piece.split("\n"):
            bare = re.sub(r"[\s|>*`\\]", "", line)
            found = text.find(bare, place)
            assert found >= 0, (line, text[place : place + 200])
            place = found + len(bare)


def is_plain(text):
    """JSON and tables are written anew, so that their parts are no parts of the text."""
    return not any(character in text for character in '{["|')


@settings(max_examples=4000, **LENIENT)
@given(mutated().filter(is_plain))
def test_blocks_are_parts_of_the_reply_in_its_order(text):
    assert_in_order(
        [part for block in task_blocks(text) for part in (
            block.instruction, *(part for case in block.instances for part in (case.input, case.output)))],
        text,
    )  # fmt: skip


@settings(max_examples=1500, **LENIENT)
@given(st.one_of(mutated(), TEXTS).filter(is_plain), st.one_of(st.none(), st.integers(1, 20)))
def test_items_are_lines_of_the_reply_in_its_order(text, first):
    items = numbered_items(text, first)
    assert_in_order(items, re.sub(r"(?m)^[ \t]*```[\w-]*[ \t]*$", "", text))
    for item in items:
        assert item == " ".join(item.split())


def judged(strategy, text, finish_reason):
    """Accepted and rejected candidates of one reply to everything."""
    candidates = asyncio.run(strategy.propose(slot(lambda step, prompt: (text, finish_reason))))
    verdicts = [
        candidate.rejection or next((v for f in USUAL if (v := f.judge(Case(candidate, "en")))), None)
        for candidate in candidates
    ]
    assert all(verdict is None or verdict.rule for verdict in verdicts)
    return candidates, [c for c, v in zip(candidates, verdicts, strict=True) if v is None]


@settings(max_examples=700, **LENIENT)
@given(st.one_of(mutated(), TEXTS), st.sampled_from(["stop", "length"]), st.booleans())
def test_every_task_found_is_accepted_or_rejected_with_a_reason(text, finish_reason, faithful):
    found, accepted = judged(Alpaca(faithful=faithful), text, finish_reason)
    n_tasks = sum(map(bool, originals.numbered_blocks(text, 4))) if faithful else len(task_blocks(text))
    assert found
    assert faithful or len(found) == max(n_tasks, 1)
    assert all(candidate.instruction and candidate.instances for candidate in accepted)
    assert len({candidate.id for candidate in found}) == len(found)


@settings(max_examples=300, **LENIENT)
@given(st.one_of(mutated(), TEXTS), st.sampled_from(["stop", "length"]), st.booleans())
def test_every_listed_instruction_has_a_candidate(text, finish_reason, faithful):
    found, accepted = judged(SelfInstruct(faithful=faithful), text, finish_reason)
    assert faithful or [c.instruction for c in found] == (numbered_items(text) or [""])
    assert found
    assert all(candidate.instances for candidate in accepted)


# -- what was asked for is read back ----------------------------------------------------------------------------------

LINE = st.from_regex(r"[A-Z][a-z]{1,8}( [a-z0-9:*]{1,8}){2,6}[.?]", fullmatch=True)
TASKS = st.lists(st.tuples(LINE, st.one_of(st.just(""), LINE), LINE), min_size=1, max_size=6)


@given(st.lists(LINE, min_size=1, max_size=12), st.integers(1, 20))
def test_list_is_read_back(items, first):
    lines = [f"{number}. {item}" for number, item in enumerate(items, start=first)]
    text = "\n".join(lines)
    assert numbered_items(text) == items
    assert numbered_items(text.removeprefix(f"{first}."), first) == items


@given(TASKS)
def test_blocks_are_read_back(tasks):
    text = "###\n".join(
        f"{number}. Instruction: {instruction}\n{number}. Input:\n{input or '<noinput>'}\n{number}. Output:\n{output}\n"
        for number, (instruction, input, output) in enumerate(tasks, start=4)
    )
    expected = [Block(instruction, (Instance(input, output),)) for instruction, input, output in tasks]
    assert task_blocks(text) == task_blocks(text.removeprefix("4. Instruction:")) == expected


@given(TASKS, st.lists(st.integers(1, 99), min_size=6, max_size=6), st.sampled_from(["###\n", "\n", "---\n"]))
def test_blocks_are_read_back_whatever_their_numbers(tasks, numbers, separator):
    text = separator.join(
        f"{number}. Instruction: {instruction}\n{number}. Input:\n{input or 'None'}\n{number}. Output:\n{output}\n"
        for number, (instruction, input, output) in zip(numbers, tasks, strict=False)
    )
    assert task_blocks(text) == [Block(i, (Instance(x, o),)) for i, x, o in tasks]


@given(TASKS)
def test_truncation_costs_the_last_block_only(tasks):
    text = make.CLASSIC(tasks)
    expected = [Block(i, (Instance(x, o),)) for i, x, o in tasks]
    for place in range(0, len(text), max(len(text) // 20, 1)):
        blocks = task_blocks(text[:place])
        assert blocks[:-1] == expected[: len(blocks[:-1])]


@given(st.lists(st.tuples(LINE, LINE), min_size=1, max_size=5, unique_by=lambda case: case[0]))
def test_instances_are_read_back(cases):
    expected = [Instance(given_input, answer) for given_input, answer in cases]
    pairs = [f"Input: {given_input}\nOutput: {answer}" for given_input, answer in cases]
    headed = [f"Example {n}\n{pair}" for n, pair in enumerate(pairs, start=1)]
    assert worked_instances("\n".join(pairs)) == worked_instances("\n\n".join(headed)) == expected
    labelled = "\n".join(f"Class label: {answer}\nInput: {given_input}" for given_input, answer in cases)
    assert labelled_instances(labelled) == expected


# -- time ------------------------------------------------------------------------------------------------------------

DEGENERATE = [
    "#", " ", "\n", "*", "- ", "**a ", "1", "1. ", "1. a\n7. b\n", "```", "```\n", "Input", "Input: ", "Output ",
    "Input:\nOutput:\n", "###\n", "5. a\n5. input\n", "5. a\nInput:\n", "Example 1\n", "<think>", "<think></think>",
    "[", "{", "[\n", '[{"instruction":"a"', '["a",', '{"a":', "| a | b |\n", "| Instruction | Output |\n", "> a\n",
    "Class label: a\nInput: b\n", "\u3000", "字",
]  # fmt: skip


@pytest.mark.parametrize("piece", DEGENERATE)
def test_degenerate_replies_take_no_time(piece):
    """Small models repeat themselves until the token limit; no expression may go quadratic on that."""
    text = piece * (40_000 // len(piece))
    started = time.process_time()
    parsers(text)
    parsers(f"Input: {text}\nOutput: {text}x")
    assert time.process_time() - started < 3


@pytest.mark.parametrize("piece", ["a ", "1", "**a ", "字", "Input ", "Output ", "4. "])
def test_a_line_of_a_megabyte_takes_no_time(piece):
    line = piece * (1_000_000 // len(piece))
    started = time.process_time()
    parsers(line)
    parsers(f"9. {line}\n10. b")
    parsers(f"4. Instruction: {line}\n4. Input: {line}\n4. Output: {line}")
    assert time.process_time() - started < 10
