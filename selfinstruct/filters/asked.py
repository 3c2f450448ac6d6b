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
    " i_want_you_to i_need_you_to i'd_like_you_to you_need_to"
)
_START = rf"(?:\A|[.!?;…] |\bthen )(?:{_POLITE},? ){{0,9}}?"


def demand(pattern: str) -> re.Pattern[str]:
    """Finds what the assistant itself is to do, as opposed to what is spoken of; group "what" is the demand."""
    return re.compile(rf"{_START}(?P<what>{pattern})", re.I)


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
