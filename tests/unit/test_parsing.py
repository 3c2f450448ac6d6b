"""What is read out of replies, tidy and untidy ones."""

from __future__ import annotations

import pytest

from selfinstruct.parsing import (
    Block,
    is_yes,
    labelled_instances,
    numbered_items,
    real_input,
    task_blocks,
    without_thinking,
    worked_instances,
)
from selfinstruct.records import Instance

# -- numbered lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "9. One thing.\n10. Two things.\n11. Three things.",
        "9) One thing.\n10) Two things.\n11) Three things.",
        "(9) One thing.\n(10) Two things.\n(11) Three things.",
        "**9.** One thing.\n**10.** Two things.\n**11.** Three things.",
        "**9. One thing.**\n**10. Two things.**\n**11. Three things.**",
        "Task 9: One thing.\nTask 10: Two things.\nTask 11: Three things.",
        "### Task 9: One thing.\n### Task 10: Two things.\n### Task 11: Three things.",
        "- 9. One thing.\n- 10. Two things.\n- 11. Three things.",
        "  9. One thing.\n 10. Two things.\n 11. Three things.",
        "9.\nOne thing.\n\n10.\nTwo things.\n\n11.\nThree things.\n",
        "9. One\n   thing.\n10. Two\nthings.\n11. Three things.",
        "Sure! Here are the tasks:\n\n9. One thing.\n10. Two things.\n11. Three things.\n\nShall I go on?",
        "```\n9. One thing.\n10. Two things.\n11. Three things.\n```",
        "Here:\n```text\n9. One thing.\n10. Two things.\n11. Three things.\n```\n",
        "1. One thing.\n2. Two things.\n3. Three things.",
        "1. One thing.\n1. Two things.\n1. Three things.",  # as markdown allows
        "9. One thing.\n11. Two things.\n12. Three things.",
        "9. One thing.\n10. Two things.\n1. Three things.",  # starts over
        "9. One thing.\n10. Two things.\n11. Three things.\n12.",
    ],
)
def test_list_with_its_own_numbers(text):
    assert numbered_items(text) == ["One thing.", "Two things.", "Three things."]


@pytest.mark.parametrize(
    "text",
    [
        " One thing.\n10. Two things.\n11. Three things.",
        " One\nthing.\n\n10.  Two things.\n11. Three things.\n",
        " One thing.\n1. Two things.\n2. Three things.",
        " One thing.\n2. Two things.\n3. Three things.",
        "9. One thing.\n10. Two things.\n11. Three things.",
        "1. One thing.\n2. Two things.\n3. Three things.",
    ],
)
def test_list_that_the_prompt_began(text):
    assert numbered_items(text, first=9) == ["One thing.", "Two things.", "Three things."]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("9. Recall the year\n2020. Then explain.\n10. Two.", ["Recall the year 2020. Then explain.", "Two."]),
        ("9. What is due on\n12. March?\n10. Two.", ["What is due on 12. March?", "Two."]),
        ("9. Multiply by\n3.5 million.\n10. Two.", ["Multiply by 3.5 million.", "Two."]),
        ("9. The train leaves at\n10:30 sharp.\n10. Two.", ["The train leaves at 10:30 sharp.", "Two."]),
        ("9. Rank these:\n1. tea\n2. milk\n10. Two.", ["Rank these: 1. tea 2. milk", "Two."]),
        ("1. Rank these:\n   1. tea\n   2. milk\n2. Two.", ["Rank these: 1. tea 2. milk", "Two."]),
        ("9. Compute 2**10 and 3**4.\n10. Two.", ["Compute 2**10 and 3**4.", "Two."]),
        ("9. **Rivers**: name a **long** one.\n10. Two.", ["Rivers: name a long one.", "Two."]),
        ("9. Keep NASA, 10:30 and https://a.b/c:\n10. Two.", ["Keep NASA, 10:30 and https://a.b/c:", "Two."]),
        ("No list at all.", []),
        ("", []),
        ("9.", []),
    ],
)  # fmt: skip
def test_numbers_that_begin_no_item(text, items):
    assert numbered_items(text) == items


def test_reply_without_numbers_is_the_item_that_the_prompt_began():
    assert numbered_items(" Name a river.", first=9) == ["Name a river."]
    assert numbered_items(" Name a river.\n\nGood luck!", first=9) == ["Name a river."]
    assert numbered_items("   ", first=9) == []


@pytest.mark.parametrize(
    ("text", "yes"), [("Yes", True), (" yes.", True), ("**YES**", True), ("No", False), ("", False)]
)
def test_yes(text, yes):
    assert is_yes(text) is yes


