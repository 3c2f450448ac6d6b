"""Tasks that work on a text which is not there."""

from __future__ import annotations

import re
from typing import Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.filters.asked import CODE, MAX_CHARACTERS, QUOTED, lines, words
from selfinstruct.records import Verdict

_TEXT = words(
    "texts? articles? passages? paragraphs? sentences? essays? stor(?:y|ies) poems? documents? reports? e-?mails?"
    " letters? messages? reviews? conversations? dialogues? transcripts? excerpts? abstracts? quotes? quotations?"
    " statements? tweets? headlines? notes? lists? tables? words? numbers? names? items? data data_?sets? equations?"
    " expressions? snippets? code lyrics recipes? options facts descriptions? speech(?:es)? scenarios? events songs?"
    " quer(?:y|ies) phrases? questions? topics? arguments? clues inputs?"
)
_ADJECTIVES = r"(?:[\w'-]+ ){0,2}?"
_GIVEN = words("given provided supplied attached enclosed accompanying")
_WORK_ON = words(
    "summari[sz]e condense shorten proofread translate paraphrase rewrite reword rephrase edit classify correct"
    " simplify analy[sz]e"
)
_THIS = words("this these")
_DOCUMENT = words("texts? articles? passages? paragraphs? excerpts? transcripts? documents?")
_MANNER = words("into as using so_that to_make in_(?:one|two|three|your|plain|simple|a|an|fewer)")
_THE = rf"the {_DOCUMENT}(?=\W*\Z|[.?!]\s| {_MANNER}\b)"  # no word says which one is meant
# "The following paragraph", "the passage below": certain. "This article" may be the one to be written.
_REFERENCE = re.compile(
    r"\b"
    + lines(rf"""
        (?:the |these )?following {_ADJECTIVES}{_TEXT}
        (?:the|these|this) {_GIVEN} {_ADJECTIVES}{_TEXT}
        (?:the|these|this) {_ADJECTIVES}{_TEXT} (?:below|above|{_GIVEN})
        {_WORK_ON} {_THIS} {_ADJECTIVES}{_TEXT}
        {_WORK_ON} {_THE}
        {words("based_on according_to after_reading having_read judging_by look_at")} {_THIS} {_ADJECTIVES}{_TEXT}
    """)
    + r"\b",
    re.I,
)
_QUESTION = words(
    "describe explain state tell say identify find list name give what what's who where when why which how is are does"
    " do did was were determine decide extract"
)
_PART = words(
    "main central key overall topic subject idea theme tone mood message purpose gist point moral meaning author writer"
    " speaker narrator sentiment genre style summary structure audience argument conclusion sum average mean answer"
)
_SAYS = words("about say mean express imply describe convey tell argue suggest have_in_common")
_TOLD = words("is are was were mentioned described discussed named said told used made happens? happening appears?")
_HOW_TO = r"(?![^.?!]*\bhow (?:to|do|can|could|would|should)\b)"
_COUNT_ITSELF = r"(?!how many [^.?!]*\bthis (?:sentence|question)\b)"
# A question on a text that has to be there. It stands first, since the text may come before the question on it.
_ASKED_ABOUT = re.compile(
    rf"(?:(?:please|in [\w ]{{1,30}},) )?{_HOW_TO}{_COUNT_ITSELF}{_QUESTION}\b"
    + lines(rf"""
        [^.?!:\n]{{0,80}}? {_TOLD} (?:in|by|from) (?:{_THIS} {_ADJECTIVES}{_TEXT}|{_THE})
        [^.?!:\n]{{0,60}}? {_PART} (?:\w+ ){{0,2}}?(?:of|in|behind|to) (?:{_THIS} {_ADJECTIVES}{_TEXT}|{_THE})
        [^.?!:\n]{{0,30}}? (?:in|from) {_THIS} (?:{_DOCUMENT}|sentence|poem|story|letter|e-?mail|review|list|table)
        (?: does| do| is| are| did)? {_THIS} {_ADJECTIVES}{_TEXT} (?:\w+ )?{_SAYS}
    """)
    + r"\b",
    re.I,
)
# Parameters of programs ("the given list") stand for whatever comes.
_PROGRAM = re.compile(
    r"\b(?:function|program|algorithm|script|regular expression|regex|query|code|formula|method|class|template)\b", re.I
)
# The text may follow in the instruction: after a colon or dash, on another line, as figures, as sentences of its own.
_FOLLOWS = re.compile(r"[:：—–]\s*\S|\s-\s*\S|\n\s*\S|\A\s*[(\[]?-?\d")
_SENTENCE_END = re.compile(r"[.!?]\s+")
_DIRECTION = words(
    "please also then do_not don't use keep make give write answer include limit ensure be provide explain list state"
    " name focus avoid say your the_(?:answer|summary|output|result) it_should begin start end put add return choose"
    " mention mark"
)
_IS_DIRECTION = re.compile(rf"{_DIRECTION}\b", re.I)
_STAND_IN = words(
    "insert paste your enter add put texts? articles? paragraphs? passages? sentences? input content placeholder here"
    " name image picture e-?mail document story poem code data song link url some the a an of any long short about"
    " review list words? product given"
)
_PLACEHOLDER = re.compile(
    lines(rf"""
        [<\[{{(]{{1,2}}\s*(?:{_STAND_IN}[\s_-]*){{1,8}}[>\]}})]{{1,2}}[.!]?
        (?:insert|paste|enter|put) (?:{_STAND_IN}[\s_-]*){{0,6}}here[.!]?
        (?:\.|…|_|-|\?|\*){{1,9}}
        lorem ipsum\b.*
        {words("tbd todo xyz foo_?bar same_as_above see_above")}[.!]?
    """),
    re.I | re.S,
)
_OPEN_PLACEHOLDER = re.compile(r"[<\[{](?:insert|paste|your|enter) [\w -]{1,60}[>\]}]\W{0,3}\Z", re.I)
_MAX_PLACEHOLDER = 200  # characters that are looked at


class MissingInput(Filter):
    """The instruction speaks of a given text, but there is none; or the input is a stand-in ("[insert article here]").

    A text may also stand in the instruction itself: after a colon, on a line of its own, in quotation marks.
    """

    kind: Literal["missing-input"] = "missing-input"

    def judge(self, case: Case) -> Verdict | None:
        """By each input, with the instruction."""
        for instance in case.instances:
            input = instance.input.strip()
            if input and _PLACEHOLDER.fullmatch(input[:_MAX_PLACEHOLDER]):
                return Verdict("missing_input", "the input is a stand-in")
            if not input and (missing := _missing(case.instruction[:MAX_CHARACTERS])):
                return Verdict("missing_input", f"'{missing}', but there is no input")
        return None


def _missing(instruction: str) -> str | None:
    """The words that speak of a text that is not there."""
    if stand_in := _OPEN_PLACEHOLDER.search(instruction):
        return stand_in[0].strip()
    if _PROGRAM.search(instruction) or QUOTED.search(instruction) or CODE.search(instruction):
        return None
    found = _REFERENCE.search(instruction) or _ASKED_ABOUT.match(instruction)
    if not found:
        return None
    rest = instruction[found.end() :]
    _, *sentences = _SENTENCE_END.split(rest)
    if _FOLLOWS.search(rest) or not all(_IS_DIRECTION.match(sentence) for sentence in sentences if sentence):
        return None
    return " ".join(found[0].split()).lower()
