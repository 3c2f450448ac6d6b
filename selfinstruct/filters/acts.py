"""Demands that only hands, devices, accounts or a network can meet, by their wordings.

A verb of the body, of trade or of a device is enough where its object is not one of texts and thoughts: "wash the car",
but not "wash the argument of its jargon". Verbs that are often said of texts ("move", "add") need an object of their
own.
"""

from __future__ import annotations

from selfinstruct.filters.asked import TEXTUAL, demand, lines, words

_DETERMINER = words(
    "a an the my our your his her their this that these those all some any every both another one two three four five"
    " six ten twenty \\d+"
)
_A = rf"(?:{words('me us him her them')} )?(?:(?:all|both|half) (?:of )?)?{_DETERMINER}"
# Words of one phrase, before its noun.
_ENDS_PHRASE = words("of to in into on onto for from with about that which who by and or as at how what why when if")
_FEW = rf"(?:(?!{_ENDS_PHRASE}\b)[\w'-]+ ){{0,4}}?"
_THE = rf"(?:{_A} )?{_FEW}"
_NO_TEXT = rf"(?!{_FEW}(?:of {_FEW})?{TEXTUAL}\b)"
_THING = rf"{_A} {_NO_TEXT}"
# What follows a noun that stands for the thing itself: "the computer now", but not "the computer terms".
_AFTER = words(
    "on off up down in into at to by for from with under near and or when while if before after until as so then that"
    " which who what where how whether please now again tonight today tomorrow immediately right a_bit slightly"
    " overnight through using this since every each once"
)
_HEAD = rf"(?=\W*\Z| ?[.,;:!?)…]| {_AFTER}\b)"

# -- hands and feet ----------------------------------------------------------------------------------------------------

