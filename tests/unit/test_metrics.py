import pytest
from rouge_score.rouge_scorer import RougeScorer

from finetune.metrics import exact_match, normalized, rouge_l


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
