"""What holds for the figures of any data set."""

from __future__ import annotations

from dataclasses import asdict, replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.diversity import Compared, describe_diversity, diversity
from selfinstruct.records import Example, Instance, Neighbour

TEXTS = st.text(st.sampled_from("abc dé?请写\n\ud800"), max_size=30) | st.text(max_size=30)
INSTANCES = st.builds(Instance, TEXTS, TEXTS)
EXAMPLES = st.builds(
    Example,
    st.uuids().map(str),
    TEXTS,
    st.lists(INSTANCES, max_size=3).map(tuple),
    st.booleans(),
    nearest=st.just(()) | st.floats(0, 1).map(lambda score: (Neighbour("other", score),)),
)
SETS = st.lists(EXAMPLES, max_size=12)
TOKENIZERS = st.sampled_from(["rouge", "unicode"])


def compared(values: Any) -> list[Compared]:
    """All figures that were measured on samples, anywhere in the values."""
    if isinstance(values, Compared):
        return [values]
    names = getattr(values, "__dataclass_fields__", ())
    return [figure for name in names for figure in compared(getattr(values, name))]


def varied(seed: int, n: int) -> list[Example]:
    """Tasks of random words, none of which has much in common with another."""
    rng = Random(seed)
    word = "abcdefghijklmnopqrstuvwxyz"

    def text() -> str:
        return " ".join("".join(rng.choices(word, k=rng.randint(3, 9))) for _ in range(rng.randint(5, 15)))

    return [Example(str(i), text(), (Instance("", text()),), False) for i in range(n)]


@settings(deadline=None, max_examples=50)
@given(SETS, SETS, TOKENIZERS, st.randoms(use_true_random=False))
def test_order_and_ids_do_not_matter(examples, seeds, tokenizer, rng):
    found = diversity(examples, seeds, tokenizer)
    for some in (examples, seeds):
        rng.shuffle(some)
    renamed = [replace(example, id=f"other {example.id}") for example in examples]
    again = diversity(renamed, seeds, tokenizer)
    assert [*map(str, compared(again))] == [*map(str, compared(found))]
    for one, other in ((found.dataset, again.dataset), (found.seeds, again.seeds)):
        assert one.instruction == other.instruction
        assert one.output == other.output
        assert (one.nearest and one.nearest.histogram) == (other.nearest and other.nearest.histogram)


@settings(deadline=None, max_examples=50)
@given(SETS, SETS, TOKENIZERS)
def test_figures_stay_within_bounds(examples, seeds, tokenizer):
    found = diversity(examples, seeds, tokenizer)
    ratios = [found.instructions.compression_ratio, found.outputs.compression_ratio]
    for figure in compared(found):
        for value in (figure.dataset, figure.seeds):
            assert value is None or 0 <= value <= (1100 if figure in ratios else 1)
        assert (figure.size == 0) == (figure.dataset is None and figure.seeds is None)
    assert found.dataset.n_tasks == len(examples)
    if found.dataset.nearest:
        assert sum(found.dataset.nearest.histogram) == found.dataset.nearest.n
    assert len({len(line) for line in describe_diversity(found).split("\n")}) == 1
    assert asdict(found)["tokenizer"] == tokenizer


@settings(deadline=None, max_examples=50)
@given(SETS, TOKENIZERS)
def test_a_set_is_as_varied_as_itself(examples, tokenizer):
    found = diversity(examples, examples, tokenizer)
    assert all(figure.dataset == figure.seeds for figure in compared(found))
    assert replace(found.dataset, nearest=None) == replace(found.seeds, nearest=None)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(12, 60), st.integers(2, 5))
def test_copies_make_a_set_less_varied(seed, n, copies):
    seeds, once = varied(seed, 10), varied(seed + 1, n)
    before, after = diversity(once, seeds, "rouge"), diversity(once * copies, seeds, "rouge")
    assert before.seeds == after.seeds
    for texts in ("instructions", "outputs"):
        one, more = getattr(before, texts), getattr(after, texts)
        assert more.compression_ratio.dataset > one.compression_ratio.dataset * 1.1
        assert more.self_repetition.dataset > one.self_repetition.dataset + 0.5
        assert more.distinct_2.dataset < one.distinct_2.dataset
    assert after.openings.dataset < before.openings.dataset
    assert before.dataset.instruction.mean == after.dataset.instruction.mean
