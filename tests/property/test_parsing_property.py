"""No parser raises or hangs on any text, and what was written in the asked-for form is read back."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.parsing import (
    Block,
    input_first,
    numbered_items,
    output_first,
    real_input,
    task_blocks,
    without_thinking,
)
from selfinstruct.records import Instance

PIECES = st.sampled_from(
    ["9.", "10.", "1)", "(2)", "Task 3:", "###", "\n###\n", "---", "**", "```", "\n", "\n\n", " ", ":", "Input:",
     "Output:", "Instruction:", "4. Instruction:", "4. Input:", "5. Output:", "Class label:", "Example 2", "<think>",
     "</think>", "<noinput>", "word", "2020.", "\N{FIRE}", "\x00", "\ud800"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=30).map("".join))


def parsers(text):
    numbered_items(text)
    numbered_items(text, first=9)
    input_first(text)
    output_first(text)
    task_blocks(text)
    without_thinking(text)
    real_input(text)


@settings(max_examples=400)
@given(TEXTS)
def test_no_text_raises(text):
    parsers(text)


@given(TEXTS, st.one_of(st.none(), st.integers(1, 20)))
def test_items_are_lines_of_the_reply(text, first):
    for item in numbered_items(text, first):
        assert item
        assert item == " ".join(item.split())
        assert set(item) <= set(text) | {" "}


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


@given(LINE, st.lists(LINE, min_size=1, max_size=5).map("\n".join))
def test_instances_are_read_back(given_input, answer):
    assert input_first(f"Input: {given_input}\nOutput: {answer}") == Instance(given_input, answer)
    assert output_first(f"Class label: {given_input}\nInput: {answer}") == Instance(answer, given_input)


@pytest.mark.parametrize(
    "piece",
    [
        "#",
        " ",
        "\n",
        "*",
        "- ",
        "**a ",
        "1. ",
        "```",
        "Input",
        "Input: ",
        "###\n",
        "5. a\n5. input\n",
        "Example 1\n",
        "<think>",
    ],
)
def test_degenerate_replies_take_no_time(piece):
    """Small models repeat themselves until the token limit; no expression may go quadratic on that."""
    text = piece * (40_000 // len(piece))
    started = time.process_time()
    parsers(text)
    parsers(f"Input: {text}\nOutput: {text}x")
    assert time.process_time() - started < 2
