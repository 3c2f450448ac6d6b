"""Scores of one answer, all 0 to 1: of a generated answer against its references, and of a choice among options.

Exact match and ROUGE-L are Tk-Instruct's (`compute_metrics.py` of yizhongw/Tk-Instruct): exact match after
lower-casing, stripping ASCII punctuation and collapsing white space (articles stay), and ROUGE-L F with the Porter
stemmer. Token F1 is SQuAD's (Rajpurkar et al., 2016, evaluation script of version 1.1). All take the best reference.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from selfinstruct.errors import InputError
from selfinstruct.novelty import tokenize

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")
_FENCE = re.compile(r"\A\s*```\w*\n(.*?)\n?```\s*\Z", re.DOTALL)
# Two numbers that agree to six digits are one: a third may be written 0.333333.
REL_TOLERANCE = 1e-6


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


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Largest F1 of the words of the prediction and of any reference, counted as often as they come.

    SQuAD's normalisation: lower case, without ASCII punctuation, without the articles a, an, the. Two texts of which
    nothing is left score 1 (as in SQuAD 2.0).
    """
    return max(_token_f1(prediction, reference) for reference in references)


def numeric(prediction: str, references: Sequence[str]) -> float:
    """1 if the last number of the prediction equals the last number of any reference, else 0.

    A number has digits, commas between thousands, a decimal fraction and an exponent as they come, and a sign; two are
    equal if they differ by at most a millionth of the larger (`REL_TOLERANCE`). Units and percent signs are ignored,
    and a fraction such as 3/4 is two numbers.
    """
    found = last_number(prediction)
    wanted = [last_number(reference) for reference in references]
    return float(
        found is not None and any(w is not None and math.isclose(found, w, rel_tol=REL_TOLERANCE) for w in wanted)
    )


def last_number(text: str) -> float | None:
    """The last number in a text; None where there is none."""
    numbers = _NUMBER.findall(text)
    return float(numbers[-1].replace(",", "").replace("−", "-")) if numbers else None


def regex(prediction: str, references: Sequence[str]) -> float:
    """1 if any reference, a regular expression of Python's `re`, is found in the prediction, else 0.

    Anchors are the expression's own affair: `^yes$` for nothing but yes.
    """
    return float(any(re.search(reference, prediction) for reference in references))


def json_schema(prediction: str, references: Sequence[str]) -> float:
    """1 if the prediction is JSON that conforms to any reference, a JSON Schema, else 0.

    A code fence around the whole answer is taken off.

    Raises:
        InputError: When a schema refers to another document; none is fetched.
    """
    from referencing.exceptions import Unresolvable

    try:
        value = parsed(prediction)
    except ValueError:
        return 0.0
    try:
        return float(any(_validator(reference).is_valid(value) for reference in references))
    except Unresolvable as error:
        problem = f"a JSON Schema refers to {error.ref}, which is not in it"
        raise InputError(problem, field="references", remedy="write it into the schema") from error


def parsed(answer: str) -> Any:
    """The JSON value that an answer is, with or without a code fence around it.

    Raises:
        ValueError: When it is none.
    """
    fenced = _FENCE.match(answer)
    try:
        return json.loads(fenced[1] if fenced else answer)
    except RecursionError as error:
        raise ValueError("nested beyond all reason") from error


def option_match(prediction: str, references: Sequence[str], options: Sequence[str]) -> float:
    """1 if the option that the prediction names is a reference, else 0; see `named_option`."""
    return float(named_option(prediction, options) in references)


def named_option(answer: str, options: Sequence[str]) -> str | None:
    """The option that a generated answer names.

    By the first rule that fits, all of them on normalised texts: the option that the answer is; the longest with which
    it begins; the only one whose words are in it.

    Returns:
        None when no option is named, or several.
    """
    said = f" {normalized(answer)} "
    texts = {option: f" {normalized(option)} " for option in options if normalized(option)}
    for rule in (str.__eq__, str.startswith):
        if fitting := [option for option, text in texts.items() if rule(said, text)]:
            return max(fitting, key=len)
    among = [option for option, text in texts.items() if text in said]
    return among[0] if len(among) == 1 else None


def best_option(metric: str, options: Sequence[str], scores: Sequence[float], n_tokens: Sequence[int]) -> int:
    """Index of the option that ranks first.

    Args:
        metric: "accuracy" ranks by the summed log-likelihood (T0; `acc` of lm-evaluation-harness), "accuracy_per_token"
            by its mean over the option's tokens (GPT-3, section 2.4), "accuracy_per_character" by its quotient with
            the option's number of characters (`acc_norm` of lm-evaluation-harness, api/task.py: `len` of the text).
        options: The texts.
        scores: Their summed log-likelihoods.
        n_tokens: Their tokens.
    """
    lengths: Sequence[int] = [1] * len(options)
    if metric == "accuracy_per_token":
        lengths = n_tokens
    elif metric == "accuracy_per_character":
        lengths = [len(option) for option in options]
    return max(range(len(options)), key=lambda index: scores[index] / lengths[index])


SCORE: dict[str, Callable[[str, Sequence[str]], float]] = {
    "exact_match": exact_match, "rouge_l": rouge_l, "token_f1": token_f1, "numeric": numeric, "regex": regex,
    "json_schema": json_schema,
}  # fmt: skip
"""The score of a generated answer by the name of its metric; "option_match" needs the options as well."""


def is_off_format(metric: str, prediction: str, options: Sequence[str]) -> bool:
    """Whether an answer has nothing that its metric could compare, so that its 0 is one of form.

    No number (numeric), no JSON (json_schema), no option that is named (option_match). Other metrics take any text.
    """
    if metric == "json_schema":
        try:
            parsed(prediction)
        except ValueError:
            return True
    if metric == "numeric":
        return last_number(prediction) is None
    return metric == "option_match" and named_option(prediction, options) is None


def problem_of(metric: str, references: Sequence[str]) -> str | None:
    """What is wrong with references of a metric that wants them in a form of its own; None for nothing."""
    for reference in references:
        if metric == "numeric" and last_number(reference) is None:
            return f"'{reference}' has no number"
        if metric == "regex":
            try:
                re.compile(reference)
            except re.error as error:
                return f"'{reference}' is no regular expression ({error})"
        if metric == "json_schema":
            from jsonschema.exceptions import SchemaError

            try:
                _validator(reference)
            except (ValueError, SchemaError) as error:
                return f"is no JSON Schema ({str(error).splitlines()[0]})"
    return None


@cache
def _validator(schema: str) -> Any:
    from jsonschema.validators import validator_for
    from referencing import Registry

    value = json.loads(schema)
    if not isinstance(value, dict | bool):
        raise ValueError("must be an object")
    kind = validator_for(value)
    kind.check_schema(value)
    # An empty registry: by default, a schema's reference to a web address would be fetched.
    return kind(value, registry=Registry())


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


def _token_f1(prediction: str, reference: str) -> float:
    said, wanted = (_ARTICLE.sub(" ", normalized(text)).split() for text in (prediction, reference))
    if not said or not wanted:
        return float(said == wanted)
    n_shared = (Counter(said) & Counter(wanted)).total()
    return 2 * n_shared / (len(said) + len(wanted))


def _collapsed(text: str) -> str:
    return " ".join(text.split())
