"""Questions that only someone who is there now, or who knows the user, can answer, by their wordings."""

from __future__ import annotations

import re

from selfinstruct.filters.asked import TEXTUAL, demand, lines, words

_DAY = words("today tonight tomorrow yesterday last_night this_(?:week|morning|evening)")
_CHANGING = words(
    "weather temperature prices? exchange_rates? stocks? stock_market scores? headlines news tweets? traffic bitcoin"
    " dollar euro market_data showtimes forecast queues? delays?"
)
_SHOWN = words("rates? games? match(?:es)? lottery menu date results? show performance episode concert race")
_NOW = words("right_now at_the_moment today tomorrow tonight this_weekend on_\\w{2,6}day next_week")
_ATTACHED = words(
    "documents? files? images? photos? reports? spreadsheets? pdfs? articles? resume cv letter pictures? videos? text"
    " tables? data x-?rays? scans? invoices? contracts? slides? screenshots? papers? recordings?"
)
_EVENTS = words("trains? bus flights? ferry tram plane metro match game episode holiday full_moon eclipse election")
_PLACES = words("shops? stores? pharmacy museum bank library post_office supermarket restaurant gym pool cinema office")
_FEASTS = words(
    "christmas new_year easter halloween thanksgiving diwali ramadan eid valentine the_(?:weekend|holidays|end_of_the)"
    " summer winter spring autumn my_(?:birthday|wedding|holiday|vacation|flight|exam) next"
    " (?:mon|tues|wednes|thurs|fri|satur|sun)day"
)
_WEATHER = words("rain raining snow snowing sunny windy cold hot warm freezing cloudy foggy stormy dark")
_GEAR = words("umbrella coat jacket sunscreen")
_SURROUNDINGS = words("area neighbou?rhood fridge calendar inbox wallet pocket house room street garden kitchen bag")
_PAGE = words("link url web_?page web_?site")
_READ = words(
    "article page site website blog paper report content recipe summari[sz]e read visit open translate review"
)
_ROUNDED = words("whole integer tenth hundred thousand number term value multiple power")
PRESENT = re.compile(
    r"\b(?P<what>"
    + lines(rf"""
        {_DAY}'s (?:\w+ )?(?:{_CHANGING}|{_SHOWN})
        {words("current latest live real-time up-to-date most_recent")} (?:[\w'-]+ ){{0,2}}?
            (?:{_CHANGING}|{words("results standings fixtures updates posts releases")})
        current (?:local )?(?:time|date|location)
        {_CHANGING}\b[^.?!]{{0,60}}?\b{_NOW}
        (?:costs?|worth|trading at)\b[^.?!]{{0,30}}?\b(?:today|right now|at the moment)
        (?:news|headlines) (?:of|from) {words("today the_day this_week the_week")}
        what(?:'s| is| happened) (?:\w+ )?(?:in the news|trending)
        what(?:'s| is) (?:happening|going on)(?= (?:today|now|right now|in the world|around)\b|\W*\Z)
        near me
        (?:from|around|near) here(?! on\b)
        near my {words("home house office hotel place school work")}
        (?:where(?:'s| is| are| can i find)|show me|take me to|locate|find me|find) the (?:nearest|closest)
            (?! {_ROUNDED}\b)
        nearest [\w ]{{2,30}}? to (?:me|my|here)
        (?:hotels?|flights?|tickets?|cinemas?)\b[^.?!]{{0,60}}?\b(?:{_NOW}|next week(?:end)?|this week)
        on (?:tv|television) {words("tonight today now right_now")}
        (?:is|are|does|will|do) [^.?!]{{0,60}}?\b(?:rain|snow|open|closed|cost|available|on sale)\b
            [^.?!]{{0,30}}?\b(?:now|{_NOW})
        (?:is|are) the [^.?!]{{0,40}}?\bstill (?:open|closed|available|on sale|in stock)
        (?:is it|will it|is it going to) (?:still )?(?:be )?{_WEATHER}(?=\W*\Z| (?:outside|there|{_NOW}|in)\b)
        (?:temperature|light|dark|cold|hot|warm|noisy)(?: is it)? outside
        (?:need|take|bring|wear) (?:an? |my |the )?{_GEAR}\b[^.?!]{{0,30}}?\b(?:outside|{_NOW})
        (?:when|what time) (?:is|does|do|will|did) (?:the|our) (?:next|last) (?:\w+ )?{_EVENTS}
        (?:when|what time) (?:does|do|will) the (?:\w+ ){{0,2}}?{_PLACES} [\w ]{{0,40}}?(?:open|close)
        how (?:many (?:more )?(?:days|weeks|months|hours)|long)\b[\w ]{{0,20}}? (?:until|till|before) {_FEASTS}
        how (?:full|busy|crowded|long) (?:is|are) the (?:\w+ ){{0,2}}?{words("car_park queue line wait train bus")}
        what (?:day|date)[\w ]{{0,15}}? (?:is|was|will) (?:it )?(?:be )?(?:today|tomorrow|yesterday)
        (?:check|see|find out) (?:if|whether) [^.?!]{{0,60}}?\b(?:now|{_NOW})
        current (?:[\w'-]+ ){{0,2}}?(?:top scorer|champions?|standings|ranking|leader board)
        in my {_SURROUNDINGS}(?= (?:right )?now|\W*\Z)
        in your (?:area|neighbou?rhood)
        , (?:remind|wake|notify|alert) me
        (?:outside|through|from) my (?:window|door|house)
        (?:the )?attached (?:[\w-]+ )?{_ATTACHED}
        (?:the|this) attachment
        (?:this|the following|the attached|the provided) {_PAGE}
        (?:linked|link) (?:below|above|here)
        (?:behind|at|under|from|via) (?:that|the given) {_PAGE}
        {_READ}\b[^.?!]{{0,60}}? https?://\S+
    """)
    + r")(?!\w)",
    re.I,
)

