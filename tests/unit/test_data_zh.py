"""The Chinese seed tasks: every row, by the rules that its datasheet states and those that its instruction states."""

from __future__ import annotations

import ast
import json
import re
import sqlite3
import unicodedata
from collections import Counter
from itertools import pairwise

import pytest

from selfinstruct.files import read_jsonl, shipped
from selfinstruct.novelty import NoveltyIndex
from selfinstruct.records import Example
from selfinstruct.seeds import read_seeds
from tests.judging import judge_example

PATH = shipped("seed_tasks.zh.jsonl")
HAN = re.compile(r"[\u3400-\u9fff]")


@pytest.fixture(scope="module")
def seeds() -> list[Example]:
    return read_seeds(PATH)


@pytest.fixture(scope="module")
def outputs(seeds) -> dict[str, list[str]]:
    return {seed.name: [instance.output for instance in seed.instances] for seed in seeds}


def texts(seed: Example) -> list[str]:
    return [seed.instruction, *(text for instance in seed.instances for text in (instance.input, instance.output))]


# -- all rows ----------------------------------------------------------------------------------------------------------


def test_seeds_have_exactly_the_five_fields(seeds):
    rows = [row for _, row in read_jsonl(PATH)]
    assert len(rows) == len(seeds) >= 48
    assert {tuple(row) for row in rows} == {("id", "name", "instruction", "instances", "is_classification")}
    assert {tuple(instance) for row in rows for instance in row["instances"]} == {("input", "output")}


def test_seeds_are_named_once_and_numbered_by_kind(seeds):
    english = read_seeds(shipped("seed_tasks.jsonl"))
    assert not {seed.id for seed in seeds} & {seed.id for seed in english}
    assert not {seed.name for seed in seeds} & {seed.name for seed in english}
    assert len({seed.name for seed in seeds}) == len({seed.instruction for seed in seeds}) == len(seeds)
    numbers = Counter()
    for seed in seeds:
        assert re.fullmatch(r"[a-z0-9_]+", seed.name)
        kind = seed.id.rpartition("-")[0]
        numbers[kind] += 1
        assert re.fullmatch(rf"zh-[a-z_]+-{numbers[kind]:02}", seed.id), seed.id
        assert seed.is_classification == kind.endswith("_classification"), seed.id
    assert len(numbers) >= 15


def test_texts_are_clean(seeds):
    assert PATH.read_bytes().endswith(b"}\n")
    for seed in seeds:
        for text in texts(seed):
            assert text == text.strip() == unicodedata.normalize("NFC", text), seed.id
            assert not re.search(r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\ufffd]", text), seed.id
            assert text.count("“") == text.count("”"), seed.id
        for text in [seed.instruction, *(instance.output for instance in seed.instances)]:
            assert not re.search(rf"{HAN.pattern}[,;:?!]{HAN.pattern}", text), seed.id  # not the ASCII marks


def test_instructions_are_chinese_neither_short_nor_long(seeds):
    for seed in seeds:
        assert len(HAN.findall(seed.instruction)) >= len(seed.instruction) / 3, seed.id
        assert 15 <= len(seed.instruction) <= 100, seed.id
        for instance in seed.instances:
            assert len(instance.input) <= 150, seed.id
            assert len(instance.output) <= 320, seed.id


def test_about_a_third_are_classification_and_over_half_have_an_input(seeds):
    assert 0.25 <= sum(seed.is_classification for seed in seeds) / len(seeds) <= 0.35
    assert 0.5 < sum(bool(seed.instances[0].input) for seed in seeds) / len(seeds) < 0.75
    for seed in seeds:
        assert len({bool(instance.input) for instance in seed.instances}) == 1, seed.id  # all instances or none
        assert len({instance.input for instance in seed.instances}) == len(seed.instances) <= 4, seed.id


def test_classification_seeds_name_their_labels_and_show_each_once(seeds):
    tasks = [seed for seed in seeds if seed.is_classification]
    places = []
    for seed in tasks:
        labels = [instance.output for instance in seed.instances]
        assert len(set(labels)) == len(labels) >= 2, seed.id
        assert all(label in seed.instruction for label in labels), seed.id
        places.append(sorted(labels, key=seed.instruction.find).index(labels[0]))
    # The first answer shown is not always the label that is named first, nor the second.
    assert max(Counter(places).values()) <= 0.7 * len(tasks), Counter(places)


