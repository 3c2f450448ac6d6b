"""Tasks that ask for something that a text model cannot see, hear or make."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.filters.asked import demand, lines, request, words
from selfinstruct.records import Verdict

# The words of Self-Instruct's and Alpaca's lists, and other names of the same things.
_SEEN = words(
    "images? pictures? photos? photographs? screenshots? drawings? logos? graphs? \\w{0,9}charts? diagrams? maps?"
    " infographics? videos? animations? gifs? clips? recordings? audio"
)
_MADE = words(f"{_SEEN} music melod(?:y|ies) soundtracks? (?:scatter|box)_?plots? files?")
# What may follow a noun that stands for the thing itself: "the image shows", but not "the image format".
_AFTER = words(
    "of that which with for in on to from by and or about at as below above here there now then into using where when"
    " before after over so it is are was has have does based between attached provided given called named if because"
    " you i we again carefully clips? messages? (?:show|depict|contain|illustrat|represent|compar|display)\\w{0,4}"
)
_HEAD = rf"(?=\W*\Z| ?[.,;:!?)…]|'s\b| {_AFTER}\b)"
# Words between verb and noun; a map of the mind or of a site is text.
_BETWEEN = (
    rf"(?:(?!{words('for of to in on about with that which who from by and or mind concept site story career')}\b)"
)
_ADJECTIVES = rf"{_BETWEEN}[\w-]+ ){{0,4}}?"
_MAKE = words(
    "create make generate design produce build construct prepare render record compose edit crop resize rotate"
    " compress upload download open close save delete remove rename copy move print scan attach play show display find"
    " get give send take post share insert import export list read convert organi[sz]e watch view look_at listen_to"
    " transcribe caption"
)
_THOUGHTS = words(
    "conclusions? inferences? parallels? comparisons? attention inspiration distinctions? lessons? morals?"
    " analog(?:y|ies) contrasts? connections? links? lines?_between"
)
_DEMANDS = demand(
    lines(rf"""
        go to (?!sleep\b|bed\b)
        draw (?!{words("on upon up from out in")}\b|(?:[\w']+ ){{0,3}}?{_THOUGHTS}\b)
        plot (?!of\b|twists?\b|holes?\b|summar|(?:[\w']+ ){{0,3}}?{words("story novel tale course revenge")}\b)
        (?:paint|sketch) {words("a an the me this")}\b(?!.{{0,80}}\bwords\b)
        {_MAKE} {_ADJECTIVES}{_MADE}{_HEAD}
    """)
)
_GIVEN = words("following given attached above provided accompanying supplied linked")
_LOOK = words("describe interpret analy[sz]e examine study see hear looks?_at watch refer_to")
_SPOKEN_OF = re.compile(
    r"\b(?P<what>"
    + lines(rf"""
        (?:this|these|the {_GIVEN}) {_ADJECTIVES}{_MADE}
        {_LOOK} (?:what )?the {_ADJECTIVES}{_SEEN}
        {words("in from on by according_to")} the {_SEEN}
        the {_SEEN}(?= {words("shows? depicts? displays? contains?")}\b)
    """)
    + f"){_HEAD}",
    re.I,
)
# Speaking of such things is fine, as are those that text can make: code, figures of speech.
_ABOUT = re.compile(
    r"\b(?:stor(?:y|ies)|poem|novel|scene|joke|letter|e-?mail|review|script|how (?:to|do|does|can|would)|about)\b",
    re.I,
)
_CODE = words(
    "python javascript java html css sql bash shell latex excel mermaid graphviz svg ascii markdown functions?"
    " scripts? programs? commands? code class algorithm"
)
_IN_CODE = re.compile(rf"\b{_CODE}\b", re.I)
_FIGURATIVE = re.compile(
    r"\b"
    + lines(rf"""
        (?:the|a) {words("big bigger whole clear full mental")} picture
        out of the picture
        on the map
        image of (?:(?:the|a|an|your|our|its|their) )?(?:company|brand|business|firm|industry|profession|self)
        graphs? of (?:the (?:function|equation)|y|f)
    """)
    + r"\b",
    re.I,
)


class Keyword(Filter):
    """To see, hear, draw or handle something: a picture, a graph, a map, a video, music, a file; or to go somewhere.

    Both originals reject their words wherever they stand ("draw a conclusion", "graph theory", "the music of Bach").
    Here such a thing must be demanded of the assistant, or be spoken of as given.
    """

    kind: Literal["keyword"] = "keyword"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the wording of the instruction."""
        asked = _FIGURATIVE.sub("…", request(case.instruction))
        if _IN_CODE.search(asked):
            return None
        found = _DEMANDS.search(asked)
        if not found and (given := _SPOKEN_OF.search(asked)) and not _ABOUT.search(asked, 0, given.start()):
            found = given
        return Verdict("keyword", f"'{found['what'].strip().lower()}'") if found else None
