"""Tasks that need hands, a network, a clock or someone's belongings."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from selfinstruct.filters import Case, Filter
from selfinstruct.filters.asked import demand, lines, request, words
from selfinstruct.records import Verdict

_A = words("a an the my our this that some two three four me_a me_an me_the me_some me_two us_a us_an us_the")
_UP_TO_4 = r"(?:[\w'-]+ ){0,4}?"
_SEND = words("send forward mail e-?mail text message call phone ring dial fax")
_SOMEONE = words("it_to this_to that_to him her them me us my mom mum dad 911 112 999")
_MAIL = words("e-?mail message reminder sms fax invitation invite")
_CALLED = words(
    "taxi cab ambulance doctor dentist restaurant police boss bank hotel landlord office team manager number"
)
_DEVICE = words(
    "lights? lamps? volume brightness heating air_condition\\w+ heater fan tv television phone computer doors? oven"
    " radio screen thermostat"
)
_BROWSE = words(
    "open visit browse navigate_to click click_on scroll log_?in log_?in_?to sign_in_?to subscribe_to follow like"
)
_SITE = words(
    "web_?sites? web_?pages? links? urls? browser apps? accounts? sites? buttons? https?\\S+ \\w+\\.(?:com|org|net)"
)
_SOFTWARE = words("apps? software drivers? versions? updates? firmware system package computer phone")
_LOOK_UP = words(
    "look_up search_for check find find_out find_me get get_me tell_me show_me what's what_is what_are give_me"
)
_LIVE = words(
    "weather_(?:in|for|forecast|today|tomorrow|now) phone_number traffic opening_hours flight_status showtimes"
    " user_reviews flights?_(?:from|to)"
    " my_(?:calendar|inbox|e-?mails?|balance|bank|messages|schedule|account|location|voicemail)"
)
_BOOK = words(
    "book reserve buy purchase order rent pay pay_for cancel reschedule schedule arrange transfer ship deliver renew"
)
_BOOKED = words(
    "flights? hotels? tables? tickets? rooms? taxi cab ride uber appointments? meetings? pizzas? groceries"
    " reservations? bills? subscriptions? dollars euros money rent orders? cars? flowers food dinner call bus train"
)
_MY = words("e-?mails? inbox messages history trash calendar folder documents? notifications voicemail contacts")
_HANDS = words("bring fetch hand pass pour cook bake drive pick_up carry hug drop")
_CHORES = words("cook bake brew clean wash water feed walk vacuum mow iron repair fix")
_WRITING = words("sentence grammar code text essay paragraph writing english")
_PRINTED = words("result output numbers? words? letters? string sum list following first")
_DEMANDS = demand(
    lines(rf"""
        send [\w'-]+ (?:an?|the) {_UP_TO_4}{_MAIL}\b
        (?:text|message|e-?mail|tell) (?-i:[A-Z][a-z]+) (?:that|about)\b
        (?:send|forward|e-?mail|mail|fax) {_A} {_UP_TO_4}to (?:the|my|our|him|her|them)\b
        (?:make|book) (?:me )?a reservation\b
        (?:get|find|call) (?:me|us) a (?:taxi|cab|ride|flight|table|room)\b
        order more\b
        post {_A} {_UP_TO_4}(?:tweet|comment|update|message|photo)\b
        (?:scroll (?:up|down|to)|click the)\b
        pick up (?:my|our)\b
        tell me (?:how far|where) i am\b
        {_SEND} (?:{_SOMEONE}|{_A} {_UP_TO_4}(?:{_MAIL}|{_CALLED}))\b
        {words("set start stop snooze cancel turn_on turn_off")} (?:up )?{_A} {_UP_TO_4}
            {words("alarm timer reminder stopwatch countdown")}\b
        {words("turn switch dim adjust raise lower increase decrease mute lock unlock")} (?:(?:on|off|up|down) )?
            {_A} {_UP_TO_4}{_DEVICE}\b
        (?:remind|wake) me\b(?! {words("of what why how who which")}\b)
        play (?:me )?(?:{words("a an the some my your")} )?{_UP_TO_4}
            {words("songs? tracks? playlist podcast album movie radio chess")}\b
        {words("sing hum whistle dance")} {words("me a an the us for to with happy")}\b
        take {_A} {words("photo photograph selfie screenshot nap walk")}\b
        {_BROWSE} (?:{_A} )?{_UP_TO_4}{_SITE}
        {words("download install uninstall update upgrade")} (?:(?:{_A}|all) )?(?:latest )?{_UP_TO_4}{_SOFTWARE}\b
        {words("post tweet publish upload share")} {words("it this that these them")} (?:on|to|in)\b
        google\b
        search {_UP_TO_4}{words("web internet online google youtube amazon database")}\b
        {_LOOK_UP} {_UP_TO_4}{_LIVE}\b
        {_BOOK} (?!or\b|and\b)(?:{_A} )?{_UP_TO_4}{_BOOKED}\b(?! of\b| by\b)
        add (?:[\w'-]+ ){{1,6}}?to my\b
        {words("delete clear archive check read read_me open empty")} (?:all )?(?:of )?my {_UP_TO_4}{_MY}\b
        {_HANDS} (?:me|us)\b
        {_CHORES} (?:my|our) (?!{_WRITING})
        {words("taste smell touch sniff feel")} (?:this|these|the)\b
        (?:listen to|watch) {words("the this a an some my")}\b
        print (?:out )?(?:this|the|my|\w+ copies)\b(?! {_PRINTED}\b)
        what (?:time|day|date) is (?:it|today)\b
        what(?:'s| is) (?:the |today's )(?:time|date|day)(?: (?:now|today|right now))?(?=\W*\Z)
        where am i\b
        what am i {words("wearing holding doing looking_at")}\b
        what (?:do|can) you (?:see|hear|smell)\b(?! as\b)
    """)
)
_PRESENT = words("today tonight tomorrow this_week yesterday")
_CHANGING = words(
    "weather temperature prices? exchange_rates? stocks? stock_market scores? headlines news tweets? traffic bitcoin"
    " market_data showtimes forecast"
)
_NOW = words("right_now at_the_moment today tomorrow tonight this_weekend")
_ATTACHED = words(
    "document file image photo report spreadsheet pdf article resume letter picture video text table data"
)
_OF_THE_PRESENT = re.compile(
    r"\b(?P<what>"
    + lines(rf"""
        {_PRESENT}'s (?:\w+ )?(?:{_CHANGING}|{words("rates? game match lottery menu date")})
        {words("current latest live real-time up-to-date most_recent")} (?:[\w'-]+ ){{0,2}}?{_CHANGING}
        current (?:local )?(?:time|date|location)
        {_CHANGING}\b[^.?!]{{0,60}}?\b{_NOW}
        (?:news|headlines) (?:of|from) {words("today the_day this_week the_week")}
        what(?:'s| is| happened) (?:\w+ )?(?:in the news|trending)
        near me
        nearest [\w ]{{2,30}}? to (?:me|my|here)
        (?:hotels?|flights?|tickets?|cinemas?)\b[^.?!]{{0,60}}?\b(?:{_NOW}|next week(?:end)?)
        (?:is|are|does|will|do) [^.?!]{{0,60}}?\b(?:rain|snow|open|closed|cost|available|on sale)\b
            [^.?!]{{0,30}}?\b(?:now|{_NOW})
        (?:check|see|find out) (?:if|whether) [^.?!]{{0,60}}?\b(?:now|{_NOW})
        current (?:[\w'-]+ ){{0,2}}?(?:top scorer|champions?|standings|ranking|leader board)
        in my {words("area fridge calendar inbox wallet pocket house room")}(?= (?:right )?now|\W*\Z)
        (?:the )?attached {_ATTACHED}
        (?:the|this) attachment
    """)
    + r")\b",
    re.I,
)
# Where the present is a subject, not a source.
_SUBJECT = words(
    "poem story song haiku limerick fiction(?:al)? imaginary imagine pretend invent hypothetical dialogue"
    " conversation skit joke e-?mail letter sentences? phrase template function script program code query api app why"
    " explain translate slogan word how_(?:to|do|does|can|would|should)"
)
_WRITTEN = re.compile(rf"\b{_SUBJECT}\b", re.I)


class Tools(Filter):
    """To act in the world or on a device, to look something up, or to know the present or what the user has at hand.

    Both originals ask the teacher for tasks without these; what comes nevertheless is rejected here.
    """

    kind: Literal["tools"] = "tools"
    by_instruction: ClassVar[bool] = True

    def judge(self, case: Case) -> Verdict | None:
        """By the wording of the instruction."""
        asked = request(case.instruction)
        found = _DEMANDS.search(asked)
        if not found and (now := _OF_THE_PRESENT.search(asked)) and not _WRITTEN.search(asked):
            found = now
        return Verdict("tools", f"'{found['what'].strip().lower()}'") if found else None