_ASK = words(
    "what what's when when's where where's which who whose how_(?:much|many|full|long|far|busy|is|are|was) is are am"
    " do does did has have will was were tell_me show_me check find find_out read give_me list track track_down look_up"
    " confirm count see let_me"
)
_FEW = r"(?:[\w'-]+ ){0,3}?"
# In questions that ask for advice, or about a text.
_ADVICE = words(
    "should do_(?:i|you|we)_do (?:can|could|would)_(?:i|you|we) if mean best better good why ways help plan raise"
    " how_to how_do affect improve ideas? tips need to_do difference recommend suggest stor(?:y|ies) poem novel texts?"
    " passage paragraph sentences? dialogue scenes? characters? plot words? phrase book"
)
# A question that asks neither for advice nor about a text.
_OF_FACT = rf"{_ASK}\b(?![^.?!;]{{0,200}}\b{_ADVICE}\b)[^.?!;]{{0,80}}?\b"
# What only the user's devices and accounts know.
_OWN = words(
    "accounts? balance bills? pay_?check credit_(?:score|limit|card) rewards? calendar appointments? meetings?"
    " reminders? alarms? timers? (?:to-?do|shopping|grocery|wish)_lists? inbox unread voicemails? contacts"
    " notifications orders? package parcel delivery flights? luggage reservations? bookings? transactions spending"
    " playlists? location gps_\\w+ passwords? blood_type heart_rate fuel_level tire_pressure friends followers birthday"
    " vacation_days phone cell_?phone"
)
_STATE = words(
    "ready empty full home awake asleep plugged_in working broken switched_on switched_off turned_on turned_off on off"
    " locked unlocked here there"
)
_SOON = words(
    "right_now at_the_moment at_this_moment tonight tomorrow yesterday last_night"
    " this_(?:morning|afternoon|evening|week|month|season)"
)
_COUNTED = words("followers subscribers views downloads visitors users")
PERSONAL = demand(
    lines(rf"""
        what (?:time|day|date|year) is (?:it|today)\b
        what(?:'s| is) (?:the |today's )(?:time|date|day)(?: (?:now|today|right now))?(?=\W*\Z)
        where am i\b
        tell me (?:how far|where) i am\b
        (?:what|which|who|how many)\b[\w ]{{0,30}} am i {words("wearing holding doing looking_at pointing touching")}\b
        what (?:do|can) you (?:see|hear|smell)(?=\W*\Z| (?:right now|now|here|in (?:this|the))\b)
        (?:what|which|whose)(?:'s| is)? (?:this|that) {words("song noise sound smell tune")}\b
        who(?:'s| is) {words("at_the_door calling on_the_phone outside")}\b
        guess my (?!{TEXTUAL}\b)
        {_OF_FACT}my (?:[\w'-]+ ){{0,3}}?{_OWN}\b
        (?:what|when|where|how much|how many|whose|who)(?:'s| is| are| was| were| do| does| did| will)
            (?![^.?!;]{{0,200}}\b(?:{_ADVICE}|{TEXTUAL})\b) (?:the (?:\w+ ){{1,3}}of )?my\b
        {_OF_FACT}{_SOON}\b
        {_OF_FACT}(?:on|from) the (?:[\w'-]+ ){{0,3}}?web ?(?:site|page)\b
        (?:has|is|will|did) it (?:\w+ ){{0,2}}?{_WEATHER}(?=\W*\Z)
        (?:is|are) (?:the|my) (?!{_FEW}{TEXTUAL}\b){_FEW}{_STATE}(?=\W*\Z| (?:yet|now|again|already)\b)
        which of (?:these|those) (?!{TEXTUAL}\b)\w+ {words("tastes? smells? feels? weighs? fits?")}\b
        how(?:'s| is| was| are| were) my (?!{TEXTUAL}\b)
        what(?:'s| is) for {words("breakfast lunch dinner")}\b
        {words("see hear smell")} (?:me|my)\b
        where(?:'s| is| are) my (?!{TEXTUAL}\b)
        {words("check see find_out tell_me make_sure verify")} {words("whether if that when where")} (?:my|our)
            (?! (?:\w+ )?{TEXTUAL}\b)
        (?:do i (?:still )?(?:have|owe|own)|(?:did|have) i)(?! to\b)(?![^.?!;]{{0,100}}{TEXTUAL}\b) \w+
        (?:what|when|where|how much|how many \S+) (?:did|have) i \w+
        how (?:much|many) (?:[\w-]+ ){{1,3}}(?:do|have) i {words("have owe got left spent used")}
        {words("what when why how_often")} did [\w ]{{1,30}} {words("say write send tell give text")} (?:to )?me\b
        (?:find out |tell me |check )?how many (?:\w+ )?{_COUNTED}\b
        (?:{_ASK}|identify|name|describe)\b[^.?!;]{{0,40}}? the (?!{_FEW}{TEXTUAL}\b){_FEW}(?:that )?
            i {words("found bought took drew cooked caught recorded filmed uploaded ordered picked")}\b
        who {words("called texted wrote e-?mailed invited phoned messaged")} me\b
        (?:has|have|is|are|did) (?:the|my|our|anyone|anybody) (?![^.?!;]{{0,60}}{TEXTUAL}\b)[^.?!]{{1,60}} yet\b
        (?:are|is) there (?:any |still )?[\w ]{{1,30}} left(?=\W*\Z| (?:for|on|at|in)\b)
        (?:are|is) there (?:an? |any |much )?(?:\w+ )?{words("traffic jam queue delays? parking")}\b
        did {words("anyone anybody someone")} {words("call come ring knock write ask_for")}\b
        list\b[^.?!]{{0,40}}? in (?:cinemas|theat(?:er|re)s) {words("this_week now today")}\b
    """)
)
