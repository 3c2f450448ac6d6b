"""How much of a varied corpus of replies is read back, by the mended parsers and by the originals'."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from selfinstruct.parsing import labelled_instances, numbered_items, task_blocks, worked_instances
from selfinstruct.records import Completion
from selfinstruct.strategies import faithful_alpaca, faithful_self_instruct
from selfinstruct.strategies.alpaca import Alpaca
from tests.proposing import slot
from tests.replies import make

SLOT = slot(lambda step, prompt: "")
PROMPT = Alpaca().list_prompt(SLOT, SLOT.seeds[:3])


def of_blocks(blocks):
    return [(block.instruction, case.input, case.output) for block in blocks for case in block.instances]


def of_instances(instances):
    return [(instance.input, instance.output) for instance in instances]


def completion(text):
    return Completion("p", "c", text, "stop")


def faithful_list(text):
    candidates = faithful_alpaca.candidates(SLOT, PROMPT, completion(text))
    return of_blocks(candidate for candidate in candidates if candidate.rejection is None)


def faithful_items(text):
    return [instruction for instruction, _ in faithful_self_instruct.listed(SLOT, completion(text))]


# By kind: the mended parser, the original's, and the label that a continued reply goes on after.
PARSERS = {
    "list": (lambda text: of_blocks(task_blocks(text)), faithful_list, ""),
    "items": (numbered_items, faithful_items, ""),
    "worked": (
        lambda text: of_instances(worked_instances(text)),
        lambda text: of_instances(faithful_self_instruct.originals.generation_instances(text)),
        "Input:",
    ),
    "labelled": (
        lambda text: of_instances(labelled_instances(text)),
        lambda text: of_instances(faithful_self_instruct.originals.classification_instances(text)),
        "Class label:",
    ),
}


def rows(name):
    return [json.loads(line) for line in make.path(name).read_text("utf-8").splitlines()]


def expected(row):
    tasks = [task if isinstance(task, str) else tuple(task) for task in row["tasks"]]
    return [(" ".join(task[0].split()), *task[1:]) if row["kind"] == "list" else task for task in tasks]


def counts(name, kind):
    """Tasks there are, those that each parser finds, and those that the mended one finds where there are none."""
    n = n_mended = n_faithful = n_wrong = 0
    for row in rows(name):
        if row["kind"] != kind:
            continue
        mended, faithful, lead = PARSERS[kind]
        text = f"{lead}{row['text']}" if "continued" in row["shape"] else row["text"]
        right, found = Counter(expected(row)), Counter(mended(text))
        n += right.total()
        n_mended += (right & found).total()
        n_wrong += (found - right).total()
        n_faithful += (right & Counter(faithful(text))).total()
    return n, n_mended, n_faithful, n_wrong


def test_corpus_is_what_its_script_writes():
    for name, written in make.corpus().items():
        assert make.path(name).read_text("utf-8") == make.dumped(written), "run python -m tests.replies.make"


def test_corpus_is_varied():
    n_replies = sum(len(rows(name)) for name in make.corpus())
    n_shapes = len(make.LIST_SHAPES) + len(make.ITEM_SHAPES) + len(make.CASE_SHAPES) + len(make.LABELLED_SHAPES)
    assert n_replies >= 300
    assert n_shapes >= 100


@pytest.mark.parametrize(
    ("name", "kind", "faithful_range"),
    [
        ("lists", "list", (0.10, 0.20)),
        ("items", "items", (0.08, 0.20)),
        ("instances", "worked", (0.15, 0.30)),
        ("instances", "labelled", (0.05, 0.15)),
    ],
)
def test_yield(name, kind, faithful_range):
    n, n_mended, n_faithful, n_wrong = counts(name, kind)
    print(f"{kind}: {n} tasks; mended {n_mended / n:.1%}, faithful {n_faithful / n:.1%}; {n_wrong} that are none")
    assert n_mended >= 0.99 * n
    assert n_wrong <= 0.01 * n
    low, high = faithful_range
    assert low <= n_faithful / n <= high
