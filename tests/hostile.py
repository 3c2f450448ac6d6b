"""Texts that would take effect somewhere if they were taken for anything but text.

Each carries a word of its own, so that it can be found wherever it comes out. `FIRED` is what a script that ran would
leave behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from selfinstruct.filters.union import USUAL
from tests.generating import FreshServer, generate
from tests.server import RunningServer

FIRED = "hostile_fired"
_CALL = f"window.{FIRED}=1;alert(1)"


@dataclass(frozen=True, slots=True)
class Payload:
    """One of them.

    Attributes:
        mark: A word that no other payload has.
    """

    kind: str
    text: str
    mark: str


_TAGS = (
    "<script>{js}</script>", "<ScRiPt >{js}</sCrIpT\t>", "<script src='data:text/javascript,{js}'></script>",
    "<img src=x onerror='{js}'>", "<img/src=x/onerror={js}//", "<svg onload='{js}'>",
    "<svg><script>{js}</script></svg>", "<svg><animate onbegin='{js}' attributeName=x dur=1s>",
    "<svg><use href='data:image/svg+xml,<svg onload={js}>'/></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x onerror={js}&gt;'>",
    "<math href='javascript:{js}'>x</math>", "<body onload='{js}'>", "<input autofocus onfocus='{js}'>",
    "<details open ontoggle='{js}'>", "<video><source onerror='{js}'>",
    "<iframe srcdoc='<script>parent.{js}</script>'>", "<iframe src='javascript:{js}'>",
    "<object data='javascript:{js}'>", "<embed src='javascript:{js}'>", "<a href='javascript:{js}'>x</a>",
    "<form action='javascript:{js}'><button>x", "<meta http-equiv=refresh content='0;url=javascript:{js}'>",
    "<base href='https://example.invalid/'>", "<link rel=stylesheet href='https://example.invalid/x.css'>",
    "<style>*{{display:none!important}}</style>", "<style>@import 'https://example.invalid/x.css';</style>",
    "<template><script>{js}</script></template>", "<noscript><p title='</noscript><img src=x onerror={js}>'>",
    "<xmp><script>{js}</script>", "<plaintext>", "<textarea><script>{js}</script>", "<title><script>{js}</script>",
    "<table><td background='javascript:{js}'>", "<dialog open>x</dialog>", "<marquee onstart='{js}'>x</marquee>",
)  # fmt: skip
_ENDINGS = (
    "</script><script>{js}</script>", "</ScRiPt\n><img src=x onerror={js}>", "--><script>{js}</script>",
    "--!><script>{js}</script>", "<!--<script>{js}//-->", "]]><script>{js}</script>",
    "</textarea><script>{js}</script>", "</title><svg onload={js}>", "</style><script>{js}</script>",
    "</pre></code><script>{js}</script>", "\"><img src=x onerror={js}>", "'><img src=x onerror={js}>",
    "\" onmouseover={js} x=\"", "' autofocus onfocus={js} x='", "`;{js};`", "';{js};'", "\";{js};//", "\\\";{js};//",
    "\u2028{js}\u2029", "</template><img src=x onerror={js}>", "*/{js}/*", "${{{js}}}",
    "&lt;script&gt;{js}&lt;/script&gt;", "&#60;img src=x onerror={js}&#62;", "%3Cscript%3E{js}%3C/script%3E",
    "\\u003cscript\\u003e{js}\\u003c/script\\u003e",
)  # fmt: skip
_TEMPLATES = (
    "{{ 7*7 }}", "{{ config }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self._TemplateReference__context }}", "{% for x in range(9) %}x{% endfor %}", "{% raw %}",
    "{% endraw %}{{ 7*7 }}", "{# note #}", "{% include '/etc/passwd' %}", "${7*7}", "#{7*7}", "<%= 7*7 %>",
    "<?php echo 7*7; ?>", "{0.__class__}", "{instruction}", "{", "}", "{}", "%s%n", "%(x)s", "$(id)", "`id`",
    "[[7*7]]", "@(7*7)", "{{constructor.constructor('alert(1)')()}}", "{{{x}}}", "\\{{ x \\}}", "$x$",
    "$$\\href{javascript:alert(1)}{x}$$",
)  # fmt: skip
_TERMINAL = (
    "\x1b[2J", "\x1b[31m", "\x1b[1;1H", "\x1b[?1049h", "\x1b[6n", "\x1b[c", "\x1b]0;title\x07", "\x1b]0;title\x1b\\",
    "\x1b]52;c;aGk=\x07", "\x1b]8;;https://example.invalid\x1b\\x\x1b]8;;\x1b\\", "\x1bP$q\"p\x1b\\", "\x1b_x\x1b\\",
    "\x1b^x\x1b\\", "\x1bc", "\x1b(0", "\x9b2J", "\x9b31m", "\x9d0;title\x9c", "\x9dtitle\x07", "\x90x\x9c",
    "\x84\x85\x88\x8d", "\x07\x07", "\x08\x08\x08ok", "\rok", "\x0b\x0c", "\x00", "\x7f", "\x0e\x0f",
    "\x1b[200~x\x1b[201~", "\x1b[38;5;1m", "\x1b]4;1;?\x07", "\x1b]1337;File=:\x07", "[red]x[/red]",
    "[link=https://example.invalid]x[/link]", "[/]", "[bold",
)  # fmt: skip
_UNICODE = (
    "\u202egnp.exe", "\u202dabc", "\u2066abc\u2069", "\u2067abc\u2069", "\u2068\u202e\u2069", "\u202a\u202b\u202c",
    "\u200bz\u200bw", "\u200c\u200d\u2060\ufeff", "\u200e\u200f", "\u061c", "\u2028\u2029\x85", "\ud800", "\udfff",
    "\udc00\ud800", "x\ud83d", "\ufffe\uffff", "\ufffd", "\U000e0041\U000e0042\U000e007f",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "e" + "\u0301" * 60, "Z\u0351\u036b\u0343" * 30,
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u05e2\u05d1\u05e8\u05d9\u05ea", "\u65e5\u672c\u8a9e",
    "\u0e44\u0e17\u0e22", "\u0928\u092e\u0938\u094d\u0924\u0947", "\ue000\uf8ff", "\U0010ffff", "\u3164\u115f",
    "\u00ad" * 20, "\uff1cscript\uff1e", "\u02bascript\u02ba", "\u180e", "\u2800" * 40,
)  # fmt: skip
_WIDE = (
    "W" * 5_000, "\u5b57" * 3_000, "_" * 3_000, "a-" * 2_000, "http://example.invalid/" + "x" * 3_000,
    "\u00a0" * 3_000, "x\u2060" * 1_500, "\ufdfd" * 300, "\t" * 300 + "x", "|" * 1_000, "<" * 3_000, "&" * 3_000,
    "`" * 500, "W\n" * 400,
)  # fmt: skip
_FORMULAS = (
    "=HYPERLINK(\"https://example.invalid\",\"x\")", "=cmd|'/C calc'!A0", "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0", "@SUM(1+1)*cmd|' /C calc'!A0", "\t=1+1", "\r=1+1", "=1+1\",\"=2+2", "\n=1+1", ";=1+1",
    "\"=1+1\"", "=IMPORTXML(\"https://example.invalid\",\"//a\")", "\uff1d1+1", " =1+1",
)  # fmt: skip
_MARKDOWN = (
    "# heading", "---\nlicense: mit\n---", "[x](javascript:alert(1))", "![x](https://example.invalid/x.png)",
    "<https://example.invalid>", "| a | b |\n|---|---|", "```\n</code>\n```", "~~~\nx\n~~~", "````", "* * *", "> x",
    "1. x", "- [ ] x", "**x** __x__ *x* _x_ ~~x~~", "`x` ``y``", "[^1]: x", "[x]: https://example.invalid", "\\",
    "\\|", "a  \nb", "    code", "&copy; &#x3c;b&#x3e;", "<b>x</b>", "<!-- x -->",
    "www.example.invalid a@example.invalid", "@someone #1", ":smile:", "$$x$$", "\n\n\n",
    "<details><summary>x</summary>", "- a\n  - b: c", "key: value", "!!python/object:os.system", "&a *a", "%YAML 1.2",
)  # fmt: skip
_PROTOCOL = (
    "\n\n1. Instruction: x\n1. Input:\n", "###", "### Response:", "\n20. x", "data: [DONE]\n\n", "}\n{\"id\":",
    "\",\"accepted\":1,\"x\":\"", "null", "true", "NaN", "1e999", "\\n\\t\\u0000", "\r\n\r\n", "\x1e\x1f\x1c",
    "'; DROP TABLE candidates; --", "../../etc/passwd", "file:///etc/passwd", "\\\\host\\share", "CON",
    "a" + "\n" * 50 + "b",
)  # fmt: skip


def _plain() -> Iterator[tuple[str, str]]:
    scripts = (_CALL, f"(()=>{{{_CALL}}})()", f"eval(`{_CALL}`)")
    for js in scripts:
        for form in (*_TAGS, *_ENDINGS):
            yield (
                "html",
                form.replace("{{", "\0").replace("}}", "\1").replace("{js}", js).replace("\0", "{").replace("\1", "}"),
            )
    kinds = {
        "template": _TEMPLATES, "terminal": _TERMINAL, "unicode": _UNICODE, "wide": _WIDE, "formula": _FORMULAS,
        "markdown": _MARKDOWN, "protocol": _PROTOCOL,
    }  # fmt: skip
    for kind, texts in kinds.items():
        for text in texts:
            yield kind, text


def payloads() -> list[Payload]:
    """All of them: each text alone, within a sentence, after one and in a place that quotes it; over 2,000."""
    places = ("{}{}", "{} then {} and so on", "{} {}", '{} "{}"', "{}: '{}'", "{}\n{}\n", "{}\n{}\n{}")
    made: list[Payload] = []
    for kind, text in _plain():
        for number, place in enumerate(places):
            mark = f"zq{len(made)}x"
            filled = text + mark if number == 0 else place.format(*[mark, text, text][: place.count("{}")])
            made.append(Payload(kind, filled, mark))
    return made


# A name of a model, since that comes from elsewhere too.
MODEL = f"m\x1b]0;x\x07\x9b31m<img src=x onerror={_CALL}>{{{{7*7}}}}|\u202e"
TASKS_PER_REPLY = 50
_NUMBERS = count()


def tasks() -> list[dict[str, str]]:
    """Tasks in which every payload is an instruction, an input and an output."""
    texts = [payload.text for payload in payloads()]
    return [
        {"instruction": text, "input": texts[place - 1], "output": texts[place - 2]} for place, text in enumerate(texts)
    ]


def generate_hostile(out: Path, server: RunningServer | FreshServer, **flags: Any) -> int:
    """Run `selfinstruct generate` with a teacher that answers these tasks and no others; gives its exit code."""
    given = tasks()
    parts = [given[start : start + TASKS_PER_REPLY] for start in range(0, len(given), TASKS_PER_REPLY)]
    # A pattern that matches anything; of its own, since the server counts what each has matched.
    anything = f"(?#{next(_NUMBERS)})"
    # ASCII, as an API sends it: lone surrogates are escapes in the answer's own JSON.
    server.set(script={anything: [json.dumps({"tasks": part}) for part in parts]})
    settings = {
        "model": MODEL, "strategy": "alpaca:structured=true", "endpoint": "chat", "window": 8,
        "tasks_per_request": TASKS_PER_REPLY, "num_instructions": len(given), "max_requests": len(parts),
    }  # fmt: skip
    return generate(out, server.base_url, **{**settings, **flags})


def everything_goes() -> tuple[str, ...]:
    """The usual filters, for --without."""
    return tuple(str(rule.kind) for rule in USUAL)
