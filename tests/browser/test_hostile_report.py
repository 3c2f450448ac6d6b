"""Over 2,000 hostile texts in the report, in a real browser: they are text, and nothing but text."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from selfinstruct.report_page import ReportConfig, report
from tests.hostile import FIRED, everything_goes, generate_hostile, payloads
from tests.server import running_server

# Goes through all pages of a table; gives the text of every task, and the widest that the page was.
ALL_PAGES = """async (name) => {
  const root = document.querySelector(`[data-table=${name}]`), next = root.querySelector("[data-go=next]");
  const texts = [];
  let widest = 0;
  for (;;) {
    for (const task of root.querySelectorAll(".tasks > *")) texts.push(task.textContent);
    widest = Math.max(widest, document.documentElement.scrollWidth);
    if (next.getAttribute("aria-disabled") === "true") return [texts, widest];
    const before = root.querySelector(".place").textContent;
    next.click();
    while (root.querySelector(".place").textContent === before) await new Promise((done) => setTimeout(done, 1));
  }
}"""

# Names of elements that a report has none of.
OTHERS = """() => [...document.querySelectorAll(
  "iframe, object, embed, img, video, audio, form, base, math, link:not([rel=icon]), meta[http-equiv=refresh], \
[onerror], [onload], [onclick], [onfocus], a[href^=javascript]"
)].map((element) => element.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports on a run that accepted all of them and on one that rejected most."""
    root = tmp_path_factory.mktemp("hostile")
    # The run is made in a thread of its own: this one has the event loop of the browser.
    with running_server() as server, ThreadPoolExecutor(1) as thread:
        folder, without = root / "accepted <b>{{7*7}}", everything_goes()
        assert thread.submit(generate_hostile, folder, server, without=without).result() == 0
        assert thread.submit(generate_hostile, root / "rejected", server, saturation_window=10_000).result() == 4
    made = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        made.append(root / f"{folder.name[:8]}.html")
        report(ReportConfig(run=folder, out=made[-1]))
    return made


def unfired(page):
    return page.evaluate(f"window.{FIRED} === undefined")


@pytest.mark.parametrize("width", [1100, 400])
def test_all_texts_are_shown_and_none_takes_effect(opened, pages, width):
    for path, table in zip(pages, ("accepted", "rejected"), strict=True):
        with opened(path, viewport={"width": width, "height": 900}) as page:
            page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
            texts, widest = page.evaluate(ALL_PAGES, table)
            assert widest <= width
            assert unfired(page)
            assert page.evaluate(OTHERS) == []
            found = set(re.findall(r"zq\d+x", "".join(texts)))
            if table == "accepted":
                missing = [payload.kind for payload in payloads() if payload.mark not in found]
                assert set(missing) <= {"wide"}  # the page cuts long texts, and says so
            else:
                assert len(found) > 2000
            shown = "".join(texts)
            assert "<script>window.hostile_fired=1;alert(1)</script>" in shown
            assert "{{ 7*7 }}" in shown
            assert "</script><script>" in shown
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
            assert "<img src=x onerror=" in page.inner_text("body")  # the teacher's name


def test_searching_for_them_finds_them(opened, pages):
    with opened(pages[0]) as page:
        for payload in payloads()[::200]:
            page.locator("[data-table=accepted] [type=search]").fill(payload.mark)
            page.locator("[data-table=accepted] .found", has_text=re.compile(r"^[1-9]\d* of 2,555 match")).wait_for(
                timeout=5000
            )
        assert unfired(page)


def test_without_its_script_the_page_is_safe_too(opened, pages):
    for path in pages:
        with opened(path, java_script_enabled=False) as page:
            assert page.locator(".tasks > *").count() >= 10


def test_they_do_take_effect_in_a_page_that_lets_them(browser, tmp_path):
    """Or else the tests above would show nothing."""
    fired = 0
    page = browser.new_page()
    page.on("dialog", lambda dialog: dialog.dismiss())
    for payload in [payload for payload in payloads() if payload.kind == "html"][:140:7]:
        (tmp_path / "page.html").write_text(f"<!doctype html><body>{payload.text}", "utf-8")
        page.goto((tmp_path / "page.html").as_uri())
        fired += not unfired(page)
    page.close()
    assert fired > 5
