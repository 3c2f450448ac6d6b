"""What the strategies ask, in which language, and what they make of the replies."""

from __future__ import annotations

import json

import pytest

from selfinstruct.parsing import is_yes
from selfinstruct.strategies.alpaca import TASK_SCHEMA, Alpaca
from selfinstruct.strategies.schemas import tasks_schema
from selfinstruct.strategies.self_instruct import SelfInstruct
from selfinstruct.wording import wording
from tests.proposing import SEEDS, asked, propose, slot, text_of

STEPS = {"instructions": "5. One thing.", "classification": "No", "instance": "Input: a\nOutput: b"}
LABELLED = {"instructions": "5. Is it a cat?", "classification": "Yes", "instance": "Class label: Yes\nInput: miaow"}
CHINESE = {"instructions": "5、写一首诗。", "classification": "否", "instance": "输入：秋天\n输出：落叶满地。"}


def pairs(candidate):
    return [(instance.input, instance.output) for instance in candidate.instances]


def test_one_instance_is_asked_for_and_paid_for_unless_more_are_wanted():
    one, five = (asked(SelfInstruct(instances=n), STEPS)["instance/0"] for n in (1, 5))
    assert (one.max_tokens, five.max_tokens) == (350, 1750)
    assert "up to 5" in text_of(five)
    assert "up to" not in text_of(one)
    assert "Example 2\nInput: 1 and 1\nOutput: 2" in text_of(five)
    assert text_of(five).endswith("Example 1\nInput:")
    labels = asked(SelfInstruct(instances=3), LABELLED)["instance/0"]
    assert "Class label: Yes\nInput: Win now\nClass label: No\nInput: Hi Anna" in text_of(labels)
    assert SelfInstruct(instances=5).steps(slot(lambda *_: ""))[2].completion_tokens == 5 * 130


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_as_many_instances_as_wanted_are_taken(endpoint):
    reply = " q1\nOutput: a1\nExample 2\nInput: q2\nOutput: a2\nExample 3\nInput: q3\nOutput: a3"
    for n in (1, 2, 5):
        found = propose(SelfInstruct(instances=n), {**STEPS, "instance": reply}, endpoint=endpoint)[0]
        assert pairs(found) == [(f"q{k}", f"a{k}") for k in range(1, min(n, 3) + 1)]
        assert found.rejection is None


def test_length_stop_costs_the_last_wanted_instance_only():
    reply = ("Input: q1\nOutput: a1\nInput: q2\nOutput: a", "length")
    two, one = (propose(SelfInstruct(instances=n), {**STEPS, "instance": reply})[0] for n in (2, 1))
    assert pairs(two) == pairs(one) == [("q1", "a1")]
    cut = propose(SelfInstruct(), {**STEPS, "instance": ("Input: q1\nOutput: a", "length")})[0]
    assert cut.rejection.rule == "truncated"
    assert pairs(cut) == [("q1", "a")]


def test_contradictory_task_is_rejected_and_a_flawed_instance_only_left_out():
    contradictory = "Input: a\nOutput: b\nInput: a\nOutput: c"
    flawed = "Input: a\nOutput: b\nInput: c\nOutput: c\nInput: d\nOutput: as follows:"
    found = [propose(SelfInstruct(instances=5), {**STEPS, "instance": reply})[0] for reply in (contradictory, flawed)]
    assert found[0].rejection.rule == "contradictory"
    assert (pairs(found[1]), found[1].rejection) == ([("a", "b")], None)
    only = propose(SelfInstruct(), {**STEPS, "instance": "Input: c\nOutput: c"})[0]
    assert only.rejection.rule == "input_is_output"


def test_classification_only():
    prompt = asked(SelfInstruct(classification=True), STEPS)["instructions"]
    assert set(prompt.demonstrations) == {"s3", "s4"}
    assert "All are classification tasks" in text_of(prompt)


# -- languages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_chinese_prompts_are_chinese(endpoint):
    prompts = {
        **asked(SelfInstruct(), CHINESE, language="zh", endpoint=endpoint),
        **asked(Alpaca(), {"list": "x"}, language="zh", endpoint=endpoint),
    }
    own = {word for seed in SEEDS for case in seed.instances for word in (*case.input.split(), *case.output.split())}
    own |= {word for seed in SEEDS for word in seed.instruction.split()} | {"<noinput>", "noinput"}
    for step, prompt in prompts.items():
        text = text_of(prompt)
        for word in sorted(own, key=len, reverse=True):
            text = text.replace(word, "")
        assert not any(c.isascii() and c.isalpha() for c in text), step
    assert text_of(prompts["list"]).endswith("指令：")
    assert text_of(prompts["instance/0"]).endswith("输入：")


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_chinese_replies_are_read(endpoint):
    found = propose(SelfInstruct(), CHINESE, language="zh", endpoint=endpoint)[0]
    assert (found.instruction, pairs(found), found.rejection) == ("写一首诗。", [("秋天", "落叶满地。")], None)
    replies = {**CHINESE, "classification": "是", "instance": "类别：动物\n输入：猫"}
    found = propose(SelfInstruct(), replies, language="zh", endpoint=endpoint)[0]
    assert (pairs(found), found.is_classification) == ([("猫", "动物")], True)
    list_reply = (
        "写一首诗。\n4. 输入：\n<noinput>\n4. 输出：\n落叶满地。\n###\n"
        "5. 指令：算一算。\n5. 输入：\n2 和 3\n5. 输出：\n5\n"
    )
    found = propose(Alpaca(), {"list": list_reply}, language="zh", endpoint=endpoint)
    assert [pairs(candidate) for candidate in found] == [[("", "落叶满地。")], [("2 和 3", "5")]]


