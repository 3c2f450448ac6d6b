"""Each filter's edge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfinstruct.filters import Case
from selfinstruct.filters.answer import Answer
from selfinstruct.records import Instance
from tests.judging import case_of, judge_instances, judge_instruction, rule_of

REPEATED = "The answer is that it is so. "
PROSE = (
    "Glaciers carve valleys, rivers deepen them, wind rounds every edge; forests then climb whatever slope is left, "
    "until fire, frost or people push them back and another cycle of growth begins."
)


def rule(instruction: str, language: str = "en") -> str | None:
    verdict = judge_instruction(instruction, language)
    return verdict.rule if verdict else None


def words(n: int) -> str:
    return " ".join(["word"] * n)


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("", "too_short"),
        (words(3), "too_short"),
        (words(4), None),
        (words(150), None),
        (words(151), "too_long"),
        ("Describe what the image shows.", "keyword"),
        ("List all FILES in here.", "keyword"),
        ("Compose some music for a wedding.", "keyword"),
        ("Go to the shop and buy bread.", "keyword"),
        ("Draw a house with two windows.", "keyword"),
        ("Plot the sales of each month.", "keyword"),
        ("Explain profiles, filed claims and mapping to a newcomer.", None),  # whole words only
        ("Imagery and graphology are different; explain how.", None),
        ("Draw a conclusion from these two sentences.", None),
        ("Read the report and draw your own conclusions.", None),
        ("Draw parallels between both poems.", None),
        ("Draw a map and draw a conclusion from it.", "keyword"),
        ("Describe the plot of this novel.", None),
        ("Suggest a plot twist for this story.", None),
        ("Write a program that sorts numbers.", "program"),
        ("write a PROGRAM for sorting.", "program"),
        ("Explain how to write a program that sorts.", None),
        ("- Sort these five words.", "punctuation"),
        ("? what is it about", "punctuation"),
        ("\N{FIRE} Sort these five words.", "punctuation"),
        ('"To be or not to be": who said it?', None),
        ("(Optional) Sort these five words.", None),
        ("Über Äpfel soll geschrieben werden.", "language"),
        ("Ångström units measure what?", None),  # the first character tells nothing of the language
        ("Send an e-mail to Bob about lunch.", "tools"),
        ("3 apples cost how much?", None),
    ],
)
def test_instructions(instruction, expected):
    assert rule(instruction) == expected


def test_detail_names_what_was_found():
    verdict = judge_instruction("Show me a Picture of Rome.", "en")
    assert verdict is not None
    assert (verdict.rule, verdict.detail) == ("keyword", "'show me a picture'")
    verdict = judge_instruction("Too short", "en")
    assert verdict is not None
    assert verdict.detail == "2 words, at least 4 wanted"


@pytest.mark.parametrize(
    ("instruction", "language", "expected"),
    [
        ("Übersetze diesen Satz ins Englische.", "de", None),
        ("Переведи эту фразу на английский", "ru", None),
        ("ترجم هذه الجملة إلى الإنجليزية", "ar", None),
        ("请把下面的句子翻译成英文", "zh", None),  # characters count as words: there are no spaces
        ("翻译", "zh", "too_short"),
        ("文" * 151, "zh", "too_long"),
        ("次の文を要約してください", "ja", None),
        ("แปลประโยคนี้", "th", None),
        ("¿Cuál es la capital de Francia?", "es", None),
        ("„Wer hat das gesagt?“ Nenne die Person.", "de", None),
        ("、请把下面的句子翻译成英文", "zh", "punctuation"),
    ],
)
def test_other_languages(instruction, language, expected):
    assert rule(instruction, language) == expected


@pytest.mark.parametrize(
    ("input", "output", "expected"),
    [
        ("", "An answer.", None),
        ("", "", "empty_output"),
        ("something", " \n", "empty_output"),
        ("same", " same ", "input_is_output"),
        ("Same", "same", None),
        ("", "(none)", "empty_output"),
        ("", " [None] ", "empty_output"),
        ("", "<noinput>", "empty_output"),
        ("something", "noinput", "empty_output"),
        ("", "（无）", "empty_output"),
        ("", "Here is the list:", "incomplete"),
        ("Translate:", "Bonjour", "incomplete"),
        ("a", "如下： ", "incomplete"),
        ("at 10:30", "at 11:30", None),
        ("", PROSE, None),
        ("", REPEATED * 20, "repetition"),
        ("", (REPEATED * 20)[:159], None),  # short texts are given the benefit of the doubt
        (REPEATED * 20, "An input may repeat itself.", None),
    ],
)
def test_instances(input, output, expected):
    verdict = judge_instances((Instance(input, output),))
    assert (verdict.rule if verdict else None) == expected


def test_one_bad_instance_rejects_the_task_and_so_does_none():
    fine, bad = Instance("", "Yes."), Instance("", "")
    assert judge_instances((fine, fine)) is None
    verdict = judge_instances((fine, bad))
    assert verdict is not None
    assert verdict.rule == "empty_output"
    verdict = judge_instances(())
    assert verdict is not None
    assert (verdict.rule, verdict.detail) == ("empty_output", "no instance")


@pytest.mark.parametrize(
    ("instruction", "input", "language", "rejected"),
    [
        ("Write a short poem about rain.", "", "en", True),
        ("Describe how a bridge is built.", "", "en", True),
        ("Translate the sentence into French.", "It rains.", "en", True),
        ("写一首关于雨的短诗。", "", "zh", True),
        ("Which of these birds can fly: penguin, emu, kiwi?", "", "en", False),
        ("Find the prime numbers in the list.", "4, 6, 8", "en", False),
        ("Extract the e-mail addresses.", "Call me.", "en", False),
        ("Label the emotion of the speaker.", "It is noon.", "en", False),
        ("What does the call give back?", "print(f())", "en", False),
        ("Say how the sentence ends, or write n/a.", "It rains.", "en", False),
        ("Write the verbs of the text, if there are any.", "Oslo.", "en", False),
        ("下面哪一种动物会飞：企鹅、鸵鸟？", "", "zh", False),
        ("找出下列句子中的错别字。", "今天下雨。", "zh", False),
        ("Schreibe die Primzahlen auf.", "4, 6, 8", "de", False),  # its words are not known
    ],
)
def test_none_by_itself_may_be_the_answer(instruction, input, language, rejected):
    for output in ("None.", "N/A", "无"):
        assert rule_of(Answer(), instruction, output, input, language) == ("empty_output" if rejected else None)
    assert rule_of(Answer(), instruction, "(none)", input, language) == "empty_output"
    classified = replace(case_of(instruction, (Instance(input, "None"),)).candidate, is_classification=True)
    assert Answer().judge(Case(classified, language)) is None


def test_first_objection_is_the_one_given():
    assert rule("; image") == "too_short"
    assert rule("; describe the image now") == "keyword"