# -- instances -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Input: a text\nOutput: an answer", Instance("a text", "an answer")),
        ("**Input:** a text\n\n**Output:**\nan answer", Instance("a text", "an answer")),
        ("### Input:\na text\n### Output:\nan answer", Instance("a text", "an answer")),
        ("```\nInput: a text\nOutput: an answer\n```", Instance("a text", "an answer")),
        ("Sure, an example:\n\nInput: a text\nOutput: an answer", Instance("a text", "an answer")),
        ("Text: a text\nAnswer: an answer", Instance("a text", "an answer")),
        ("INPUT : a text\noutput : an answer", Instance("a text", "an answer")),
        ("Input: (none)\nOutput: an answer", Instance("", "an answer")),
        ("Output: an answer", Instance("", "an answer")),
        ("Here is one:\nOutput: an answer", Instance("", "an answer")),
        ("a text\nOutput: an answer", Instance("a text", "an answer")),  # goes on after the prompt's "Input:"
        ("Output: an answer\nInput: a text", Instance("a text", "an answer")),
        ("Just an answer.", Instance("", "Just an answer.")),
        ("Let me see.\nAnswer: 42", Instance("", "42")),
        ("Input: a text\nOutput:", Instance("a text", "")),
        ("Input: a text", None),
        ("", None),
        # What looks like labels, inside
        ("Input: a\nOutput: Fill in:\nInput: name\nText: more", Instance("a", "Fill in:\nInput: name\nText: more")),
        ("Input: a\nOutput: Q: why?\nAnswer: because\nLabel: x", Instance("a", "Q: why?\nAnswer: because\nLabel: x")),
        ("Input: Text: b\nLabel: c\nOutput: d", Instance("Text: b\nLabel: c", "d")),
        ("Input: a\nOutput: For Example 2, see: below.", Instance("a", "For Example 2, see: below.")),
        ("Input: a\nOutput: One.\nExample 1: two.\nThree.", Instance("a", "One.\nExample 1: two.\nThree.")),
        ("Input: print(5)\nOutput: It prints\nOutput:\n5", Instance("print(5)", "It prints\nOutput:\n5")),
        # Further instances
        ("Input: a\nOutput: b\nInput: c\nOutput: d", Instance("a", "b")),
        ("Input: a\nOutput: b\n\nExample 2\nInput: c\nOutput: d", Instance("a", "b")),
        ("Input: a\nOutput: b\n\n**Example 2:**\n\nInput: c\nOutput: d\n---\nInput: e\nOutput: f", Instance("a", "b")),
    ],
)
def test_input_first(text, expected):
    assert next(iter(worked_instances(text)), None) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Class label: Positive\nInput: I like it.", Instance("I like it.", "Positive")),
        ("**Class label:** Positive\n**Input:** I like it.", Instance("I like it.", "Positive")),
        ("Label: Positive\nText: I like it.", Instance("I like it.", "Positive")),
        ("Class label:\nPositive\n\nInput:\nI like\nit.", Instance("I like\nit.", "Positive")),
        ("Class label: Positive\nI like it.", Instance("I like it.", "Positive")),
        ("Class label: 7", Instance("", "7")),
        ("Class label: Positive\nInput: (none)", Instance("", "Positive")),
        ("Input: I like it.\nClass label: Positive", Instance("I like it.", "Positive")),
        ("Class label: Spam\nInput: Label: none\nAnswer: win", Instance("Label: none\nAnswer: win", "Spam")),
        ("Class label: A\nInput: one\nClass label: B\nInput: two", Instance("one", "A")),
        ("Class label: A\nInput: one\n\nExample 2\nClass label: B\nInput: two", Instance("one", "A")),
        ("Positive", None),
        ("Class label:", None),
        ("", None),
    ],
)
def test_output_first(text, expected):
    assert next(iter(labelled_instances(text)), None) == expected


def test_a_class_label_that_is_repeated_as_output_is_no_part_of_the_input():
    assert labelled_instances("Class label: Spam\nInput: Win now\nOutput: Spam") == [Instance("Win now", "Spam")]
    assert labelled_instances("Class label: Spam\nInput: Win\nOutput: spam.\n\nMore") == [Instance("Win", "Spam")]
    assert labelled_instances("Class label: Spam\nOutput: Spam") == [Instance("", "Spam")]


@pytest.mark.parametrize(
    "text", ["<noinput>", "<NoInput>", "none", "(None)", "N/A", "n/a.", "[not applicable]", " No input. ", ""]
)
def test_no_input(text):
    assert real_input(text) == ""


@pytest.mark.parametrize("text", ["None of these", "input", "Nonesuch", "no"])
def test_real_input(text):
    assert real_input(f" {text} ") == text


# -- thinking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>hm\n\nhm</think>\n9. A", "9. A"),
        ("  <Thinking>hm</Thinking> A", "A"),
        ("<think>a</think>\n<think>b</think>C", "C"),
        ("<think>never ends", ""),
        ("<think>", ""),
        ("hm, the prompt opened it\n</think>\n\nA", "A"),
        ("A answers. <think>late</think>", "A answers. <think>late</think>"),
        (" A", " A"),
        ("What does <b> mean?", "What does <b> mean?"),
    ],
)
def test_thinking_is_left_out(text, answer):
    assert without_thinking(text) == answer


# -- blocks of tasks -------------------------------------------------------------------------------------------------

TWO = [Block("Add the numbers.", (Instance("2 and 3", "5"),)), Block("Name a river.", (Instance("", "Lena"),))]


FIRST = " Add the numbers.\n4. Input:\n2 and 3\n4. Output:\n5\n"


