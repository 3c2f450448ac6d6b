import json
import string
from itertools import pairwise
from random import Random
from typing import get_args

import pytest
from rouge_score.rouge_scorer import RougeScorer

from finetune.metrics import (
    SCORE,
    best_option,
    exact_match,
    is_off_format,
    json_schema,
    last_number,
    named_option,
    normalized,
    numeric,
    option_match,
    problem_of,
    regex,
    rouge_l,
    token_f1,
)
from selfinstruct.errors import InputError
from selfinstruct.tasks import GeneratedMetric


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("Paris.", "paris", 1),
        ("  the\n Eiffel   Tower! ", "The Eiffel tower", 1),
        ("The Eiffel Tower", "Eiffel Tower", 0),  # articles stay
        ("U.S.A.", "usa", 1),
        ("7", "8", 0),
        ("Париж!", "париж", 1),
        ("", "-", 0),
        ("+", "-", 0),
        (" - ", "-", 1),
    ],
)
def test_exact_match_ignores_case_punctuation_and_spacing_only(prediction, reference, score):
    assert exact_match(prediction, [reference]) == score


def test_any_reference_counts():
    assert exact_match("b", ["a", "B"]) == 1
    assert rouge_l("two words", ["nothing alike", "two words more"]) == rouge_l("two words", ["two words more"])


def test_typographic_punctuation_stays():
    assert normalized("“Don't”") == "“dont”"


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("The runner was running quickly.", "A runner runs quick"),
        ("cats", "cat"),
        ("Café au lait", "cafe au lait"),
        ("", "something"),
        ("something", "something else entirely, really"),
    ],
)
def test_rouge_l_is_rouge_score_with_the_stemmer(prediction, reference):
    expected = RougeScorer(["rougeL"], use_stemmer=True).score(reference, prediction)["rougeL"].fmeasure
    assert rouge_l(prediction, [reference]) == expected


def test_rouge_l_by_hand():
    # LCS "the cat sat" of 3 tokens; precision 3/4, recall 3/6.
    assert rouge_l("the cat sat down", ["the big cat sat on it"]) == pytest.approx(0.6)
    assert rouge_l("running", ["runs"]) == 1  # Porter stems both to "run"


@pytest.mark.parametrize("text", ["я люблю чай", "今天天气很好", "😀", "?!"])
def test_a_text_of_another_script_scores_one_against_itself(text):
    assert rouge_l(text, [text]) == 1
    assert rouge_l("something else", [text]) == 0


def test_other_scripts_are_compared_by_words_or_characters():
    assert rouge_l("я люблю кофе", ["я люблю чай"]) == pytest.approx(2 / 3)
    assert rouge_l("今天很好", ["今天天气很好"]) == pytest.approx(2 * 1 * (4 / 6) / (1 + 4 / 6))


def test_every_metric_of_a_generated_answer_has_its_score():
    assert {*SCORE, "option_match"} == set(get_args(GeneratedMetric))


# -- Tk-Instruct's definitions, told in rouge_score's own words --------------------------------------------------------


def tk_exact_match(prediction, reference):
    def plain(text):
        return " ".join("".join(c for c in text.lower() if c not in string.punctuation).split())

    return float(plain(prediction) == plain(reference))


def pairs(count):
    """Predictions and references of words, inflections, punctuation, case and white space, many of them close."""
    rng = Random(7)
    words = [
        "run",
        "runs",
        "running",
        "the",
        "a",
        "cat",
        "cats",
        "city",
        "cities",
        "12",
        "3.5",
        "don't",
        "re-use",
        "U.S.",
    ]
    words += ["naïve", "\n", "", ",", ".", "!", "Paris", "paris"]
    for _ in range(count):
        reference = [rng.choice(words) for _ in range(rng.randint(1, 12))]
        prediction = [word if rng.random() < 0.8 else rng.choice(words) for word in reference]
        if rng.random() < 0.3:
            prediction = prediction[: rng.randint(0, len(prediction))]
        said = rng.choice([" ", "  ", "\n"]).join(prediction)
        yield rng.choice([said, said.upper(), said + rng.choice(".!?"), said]), " ".join(reference)


def test_exact_match_and_rouge_l_equal_tk_instructs_definitions_on_two_thousand_pairs():
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    n_matches = n_rouge = 0
    for prediction, reference in pairs(2000):
        if normalized(reference):  # of one without words ours differs on purpose
            assert exact_match(prediction, [reference]) == tk_exact_match(prediction, reference)
            n_matches += tk_exact_match(prediction, reference)
        if any(c.isalnum() and c.isascii() for c in reference):
            expected = scorer.score(reference, prediction)["rougeL"].fmeasure
            assert rouge_l(prediction, [reference]) == expected
            n_rouge += 0 < expected < 1
    assert n_matches > 100
    assert n_rouge > 1000