def test_other_languages_are_named():
    prompts = {
        **asked(SelfInstruct(), STEPS, language="de"), **asked(Alpaca(), {"list": "x"}, language="de"),
    }  # fmt: skip
    for step in ("instructions", "instance/0", "list"):
        assert "German" in text_of(prompts[step])
        assert "English" not in text_of(prompts[step])
    completions = asked(SelfInstruct(), STEPS, language="de", endpoint="completions")["instructions"]
    assert text_of(completions).startswith("Come up with a series of tasks in German:")
    assert wording("zh-TW").language == "中文"


@pytest.mark.parametrize(
    "text", ["是", " 是的。", "はい", "예", "네.", "Ja", "Oui", "Sí", "Si.", "Sim", "Sì", "Да.", "نعم", "**是**"]
)
def test_yes_in_other_languages(text):
    assert is_yes(text)


@pytest.mark.parametrize(
    "text", ["否", "不是", "是否", "いいえ", "아니요", "Nein", "Non", "No", "Não", "Нет", "لا", "Jamais", "Since"]
)
def test_no_in_other_languages(text):
    assert not is_yes(text)


# -- JSON ------------------------------------------------------------------------------------------------------------


def test_json_is_asked_for_on_chat_endpoints_only():
    listing = tasks_schema(TASK_SCHEMA, 17), tasks_schema({"type": "string"}, 8)  # as many as are asked for
    for endpoint, schemas in (("chat", listing), ("completions", (None, None))):
        for language in ("en", "zh"):
            fields = {"endpoint": endpoint, "language": language}
            tasks = asked(Alpaca(structured=True), {"list": "x"}, **fields)["list"]
            listed = asked(SelfInstruct(structured=True), STEPS, **fields)["instructions"]
            assert (tasks.json_schema, listed.json_schema) == schemas
            assert ("JSON" in text_of(tasks), "JSON" in text_of(listed)) == (endpoint == "chat",) * 2
    assert asked(Alpaca(), {"list": "x"})["list"].json_schema is None


TASKS = [{"instruction": "Add.", "input": "2, 3", "output": "5"}, {"instruction": "Name.", "input": "", "output": "Bo"}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"tasks": TASKS}),
        json.dumps(TASKS).replace('"Bo"}]', '"Bo",}'),  # broken
        json.dumps(TASKS).replace(', "output"', ' "output"'),  # commas missing
        f"Here:\n```json\n{json.dumps(TASKS, indent=1)}\n```\nMore?",
    ],
)
def test_json_replies(text):
    found = propose(Alpaca(structured=True), {"list": text})
    assert [(c.instruction, pairs(c), c.rejection) for c in found] == [
        ("Add.", [("2, 3", "5")], None), ("Name.", [("", "Bo")], None),
    ]  # fmt: skip


def test_json_values_of_any_type_and_several_instances():
    task = {"Instruction": "Sort.", "instances": [{"input": [2, 1], "output": [1, 2]}, {"input": None, "output": 7}]}
    (found,) = propose(Alpaca(), {"list": json.dumps([task])})
    assert pairs(found) == [("[2, 1]", "[1, 2]"), ("", "7")]


def test_json_list_of_instructions():
    found = propose(
        SelfInstruct(structured=True), {**STEPS, "instructions": '{"tasks": ["One thing.", "Two things."]}'}
    )
    assert [candidate.instruction for candidate in found] == ["One thing.", "Two things."]


@pytest.mark.parametrize(
    "text", ["", "Sorry, I cannot.", "###\n###", "{}", "[]", '{"error": "no"}', "[" * 5000, '{"a":' * 5000]
)
def test_reply_without_any_task_is_one_rejected_row(text):
    rejected = propose(SelfInstruct(), {**STEPS, "instructions": text})
    assert [candidate.rejection.rule for candidate in rejected] == ["unparsable"]
    assert len(propose(Alpaca(), {"list": text})) == 1