@pytest.mark.parametrize(
    "text",
    [
        FIRST + "###\n5. Instruction: Name a river.\n5. Input:\n<noinput>\n5. Output:\nLena\n",
        "4. Instruction:" + FIRST + "\n5. Instruction: Name a river.\n5. Output: Lena",
        " Add the numbers.\nInput: 2 and 3\nOutput: 5\n###\nInstruction: Name a river.\nInput: None\nOutput: Lena\n###",
        FIRST.replace("4", "1") + "###\n1. Instruction: Name a river.\n7. Input: N/A\n1. Output: Lena",
        "**4. Instruction:** Add the numbers.\n**4. Input:** 2 and 3\n**4. Output:** 5\n---\n"
        "**5. Instruction:** Name a river.\n**5. Input:** <noinput>\n**5. Output:** Lena",
        "### 4. Instruction:" + FIRST + "### 5. Instruction: Name a river.\n5. Output: Lena\n### 6.",
        "Here are the tasks:\n\n4. Instruction: Add\nthe numbers.\n4. Input: 2 and 3\n4. Output: 5 ###\n"
        "5. Instruction: Name a river.\n5. Input:\n5. Output: Lena\n###\n6.",
        "```\n4. Instruction:" + FIRST + "###\n5. Instruction: Name a river.\n5. Output: Lena\n```",
        FIRST + "###\n5. Name a river.\n5. Input: <noinput>\n5. Output: Lena",
        FIRST + "5. Name a river.\n5. Output: Lena",
    ],
)
def test_blocks(text):
    assert task_blocks(text) == TWO


@pytest.mark.parametrize(
    "opening",
    [
        "{}. Instruction:",
        "**{}. Instruction:**",
        "### {}. Instruction:",
        "（{}）指令：",
        "Task {}:",
        "Instruction {}:",
        "### Task {}\nInstruction:",
        "**Task {}: rivers**\n\nInstruction:",
        "## {}. Rivers\n**Instruction:**",
        "{}.\nInstruction:",
        "### {}.\nInstruction:",
        "任务 {}\n指令：",
    ],
)
def test_blocks_keep_the_numbers_that_they_were_labelled_with(opening):
    text = "\n".join(f"{opening.format(number)} Name a river.\nInput: x\nOutput: y\n" for number in (3, 5, 12))
    assert [(b.number, b.instruction) for b in task_blocks(text)] == [(n, "Name a river.") for n in (3, 5, 12)]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (" A.\n4. Input: x\n4. Output: y\n###\n6. Instruction: B.\n6. Output: z", [4, 6]),
        (" A.\nInput: x\nOutput: y\n###\n6. Name a river.\nOutput: z", [None, 6]),
        (" A.\nOutput:\n1. one\n2. two\nInstruction: B.\nOutput: z", [None, None]),  # those are the answer's
        ("4. Instruction: A.\n7. Output: y", [4]),
        ("４. Instruction: A.\nOutput: y", [4]),
        ('{"tasks": [{"instruction": "A", "output": "1"}, {"instruction": "B", "output": "2"}]}', [None, None]),
    ],
)
def test_numbers_of_untidy_blocks(text, numbers):
    assert [b.number for b in task_blocks(text)] == numbers


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("", []),
        ("###\n\n###", []),
        (" Add it.", [Block("Add it.", ())]),
        (" Add it.\n4. Input: 2\n4. Out", [Block("Add it.", (Instance("2\n4. Out", ""),))]),
        (" A.\n4. Output: 1\n5. Instruction: B.\n6. Instruction: C.\n6. Output: 3",
         [Block("A.", (Instance("", "1"),)), Block("B.", ()), Block("C.", (Instance("", "3"),))]),
        (" A.\n###\n5. Instruction: B.\n5. Output: 2", [Block("A.", ()), Block("B.", (Instance("", "2"),))]),
        # Labels, headings and separators inside an answer
        (" A.\n4. Input: x\n4. Output:\nInput: 3\nOutput: 4\nInstruction: none\n5. Instruction: B.",
         [Block("A.", (Instance("x", "Input: 3\nOutput: 4\nInstruction: none"),)), Block("B.", ())]),
        (" A.\nInput: x\nOutput: Form:\nInput: name\nOutput: age",
         [Block("A.", (Instance("x", "Form:\nInput: name\nOutput: age"),))]),
        (" A.\n4. Output:\n### Title\n1. one\n2. two\nin\n2020. End.\n###\n",
         [Block("A.", (Instance("", "### Title\n1. one\n2. two\nin\n2020. End."),))]),
        (" A.\n4. Output:\nOne.\n\nExample 2: two: 3", [Block("A.", (Instance("", "One.\n\nExample 2: two: 3"),))]),
        # A block without an instruction is kept, to be rejected in sight
        (" A.\n4. Output: 1\n###\n5. Input: y\n5. Output: 2",
         [Block("A.", (Instance("", "1"),)), Block("", (Instance("y", "2"),))]),
    ],
)  # fmt: skip
def test_untidy_blocks(text, blocks):
    assert task_blocks(text) == blocks