def test_seeds_open_in_many_ways(seeds):
    assert len({seed.instruction[:2] for seed in seeds}) >= 30


def test_our_own_filters_accept_every_seed(seeds):
    for seed in seeds:
        assert judge_example(seed, "zh") is None, seed.id


def test_no_two_seeds_resemble_each_other(seeds):
    index = NoveltyIndex("unicode")
    most = []
    for seed in seeds:
        most += [(near.score, seed.id, seeds[near.position].id) for near in index.nearest(seed.instruction)]
        index.add(seed.instruction)
    assert max(most)[0] <= 0.3, max(most)


# -- what single instructions ask for ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("soften_message_to_landlord", 1, 60),
        ("reply_to_bad_takeaway_review", 1, 80),
        ("answer_about_weakness_in_interview", 80, 120),
        ("last_train_story_from_three_things", 1, 120),
        ("school_reading_report_in_one_sentence", 1, 30),
    ],
)
def test_limits_on_characters(seeds, outputs, name, least, most):
    """Punctuation counts, so the limit holds however one counts."""
    instruction = next(seed.instruction for seed in seeds if seed.name == name)
    assert re.search(rf"{most}(个)?字", instruction)
    for output in outputs[name]:
        assert len(HAN.findall(output)) >= least
        assert len(output) <= most


def test_limits_on_sentences_steps_and_items(outputs):
    assert 1 <= outputs["why_climb_one_more_storey"][0].count("。") <= 3
    assert outputs["school_reading_report_in_one_sentence"][0].count("。") == 1
    assert len(re.findall(r"^\d\. ", outputs["tomato_and_eggs_for_two"][0], re.M)) <= 5
    lines = outputs["free_ways_to_announce_swap_day"][0].split("\n")
    assert [line[:3] for line in lines] == [f"{n}. " for n in range(1, 6)]
    assert all(line.count("。") == 1 for line in lines)
    assert (
        outputs["two_slow_days_in_suzhou"][0].count("上午：")
        == outputs["two_slow_days_in_suzhou"][0].count("下午：")
        == 2
    )
    questions = outputs["two_choice_questions_on_dujiangyan"][0].split("\n\n")
    assert [re.findall(r"^([A-D])\. ", question, re.M) for question in questions] == [list("ABCD")] * 2
    assert all(re.search(r"\n答案：[A-D]$", question) for question in questions)


def test_wanted_words_and_no_others(outputs):
    assert all(word in outputs["last_train_story_from_three_things"][0] for word in ("末班地铁", "橘子", "半张旧车票"))
    assert not any(re.search("[A-Za-z@]", output) for output in outputs["mixed_language_to_plain_chinese"])
    assert not any(HAN.search(output) for output in outputs["moments_post_into_english"])


def test_idiom_chain(outputs):
    idioms = outputs["idiom_chain"][0].split("→")
    assert idioms[0] == "一心一意"
    assert len(idioms) == 6
    assert all(len(idiom) == 4 for idiom in idioms)
    assert all(one[-1] == other[0] for one, other in pairwise(idioms))


def test_couplet_lines_are_equally_long_and_share_no_character(outputs):
    upper, lower = "一窗细雨催新叶", outputs["matching_couplet_line"][0].split("\n")[0].removeprefix("下联：")
    assert len(lower) == len(upper)
    assert not set(lower) & set(upper)


def test_measure_words_fill_the_gaps_and_differ(seeds, outputs):
    (output,) = outputs["fill_in_measure_words"]
    words = re.findall("（(.)）", output)
    assert len(words) == len(set(words)) == 5
    assert "个" not in words
    seed = next(seed for seed in seeds if seed.name == "fill_in_measure_words")
    assert re.sub("（.）", "（ ）", output) == seed.instances[0].input