def test_the_best_of_several_references_counts_as_in_tk_instruct():
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    several = list(pairs(300))
    for (prediction, one), (_, other) in pairwise(several):
        if all(any(c.isalnum() and c.isascii() for c in text) for text in (one, other)):
            expected = max(scorer.score(text, prediction)["rougeL"].fmeasure for text in (one, other))
            assert rouge_l(prediction, [one, other]) == expected


# -- token F1 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("the Eiffel Tower", "Eiffel tower.", 1),  # articles go, unlike with exact match
        ("Eiffel Tower in Paris", "Eiffel Tower", 2 * 2 / 6),
        ("very very good", "very good", 2 * 2 / 5),  # a word counts as often as it comes
        ("no", "yes", 0),
        ("", "yes", 0),
        ("the", "an", 1),
        ("therapy", "rapy", 0),  # no article inside a word
    ],
)
def test_token_f1_is_squads(prediction, reference, score):
    assert token_f1(prediction, [reference]) == pytest.approx(score)
    assert token_f1(prediction, ["unheard of", reference]) >= score


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7", 7),
        ("it is 1,234,567.5 in all.", 1234567.5),
        ("-12", -12),
        ("\u221212", -12),
        ("5-3", 3),
        ("about 1e3", 1000),
        ("12.", 12),
        ("50%", 50),
        ("$3.50", 3.5),
        ("3/4", 4),
        ("1,2", 2),
        ("1,23", 23),
        ("x2", None),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("So the answer is 42.", "42", 1),
        ("42 apples and 3 pears", "42", 0),
        ("0.3333333", "0.33333333", 1),
        ("0.333", "0.333333", 0),
        ("1,000", "1000", 1),
        ("-7", "7", 0),
        ("0", "0", 1),
        ("nothing", "0", 0),
    ],
)
def test_numeric_compares_the_last_numbers(prediction, reference, score):
    assert numeric(prediction, [reference]) == score


# -- forms -------------------------------------------------------------------------------------------------------------


def test_a_regular_expression_is_searched_for():
    assert regex("The year was 1969.", [r"\b19\d\d\b"]) == 1
    assert regex("yes, indeed", ["^yes$"]) == 0
    assert regex("no", ["^yes$", "^no$"]) == 1


SCHEMA = json.dumps({"type": "object", "required": ["name"], "properties": {"age": {"type": "integer", "minimum": 0}}})


@pytest.mark.parametrize(
    ("prediction", "score"),
    [
        ('{"name": "Ada", "age": 36}', 1),
        ('```json\n{"name": "Ada"}\n```', 1),
        ('{"age": 36}', 0),
        ('{"name": "Ada", "age": -1}', 0),
        ('Here it is: {"name": "Ada"}', 0),
        ("[" * 100_000, 0),
        ("", 0),
    ],
)
def test_json_is_held_to_its_schema(prediction, score):
    assert json_schema(prediction, [SCHEMA]) == score


def test_a_schemas_reference_to_another_document_is_not_fetched():
    with pytest.raises(InputError, match=r"refers to http://127\.0\.0\.1:9/schema"):
        json_schema("{}", ['{"$ref": "http://127.0.0.1:9/schema.json"}'])


def test_what_is_off_format():
    assert is_off_format("numeric", "seven", ())
    assert not is_off_format("numeric", "7", ())
    assert is_off_format("json_schema", "{", ())
    assert not is_off_format("json_schema", "{}", ())
    assert is_off_format("option_match", "maybe", ("yes", "no"))
    assert not is_off_format("exact_match", "", ())


def test_references_that_a_metric_cannot_use():
    assert (
        problem_of("regex", ["a", "("])
        == "'(' is no regular expression (missing ), unterminated subpattern at position 0)"
    )
    assert problem_of("numeric", ["seven"]) == "'seven' has no number"
    assert "is no JSON Schema" in problem_of("json_schema", ['{"type": 7}'])
    assert "is no JSON Schema" in problem_of("json_schema", ["7"])
    assert problem_of("json_schema", [SCHEMA, "true"]) is None
    assert problem_of("rouge_l", ["("]) is None


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("Yes.", "yes"),
        ("no, I think", "no"),
        ("not at all", "not at all"),
        ("I say no", "no"),
        ("yes or no", "yes"),  # it begins with it
        ("it may be yes or no", None),
        ("nobody", None),
        ("", None),
    ],
)
def test_the_option_that_an_answer_names(answer, option):
    assert named_option(answer, ("yes", "no", "not at all")) == option
    assert option_match(answer, ["no"], ("yes", "no", "not at all")) == (option == "no")


def test_options_rank_by_the_sum_or_by_what_is_left_of_it_per_token_or_character():
    options, scores, n_tokens = ("no", "certainly not", "yes of course"), (-3.0, -4.5, -8.0), (1, 1, 4)
    assert best_option("accuracy", options, scores, n_tokens) == 0
    assert best_option("accuracy_per_token", options, scores, n_tokens) == 2
    assert best_option("accuracy_per_character", options, scores, n_tokens) == 1
