"""Tasks that ask for something that a text model cannot see, hear or make."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.filters.asked import demand, lines, request, words
from selfinstruct.records import Verdict

# The words of Self-Instruct's and Alpaca's lists, and other names of the same things: what is seen or heard, what else
# is made for the eye or the ear, and documents that stand for files.
_SEEN = words(
    "images? pictures? photos? photographs? snapshots? screenshots? selfies? postcards? drawings? cartoons? logos?"
    " graphs? \\w{0,9}charts? (?:scatter|box|line|bar)_?plots? diagrams? floor_plans? blueprints? infographics? maps?"
    " x-?rays? scans? thumbnails? animations? gifs? (?:(?:film|video|audio|sound)_)?clips? footage recordings?"
    " audio(?:_(?:messages?|guides?|books?))? voice_(?:messages?|memos?|notes?) soundtracks?"
    " videos?(?:_(?:tutorials?|lessons?|messages?|presentations?|ads?|diar(?:y|ies)))?"
)
_ARTWORK = words(
    "posters? banners? billboards? illustrations? icons? stickers? tattoos? t-?shirts? uniforms? business_cards?"
    " (?:book|album)_covers? wallpapers? collages? murals? memes? comic_strips? sculptures? statues?"
    " (?:qr|bar)[_-]?codes? 3-?d_\\w+ mock-?ups? slide-?shows? podcasts?(?:_episodes?)? music melod(?:y|ies) tunes?"
    " symphon(?:y|ies) sonatas? necklace bracelet snow_?man sand_?castle kite paper_(?:plane|boat|crane) robot"
    " bird_?house"
)
_FILE = words("files? folders?")
_DOCUMENT = words(
    "documents? spreadsheets? pdfs? attachments? backups? (?:word|excel|google)_(?:files?|docs?|sheets?) desktop"
    " (?:hard|flash|usb)_(?:disk|drive|stick)"
)
# What may follow a noun that stands for the thing itself: "the image shows", but not "the image format".
_AFTER = words(
    "of that which with for in on to from by and or but out as at about below above here there now then into using"
    " where when while before after over between across comparing so says tells? whether it is are was has have does"
    " based attached provided given shown called named if because you i we my again carefully"
    " (?:show|depict|contain|illustrat|represent|compar|display)\\w{0,4} (?:smil|wear|stand|sitt|hold|happen|do)\\w?ing"
)
_HEAD = rf"(?=\W*\Z| ?[.,;:!?)…]|'s\b| {_AFTER}\b)"
# Words between verb and noun; a map of the mind or of a site is text.
_ENDS_PHRASE = words("for of to in on about with like as that which who why how from by and or mind concept site story")
_ADJECTIVES = rf"(?:(?!{_ENDS_PHRASE}\b)[\w'-]+ ){{0,4}}?"
_LOWER_CASE = rf"(?:(?!{_ENDS_PHRASE}\b)(?-i:[a-z\d'-]+) ){{0,4}}?"  # names have capitals, and are known: the CNN logo
_MAKE = words(
    "create make generate design produce put_together build construct prepare render compose draw_up craft edit crop"
    " resize rotate retouch turn transform"
)
_HANDLE = words(
    "record compress upload download open close save delete remove rename copy move print scan attach check play show"
    " display find get give send take post share insert import export list read convert organi[sz]e sort classify"
    " categori[sz]e label tag choose select pick watch view look_at listen_to transcribe caption"
)
_KEEP = words(
    "open close save delete restore rename copy move upload download attach share print scan merge convert export"
)
_THOUGHTS = words(
    "conclusions? inferences? parallels? comparisons? attention inspiration distinctions? lessons? morals?"
    " analog(?:y|ies) contrasts? connections? links? lines?_between"
)
_CRAFT = words(
    "paint sketch photograph film videotape animate photoshop colou?ri[sz]e knit crochet sew weave carve sculpt doodle"
)
_MARK = words("shade mark circle highlight trace colou?r outline locate")
_RETOUCH = words("remove erase cut_out blur replace change brighten darken fix edit")
_FILM = words("films? movies? trailers? vlogs? documentary")
_IN_WORDS = words("words? sentences? lines paragraphs? prose story life plot characters? arguments? history")
_READ_OFF = words(
    "labels? signs? display screen thermometer meter gauge clock plaque inscription handwriting (?:qr|bar)[_-]?codes?"
)
_PERFORMANCE = words("pronunciation accent singing posture outfit drawing painting handwriting")
_DEMANDS = demand(
    lines(rf"""
        go to (?!{words("sleep bed great the_heart")}\b)
        draw (?!{words("on upon up from out in")}\b|(?:[\w']+ ){{0,3}}?{_THOUGHTS}\b)
        plot (?!of\b|twists?\b|holes?\b|summar|(?:[\w']+ ){{0,3}}?{words("story novel tale course revenge")}\b)
        {_CRAFT} {words("a an the me us my this our some")}\b(?!.{{0,80}}\b{_IN_WORDS}\b)
        illustrate [^.?!]{{1,60}}? with {_ADJECTIVES}{words("watercolou?rs? drawings? pictures? photos? images?")}\b
        {_MAKE} {_ADJECTIVES}(?:{_SEEN}|{_ARTWORK}|{_FILE}){_HEAD}
        {_HANDLE} {_ADJECTIVES}(?:{_SEEN}|{_FILE}|music){_HEAD}
        {_KEEP} {_ADJECTIVES}{_DOCUMENT}{_HEAD}
        {words("make produce shoot direct edit")} {_ADJECTIVES}{_FILM}{_HEAD}
        {words("convert export save turn")} [^.?!]{{1,60}}? {words("to into as on in")} {_ADJECTIVES}
            {words("files? folders? spreadsheet desktop pdf word_document mp[34] wav jpe?g png image video audio")}\b
        {_RETOUCH} [^.?!]{{1,60}}? (?:from|in|of|on) {words("a the this these my our")} {_ADJECTIVES}{_SEEN}{_HEAD}
        {_MARK} [^.?!]{{1,60}}? (?:on|in) {words("a the this my")} {_ADJECTIVES}{_SEEN}{_HEAD}
        {words("spot find name list describe")} [\w ]{{0,20}}differences? between {_ADJECTIVES}{_SEEN}{_HEAD}
        {words("read transcribe decipher copy check")} {_ADJECTIVES}{_READ_OFF}{_HEAD}
        {words("type type_up read transcribe digiti[sz]e")} {_ADJECTIVES}handwritten\b
        {words("correct judge rate assess check")} my {_PERFORMANCE}\b
        {words("zip unzip back_up photocopy laminate")} {words("the this my these all our up")}\b
        recogni[sz]e the {words("songs? tune melody voice face")}\b
        {words("transcribe play")} {_ADJECTIVES}voicemails?\b
        record {words("yourself me my_voice your_voice")}\b
    """)
)
_GIVEN = words("following given attached above provided accompanying supplied linked")
_LOOK = words("describe compare interpret analy[sz]e examine study inspect see hear looks?_at watch read refer_to")
_ASK = words("what which how_many how_much where who is are does do can")
_PART = words(
    "left right top bottom middle centre center corner background foreground side edge beginning start end subject"
)
_OWN = words("photos? picture image selfie screenshot video recording drawing x-?ray voice face handwriting webcam")
_SHOWN = words("images? pictures? photos? photographs? screenshots? videos? audio recordings? clips? drawings? maps?")
_PLAYED = words("song music soundtrack tune melody track film movie video clip bird instrument")
_PAINTING = words("paintings? portraits? posters?")
_TAKEN = words("scanned filmed photographed handwritten hand-drawn videotaped")
_DOING = words("saying holding wearing pointing_at looking_at thinking doing")
# "You are looking at a photograph", "Attached is a map": spoken of as there.
_BEFORE_YOU = words(
    "you(?:_are|'re)_(?:now_)?(?:looking_at|watching|viewing|listening_to|hearing|seeing|shown|presented_with|holding)"
    " (?:here|attached|enclosed|below|above)_(?:is|are) (?:before|in_front_of)_you_(?:is|are)"
    " on_(?:the|your)_screen(?:_in_front_of_you)?_(?:is|are)"
)
_SPOKEN_OF = re.compile(
    r"\b(?P<what>"
    + lines(rf"""
        (?:this|these|those|the {_GIVEN}) {_ADJECTIVES}(?:{_SEEN}|{_ARTWORK}|{_FILE})
        {words("this these those both")} {_ADJECTIVES}(?:{_PAINTING}|faces?)
        {words("the this these")} {_TAKEN} \w+
        {_LOOK} (?:what )?the {_ADJECTIVES}{_SEEN}
        {words("in from on by using according_to based_on")} the {_LOWER_CASE}(?:{_SEEN}|posters?)(?! of\b)
        {_ASK} [^.?!;]{{0,60}}?\bthe {_SEEN}(?! of\b)
        {_PART} of the {_LOWER_CASE}{_SEEN}
        use the {_ADJECTIVES}{_SEEN} (?:above|below|to)
        {words("in from on of by")} my {_ADJECTIVES}{_OWN}
        {words("given shown provided_with presented_with")} {words("an? the two three some")} {_ADJECTIVES}{_SHOWN}
        {words("what that which")} i(?:'m| am) {_DOING}
        {words("song sound noise music voice")}s? (?:that |which )?you hear
        {_BEFORE_YOU} (?:{words("an? the this these two three some several")} )?{_ADJECTIVES}
            (?:{_SEEN}|{_ARTWORK}|{_PAINTING})
        the {_SEEN}(?= {words("shows? depicts? displays? contains? i we")}\b)
        {_PLAYED} (?:(?:that|which) )?(?:is )?{words("playing singing")}
    """)
    + f"){_HEAD}",
    re.I,
)
# Speaking of such things is fine, as are those that text can make: code, figures of speech.
_SUBJECT = words(
    "stor(?:y|ies) poem novel joke letter e-?mail review script about tips ideas advice role purpose meaning"
    " difference invented why how_(?:to|do|does|can|would|should)"
)
_ABOUT = re.compile(
    r"\b"
    + lines(rf"""
        {_SUBJECT}
        scene(?! (?:in|on|from|shown|depicted)\b)
        {words("imagine imagining pretend suppose")}
        {words("when while if")} you(?:'re| are)
        {words("suggest write give create choose come_up_with")}\b[^.?!]{{0,30}} (?:captions?|titles?)
    """)
    + r"\b",
    re.I,
)
_CODE = words(
    "python javascript java html css sql bash shell latex excel mermaid graphviz svg ascii markdown functions?"
    " scripts? programs? commands? (?<!qr_)(?<!bar_)code class algorithm"
)
_IN_CODE = re.compile(rf"\b{_CODE}\b", re.I)
_FIGURATIVE = re.compile(
    r"\b"
    + lines(rf"""
        (?:the|a) {words("big bigger whole clear full mental vivid")} picture
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
        if not found and (given := _SPOKEN_OF.search(asked)) and not _ABOUT.search(asked, 0, given.end()):
            found = given
        return Verdict("keyword", f"'{found['what'].strip().lower()}'") if found else None
