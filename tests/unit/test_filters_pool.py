"""Filters that look beyond the candidate: at the pool, and at held-out tasks."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from selfinstruct.errors import InputError
from selfinstruct.files import shipped
from selfinstruct.filters import Case
from selfinstruct.filters.contamination import Contamination
from selfinstruct.filters.duplicate import Duplicate
from selfinstruct.filters.novelty import Novelty
from selfinstruct.filters.union import AnyFilter
from selfinstruct.records import Candidate, Instance, Neighbour
from selfinstruct.seeds import read_seeds
from selfinstruct.tasks import read_tasks
from tests.judging import SOURCE, case_of

QUESTION = "Which of these towns lies on the coast of the Black Sea, and which one lies inland: Varna or Sofia?"
ANSWER = "Varna lies on the coast, while Sofia, the capital, lies inland at the foot of Mount Vitosha."


def held_out(path: Path, *rows: tuple[str, str, str]) -> Path:
    """A file with tasks of (instruction, input, reference)."""
    keys = ("instruction", "input", "references")
    lines = [
        json.dumps({"task": "t", "cluster": "c", **dict(zip(keys, (*row[:2], [row[2]]), strict=True))}) for row in rows
    ]
    path.write_text("\n".join(lines), "utf-8")
    return path


def detail(one: Contamination, instruction: str, input: str = "", output: str = "Yes.") -> str | None:
    verdict = one.judge(case_of(instruction, (Instance(input, output),)))
    assert verdict is None or verdict.rule == "contamination"
    return verdict.detail if verdict else None


# -- the pool ----------------------------------------------------------------------------------------------------------


def case_in_pool(*instances: Instance) -> Case:
    """A task whose instruction the pool has, with another input."""
    candidate = Candidate("x", "Sort the list.", instances, False, SOURCE)
    nearest = {"instruction": (Neighbour("same", 1.0),), "task": (Neighbour("other", 0.4),)}
    return Case(candidate, "en", lambda over: nearest[over], lambda over: "same" if over == "instruction" else None)


def test_novelty_over_tasks_waits_for_the_input():
    case = case_in_pool
    over_task, over_instruction = Novelty(over="task"), Novelty()
    assert over_task.judge(case()) is None
    assert over_task.judge(case(Instance("3, 1", "1, 3"))) is None
    verdict = over_instruction.judge(case())
    assert verdict is not None
    assert verdict.detail == "ROUGE-L 1.000 to same"
    verdict = Novelty(over="task", threshold=0.3).judge(case(Instance("3, 1", "1, 3")))
    assert verdict is not None
    assert verdict.detail == "ROUGE-L 0.400 to other"


def test_duplicate_over_tasks_waits_for_the_input():
    with_input = case_in_pool(Instance("3, 1", "1, 3"))
    for case in (case_in_pool(), with_input):
        verdict = Duplicate().judge(case)
        assert verdict is not None
        assert (verdict.rule, verdict.detail) == ("duplicate", "same as same")
        assert Duplicate(over="task").judge(case) is None
    repeated = Case(with_input.candidate, "en", with_input.find_nearest, lambda over: over)
    verdict = Duplicate(over="task").judge(repeated)
    assert verdict is not None
    assert (verdict.detail, verdict.nearest) == ("same as task", (Neighbour("other", 0.4),))


# -- held-out tasks ----------------------------------------------------------------------------------------------------


def test_shared_tokens_anywhere_are_found(tmp_path):
    path = held_out(tmp_path / "towns.jsonl", (QUESTION, "", ANSWER))
    one = Contamination(tasks=path)
    place = f"item 'towns/1' of {path}"
    assert detail(one, f"Quiz: {QUESTION}") == f"the instruction shares 13 tokens in a row with {place}"
    assert detail(one, "Answer the question.", f"please: {QUESTION.upper()}") is not None
    assert detail(one, "Write on Bulgaria.", "", ANSWER) == f"the answer shares 13 tokens in a row with {place}"
    assert detail(one, "Name a town on the coast of the Black Sea.") is None
    words = QUESTION.replace(",", "").replace(":", "").split()
    assert detail(one, "Say: " + " ".join(words[:13])) is not None
    assert detail(one, "Discuss this at some length for us now: " + " ".join(words[:12])) is None


def test_instruction_alone_is_enough_where_it_shares_tokens_but_not_where_it_resembles(tmp_path):
    one = Contamination(tasks=held_out(tmp_path / "towns.jsonl", (QUESTION, "", "Varna"), ("Sort the words.", "", "a")))
    assert one.judge(case_of(QUESTION)) is not None
    assert one.judge(case_of("Sort the words.")) is None  # its input may make another task of it
    assert detail(one, "Sort the words.") is not None
    assert detail(one, "Sort the words.", "pear, apple, fig") is None


def test_short_answers_are_anyones_and_middling_ones_count_whole(tmp_path):
    middling = "They met in Oslo, then sailed on to Bergen."
    rows = (("Is it so, after all that?", "", "Yes."), ("Where did they go, in the end?", "", middling))
    one = Contamination(tasks=held_out(tmp_path / "a.jsonl", *rows))
    assert detail(one, "Tell me something new.", "", "Yes.") is None
    assert "shares 9 tokens in a row" in (detail(one, "Tell me of a journey.", "", f"Well: {middling}") or "")
    assert detail(one, "Tell me of a journey.", "", "They met in Oslo, but went on by train.") is None


def test_answers_resemble_references_but_short_ones_do_not(tmp_path):
    middling = "They met in Oslo, then sailed on to Bergen."
    path = held_out(tmp_path / "a.jsonl", ("Where did they go?", "", middling), ("Where is it?", "", "It is in Rome"))
    one = Contamination(tasks=path)
    found = detail(one, "Tell me of a journey.", "", "They met in Oslo, then sailed on to Rome.")
    assert found == f"the answer has ROUGE-L 0.889 with item 'a/1' of {path}"
    assert detail(one, "Tell me of a place.", "", "It is in Rome") is None


def test_resemblance_is_of_instruction_and_input_and_strict(tmp_path):
    path = held_out(tmp_path / "a.jsonl", ("Sort these.", "red green blue white black", "ok"))
    assert detail(Contamination(tasks=path), "Sort these.", "red green blue white pink") is not None  # 6 of 7 tokens
    assert detail(Contamination(tasks=path, threshold=0.9), "Sort these.", "red green blue white pink") is None
    assert detail(Contamination(tasks=path), "Sort these.", "pig cow hen cat dog") is None
    text = detail(Contamination(tasks=path), "Sort these.", "red green blue white pink")
    assert text == f"the task has ROUGE-L 0.857 with item 'a/1' of {path}"


def test_other_scripts_and_a_folder(tmp_path):
    held_out(tmp_path / "a.jsonl", ("请把下面的句子翻译成英文。", "今天天气很好。", "ok"))
    held_out(tmp_path / "b.jsonl", (QUESTION, "", ANSWER))
    (tmp_path / "notes.txt").write_text("not a task")
    one = Contamination(tasks=tmp_path)
    assert "'b/1'" in (detail(one, QUESTION) or "")
    assert "'a/1'" in (detail(one, "请把下面的句子翻译成英文。", "今天天气很好。") or "")


def test_a_changed_file_is_another_filter(tmp_path):
    path = held_out(tmp_path / "a.jsonl", (QUESTION, "", ANSWER))
    before = Contamination(tasks=path)
    assert Contamination(tasks=path) == before
    dumped = before.model_dump(mode="json")
    held_out(path, (QUESTION, "", "Varna"))
    adapter: TypeAdapter[AnyFilter] = TypeAdapter(AnyFilter)
    assert adapter.validate_python(dumped) == before  # as a run's file has it
    now = adapter.validate_python(f"contamination:tasks={path}")
    assert now != before
    assert str(now) != str(before)
    with pytest.raises(InputError, match="has changed"):
        adapter.validate_python({**dumped, "ngram": 12}).judge(case_of(QUESTION))


@pytest.mark.parametrize("content", [None, "", "{}", "no json"])
def test_held_out_tasks_that_cannot_be_read_are_refused_at_once(tmp_path, content):
    path = tmp_path / "a.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"a\.jsonl"):
        Contamination(tasks=path)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no item found"):
        Contamination(tasks=tmp_path)


def test_shipped_seeds_and_held_out_tasks_share_nothing():
    one = Contamination(tasks=shipped("heldout"))
    for seed in read_seeds(shipped("seed_tasks.jsonl")):
        assert one.judge(case_of(seed.instruction, seed.instances)) is None, seed.id
    item = read_tasks([shipped("heldout")])[0]
    assert detail(one, item.instruction, item.input) is not None


def test_many_candidates_take_seconds():
    one = Contamination(tasks=shipped("heldout"))
    seeds = read_seeds(shipped("seed_tasks.jsonl"))
    before = time.perf_counter()
    for number in range(1000):
        one.judge(case_of(seeds[number % len(seeds)].instruction, seeds[number % len(seeds)].instances))
    assert time.perf_counter() - before < 10
