"""What an instruction asks, read out of its words: for the filters that judge wordings."""

from __future__ import annotations

import re
import textwrap

_QUOTES = (
    '"[^"\n]{1,400}"', "“[^”]{1,400}”", "„[^“”]{1,400}[“”]", "«[^»]{1,400}»", "「[^」]{1,400}」", "『[^』]{1,400}』",
    # Single ones count where they cannot be apostrophes.
    r"(?<!\w)'[^'\n]{1,400}'(?!\w)", r"(?<!\w)‘[^’\n]{1,400}’(?!\w)",
)  # fmt: skip
QUOTED = re.compile("|".join(_QUOTES))
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]{1,400}`", re.S)
MAX_CHARACTERS = 4000  # that are read; what is longer says enough by its beginning
# "Task: ..." labels the request; after three words or more, what precedes the colon is the request.
_THREE_WORDS = re.compile(r"\s*(?:\S+\s+){2}\S")
_GIVEN = re.compile(r"[:：]\s|\n")


def words(listed: str) -> str:
    """A pattern of any of the words between spaces; "_" stands for a space within one."""
    return f"(?:{'|'.join(listed.split())})".replace("_", " ")


def lines(listed: str) -> str:
    """A pattern of any of the lines; what is indented more goes on with the line before."""
    joined = re.sub(r"\n +", "", textwrap.dedent(listed).strip())
    return f"(?:{joined})".replace("\n", "|")


# A command is given at the start of a sentence or after "then", maybe after polite words.
_POLITE = words(
    "please kindly now first next also just can could would will you help me let's go ahead and then hey hi ok okay"
    " i_want_you_to i_need_you_to i'd_like_you_to you_need_to you_have_to you_should your_task_is_to try_to"
)
_START = rf"(?:\A|[.!?;…] |\bthen )(?!you can\b)(?:{_POLITE},? ){{0,9}}?"


def demand(pattern: str) -> re.Pattern[str]:
    """Finds what the assistant itself is to do, as opposed to what is spoken of; group "what" is the demand."""
    return re.compile(rf"{_START}(?P<what>{pattern})", re.I)


# Texts, thoughts, figures and what is said of them: what is done to these is writing, whatever the verb.
TEXTUAL = words(
    "texts? sentences? paragraphs? passages? stor(?:y|ies) tales? plots? poems? verses? stanzas? lines? words?"
    " phrases? clauses? letters? essays? articles? reports? reviews? summar(?:y|ies) speech(?:es)? dialogues? scenes?"
    " chapters? titles? headlines? lists? tables? columns? rows? cells? data data_?sets? numbers? digits? figures?"
    " values? terms? equations? fractions? expressions? formulas? sums? results? outputs? arguments? points? ideas?"
    " claims? thesis themes? topics? questions? answers? facts? reasons? examples? metaphors? jokes? puns? rhymes?"
    " rhythm tones? styles? voices? moods? meanings? theor(?:y|ies) concepts? problems? issues? plans? pros cons"
    " evidence languages? english wording grammar spelling punctuation commas? verbs? nouns? adjectives? tenses?"
    " errors? mistakes? typos? bugs? code functions? function's program strings? arrays? variables? characters?"
    " readers? audience narrator blanks? gaps? instructions? drafts? quotes? quotations? references? sections?"
    " contents? descriptions? definitions? messages? slogans? captions? statements? proverbs? idioms? analog(?:y|ies)"
    " invitations? offers? proposals? impacts? effects? success logic jargon scenario following above below events?"
    " options? steps? items? sound drama tension stage differences? understanding rights chances reasoning opinions?"
    " beliefs? knowledge decisions? homework resume cv cover_letter verdicts? sermons? lectures? monologues? inner"
    " world mind eyes? html css json xml sql quer(?:y|ies) scripts? syntax format\\w* indentation capitali[sz]ation"
    " flow structure forms? templates? tags? fields? debates? conversations? discussions? riddles? puzzles? ciphers?"
    " myster(?:y|ies) clues? yarn truth benefits? advantages? disadvantages? risks? merits? factors? criteria toasts?"
    " eulog(?:y|ies) pitch(?:es)? keynote"
)


def straight(text: str) -> str:
    """The text with typewriter apostrophes."""
    return text.replace("’", "'")


def request(instruction: str) -> str:
    """What an instruction asks: without code, quotations, and the text that follows a sentence's colon or a line's end.

    "Translate into French: set an alarm" asks for no alarm.
    """
    text = QUOTED.sub(" … ", CODE.sub(" … ", straight(instruction[:MAX_CHARACTERS])))
    three = _THREE_WORDS.match(text)
    given = _GIVEN.search(text, three.end()) if three else None
    return " ".join((text[: given.start()] if given else text).split())
