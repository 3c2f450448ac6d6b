"""Characters that files, terminals and pages cannot take: taken out, marked or spelt, and nothing else."""

from __future__ import annotations

import json
import sys

import pytest

from selfinstruct.characters import HIDDEN, escaped, printable, storable, visible
from selfinstruct.files import to_json_line, to_toml, tomllib

READABLE = "Übersetze 日本語,\tالعربية\nשלום \U0001f468\u200d\U0001f469 e\u0301 \u200c\u200f"
EVERYTHING = "".join(map(chr, range(sys.maxunicode + 1)))


def test_readable_text_stays_as_it_is():
    for change in (storable, visible, printable, escaped):
        assert change(READABLE) == READABLE


def test_nothing_hidden_is_left():
    for change in (visible, printable, escaped):
        assert not HIDDEN.search(change(EVERYTHING))
    assert set(HIDDEN.findall(EVERYTHING)) >= set("\x00\x07\x0c\r\x1b\x7f\x85\x9b\u2028\u202e\u2067\ud800\udfff")
    storable(EVERYTHING).encode()


@pytest.mark.parametrize(("text", "spelt"), [("\x1b[2J", "\\x1b[2J"), ("\x9b", "\\x9b"), ("\u202e", "\\x202e")])
def test_a_terminal_shows_what_was_there(text, spelt):
    assert printable(text) == spelt


def test_escapes_are_the_same_values():
    values = {"a": storable(EVERYTHING[:3000] + EVERYTHING[0x2000:0x3000]), "b\x9b": ["\x7f\u2028"]}
    assert json.loads(escaped(to_json_line(values))) == values
    assert tomllib.loads(escaped(to_toml(values))) == values
