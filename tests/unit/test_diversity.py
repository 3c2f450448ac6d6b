"""Diversity: every figure by hand on a few texts, equal amounts for sets of any size, and the table."""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import asdict
from random import Random

import pytest

from selfinstruct.diversity import (
    MAX_SAMPLES,
    MAX_TASKS,
    Compared,
    Lengths,
    describe_diversity,
    diversity,
)
from selfinstruct.records import Example, Instance, Neighbour, Source
from tests.rouge import rouge_score

SOURCE = Source("self_instruct", "model", 0, "prompt", "completion")


def task(instruction: str, *instances: tuple[str, str], score: float | None = None, source: Source | None = None):
    nearest = () if score is None else (Neighbour("other", score), Neighbour("further", 0.01))
    cases = tuple(Instance(*instance) for instance in instances or [("", "Fine.")])
    return Example(f"id of {instruction}", instruction, cases, False, source=source, nearest=nearest)


def tasks(*instructions: str) -> list[Example]:
    return [task(instruction) for instruction in instructions]


def random_text(rng: Random, n: int) -> str:
    return " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 8))) for _ in range(n))


def test_lengths_and_counts():
    texts = [" ".join(["word"] * n) for n in range(1, 12)]
    examples = [task(text, ("", "a b"), ("x y z", "a, b; c d")) for text in texts]
    found = diversity(examples, examples[:1], "rouge").dataset
    assert (found.n_tasks, found.n_instances, found.n_measured) == (11, 22, 11)
    assert found.instruction == Lengths(n=11, mean=6, median=6, p10=2, p90=10)
    assert found.input == Lengths(n=11, mean=3, median=3, p10=3, p90=3)
    assert found.output == Lengths(n=22, mean=3, median=3, p10=2, p90=4)
    assert found.without_input == 0.5


def test_characters_count_where_words_are_not_separated():
    found = diversity(tasks("请把下面的句子翻译成英文。", "Python 3で書く"), [], "unicode").dataset
    assert found.instruction == Lengths(n=2, mean=8.5, median=8.5, p10=pytest.approx(5.7), p90=pytest.approx(11.3))
    assert diversity(tasks("请把下面的句子翻译成英文。"), [], "rouge").dataset.instruction == Lengths(1, 0, 0, 0, 0)


def test_compression_ratio_is_that_of_zlib():
    text = "Write a poem about the sea. " * 20
    found = diversity(tasks(text), [], "rouge").instructions.compression_ratio
    assert found == Compared(len(text) / len(zlib.compress(text.encode(), 9)), None, len(text))


def test_compression_ratio_takes_equal_amounts_of_bytes():
    rng = Random(0)
    vocabulary = random_text(rng, 300).split()
    texts = [" ".join(rng.choices(vocabulary, k=12)) for _ in range(930)]
    seeds, many = tasks(*texts[:30]), tasks(*texts[30:])
    found = diversity(many, seeds, "rouge").instructions.compression_ratio
    assert found.size == len("\n".join(seed.instruction for seed in seeds))
    assert found.dataset == pytest.approx(found.seeds, rel=0.02)  # 900 of a kind are as varied as 30
    whole = diversity(many, [], "rouge").instructions.compression_ratio
    assert whole.dataset > found.dataset * 1.1  # though a longer text compresses better


def test_self_repetition_is_the_share_of_texts_with_a_4_gram_of_another():
    texts = [
        "please write a short poem about rain",
        "now write a short poem, dear friend",
        "one two one two one two one two",  # repeats itself, not another
        "list five rivers in southern France",
        "three words only",  # has no 4-gram
    ]
    found = diversity(tasks(*texts), [], "rouge").instructions.self_repetition
    assert found == Compared(0.5, None, 4)


def test_distinct_words_pairs_and_openings():
    found = diversity(tasks("List a and a", "list b", "Name b"), [], "rouge")
    assert found.instructions.distinct_1 == Compared(5 / 8, None, 8)
    assert found.instructions.distinct_2 == Compared(5 / 5, None, 5)  # none across texts
    assert found.openings == Compared(2 / 3, None, 3)
    # Two samples of two instructions each, since there are two seeds.
    assert diversity(tasks("a x", "a y", "a z", "a q"), tasks("a b", "c d"), "rouge").openings == Compared(0.5, 1, 2)


def test_outputs_are_measured_as_instructions_are():
    same = [task(f"task {i}", ("", "the very same answer again")) for i in range(6)]
    found = diversity(same, same[:3], "rouge").outputs
    assert found.self_repetition == Compared(1, 1, 3)
    assert found.distinct_1 == Compared(5 / 15, 5 / 15, 15)


def test_recorded_scores_fall_into_bins():
    scores = [0, 0.05, 0.1, 0.3, 0.69, 0.7, 0.7000000000000001, 0.95, 1]
    examples = [task(f"task {i}", score=score) for i, score in enumerate(scores)]
    examples.append(task("shares no word with any", source=SOURCE))
    examples.append(task("written by hand, so never compared"))
    found = diversity(examples, [], "rouge").dataset.nearest
    assert found.n == 10
    assert found.mean == pytest.approx(sum(scores) / 10)
    assert found.histogram == (3, 1, 0, 1, 0, 0, 1, 2, 0, 2)


