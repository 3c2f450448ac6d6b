"""The shipped data: every row, by the rules that its datasheet states."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

from finetune.metrics import exact_match
from selfinstruct.files import read_jsonl, shipped
from selfinstruct.novelty import NoveltyIndex, tokenize
from selfinstruct.records import Example, TaskItem
from selfinstruct.seeds import read_seeds
from selfinstruct.tasks import read_tasks
from tests.judging import judge_example

ROUGE = RougeScorer(["rougeL"], use_stemmer=False)
DATASHEET = shipped("DATASHEET.md").read_text(encoding="utf-8")


def rouge_l(one: str, other: str) -> float:
    return float(ROUGE.score(one, other)["rougeL"].fmeasure)


@pytest.fixture(scope="module")
def seeds() -> list[Example]:
    return read_seeds(shipped("seed_tasks.jsonl"))


@pytest.fixture(scope="module")
def items() -> list[TaskItem]:
    return read_tasks([shipped("heldout")])


@pytest.fixture(scope="module")
def validation() -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(shipped("validation.jsonl"))]


def kind(seed: Example) -> str:
    return seed.id.rpartition("-")[0]


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def by(key: Any, values: Iterable[Any]) -> dict[Any, list[Any]]:
    groups = defaultdict(list)
    for value in values:
        groups[key(value)].append(value)
    return groups


def is_balanced(counts: Iterable[int]) -> bool:
    """As even as the number of items allows."""
    counts = list(counts)
    return max(counts) - min(counts) <= 1


# -- all files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["seed_tasks.jsonl", "validation.jsonl", "heldout"])
def test_texts_are_clean(name):
    path = shipped(name)
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        assert file.read_bytes().endswith(b"}\n")
        for line, row in read_jsonl(file):
            for text in strings(row):
                place = f"{file.name}:{line}: {text[:80]!r}"
                assert text == text.strip(), place
                assert text == unicodedata.normalize("NFC", text), place
                assert not re.search(r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\ufffd]", text), place
                assert not re.search(r"[\w.]+@(?!(\w+\.)*example\b)[\w.]+\.\w+|https?://(?!(\w+\.)*example\b)", text), (
                    place
                )


# -- seeds -------------------------------------------------------------------------------------------------------------


def test_seeds_have_exactly_the_five_fields(seeds):
    rows = [row for _, row in read_jsonl(shipped("seed_tasks.jsonl"))]
    assert len(rows) == len(seeds) == 175
    assert {tuple(row) for row in rows} == {("id", "name", "instruction", "instances", "is_classification")}
    assert {tuple(instance) for row in rows for instance in row["instances"]} == {("input", "output")}


def test_seeds_are_named_once(seeds):
    assert len({seed.name for seed in seeds}) == len({seed.instruction.lower() for seed in seeds}) == len(seeds)
    for name, group in by(kind, seeds).items():
        assert [seed.id for seed in group] == [f"{name}-{number:02}" for number in range(1, len(group) + 1)]
        assert len({seed.is_classification for seed in group}) == 1
    assert all(re.fullmatch(r"[a-z0-9_]+", seed.name) for seed in seeds)


def test_seeds_are_of_many_kinds(seeds):
    kinds = by(kind, seeds)
    assert len(kinds) >= 15
    assert max(map(len, kinds.values())) <= 10


def test_about_half_of_the_seeds_have_an_input(seeds):
    assert 0.4 < sum(any(instance.input for instance in seed.instances) for seed in seeds) / len(seeds) < 0.6
    for seed in seeds:  # all instances or none
        assert len({bool(instance.input) for instance in seed.instances}) == 1, seed.id


def test_classification_seeds_have_every_label_equally_often(seeds):
    tasks = [seed for seed in seeds if seed.is_classification]
    assert len(tasks) >= 40
    for seed in tasks:
        labels = Counter(instance.output for instance in seed.instances)
        assert len(labels) >= 2, seed.id
        assert len(set(labels.values())) == 1, (seed.id, labels)
        assert all(label.lower() in seed.instruction.lower() for label in labels), (seed.id, labels)
    # The majority label of a task is not always the one that is named first.
    first = Counter(seed.instances[0].output.lower() for seed in tasks)
    assert max(first.values()) <= len(tasks) / 5, first


def test_instances_of_a_seed_differ(seeds):
    for seed in seeds:
        assert len({instance.input for instance in seed.instances}) == len(seed.instances), seed.id


def test_seeds_are_neither_short_nor_long(seeds):
    for seed in seeds:
        assert 5 <= len(seed.instruction.split()) <= 60, seed.id
        for instance in seed.instances:
            assert len(instance.input.split()) <= 150, seed.id
            assert len(instance.output.split()) <= 220, seed.id


def test_seeds_open_in_many_ways(seeds):
    openings = Counter(" ".join(seed.instruction.lower().split()[:2]) for seed in seeds)
    assert max(openings.values()) <= 6, openings.most_common(3)


def test_our_own_filters_accept_every_seed(seeds):
    for seed in seeds:
        assert judge_example(seed, "en") is None, seed.id


def test_no_two_seeds_resemble_each_other(seeds):
    most = max((rouge_l(a.instruction, b.instruction), a.id, b.id) for a, b in combinations(seeds, 2))
    assert most[0] <= 0.5, most
    assert "between two seed instructions is 0.30" in DATASHEET
    assert most[0] < 0.305


# -- held-out tasks ----------------------------------------------------------------------------------------------------


def test_clusters_are_files_with_enough_items_and_tasks(items):
    clusters = by(lambda item: item.cluster, items)
    assert len(clusters) >= 13
    assert set(clusters) == {file.name.removesuffix(".jsonl") for file in shipped("heldout").iterdir()}
    for cluster, group in clusters.items():
        assert len(group) >= 44, cluster
        assert len({item.task for item in group}) >= 3, cluster
        assert [item.id for item in group] == [f"{cluster}-{number:03}" for number in range(1, len(group) + 1)]


def test_items_of_a_task_share_instruction_and_metric_and_differ_in_input(items):
    for task, group in by(lambda item: item.task, items).items():
        assert len({(item.cluster, item.instruction, item.metric) for item in group}) == 1, task
    assert len({item.instruction for item in items}) == len({item.task for item in items})
    assert len({" ".join(item.input.lower().split()) for item in items}) == len(items)


def test_right_options_are_balanced(items):
    ranked = [item for item in items if item.options]
    assert len(ranked) > len(items) / 2
    for task, group in by(lambda item: item.task, ranked).items():
        assert all(len(item.references) == 1 for item in group)
        if len({frozenset(item.options) for item in group}) == 1:  # the same labels everywhere
            counts = Counter(item.references[0] for item in group)
            assert set(counts) == set(group[0].options), task
        else:  # options of their own
            counts = Counter(item.options.index(item.references[0]) for item in group)
            assert set(counts) == set(range(len(group[0].options))), task
        assert is_balanced(counts.values()), (task, counts)


def test_options_cannot_be_told_apart_by_their_length(items):
    """Always taking the longest option, or the shortest, is no better than a fair share of right answers."""
    for task, group in by(lambda item: item.task, [item for item in items if item.options]).items():
        if len({item.options for item in group}) == 1:
            continue
        for pick in (max, min):
            right = sum(pick(item.options, key=len) == item.references[0] for item in group)
            assert right <= 0.6 * len(group), (task, pick)


def test_generated_answers_can_be_scored(items):
    for item in (item for item in items if not item.options):
        assert item.metric in ("exact_match", "rouge_l")
        assert len(set(item.references)) == len(item.references), item.id
        for reference in item.references:
            if item.metric == "exact_match":
                assert len(reference.split()) <= 5, item.id
                assert exact_match(reference, (reference,)) == 1.0
                assert exact_match("", (reference,)) == 0.0, item.id  # something is left when it is normalised
            else:
                assert tokenize(reference, "rouge"), item.id


# -- validation rows ---------------------------------------------------------------------------------------------------


def test_validation_rows(validation):
    assert len(validation) == 32
    assert {tuple(row) for row in validation} == {("instruction", "input", "output")}
    assert all(isinstance(value, str) for row in validation for value in row.values())
    assert all(row["instruction"] and row["output"] for row in validation)
    assert len({(row["instruction"], row["input"]) for row in validation}) == 32
    assert 0.4 < sum(bool(row["input"]) for row in validation) / 32 < 0.6


# -- apart from each other ---------------------------------------------------------------------------------------------


def nearest(texts: dict[str, str], others: dict[str, str]) -> tuple[float, str, str]:
    """The most alike pair: found with the index, scored by rouge_score itself."""
    index = NoveltyIndex("rouge")
    index.add(*others.values())
    ids = list(others)
    found = ((best.score, id, ids[best.position]) for id, text in texts.items() for best in index.nearest(text))
    _, id, other = max(found)
    return rouge_l(texts[id], others[other]), id, other


def asked(items: list[TaskItem]) -> dict[str, str]:
    return {item.id: f"{item.instruction} {item.input}" for item in items}


def seeds_asked(seeds: list[Example]) -> dict[str, str]:
    return {f"{seed.id}/{n}": f"{seed.instruction} {i.input}" for seed in seeds for n, i in enumerate(seed.instances)}


def validation_asked(validation: list[dict[str, Any]]) -> dict[str, str]:
    return {str(n): f"{row['instruction']} {row['input']}" for n, row in enumerate(validation)}


def test_nothing_that_is_asked_stands_in_another_file(seeds, items, validation):
    instructions = {str(n): row["instruction"] for n, row in enumerate(validation)}
    most = nearest(instructions, {seed.id: seed.instruction for seed in seeds})
    assert most[0] <= 0.4, most
    for texts, others in [
        (asked(items), seeds_asked(seeds)),
        (asked(items), validation_asked(validation)),
        (validation_asked(validation), seeds_asked(seeds)),
        ({item.task: item.instruction for item in items}, {seed.id: seed.instruction for seed in seeds}),
        ({item.task: item.instruction for item in items}, instructions),
    ]:
        most = nearest(texts, others)
        assert most[0] <= 0.4, most


def runs(texts: Iterable[str], n: int = 8) -> set[tuple[str, ...]]:
    return {
        tuple(tokens[start : start + n])
        for tokens in (tokenize(text, "rouge") for text in texts)
        for start in range(len(tokens) - n + 1)
    }


def test_no_run_of_eight_words_is_shared():
    texts = {
        name: [text for file in files for _, row in read_jsonl(file) for text in strings(row)]
        for name, files in {
            "seeds": [shipped("seed_tasks.jsonl")],
            "validation": [shipped("validation.jsonl")],
            "heldout": sorted(shipped("heldout").iterdir()),
        }.items()
    }
    found = {name: runs(values) for name, values in texts.items()}
    assert all(len(values) > 500 for values in found.values())
    for one, other in combinations(found.values(), 2):
        assert not one & other


# -- the datasheet -----------------------------------------------------------------------------------------------------


def test_datasheet_counts_what_is_there(seeds, items):
    for name, group in by(kind, seeds).items():
        n_classification = sum(seed.is_classification for seed in group)
        n_input = sum(bool(seed.instances[0].input) for seed in group)
        n_instances = sum(len(seed.instances) for seed in group)
        assert f"\n| {name} | {len(group)} | {n_classification} | {n_input} | {n_instances} |\n" in DATASHEET
    for task, group in by(lambda item: item.task, items).items():
        assert f"\n| {group[0].cluster} | {task} | {len(group)} | {group[0].metric} | " in DATASHEET
    assert f"`heldout/`: {len(items)} evaluation items" in DATASHEET
