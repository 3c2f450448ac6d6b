"""One rule of what is contaminated: asked of rows before training, and of items after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.contamination import contaminated, overlaps
from finetune.sources import ChatRow, InstructionRow, Row
from selfinstruct.contamination import HeldOut
from selfinstruct.records import Instance, TaskItem
from selfinstruct.tasks import read_tasks

QUESTION = "Which of these towns lies on the coast of the Black Sea, and which one lies inland: Varna or Sofia?"
ANSWER = "The old mill was sold to a baker from the next valley."
WORDING = "Put the words of the line below into the order of the alphabet, please."
TASKS = [
    {"id": "towns", "instruction": QUESTION, "input": "", "references": ["Varna"]},
    {"id": "again", "instruction": QUESTION, "input": "", "references": ["It is Varna"]},
    {"id": "mill", "instruction": "What became of it?", "input": "", "references": ["No one knows.", ANSWER]},
    {"id": "sort", "instruction": "Sort this.", "input": "pear fig plum", "references": ["fig pear plum"],
     "wordings": [WORDING]},
]  # fmt: skip


def chat(*texts: str) -> ChatRow:
    """A conversation, with a system message where the number of texts is odd."""
    roles = ["system"] * (len(texts) % 2) + ["user", "assistant"] * (len(texts) // 2)
    messages = ({"role": role, "content": text} for role, text in zip(roles, texts, strict=True))
    return ChatRow(tuple(messages), "x:9")  # type: ignore[arg-type]


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps({"task": "t", "cluster": "c", **task}) + "\n" for task in TASKS))
    return path


@pytest.mark.parametrize(
    ("row", "items", "detail"),
    [
        (InstructionRow("Say a word.", "", "Varna", "x:1"), [], ""),
        (InstructionRow(f"Quiz! {QUESTION}", "", "b", "x:1"), ["towns", "again"], "the instruction shares 13 tokens"),
        (InstructionRow("Tell me.", QUESTION, "b", "x:1"), ["towns", "again"], "the task shares 13 tokens"),
        (InstructionRow("What?", "", ANSWER.replace("baker", "cook"), "x:1"), ["mill"], "the answer has ROUGE-L 0.9"),
        (InstructionRow(WORDING, "pear fig plum", "x", "x:1"), ["sort"], "the instruction shares 13 tokens"),
        (InstructionRow("Sort this.", "pear fig lime", "x", "x:1"), ["sort"], "the task has ROUGE-L 0.8"),
        (chat("Hi", "Hello", "And then?", ANSWER), ["mill"], "the answer shares 12 tokens"),
        (chat(QUESTION, "Hi", "Hello"), ["towns", "again"], "the instruction shares 13 tokens"),
        (chat("Be kind.", "Hi", "Hello"), [], ""),
    ],
)
def test_rows_and_items_are_found_by_the_same_rule(held_out: Path, row: Row, items: list[str], detail: str) -> None:
    found = overlaps(read_tasks([held_out]), [InstructionRow("Hi", "", "Hello", "x:0"), row])
    assert [(overlap.item, overlap.row) for overlap in found] == [(item, row.place) for item in items]
    assert all(overlap.reason.startswith(detail) for overlap in found)
    before = contaminated([InstructionRow("Hi", "", "Hello", "x:0"), row], [held_out])
    assert list(before) == ([1] if items else [])
    if items:
        assert before[1].place == row.place
        assert before[1].detail.startswith(detail)
        assert before[1].detail.endswith(f"with item '{items[0]}' of {held_out}")


def test_nothing_held_out_is_in_no_row(tmp_path: Path) -> None:
    assert contaminated([InstructionRow(QUESTION, "", "b", "x:1")], []) == {}


def test_all_items_alike_are_found() -> None:
    """More than one search brings at first."""
    tasks = HeldOut()
    text = "one two three four five six seven {}"
    for number in range(9):
        tasks.add(TaskItem(str(number), "t", "c", text.format(number), "", ("x",)), str(number))
    tasks.add(TaskItem("other", "t", "c", "nothing of the kind at all, one two", "", ("x",)), "other")
    found = {common.item for common in tasks.common(text.format("eight"), [Instance("", "x")])}
    assert found == {str(number) for number in range(9)}