def test_seeds_are_compared_with_all_others():
    rng = Random(1)
    texts = [" ".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(40)]
    texts += [texts[0], "alone"]
    found = diversity([], tasks(*texts), "rouge").seeds.nearest
    best = [max(rouge_score(one, other) for j, other in enumerate(texts) if j != i) for i, one in enumerate(texts)]
    assert found.n == 42
    assert found.mean == pytest.approx(sum(best) / 42)
    assert list(found.histogram) == [sum(min(int(score * 10), 9) == i for score in best) for i in range(10)]
    assert found.histogram[0] >= 1
    assert found.histogram[9] >= 2


def test_nothing_gives_no_figures():
    found = diversity([], [], "rouge")
    for contents in (found.dataset, found.seeds):
        assert (contents.n_tasks, contents.n_measured, contents.n_instances) == (0, 0, 0)
        assert contents.without_input is contents.instruction is contents.output is contents.nearest is None
    for figure in (found.instructions.compression_ratio, found.outputs.self_repetition, found.openings):
        assert figure == Compared(None, None, 0)
    assert "data set" in describe_diversity(found)


@pytest.mark.parametrize("text", ["", " ", "?!", "\N{FIRE}", "\ud800"])
def test_one_example_without_a_word(text):
    found = diversity([task(text, (text, text))], tasks("List three rivers of France."), "unicode")
    assert found.dataset.instruction == Lengths(1, 0, 0, 0, 0)
    assert found.dataset.without_input == (0.0 if text.strip() else 1.0)
    assert found.instructions.distinct_1 == Compared(None, 1, 5)
    assert found.instructions.self_repetition == Compared(None, 0, 1)
    assert found.openings == Compared(None, 1, 1)
    assert (found.instructions.compression_ratio.dataset is None) == (text == "")
    describe_diversity(found)


def test_one_seed_has_no_other():
    assert diversity(tasks("one"), tasks("other"), "rouge").seeds.nearest is None


def test_an_example_may_lack_instances():
    found = diversity([Example("id", "Do it.", (), False)], [], "rouge")
    assert (found.dataset.n_instances, found.dataset.output, found.dataset.without_input) == (0, None, None)


def test_figures_are_json():
    found = diversity(tasks("List a and b", "Name c"), tasks("Do d"), "unicode")
    values = json.loads(json.dumps(asdict(found)))
    assert values["tokenizer"] == "unicode"
    assert values["instructions"]["distinct_1"]["size"] == 2
    assert values["seeds"]["nearest"] is None


def test_large_sets_are_sampled_the_same_way_every_time_and_quickly():
    rng = Random(2)
    vocabulary = random_text(rng, 5000).split()

    def text(n: int) -> str:
        return " ".join(rng.choices(vocabulary, k=n))

    outputs = [text(60) for _ in range(1_000)]
    examples = [task(text(15), ("", rng.choice(outputs)), score=rng.random()) for _ in range(50_000)]
    seeds = [task(text(15), ("", text(60))) for _ in range(175)]
    start = time.process_time()
    found = diversity(examples, seeds, "unicode")
    assert time.process_time() - start < 20  # 2 on a common processor, minutes without sampling
    assert (found.dataset.n_tasks, found.dataset.n_measured) == (50_000, MAX_TASKS)
    assert found.dataset.instruction.n == MAX_TASKS
    assert found.dataset.nearest.n == 50_000
    assert found.openings.size == 175
    rng.shuffle(examples)
    assert diversity(examples, seeds, "unicode").instructions == found.instructions


def test_a_figure_is_the_mean_over_samples():
    # Samples of two instructions: which pairs meet depends on hashes, their number does not.
    letters = "abcdefghijklmnopqrstuvwxyz"
    many = tasks(*(f"{letters[i % 2]} {i}" for i in range(200)))
    found = diversity(many, tasks("a x", "b y"), "rouge").openings
    assert found.size == 2
    assert found.dataset * MAX_SAMPLES * 2 == pytest.approx(round(found.dataset * MAX_SAMPLES * 2))
    assert 0.5 < found.dataset < 1


def test_table():
    examples = [task("List three rivers", ("x", "Rhine, Po, Elbe"), score=0.42), task("Name a city", score=0.48)]
    lines = describe_diversity(diversity(examples, tasks("Do this", "Do that now"), "rouge")).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len({tuple(i for i, c in enumerate(line) if c == "|") for line in lines}) == 1
    cells = {cell[0]: cell[1:] for cell in ([part.strip() for part in line.split("|")] for line in lines)}
    assert cells["figure"] == ["data set", "seeds"]
    assert cells["tasks"] == ["2", "2"]
    assert cells["without input"] == ["50%", "100%"]
    assert cells["words of an instruction"] == ["3.0 (3 to 3)", "2.5 (2 to 3)"]
    assert cells["words of an input"] == ["1.0 (1 to 1)", "-"]
    assert cells["distinct first words, of 2"] == ["100%", "50%"]
    assert cells["most like another, mean ROUGE-L"] == ["0.45", "0.40"]
    assert cells["0.4 to 0.5"] == ["100%", "100%"]