_HANDLE = words(
    "bake bandage bathe baste boil bolt brew brush bury carry catch chase chop clean climb close comb cook crack crush"
    " cut darn decorate defrost dig dismantle drag drill drink drive drop dry dust dye eat empty fasten feed fetch fill"
    " fix flip flush fold freeze fry garnish glue grab grate grease grill groom hammer hang harvest heat hide hit hold"
    " hoover inflate iron kick kiss knead knock lift light load lock marinate mash melt mend microwave milk mop mow"
    " nail oil open pack park peel pet plait pluck plug polish pour preheat press prune pull pump push rake refill"
    " reheat repair ride rinse roast rock roll sand scoop scratch screw scrub seal serve sew shake sharpen shave shear"
    " shine shoot shovel shut sign sign_for slice smash soak solder sow spill spin sponge spray spread sprinkle squeeze"
    " stack steam stir stretch stroke sweep swallow thaw throw tidy tie tighten toast toss tow trim tune uncork unfold"
    " unload unlock unpack unscrew untie unwrap vacuum varnish wake wake_up warm warm_up wash water wear weigh weld"
    " whip whisk wipe wrap"
)
_BRING = words("bring fetch hand pass pour cook bake drive pick_up carry hug drop")
_MEAL = rf"{_FEW}(?:{words('cup glass pot bowl plate slice piece')} of )?" + words(
    "coffee tea breakfast lunch dinner sandwich cocktail drink cake"
)
_PLACE = words(
    "room kitchen bathroom bedroom garden house flat attic cellar garage table sofa bed desk fence wall tree shelf car"
)
_TAKEN = words("photo photograph selfie screenshot nap walk shower bath seat taxi bus train tram")
_EXERCISE = words("stand_up sit_down lie_down jog swim meditate")
_LOUDLY = words("aloud out_loud louder slower more_slowly")
_MADE_UP = words("fictional fictitious imaginary historical famous dead character")
# What may stand before "my" without being a deed: writing, thinking, and words that are no verbs.
_NO_DEED = words(
    "write rewrite draft compose describe explain suggest give tell show name list improve review edit correct"
    " proofread summari[sz]e translate paraphrase help plan evaluate rate assess analy[sz]e calculate compute estimate"
    " predict define debug imagine consider compare classify critique criticise grade check guess act use take make"
    " turn convert adapt tailor refine rephrase answer solve finish complete continue create generate design develop"
    " brainstorm outline organi[sz]e prioriti[sz]e optimi[sz]e simplify shorten expand extend build prepare provide"
    " offer recommend choose pick select decide determine identify find follow ignore ask discuss debate test quiz"
    " teach challenge read understand interpret respond reply react introduce present praise motivate encourage advise"
    " guide support defend argue justify prove verify confirm match fit express state enhance boost increase reduce"
    " lower meet value forgive excuse pardon mark get see hear know feel think believe love hate like miss change raise"
    " set move categori[sz]e alphabeti[sz]e punctuate script phrase word put sort arrange rank order split group divide"
    " break count spell quote cite frame pitch structure sketch map chart trace settle resolve reconcile restate reword"
    " distil condense flesh extract reconstruct deduce infer judge address treat handle keep preserve replace reverse"
    " combine merge join link save spend allocate budget schedule time pace warn congratulate thank apologise welcome"
    " celebrate mock parody imitate impersonate play become pretend assume suppose share double halve drill coach"
    " mentor train prep explore probe diagnose examine inspect audit is are was were am be been does do did has have"
    " had will would can could should in on at for with without within of to from about by as after before during since"
    " until while when where what how why who which whose if because although though and but or so than that this these"
    " both all not under over through into onto between among here there yes no given considering regarding assuming"
)
# What is one's own but no thing that hands could reach.
_MINE = words(
    "pages? diary journal blog posts? notes? memo manuscript transcripts? dissertation abstract introduction"
    " conclusion outlines? application bio newsletter feedback recipes? itinerary budget goals? thoughts? feelings?"
    " dreams? memor(?:y|ies) experiences? childhood day life career business start-?up projects? team company brand"
    " personality hobb(?:y|ies) interests? skills? strengths? weaknesses time vocabulary pronunciation health mood"
    " habits? workload"
)
_ADVERB = words("up down off out in on over back away")
_BODY = lines(rf"""
    {_HANDLE} {_THING}
    {words("taste smell touch sniff feel try_on")} {words("this these the both my")} {_NO_TEXT}
    (?!{_NO_DEED}\b)[a-z]+ (?:{_ADVERB} )?my {_NO_TEXT}(?!{_FEW}{_MINE}\b)
    {_BRING} (?:me|us)\b
    bring {words("the my our an?")} {_NO_TEXT}{_FEW}{words("in to up down back out over")}\b
    {words("make prepare get fix")} (?:me|us) {_MEAL}{_HEAD}
    {words("make prepare")} {_MEAL} for (?:me|us|my|our)\b
    give me an? {words("hug massage kiss ride lift high[- ]five")}\b
    {words("build assemble paint measure put move plant")} [^.?!]{{1,40}}?\b
        {words("in on of for to into under near")} {_A} {_FEW}{_PLACE}{_HEAD}
    measure (?:the \w+ of )?(?:this|my)\b
    set the table (?!of\b)
    take my {words("temperature pulse blood_pressure measurements order coat")}\b
    take {words("the my our this")} {_NO_TEXT}{_FEW}{words("for_a to_the to_school home")}\b
    take {_A} {_TAKEN}\b
    {words("sing hum whistle dance")} {words("me a an the us for to with happy")}\b
    {words("read say recite speak repeat")}\b[^.?!]{{0,60}}? {_LOUDLY}\b
    {words("clap wave raise")} your\b
    do {_FEW}{words("push-?ups sit-?ups squats laundry dishes")}\b
    {_EXERCISE}(?=\W*\Z| (?:and|for|in|on|to)\b)
    play (?:an? (?:game|round|match) of|against me|{words("catch football tennis cards")})\b
    look {words("at_me behind around (?:out_of|through|outside)_(?:the|your|my)")}\b
    {words("follow meet join")} me\b
    come {words("here over with_me to_my")}\b
    go {words("outside upstairs downstairs home shopping for_an?")}\b
    pick up {words("my our some")}\b
    find (?:me )?my (?!{TEXTUAL}\b)
    walk {_A} {_FEW}{words("dogs? puppy horse baby")}\b
    {words("visit attend")} {words("an? the your my two three some")}\b
    interview {words("an? the your my two three some")}\b(?! {_MADE_UP}\b)
    conduct {_A} {words("survey interview poll")}\b
    observe {words("people your how")}\b
    {words("wait count_down")} {_FEW}{words("seconds minutes hours")}\b
""")

# -- other people ------------------------------------------------------------------------------------------------------

