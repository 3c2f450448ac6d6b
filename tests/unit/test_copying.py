"""Instructions that were copied from their prompt, by every strategy that asks for some."""

from __future__ import annotations

import json

import pytest

from selfinstruct.files import shipped
from selfinstruct.seeds import read_seeds
from selfinstruct.strategies.alpaca import Alpaca
from selfinstruct.strategies.attributed import Attributed
from selfinstruct.strategies.copying import copy_check, texts_of
from selfinstruct.strategies.evol_instruct import EvolInstruct
from selfinstruct.strategies.self_instruct import SelfInstruct
from tests.proposing import asked, propose, seed

FINE = "Name three rivers of Asia."
ENGLISH, CHINESE = read_seeds(shipped("seed_tasks.jsonl")), read_seeds(shipped("seed_tasks.zh.jsonl"))


def rules(strategy, instruction, **fields):
    """What becomes of one instruction; where a list is asked for, of the second in it."""
    if isinstance(strategy, EvolInstruct):
        replies = {"evolve": f"{instruction}\nInput: (none)", "check": "No", "answer": "Ob, Lena, Amur"}
    elif isinstance(strategy, SelfInstruct):
        texts = [FINE, instruction]
        replies = {
            "instructions": json.dumps({"tasks": texts}),
            "classification": "No",
            "instance": "Input: a\nOutput: b",
        }
    else:
        tasks = [{"instruction": text, "input": "", "output": "Ob"} for text in (FINE, instruction)]
        replies = {"list": json.dumps({"tasks": tasks})}
    found = propose(strategy, replies, **fields)
    return [candidate.rejection.rule if candidate.rejection else None for candidate in found][-1:]


@pytest.mark.parametrize(
    ("strategy", "copied"),
    [
        (SelfInstruct(), "Write tasks that are possible to do by reading and writing alone, and complete."),
        (SelfInstruct(structured=True), "Here is a list of tasks that people gave to a text-only assistant: sums."),
        (Alpaca(), "Begin tasks with many different verbs, and repeat none if you can."),
        (Alpaca(), "Vary the kind: open writing."),
        (Alpaca(structured=True), "A language model must be able to do it with text alone: a poem."),
        (Alpaca(), "Sort the list, which is <noinput>."),
        (Attributed(), "Write as in the brief. Form of the output: a list."),
        (Attributed(), "Do it with text alone: nothing to see, hear, open or look up, please."),
        (EvolInstruct(tasks_per_request=1, breadth=0), "How to make it harder: name the sources."),
        (EvolInstruct(tasks_per_request=1, breadth=0), "Name three rivers (none)."),
    ],
)
@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_every_strategy_rejects_what_it_said_itself(strategy, copied, endpoint):
    if endpoint == "completions" and (isinstance(strategy, SelfInstruct) or getattr(strategy, "structured", False)):
        return  # that prompt does not say it
    assert rules(strategy, copied, endpoint=endpoint) == ["copied_prompt"]
    assert rules(strategy, FINE.replace("three", "four"), endpoint=endpoint) == [None]


def test_chinese_is_compared_by_characters():
    assert rules(Alpaca(), "语言模型只靠文字就能完成：不需要看图、听音，写一首诗。", language="zh") == ["copied_prompt"]
    assert rules(Alpaca(), "请写一封信，要求：语言简洁，不超过一百字。", language="zh") == [None]


def test_words_of_demonstrations_and_briefs_may_come_again():
    shown = seed(7, "Say in which of these two towns the man who sold the boat was born:", ("(none) of both", "Omsk"))
    for strategy in (SelfInstruct(), Alpaca(), Attributed(), EvolInstruct(tasks_per_request=1, breadth=0)):
        for again in (shown.instruction, f"{shown.instruction} (none) of both."):
            assert rules(strategy, again, seeds=[shown]) == [None]
    prompt = asked(Attributed(), {"list": "x"})["list"].messages[0]["content"]
    for line in prompt.partition("Brief of task")[2].partition("The tasks:")[0].splitlines():
        _, _, phrase = line.partition(": ")
        assert rules(Attributed(), f"Write this for me: {phrase}") == [None]


@pytest.mark.parametrize(("language", "seeds"), [("en", ENGLISH), ("zh", CHINESE)])
def test_no_shipped_seed_task_says_what_a_prompt_says(language, seeds):
    for strategy in (SelfInstruct(), SelfInstruct(structured=True), Alpaca(), Alpaca(structured=True), Attributed()):
        for prompt in asked(strategy, {"instructions": "", "list": ""}, language=language).values():
            check = copy_check(prompt, texts_of(()))
            assert [task.instruction for task in seeds if check(task.instruction)] == []
