"""Any text in a card is shown as it is, and nothing in it takes effect, says a Markdown renderer of others."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from selfinstruct.characters import visible
from selfinstruct.markdown import block, front_matter, inline, linked, table

# HTML passes through, as it does where cards are shown before anything is cleaned away.
MARKDOWN = MarkdownIt("gfm-like", {"linkify": False, "html": True})
MARKS = "\\`*_~[]()<>|&#!-+=:/.@$\"' \t\n\r{}1aé漢\u200f\u202e\u2028\x00\x1b\x7f\x85\ud800\U0001f600"
texts = st.text(alphabet=st.one_of(st.sampled_from(MARKS), st.characters()), max_size=60)
hostile = example(
    "<script>alert(1)</script>|**x** [a](javascript:b) ![i](j) &lt; `c` http://e.org www.e.org a@e.org ~~d~~"
)


class Page(HTMLParser):
    """Tags, and the text within each innermost one."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(text: str) -> str:
    return " ".join(visible(text).split())


@given(texts)
@hostile
@example("a\\|b")
@example("_a_ __b__ c_d_e _")
@example("trailing \\")
def test_text_in_a_line_is_text(text):
    page = Page(MARKDOWN.render(f"Name: {inline(text)}"))
    assert page.tags == ["p"]
    assert page.text.strip() == f"Name: {shown(text)}".strip()


@given(texts, texts)
@example("a|b", "c\\")
def test_text_in_a_table_stays_in_its_cell(first, second):
    page = Page(MARKDOWN.render(table(("x", "y"), [(inline(first), inline(second))])))
    assert page.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert " ".join(page.text.split()) == " ".join(["x y", shown(first), shown(second)]).replace("  ", " ").strip()


@given(texts)
@example("```\nout\n```")
@example("``````")
def test_text_in_a_block_is_code(text):
    page = Page(MARKDOWN.render(block(text)))
    assert page.tags == ["pre", "code"]
    assert page.text == visible(text.replace("\r\n", "\n")) + "\n\n"


@given(st.dictionaries(st.sampled_from(["a", "b-c", "d_e"]), st.one_of(texts, st.lists(texts, min_size=1))))
@example({"a": "no", "b-c": ["yes", "1e3", "null", "~", "2020-01-01", "---", "- x: y", "#"]})
def test_front_matter_gives_back_what_went_in(values):
    read = yaml.safe_load(re.fullmatch("---\n(.*?)---\n", front_matter(values), re.S)[1]) or {}

    def utf8(value):
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else [utf8(one) for one in value]

    assert read == {name: utf8(value) for name, value in values.items()}


def test_nested_front_matter():
    values = {
        "configs": [{"config_name": "c", "data_files": [{"split": "train", "path": "a: b"}]}, {"config_name": "d"}]
    }
    text = front_matter({**values, "license": None, "tags": []})
    assert yaml.safe_load(text.removeprefix("---\n").removesuffix("---\n")) == values


def test_an_address_becomes_a_link_and_nothing_else_does():
    page = MARKDOWN.render(f"Terms: {linked('https://example.org/terms?a=1&b=2#c')}")
    assert '<a href="https://example.org/terms?a=1&amp;b=2#c">' in page
    for text in (
        "javascript:alert(1)",
        "https://e.org/ x",
        "https://e.org/>x",
        "https://e.org/\u202ex",
        "OpenAI's terms",
    ):
        assert Page(MARKDOWN.render(f"Terms: {linked(text)}")).tags == ["p"]