_NAME = r"(?-i:[A-Z][a-z]+)"
_WHOM = rf"(?:{words('my our')} \w+|everyone|everybody|him|her|them|{_NAME})"
_SEND = words("send forward mail e-?mail text message call phone ring dial fax")
_SOMEONE = words("it_to this_to that_to him her them me us my mom mum dad 911 112 999")
_MAIL = words("e-?mail message reminder sms fax invitation invite")
_CALLED = words(
    "taxi cab ambulance doctor dentist plumber restaurant police boss bank hotel landlord office team manager number"
    " company hotline reception"
)
_DISPATCH = words("save send upload post print export e-?mail")
_PEOPLE = lines(rf"""
    send (?:[\w'-]+ )?(?:an?|the) {_FEW}(?:{_MAIL}|text)\b
    {_SEND} (?:{_SOMEONE}|{_A} {_FEW}(?:{_MAIL}|{_CALLED}))\b
    (?:send|forward|e-?mail|mail|fax) {_A} {_FEW}to \w
    (?:text|message|e-?mail|call|phone) {_NAME} {words("that about and if whether to")}\b
    {words("call phone ring")} (?:the|our) (?!{TEXTUAL}\b)[\w'-]+ (?:and|to|about)\b
    tell {_WHOM} (?:in [\w ]{{1,20}} )?{words("that to")}\b
    let {_WHOM} know\b
    let me know {words("when as_soon_as once")}\b
    ask {_NAME} {words("whether if to for about when where")}\b
    ask (?:{words("your my our")}|(?:an?|the) (?!{TEXTUAL}\b)[\w-]+ {words("for to if whether")})\b
    {words("invite notify alert contact")} (?:all (?:of )?)?(?:my|{_NAME} (?:and|to|for|over))\b
    {words("remind wake notify alert text call ping")} me\b(?! {words("of what why how who which")}\b)
    {words("get_in_touch_with get_hold_of put_me_through")}\b
    {words("join leave host")} {_THE}{words("meeting call conference webinar")}{_HEAD}
    {words("post tweet publish upload share")} {words("it this that these them")} (?:on|to|in)\b
    post {_A} {_FEW}{words("tweet comment update message photo")}\b
    leave {_A} {_FEW}{words("comment like voicemail message")} {words("on under below at with")}\b
    [^.?!]{{1,150}}? and {_DISPATCH} (?:it|them) {words("to in on into as off back")}\b
""")

# -- trade and dates ---------------------------------------------------------------------------------------------------

_TRADE = words("buy purchase rent renew hire cancel rebook reschedule top_up")
_PAPER = words(
    "section agenda notes minutes invitation request letter e-?mail schedule plan policy menu template form"
    " confirmation reminder summary report review description clause text card to_action"
)
_DATE = words("appointments? meetings? reservations? bookings? flights? (?:phone_)?calls? shift")
_ARRANGE = words("schedule arrange postpone confirm set_up make get change move extend")
_GOODS = words(
    "tickets? taxi cab ride pizzas? groceries bills? dollars euros pounds money rent cars? flowers food dinner lunch"
    " parcels? refund call bus train"
)
_FOR_ME = words("table room flight hotel taxi cab ride tickets? someone somebody")
_OFFERS = words(
    "flights? hotels? apartments? flats? jobs? restaurants? deals? tickets? stores? shops? (?:petrol|gas)_stations?"
    " atm cash_machine parking toilets? bakery hospital pharmacy plumber electrician dentist doctor mechanic babysitter"
)
_ERRANDS = lines(rf"""
    {_TRADE} {_THING}(?!{_FEW}{_PAPER}\b)
    {words("book reserve")} {_A}\b(?! {_FEW}{_PAPER}\b)
    {_ARRANGE} {_THE}{_DATE}\b(?! (?:of|by|{_PAPER})\b)
    arrange for\b
    {words("order pay pay_for ship get transfer wire lend donate withdraw")} (?!{words("the_following these")}\b)
        {_THE}{_GOODS}{_HEAD}
    order {words("more me us an? some another")} (?!{_FEW}{TEXTUAL}\b)
    pay {words("my our")}\b
    {words("deliver return collect")} {_A} {_FEW}{words("packages? parcels? shoes dress laundry library_books?")}\b
    {words("get find call order")} (?:me|us) {_THE}{_FOR_ME}\b
    {words("find look_for search_for")} (?:me )?{_THE}{_OFFERS}{_HEAD}
    {words("sign register enrol enroll")} (?:me|us)\b
    {words("apply sign_up queue register")} for {_A}\b
""")

# -- devices and accounts ----------------------------------------------------------------------------------------------

