"""Attributed prompts: even coverage, contradictions, the table's checks, what is asked and what is kept."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import anyio
import pytest
from pydantic import TypeAdapter

from selfinstruct.errors import InputError
from selfinstruct.files import read_toml, shipped, to_toml
from selfinstruct.records import Completion, Example, Instance
from selfinstruct.strategies import Slot
from selfinstruct.strategies.attributed import Attributed, drawn_round, read_table, table_key
from selfinstruct.strategies.union import AnyStrategy

LISTS = {
    "topic": "topics", "persona": "personas", "task_type": "task_types", "difficulty": "difficulties",
    "format": "formats", "length": "lengths",
}  # fmt: skip
SMALL = {
    "topics": ["tea", "trains", "maps of the sea"],
    "personas": ["a pilot", "a cook"],
    "task_types": {"explain": "to explain", "label": "to label"},
    "difficulties": {"easy": "easy"},
    "formats": {"word": "one word", "list": "a list"},
    "lengths": {"short": "short"},
}
SEEDS = [
    Example("seed-a", "Sum it up.", (Instance("A tale.", "Short."),), False),
    Example("seed-b", "Name a river.", (Instance("", "Ob"),), False),
]
REPLY = (
    " First?\n3. Input:\n<noinput>\n3. Output:\nOne.\n###\n4. Instruction: Second?\n4. Input:\nx\n4. Output:\nTwo.\n"
    "###\n5. Instruction: Third?\n5. Input:\ny\n5. Output:\nThree."
)


def slot_of(number=0, reply="", endpoint="chat", language="en", seed=1):
    asked = []

    async def ask(step, prompt):
        asked.append((step, prompt))
        return (reply if isinstance(reply, Completion) else Completion("p", "k", reply, "stop"),)

    return asked, Slot(
        number=number, rng=Random(f"{seed}/{number}"), run_rng=lambda purpose: Random(f"{seed}/{purpose}"), seeds=SEEDS,
        accepted=[], ask_all=ask, screen=lambda instruction: False, strategy="attributed", model="m",
        endpoint=endpoint, language=language, max_output_tokens=99,
    )  # fmt: skip


@pytest.fixture
def table(tmp_path):
    """Writes a table and gives its path."""

    def write(**changes):
        path = tmp_path / "table.toml"
        path.write_text(to_toml({**SMALL, **changes}), "utf-8")
        return path

    return write


def drawn(strategy, n_slots, first=0, **options):
    return [row for number in range(first, first + n_slots) for row in strategy.drawn(slot_of(number, **options)[1])]


def spread(rows, name, values):
    """(least, most) often that a value was drawn."""
    counts = Counter(row[name] for row in rows)
    assert set(counts) <= set(values)
    return min(counts[value] for value in values), max(counts[value] for value in values)


# -- the shipped table -----------------------------------------------------------------------------------------------


def test_shipped_table_is_as_large_as_promised():
    values = read_toml(shipped("attributes.toml"))
    least = {"topics": 60, "personas": 60, "task_types": 25, "difficulties": 5, "formats": 15, "lengths": 5}
    assert {name: len(values[name]) >= n for name, n in least.items()} == dict.fromkeys(least, True)
    phrases = [p for name in least for p in (values[name].values() if isinstance(values[name], dict) else values[name])]
    assert len(set(phrases)) == len(phrases)
    assert all(phrase == phrase.strip() and len(phrase) < 130 and phrase.isascii() for phrase in phrases)


@pytest.mark.parametrize("seed", [1, 2])
def test_coverage_is_even_whenever_a_round_is_over(seed):
    """99 topics are a round of 99 tasks; exchanges that resolve contradictions cost a value or two at most."""
    strategy = Attributed(tasks_per_request=9)
    path = shipped("attributes.toml")
    table = read_table(path, table_key(path))
    for n_rounds in (1, 4, 12):
        rows = drawn(strategy, 11 * n_rounds, seed=seed)
        for name in LISTS:
            least, most = spread(rows, name, table.values(name))
            assert most - least <= (1 if name in ("topic", "persona") else 3)
    assert len({tuple(row.values()) for row in rows}) == len(rows)


def test_nothing_drawn_contradicts_itself():
    path = shipped("attributes.toml")
    rules = read_toml(path)["never"]
    assert len(rules) >= 10
    for row in drawn(Attributed(), 500):
        assert not any(all(row[name] in values for name, values in rule.items()) for rule in rules)


# -- drawing ---------------------------------------------------------------------------------------------------------


def test_values_are_drawn_without_replacement_in_an_order_that_is_the_runs_own(table):
    strategy = Attributed(table=table(), tasks_per_request=2)
    rows = drawn(strategy, 30)
    for name, of_table in LISTS.items():
        n = len(SMALL[of_table])
        for start in range(0, 60, n):
            assert {row[name] for row in rows[start : start + n]} == set(SMALL[of_table])
    assert rows == drawn(strategy, 30)
    assert rows != drawn(strategy, 30, seed=2)
    assert rows[20:] == drawn(strategy, 20, first=10)  # a slot needs no other
    orders = {tuple(row["topic"] for row in rows[start : start + 3]) for start in range(0, 60, 3)}
    assert len(orders) > 3


def test_a_request_may_be_longer_than_a_round(table):
    longer = Attributed(table=table(), tasks_per_request=12)
    assert drawn(longer, 5) == drawn(Attributed(table=table(), tasks_per_request=3), 20)


def test_contradictions_change_places_and_only_then_values(table):
    rule = {"task_type": ["explain"], "format": ["word"]}
    path = table(never=[rule])
    for number in range(40):
        rows = drawn_round(path, table_key(path), 0.5, number)
        assert not any(row["task_type"] == "explain" and row["format"] == "word" for row in rows)
    even = table(topics=["a", "b", "c", "d"], never=[rule])
    rows = [row for n in range(40) for row in drawn_round(even, table_key(even), 0.5, n)]
    assert spread(rows, "task_type", ["explain", "label"]) == spread(rows, "format", ["word", "list"]) == (80, 80)


# -- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"topics": []}, "field 'topics': list should have at least 1 item"),
        ({"topics": ["tea", "tea"]}, "'tea' stands there twice"),
        ({"personas": [" "]}, "field 'personas.0'"),
        ({"personas": ["a\nb"]}, "field 'personas.0'"),
        ({"formats": ["a list"]}, "field 'formats'"),
        ({"lengths": None}, "field 'lengths': is missing"),
        ({"tone": ["warm"]}, "field 'tone': is not a known field"),
        ({"never": [{"format": ["word"]}]}, "each rule names two attributes or more"),
        ({"never": [{"format": ["verse"], "length": ["short"]}]}, "format 'verse' is not among the formats"),
        ({"never": [{"format": ["word"], "topic": ["tea"]}]}, "field 'never.0.topic"),
        ({"never": [{"format": ["word"], "length": ["short"]}]}, "leave no combination with format 'word'"),
    ],
)
def test_wrong_tables_are_refused_with_the_place(table, changes, told):
    path = table(**changes)
    with pytest.raises(InputError) as error:
        Attributed(table=path)
    assert str(path) in str(error.value)
    assert told in str(error.value)


def test_missing_table(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Attributed(table=tmp_path / "none.toml")


def test_a_changed_table_is_another_strategy(table):
    path = table()
    before = Attributed(table=path)
    assert TypeAdapter(AnyStrategy).validate_python(before.model_dump(mode="json")) == before
    assert Attributed(table=path) == before
    table(topics=["tea", "trains"])
    assert Attributed(table=path) != before
    assert TypeAdapter(AnyStrategy).validate_python(f"attributed:table={path}").table == path


# -- asking and reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_prompt_has_a_brief_for_each_task(endpoint):
    strategy = Attributed()
    _, slot = slot_of(7, endpoint=endpoint, language="fr")
    rows = strategy.drawn(slot)
    prompt = strategy.prompt(slot, SEEDS, rows)
    text = prompt.messages[0]["content"]
    phrases = read_toml(shipped("attributes.toml"))
    for number, row in enumerate(rows, start=3):
        brief = re.search(rf"Brief of task {number}\n((?:.+\n)+)", text)[1]
        for name, value in row.items():
            named = phrases[LISTS[name]]
            assert f": {named[value] if isinstance(named, dict) else value}\n" in brief
    assert "tasks 3 to 6" in text
    assert "Everything is in French." in text
    assert text.endswith("###\n3. Instruction:")
    assert "1. Instruction: Sum it up.\n1. Input:\nA tale.\n1. Output:\nShort.\n###\n2. Instruction: Name" in text
    assert prompt.demonstrations == ("seed-a", "seed-b")
    assert not re.search(r"[{}]", text)


def test_tasks_keep_what_was_drawn_for_them():
    strategy = Attributed(tasks_per_request=2)
    asked, slot = slot_of(3, REPLY)
    candidates = anyio.run(strategy.propose, slot)
    assert [step for step, _ in asked] == ["list"]
    assert [c.instruction for c in candidates] == ["First?", "Second?", "Third?"]
    assert candidates[1].instances == (Instance("x", "Two."),)
    rows = strategy.drawn(slot)
    assert [c.source.attributes for c in candidates] == [*rows, {}]
    assert [c.rejection and c.rejection.rule for c in candidates] == [None, None, "surplus"]
    assert set(candidates[0].source.demonstrations) == {"seed-a", "seed-b"}


def numbered(*numbers):
    """A reply with a block for each number; one for None goes on where the prompt ended."""
    return "###\n".join(
        f" Q{n}?\n" if number is None else f"{number}. Instruction: Q{n}?\n{number}. Output:\nA\n"
        for n, number in enumerate(numbers)
    )


@pytest.mark.parametrize(
    ("numbers", "briefs"),
    [
        ((3, 4, 5, 6), (0, 1, 2, 3)),
        ((3, 5), (0, 2)),  # one is left out
        ((4, 6), (1, 3)),
        ((6,), (3,)),
        ((1, 2, 3), (0, 1, 2)),  # counted anew
        ((1, 3), (0, 2)),
        ((None, 5), (0, 2)),
        ((None, 4, 3), (0, 1, 2)),
        ((None, 2, 3), (0, 1, 2)),
        ((3, 3, 3), (0, 1, 2)),  # as markdown allows
        ((3, 5, 4), (0, 1, 2)),
        ((3, 5, 5), (0, 1, 2)),
        ((2, 3), (0, 1)),
        ((7, 8), (0, 1)),
        ((3, 12), (0, 1)),
        ((3, 4, 5, 6, 7), (0, 1, 2, 3, None)),
        ((1, 2, 3, 4, 5), (0, 1, 2, 3, None)),
    ],
)
def test_a_task_goes_with_the_brief_whose_number_it_has_unless_the_numbers_make_no_sense(numbers, briefs):
    strategy = Attributed(tasks_per_request=4)
    _, slot = slot_of(3, numbered(*numbers))
    candidates = anyio.run(strategy.propose, slot)
    rows = strategy.drawn(slot)
    assert [c.instruction for c in candidates] == [f"Q{n}?" for n in range(len(numbers))]
    assert [c.source.attributes for c in candidates] == [{} if n is None else rows[n] for n in briefs]
    assert [c.rejection and c.rejection.rule for c in candidates] == [
        None if n is not None else "surplus" for n in briefs
    ]
    assert len({c.id for c in candidates}) == len(candidates)


def test_reply_without_a_task_is_one_rejected_row_and_a_cut_one_loses_its_last():
    strategy = Attributed(tasks_per_request=3)
    (none,) = anyio.run(strategy.propose, slot_of(0, " ")[1])
    assert none.rejection.rule == "unparsable"
    cut = anyio.run(strategy.propose, slot_of(0, Completion("p", "k", REPLY, "length"))[1])
    assert [c.rejection and c.rejection.rule for c in cut] == [None, None, "truncated"]


def test_step_is_the_request():
    asked, slot = slot_of(0, REPLY)
    anyio.run(Attributed().propose, slot)
    (step,) = Attributed().steps(slot_of()[1])
    assert not step.per_task
    assert 0.8 < len(step.prompt.messages[0]["content"]) / len(asked[0][1].messages[0]["content"]) < 1.25
