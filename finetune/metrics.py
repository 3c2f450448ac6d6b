"""Scores of a generated answer against its references, as Tk-Instruct defines them; all are 0 to 1.

Source: `compute_metrics.py` of yizhongw/Tk-Instruct: exact match after lower-casing, stripping ASCII punctuation and
collapsing white space (articles stay), and ROUGE-L F with the Porter stemmer; both take the best reference.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from selfinstruct.novelty import tokenize

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Lower-case text without ASCII punctuation, every run of white space one space."""
    return _collapsed(text.lower().translate(_WITHOUT_PUNCTUATION))


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 if the normalised prediction equals a normalised reference, else 0.

    A reference of nothing but punctuation normalises to nothing, so it is compared as it stands (Tk-Instruct would
    count an empty answer as a match; this is a deviation).
    """
    return float(
        any(
            normalized(prediction) == normalized(reference)
            if normalized(reference)
            else _collapsed(prediction) == _collapsed(reference)
            for reference in references
        )
    )


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """Largest ROUGE-L F of the prediction with any reference.

    rouge_score sees only runs of [a-z0-9]: a text in another script would score 0 even against itself. A reference
    without any such run is therefore compared by Unicode words (characters where words are not spaced), unstemmed,
    and one without any word at all (only signs) by equality. References that rouge_score can see score as it does.
    """
    return max(_rouge_l(prediction, reference) for reference in references)


SCORE: dict[str, Callable[[str, Sequence[str]], float]] = {"exact_match": exact_match, "rouge_l": rouge_l}
"""The score of a generated answer by the name of its metric."""


def _rouge_l(prediction: str, reference: str) -> float:
    for tokenizer in ("rouge", "unicode"):
        if tokenize(reference, tokenizer):
            return float(_scorer(tokenizer).score(reference, prediction)["rougeL"].fmeasure)
    return float(_collapsed(prediction) == _collapsed(reference))


class _UnicodeTokenizer:
    def tokenize(self, text: str) -> list[str]:
        return tokenize(text, "unicode")


@cache
def _scorer(tokenizer: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True, tokenizer=_UnicodeTokenizer() if tokenizer == "unicode" else None)


def _collapsed(text: str) -> str:
    return " ".join(text.split())