_OPERATE = words(
    "dim mute unmute restart reboot charge recharge unplug plug_in sync scan zip unzip back_up photocopy laminate"
    " bookmark pause resume rewind snooze tap swipe click unsubscribe subscribe block unblock unfollow power_off"
    " shut_down activate deactivate"
)
_SWITCH = words(
    "turn switch adjust raise lower increase decrease set start stop run check connect disconnect pair update"
)
_DEVICE = words(
    "lights? lamps? volume brightness heating radiators? air_condition\\w+ ac heaters? fans? tv television radio"
    " phones? computers? laptop tablet doors? windows? gates? blinds curtains shutters oven stove kettle"
    " coffee_(?:machine|maker) dishwasher washing_machine dryer vacuum screen thermostat server router printer camera"
    " headphones speakers? bluetooth wi-?fi engine car sprinklers? stopwatch (?:virus_)?scan backup"
)
_SETTING = words("passwords? pin settings tyres? tires? bulb battery channel ringtone wallpaper")
_CLOCK = words("alarms? timers? reminders? countdown")
_PLAYABLE = words(
    "songs? tracks? playlists? podcasts? albums? movies? films? radio audiobook chess music jazz news videos? next"
)
_FILM = words("films? videos? movies? clips? shows? episodes? trailers? minutes match game news")
_SOFTWARE = words("apps? software drivers? versions? firmware system package computer phone games?")
_MY = words(
    "e-?mails inbox messages history trash calendar diary agenda folders? documents notifications voicemails? contacts"
    " accounts? passwords? pin to-?do_list (?:shopping|grocery|wish)_list playlists? cart basket desktop phone laptop"
    " computer bank credit_\\w+ settings balance location"
)
_STORE = words(
    "folder desktop usb_stick (?:hard|flash|usb|shared|google)_(?:disk|drive) dropbox cloud cart basket bin trash"
)
_WHERE = words("in on to into onto from off")
_PRINTED = words("result output numbers? words? letters? string sum list following first")
_DEVICES = lines(rf"""
    {_OPERATE} (?:me\b|(?:to |from |on )?{_THING})
    {_SWITCH} (?:(?:on|off|up|down) )?{_A} {_FEW}{_DEVICE}{_HEAD}
    change {_THE}{_SETTING}(?:{_HEAD}| of\b)
    {words("set cancel turn_on turn_off create add make")} (?:up )?{_A} {_FEW}{_CLOCK}\b(?! {_PAPER}\b)
    {words("play start skip shuffle")} (?:me )?(?:to )?{_THE}{_PLAYABLE}{_HEAD}
    {words("play_back put_on_some put_on_my listen_to_the")}\b
    {words("watch listen_to")} (?:{words("this an? some my")}\b|{_THE}{_FILM}\b)
    {words("put add enter note save copy mark move")} [^.?!]{{1,60}}?\b
        {_WHERE} (?:(?:my|our) {_FEW}{_MY}|{_A} {_FEW}{_STORE})\b
    {words("delete remove clear archive")} [^.?!]{{1,60}}? {_WHERE} (?:my|our) {_FEW}{_MY}\b
    {words("check read read_me reset change increase")} (?:all )?(?:of )?my {_FEW}{_MY}\b
    {words("check open read clear sort")} (?:the|your) {_FEW}{words("inbox voicemails? calendar notifications")}\b
    {words("download upload install uninstall")} {_A}\b
    {words("update upgrade")} {_THE}{_SOFTWARE}(?:{_HEAD}| of\b)
    {words("log_?in sign_in log_out vote")} {words("to for on in into of")}\b
    print (?:out )?(?:this|the|my|\w+ copies)\b(?! {_PRINTED}\b)
""")

# -- the web -----------------------------------------------------------------------------------------------------------

_SITES = words(
    "google bing youtube wikipedia amazon ebay twitter facebook instagram linkedin reddit tiktok pinterest spotify"
    " netflix craigslist tripadvisor yelp the_(?:web|internet|net|database|archive|catalogue) online"
)
_BROWSE = words(
    "open visit browse navigate_to click scroll subscribe_to unsubscribe_from follow like check go_on look_at scrape"
    " crawl monitor refresh"
)
_SITE = words(
    "web_?sites? web_?pages? home_?page links? urls? browser tabs? apps? accounts? sites? catalogue buttons? dashboard"
    " https?\\S+ \\w+\\.(?:com|org|net)"
)
_SITE_TEXT = words("copy texts? contents? descriptions? names? titles? headlines? code addresses between")
_LOOK_UP = words(
    "look_up search_for check find find_out find_me get get_me tell_me show_me what's what_is what_are give_me see"
)
_LIVE = words(
    "weather_(?:in|for|forecast|today|tomorrow|now) phone_number traffic opening_hours flight_status showtimes"
    " user_reviews flights?_(?:from|to) (?:train|bus)_times pollen_count"
)
_WEB = lines(rf"""
    google (?!{words("sheets? docs? ads? cloud maps_is")}\b)
    look up {_A}\b(?! {_FEW}{_PAPER}\b)
    {_LOOK_UP} {_FEW}{_LIVE}\b
    {words("search browse check consult scroll_through")} (?:on )?{_SITES}\b
    {words("look shop")} {words("online on_the_(?:web|internet)")}\b
    {words("look find see check search compare order")} (?!ways\b|out how\b)[^.?!]{{1,60}}?\b
        (?:on|in|at) (?:{_SITES}|(?:\w+ )?online (?:shop|store)s?)\b
    {words("find find_out get read download copy collect extract look_up check")} [^.?!]{{0,60}}?\b
        {words("from on at in")} (?:{_A}|its) {_FEW}{words("web_?site web_?page home_?page")}{_HEAD}
    {_BROWSE} (?:on )?(?:{_A} )?{_FEW}{_SITE}(?! {_SITE_TEXT}\b)
    scroll (?:up|down|to)\b
""")

ACTS = demand("|".join((_BODY, _PEOPLE, _ERRANDS, _DEVICES, _WEB)))
