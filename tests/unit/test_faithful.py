"""The originals to the letter: prompts with their constants, parsers with their flaws; and what mends each flaw."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from selfinstruct.filters import Case
from selfinstruct.filters.originals import AlpacaHeuristics, SelfInstructHeuristics
from selfinstruct.filters.union import USUAL
from selfinstruct.novelty import NoveltyIndex
from selfinstruct.records import Candidate, Instance, Prompt
from selfinstruct.strategies.alpaca import Alpaca
from selfinstruct.strategies.self_instruct import SelfInstruct
from tests.judging import SOURCE
from tests.proposing import SEEDS, asked, propose, seed, text_of

FAITHFUL = SelfInstruct(faithful=True)
STEPS = {"instructions": " One thing to do now.", "classification": " No", "instance": "Input: a\nOutput: b"}
LABELLED = {"instructions": " Is it a cat?", "classification": " Yes", "instance": "Class label: Yes\nmiaow"}


def instances(reply, is_classification=False, **fields):
    """(what the original makes of a reply of the third step, what the mended strategy makes of it)."""
    replies = {"instructions": "9. Do it now, please.", "classification": "Yes" if is_classification else "No"}
    both = (FAITHFUL, SelfInstruct(instances=5))
    return tuple(propose(strategy, {**replies, "instance": reply}, **fields)[0] for strategy in both)


def pairs(candidate):
    return [(instance.input, instance.output) for instance in candidate.instances]


def rule(candidate):
    return candidate.rejection and candidate.rejection.rule


# -- Self-Instruct: prompts -------------------------------------------------------------------------------------------


def without_text(prompt):
    return {name: value for name, value in prompt.as_request().items() if name not in ("messages", "demonstrations")}


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_list_prompt(endpoint):
    prompt = asked(FAITHFUL, STEPS, endpoint=endpoint)["instructions"]
    lines = text_of(prompt).split("\n")
    shown = {seed.id: " ".join(seed.instruction.split()).rstrip(":") for seed in SEEDS}
    assert lines[0] == "Think of a series of different tasks:"
    assert lines[1:-1] == [f"{n}. {shown[id]}" for n, id in enumerate(prompt.demonstrations, 1)]
    assert "Add the numbers" in text_of(prompt)  # the colon at its end is gone
    assert lines[-1] == "5."
    assert without_text(prompt) == {
        "max_tokens": 1024, "temperature": 0.7, "top_p": 0.5, "presence_penalty": 2.0,
        "stop": ("\n\n", "\n16", "16.", "16 ."),
    }  # fmt: skip


def test_six_human_and_two_machine_demonstrations_all_human_at_first():
    seeds = [seed(n, f"Human task {n}.", ("", "x")) for n in range(20)]
    machine = [seed(100 + n, f"Machine task {n}.", ("", "x")) for n in range(5)]
    for accepted, n_machine in (((), 0), (machine[:1], 1), (machine, 2)):
        shown = asked(FAITHFUL, STEPS, seeds=seeds, accepted=accepted)["instructions"].demonstrations
        assert len(shown) == 8
        assert sum(id in {task.id for task in machine} for id in shown) == n_machine


def test_classification_only():
    prompt = asked(SelfInstruct(faithful=True, classification=True), STEPS)["instructions"]
    assert set(prompt.demonstrations) == {"s3", "s4"}
    assert "classification tasks" in text_of(prompt).split("\n")[0]


def test_class_prompt():
    prompt = asked(FAITHFUL, STEPS)["classification/0"]
    head, *cases, last = text_of(prompt).split("\n\n")
    assert head == "Does this task ask for one label out of a limited set?"
    answers = {s.instruction: "Yes" if s.is_classification else "No" for s in SEEDS}
    assert sorted(cases) == sorted(f"Task: {task}\nIs it classification? {yes}" for task, yes in answers.items())
    assert last == "Task: One thing to do now.\nIs it classification?"
    assert without_text(prompt) == {"max_tokens": 3, "temperature": 0.0, "stop": ("\n", "Task")}


def test_input_first_prompt():
    prompt = asked(FAITHFUL, STEPS)["instance/0"]
    head, *cases, last = text_of(prompt).split("\n\n")
    assert head.startswith("Write examples for these tasks, several where you can")
    assert sorted(cases) == [
        "Task: Add  the\nnumbers:\nExample 1\nInput: 2 and 3\nOutput: 5\nExample 2\nInput: 1 and 1\nOutput: 2",
        "Task: Name a river.\nOutput: Lena",
    ]
    assert last == "Task: One thing to do now.\n"
    assert without_text(prompt) == {
        "max_tokens": 350, "temperature": 0.0, "presence_penalty": 1.5, "stop": ("Example 6", "Task:"),
    }  # fmt: skip


def test_output_first_prompt():
    prompt = asked(FAITHFUL, LABELLED)["instance/0"]
    head, *cases, last = text_of(prompt).split("\n\n")
    assert head.startswith("Write, for each possible label of the task, an input")
    assert sorted(cases) == [
        "Task: Is it spam?\nClass label: Yes\nWin now\nClass label: No\nHi Anna",
        "Task: Name any vowel.\nClass label: a",
    ]
    assert last == "Task: Is it a cat?\n"
    assert without_text(prompt) == {
        "max_tokens": 300, "temperature": 0.0, "presence_penalty": 1.5, "stop": ("Example 6", "Task:"),
    }  # fmt: skip


def test_numbers_of_demonstrations():
    seeds = [seed(n, f"Task number {n}.", ("", "x"), is_classification=n % 2 == 0) for n in range(60)]
    prompts = asked(FAITHFUL, STEPS, seeds=seeds)
    labelled = asked(FAITHFUL, LABELLED, seeds=seeds)
    n_shown = [text_of(p).count("Task: ") - 1 for p in (prompts["classification/0"], prompts["instance/0"],
                                                        labelled["instance/0"])]  # fmt: skip
    assert n_shown == [31, 11, 16]
    assert text_of(prompts["classification/0"]).count("Yes") == 12


def test_what_the_original_fixes_cannot_be_chosen():
    for option in ({"tasks_per_request": 9}, {"instances": 2}, {"structured": True}, {"replies_per_request": 2}):
        with pytest.raises(ValidationError, match="faithful leaves no choice of"):
            SelfInstruct(faithful=True, **option)
    with pytest.raises(ValidationError, match="faithful leaves no choice of"):
        Alpaca(faithful=True, tasks_per_request=20)


# -- Self-Instruct: flaws ---------------------------------------------------------------------------------------------


def listed(strategy, reply, endpoint="completions"):
    replies = {**STEPS, "instructions": reply}
    return [(c.instruction, rule(c)) for c in propose(strategy, replies, endpoint=endpoint)]


def test_stops_cut_numbers():
    """As an endpoint applies them: the text up to the first stop, and a regular end."""

    def stopped(prompt: Prompt, text: str) -> str:
        return text[: min((text.find(stop) for stop in prompt.stop if stop in text), default=len(text))]

    answer = "Input: when?\nOutput: It began in 2020. Example 6 follows."
    text = " What happened in the year 2016. Say it.\n10. Two things to do."
    faithful, mended = (asked(strategy, STEPS, endpoint="completions") for strategy in (FAITHFUL, SelfInstruct()))
    assert stopped(faithful["instructions"], text) == " What happened in the year 20"
    assert stopped(mended["instructions"], text) == text
    assert stopped(faithful["instance/0"], answer).endswith("in 2020. ")
    assert stopped(mended["instance/0"], answer) == answer
    alpaca, mended_alpaca = (asked(Alpaca(faithful=faithful), {"list": "x"})["list"] for faithful in (True, False))
    assert stopped(alpaca, " When?\n4. Input:\n<noinput>\n4. Output:\nIn 2020.\n").endswith("In 20")
    assert stopped(mended_alpaca, "In 2020.\n20 more.") == "In 2020.\n20 more."


def test_capitalize():
    reply = " Explain NASA SQL to Ada.\n10. One more of them, please."
    assert listed(FAITHFUL, reply)[0] == ("Explain nasa sql to ada.", None)
    assert listed(SelfInstruct(), reply)[0] == ("Explain NASA SQL to Ada.", None)


def test_number_at_the_start_of_a_line_splits():
    reply = " What is due in the year\n2020. And why is that?\n10. One more, please."
    assert [text for text, _ in listed(FAITHFUL, reply)] == [
        "What is due in the year", "And why is that?", "One more, please.",
    ]  # fmt: skip
    assert [text for text, _ in listed(SelfInstruct(), reply)] == [
        "What is due in the year 2020. And why is that?", "One more, please.",
    ]  # fmt: skip


def test_length_stop_drops_the_whole_list():
    reply = (" One thing to do.\n10. Two things to do.\n11. Three thi", "length")
    assert [why for _, why in listed(FAITHFUL, reply)] == ["truncated"] * 3
    assert [why for _, why in listed(SelfInstruct(), reply)] == [None, None, "truncated"]


def test_chat_model_may_repeat_the_number():
    assert [text for text, _ in listed(FAITHFUL, "9. One thing.\n10. Two things.", "chat")] == [
        "One thing.", "Two things.",
    ]  # fmt: skip


def test_yes_with_a_full_stop():
    for text, faithful in (("Yes", True), (" yes", True), ("YES", True), ("Yes.", False), ("**Yes**", False)):
        replies = {**LABELLED, "classification": text, "instance": "Class label: A\nOutput: b"}
        original, mended = (propose(s, replies, endpoint="completions")[0] for s in (FAITHFUL, SelfInstruct()))
        assert original.is_classification is faithful
        assert mended.is_classification


def test_example_inside_an_answer_splits_it():
    original, mended = instances("Input: dogs\nOutput: A pet. Example 1. Rex")
    assert pairs(original) == [("dogs", "A pet."), ("", "Rex")]
    assert pairs(mended) == [("dogs", "A pet. Example 1. Rex")]


def test_input_inside_an_answer_ends_it():
    original, mended = instances("Input: a form\nOutput: Fields.\nInput: name")
    assert pairs(original) == [("a form", "Fields.")]
    assert pairs(mended) == [("a form", "Fields.\nInput: name")]


def test_bare_answer_is_lost():
    original, mended = instances("The Lena flows north.")
    assert rule(original) == "unparsable"
    assert pairs(mended) == [("", "The Lena flows north.")]


def test_up_to_five_instances_and_the_last_of_a_cut_reply_is_dropped():
    reply = "\n".join(f"Example {n}\nInput: q{n}\nOutput: a{n}" for n in range(1, 8))
    original, mended = instances(reply)
    assert len(set(pairs(original))) == 5
    assert pairs(mended) == [(f"q{n}", f"a{n}") for n in range(1, 6)]
    cut = instances(("Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: unfini", "length"))
    assert [pairs(candidate) for candidate in cut] == [[("a", "b")]] * 2
    assert [rule(candidate) for candidate in instances(("Input: a\nOutput: unfini", "length"))[1:]] == ["truncated"]


def test_repeated_contradictory_and_flawed_instances():
    twice = "Example 1\nInput: a\nOutput: b\nExample 2\nInput: a\nOutput: b\nExample 3\nInput: c\nOutput: c"
    assert [pairs(candidate) for candidate in instances(twice)] == [[("a", "b")]] * 2
    contradictory = "Class label: Yes\nwin now\nClass label: No\nwin now"
    assert [rule(candidate) for candidate in instances(contradictory, True)] == ["contradictory"] * 2
    colon = instances("Input: a\nOutput: as follows：")
    assert [rule(candidate) for candidate in colon] == [None, "incomplete"]  # the original knows ASCII only


def test_colon_strip_breaks_addresses_and_times():
    broken, whole = set(), set()
    items = "\n".join(f"{n}. Do number {n}, please." for n in range(9, 29)).removeprefix("9.")
    for given in ("Paragraph: it rains", "https://a.b/c", "at 10:30", "one: two: 1"):
        reply = {"instructions": items, "classification": "No", "instance": f"Input: {given}\nOutput: b"}
        for strategy, inputs in ((FAITHFUL, broken), (SelfInstruct(), whole)):
            inputs |= {case[0] for c in propose(strategy, reply, endpoint="completions") for case in pairs(c)}
    assert broken == {"Paragraph: it rains", "it rains", "https://a.b/c", "//a.b/c", "at 10:30", "30", "one: two: 1"}
    assert whole == {"Paragraph: it rains", "https://a.b/c", "at 10:30", "one: two: 1"}


# -- Alpaca ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_alpaca_prompt(endpoint):
    prompt = asked(Alpaca(faithful=True), {"list": "x"}, endpoint=endpoint, seeds=SEEDS[:3])["list"]
    requirements, *shown, last = text_of(prompt).split("###\n")
    assert [line[:2] for line in requirements.split("\n") if line[:1].isdigit()] == [f"{n}." for n in range(1, 9)]
    assert requirements.endswith("The list of 20:\n\n")
    blocks = {
        "s1": "{n}. Instruction: Add the numbers\n{n}. Input:\n2 and 3\n{n}. Output:\n5\n",
        "s2": "{n}. Instruction: Name a river.\n{n}. Input:\n<noinput>\n{n}. Output:\nLena\n",
        "s3": "{n}. Instruction: Is it spam?\n{n}. Input:\nWin now\n{n}. Output:\nYes\n",
    }
    assert shown == [blocks[id].format(n=n) for n, id in enumerate(prompt.demonstrations, 1)]
    assert last == "4. Instruction:"
    assert without_text(prompt) == {"max_tokens": 3072, "temperature": 1.0, "stop": ("\n20", "20.", "20.")}


def blocks(reply, endpoint="completions"):
    """What both make of a list: (instruction, outputs, rule) of each task."""
    both = (
        propose(Alpaca(faithful=faithful), {"list": reply}, seeds=SEEDS[:3], endpoint=endpoint)
        for faithful in (True, False)
    )
    return [[(c.instruction, [i.output for i in c.instances], rule(c)) for c in found] for found in both]


FOUR = " A.\n4. Input:\n<noinput>\n4. Output:\n1\n###\n"


def test_blocks_in_order_are_read_by_both():
    original, mended = blocks(FOUR + "5. Instruction: B.\n5. Input:\nx\n5. Output:\n2\n")
    assert original == mended == [("A.", ["1"], None), ("B.", ["2"], None)]


@pytest.mark.parametrize(
    "second",
    [
        "7. Instruction: B.\n7. Input:\nx\n7. Output:\n2\n",  # renumbered
        "5. Instruction: B.\n5. Output:\n2\n",  # a label missing
        "**5. Instruction:** B.\n**5. Input:** x\n**5. Output:** 2\n",
        "Instruction: B.\nInput: x\nOutput: 2\n",
    ],
)
def test_other_layouts_are_lost(second):
    original, mended = blocks(FOUR + second)
    assert [why for _, _, why in original[:2]] in ([None, "unparsable"], [None, None])
    assert (second.startswith("**") and original[1][0] != "B.") or original[1][2] == "unparsable"
    assert mended == [("A.", ["1"], None), ("B.", ["2"], None)]


def test_separator_in_an_answer_ends_it():
    original, mended = blocks(FOUR.replace("\n1\n", "\n1\n### Title\nmore\n") + "5. Instruction: B.\n5. Output: 2")
    assert original[0] == ("A.", ["1"], None)
    assert mended[0] == ("A.", ["1\n### Title\nmore"], None)


def test_length_stop_drops_the_last_block_only():
    original, mended = blocks((FOUR + "5. Instruction: B.\n5. Input:\nx\n5. Output:\nunfini", "length"))
    assert [why for _, _, why in original] == [why for _, _, why in mended] == [None, "truncated"]


def test_no_capitalize_and_only_one_word_for_no_input():
    original, mended = (
        propose(strategy, {"list": FOUR.replace("A.", "tell NASA.").replace("<noinput>", "None")}, seeds=SEEDS[:3])
        for strategy in (Alpaca(faithful=True), Alpaca())
    )
    assert original[0].instruction == mended[0].instruction == "tell NASA."
    assert (original[0].instances[0].input, mended[0].instances[0].input) == ("None", "")


def test_chat_model_may_repeat_the_label():
    original, mended = blocks("4. Instruction:" + FOUR, endpoint="chat")
    assert original == mended == [("A.", ["1"], None)]


# -- filters ---------------------------------------------------------------------------------------------------------


def objections(instruction):
    case = Case(Candidate("x", instruction, (Instance("", "an answer"),), False, SOURCE), "en")
    verdicts = [f.judge(case) for f in (SelfInstructHeuristics(), AlpacaHeuristics())]
    usual = next((verdict for f in USUAL if (verdict := f.judge(case))), None)
    return [verdict and verdict.rule for verdict in (*verdicts, usual)]


@pytest.mark.parametrize(
    ("instruction", "rules"),
    [
        ("", ["too_short", "too_short"]),
        ("Draw this now", ["too_short", "too_short"]),  # before its keyword
        ("word " * 151, ["too_long", "too_long"]),
        ("Write a program, and draw a map.", ["keyword", "keyword"]),  # before the program
        ("Draw a conclusion from the text.", ["keyword", "keyword"]),
        ("Write a program that adds two numbers.", ["program", "program"]),
        ("write a program that adds two numbers.", [None, None]),
        ("Describe the best music of Vienna.", [None, "keyword"]),
        ("Describe the best videos of Vienna.", [None, None]),
        ('"Hamlet" was written by whom?', ["punctuation", "punctuation"]),
        ("Ångström units measure what exactly?", ["language", "language"]),
        ("Name a river of Asia.", [None, None]),
    ],
)
def test_heuristics(instruction, rules):
    assert objections(instruction)[:2] == rules


def test_mended_filters_let_a_conclusion_be_drawn():
    assert objections("Draw a conclusion from these three facts: snow, ice, frost.")[2] is None


def test_identical_texts_outside_the_latin_script_score_nothing():
    text = "写一句关于秋天的话。"
    scores = {}
    for tokenizer in ("rouge", "unicode"):
        index = NoveltyIndex(tokenizer)
        index.add(text)
        scores[tokenizer] = [neighbour.score for neighbour in index.nearest(text)]
    assert scores == {"rouge": [], "unicode": [1.0]}