def test_formal_numerals_are_worth_the_amount(seeds):
    def value(text: str) -> float:
        total = digit = 0
        hundredths = 0
        for character in text.removesuffix("整"):
            if character in "零壹贰叁肆伍陆柒捌玖":
                digit = "零壹贰叁肆伍陆柒捌玖".index(character)
            elif character in "拾佰仟":
                total, digit = total + digit * 10 ** ("拾佰仟".index(character) + 1), 0
            elif character == "万":
                total, digit = (total + digit) * 10_000, 0
            elif character == "元":
                total, digit = total + digit, 0
            else:
                hundredths, digit = hundredths + digit * {"角": 10, "分": 1}[character], 0
        return total + hundredths / 100

    seed = next(seed for seed in seeds if seed.name == "amount_in_formal_numerals")
    for instance in seed.instances:
        assert value(instance.output) == float(instance.input.removesuffix("元"))
        assert instance.output.endswith("整") == ("分" not in instance.output)


def test_sums(outputs):
    equations = re.findall(
        r"([\d.（）＋－×÷]+)＝([\d.]+)",
        "\n".join(outputs["slow_and_fast_train_meet"] + outputs["find_the_error_in_percentages"]).replace(
            "（千米）", ""
        ),
    )
    assert len(equations) == 8
    for left, right in equations:
        tree = ast.parse(left.translate(str.maketrans("（）＋－×÷", "()+-*/")), mode="eval")
        assert eval(compile(tree, "sum", "eval"), {"__builtins__": {}}) == pytest.approx(float(right))
    rows = [line.strip("| ").split("|") for line in outputs["add_subtotals_to_shopping_list"][0].split("\n")[2:]]
    *items, total = [[cell.strip() for cell in row] for row in rows]
    assert all(float(price) * float(amount) == float(subtotal) for _, price, amount, subtotal in items)
    assert float(total[-1]) == sum(float(item[-1]) for item in items)


def test_exactly_one_child_tells_the_truth(outputs):
    guilty = [who for who in "甲乙丙" if [who == "乙", who != "乙", who != "丙"].count(True) == 1]
    assert guilty == ["丙"]
    assert "花瓶是丙打碎的" in outputs["who_broke_the_vase"][0]


def test_json_answer_copies_its_input(seeds):
    (instance,) = next(seed for seed in seeds if seed.name == "delivery_details_to_json").instances
    values = json.loads(instance.output)
    assert list(values) == ["name", "phone", "province", "city", "district", "detail"]
    assert all(value in instance.input for value in values.values())


def test_entities_stand_in_their_sentence(seeds):
    for instance in next(seed for seed in seeds if seed.name == "people_places_organisations").instances:
        kinds = [line.split("：") for line in instance.output.split("\n")]
        assert [kind for kind, _ in kinds] == ["人名", "地名", "机构名"]
        assert all(name == "无" or name in instance.input for _, names in kinds for name in names.split("、"))


def test_docstring_is_all_that_was_added(seeds):
    (instance,) = next(seed for seed in seeds if seed.name == "docstring_for_average").instances
    documented = ast.parse(instance.output).body[0]
    assert "ValueError" in (ast.get_docstring(documented) or "")
    assert re.sub(r'    """.*?"""\n', "", instance.output, flags=re.S) == instance.input


def test_query_finds_the_top_customers_of_the_year(outputs):
    (query,) = re.findall(r"```sql\n(.*?)```", outputs["top_three_customers_query"][0], re.S)
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, amount REAL, created_at TEXT)")
        database.executemany(
            "INSERT INTO orders (customer, amount, created_at) VALUES (?, ?, ?)",
            [
                ("a", 10, "2024-01-01 00:00:00"),
                ("a", 15, "2024-12-31 23:59:59"),
                ("b", 30, "2024-06-01 12:00:00"),
                ("b", 90, "2023-12-31 23:59:59"),
                ("c", 20, "2024-03-03 08:00:00"),
                ("d", 5, "2024-03-03 08:00:00"),
                ("d", 99, "2025-01-01 00:00:00"),
            ],
        )
        rows = database.execute(query).fetchall()
    database.close()
    assert rows == [("b", 1, 30), ("a", 2, 25), ("c", 1, 20)]
