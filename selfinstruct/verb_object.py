"""What instructions ask to be done with what: the root verb of each and its direct object, for English."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MAX_TEXTS = 3000
FALLBACK = "a list of verbs, without a parser"

_VERBS = frozenset(
    (
        "add analyze answer arrange brainstorm build calculate change check choose classify combine compare complete"
        " compose compute convert correct count create decide define describe design detect determine develop discuss"
        " edit estimate evaluate explain extend extract fill find fix generate give group identify imagine improve"
        " infer list make match name offer order outline paraphrase plan point predict prepare produce propose provide"
        " rank rate read recommend reformat remove rephrase replace rewrite rearrange say select shorten show simplify"
        " solve sort split state suggest summarize tell translate turn use verify write"
    ).split()
)
_POLITE = re.compile(r"(?:please|now|then|next|first|kindly|(?:can|could|would|will) you(?: please)?)\s+", re.I)
_CLAUSE = re.compile(r"[,:;.!?\n]+\s+|[,:;.!?\n]+$")
_RECEIVERS = frozenset("me us him her them".split())
_PHRASE_ENDS = frozenset(
    (
        "of in on at by for from with without to into onto about as that which who whose where when while whether if"
        " how what why and or but between among using given based so because than after before is are was were has"
        " have should would could can will being describing explaining including related"
    ).split()
)
_NO_NOUNS = frozenset("a an the this that these those it its my your our their all any some each every".split())
_WORD = re.compile(r"[a-z]+(?:['’-][a-z]+)*", re.I)


@dataclass(frozen=True, slots=True)
class VerbObjects:
    """Root verbs and their direct objects.

    Attributes:
        pairs: How often each (verb, object) occurs, as lemmas, the most frequent first.
        parser: Name and version of the parser, or `FALLBACK`.
        is_parsed: Whether a parser found them.
        n_texts: Number of texts looked at: at most `MAX_TEXTS`, and only those in the parser's language.
    """

    pairs: dict[tuple[str, str], int]
    parser: str
    is_parsed: bool
    n_texts: int


def root_verbs(texts: Sequence[str], model: str | None = None) -> VerbObjects:
    """Count the root verbs of texts with their direct objects, as in figure 3 of the Self-Instruct paper.

    Args:
        texts: Instructions. Of more than `MAX_TEXTS` an evenly spread sample is looked at.
        model: Name of a spaCy model.
    """
    return _counted(map(_by_list, texts), FALLBACK, False, len(texts))


def _counted(found: Iterable[tuple[str, str] | None], parser: str, is_parsed: bool, n_texts: int) -> VerbObjects:
    return VerbObjects(dict(Counter(pair for pair in found if pair).most_common()), parser, is_parsed, n_texts)


def _by_list(text: str) -> tuple[str, str] | None:
    """The first clause that begins with a known verb, and the last word of the noun phrase behind it."""
    for clause in _CLAUSE.split(text):
        verb, *rest = [word.lower() for word in _WORD.findall(_POLITE.sub("", clause.strip()))] or [""]
        if verb in _VERBS:
            phrase = list(_phrase(rest))
            return (verb, _singular(phrase[-1])) if phrase and phrase[-1] not in _NO_NOUNS else None
    return None


def _phrase(words: Sequence[str]) -> Iterator[str]:
    for index, word in enumerate(words):
        if word in _PHRASE_ENDS:
            return
        if index or word not in _RECEIVERS:
            yield word


def _singular(noun: str) -> str:
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    return noun[:-1] if noun.endswith("s") and not noun.endswith(("ss", "us", "is")) else noun
