"""The report in a real browser: what is drawn, what the script does, and that nothing else happens."""

from __future__ import annotations

import io
import json
import re
import shutil
import threading

import pytest
from PIL import Image

from selfinstruct.files import write_text
from selfinstruct.report_page import SECTIONS, ReportConfig, report
from tests.generating import FreshServer, ledger, rows, start, summary
from tests.reporting import make_comparison, make_evaluation, make_lineage, make_run, make_training
from tests.server import running_server
from tests.training import wait_for

ACCEPTED, REJECTED = "[data-table=accepted]", "[data-table=rejected]"
# (Ratio, text) of everything that can be read, after "contrast ratio" in WCAG 2.2. A segment of the sunburst is what
# lies behind its label.
CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => rgb.slice(0, 3).map((c) => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const segment = element.tagName === "text" && element.previousElementSibling;
    if (segment && segment.tagName === "path") return channels(getComputedStyle(segment).fill);
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !element.checkVisibility() || ["SCRIPT", "title", "OPTION"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const [a, b] = [channels(element.tagName === "text" ? style.fill : style.color), behind(element)].map(light);
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two strategies against a real server, with a training, evaluations, comparison and lineage."""
    root = tmp_path_factory.mktemp("report")
    # Slow enough to last some seconds, so that there is a course over time to draw.
    with running_server(near_duplicates=0.3, broken=0.1, latency_s=0.6) as server:
        options = {
            "num_instructions": 60, "strategy": ("alpaca:share=0.5", "evol-instruct:share=0.5"), "window": None,
            "input_usd_per_mtok": 1, "output_usd_per_mtok": 2,
        }  # fmt: skip
        with start(root / "run", FreshServer(server).base_url, **options) as generating:
            printed, errors = generating.communicate(timeout=60)
        assert generating.returncode == 0, printed + errors
    make_training(root / "train")
    make_evaluation(root / "base", 0.4, None)
    make_evaluation(root / "tuned", 0.55, "adapter")
    make_comparison(root / "compare.json")
    make_lineage(root / "lineage.json")
    return root


@pytest.fixture(scope="module")
def page_file(folder):
    out = folder / "report.html"
    report(
        ReportConfig(
            run=folder / "run", others=[folder / name for name in ("train", "base", "tuned")],
            compare=folder / "compare.json", lineage=folder / "lineage.json", out=out,
        )
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def large_file(tmp_path_factory):
    """A page with more rows than a chunk holds."""
    root = tmp_path_factory.mktemp("large")
    report(ReportConfig(run=make_run(root / "run", n=900), out=root / "report.html"))
    return root / "report.html"


def titles(page, table=ACCEPTED):
    return page.locator(f"{table} .instruction").all_inner_texts()


def status(page, table=ACCEPTED):
    return page.locator(f"{table} .found").inner_text()


def search(page, text, expected, table=ACCEPTED):
    page.locator(f"{table} [type=search]").fill(text)
    page.locator(f"{table} .found", has_text=re.compile(expected)).wait_for()


# -- what is there -----------------------------------------------------------------------------------------------------


def test_everything_opens_from_disk_without_a_complaint(opened, page_file):
    with opened(page_file) as page:
        assert page.locator("h1").inner_text() == "run"
        links = page.locator("nav.contents a").all()
        assert len(links) == len(SECTIONS)
        for link in links:
            assert page.locator(link.get_attribute("href")).is_visible()
        assert "Of " in page.locator(".answer").inner_text()


def test_charts_are_drawn(opened, page_file):
    with opened(page_file) as page:
        charts = page.locator("figure[id]").all()
        names = {chart.get_attribute("id") for chart in charts}
        assert names == {
            "sunburst", "length-instruction", "length-input", "length-output", "similarity", "rate", "spent", "shares",
            "loss", "learning-rate", "tokens-per-s",
        }  # fmt: skip
        svgs = [chart.locator("svg") for chart in charts]
        svgs += [page.locator(".results svg", has=page.locator(".model-1")).first, page.locator(".funnel .whole svg")]
        for svg in svgs:
            image = Image.open(io.BytesIO(svg.screenshot())).convert("RGB")
            # Neither grey nor the page's own colour.
            drawn = sum(n for n, rgb in image.getcolors(image.width * image.height) if max(rgb) - min(rgb) > 25)
            assert drawn > 60, svg.evaluate("e => e.outerHTML")[:200]


def test_figures_behind_a_chart_unfold(opened, page_file):
    with opened(page_file) as page:
        figure = page.locator("#loss")
        assert not figure.locator("table").is_visible()
        figure.locator("summary").click()
        assert "2.250" in figure.locator("table").inner_text()


# -- tables ------------------------------------------------------------------------------------------------------------


def test_search_finds_words_in_all_texts(opened, large_file):
    with opened(large_file) as page:
        assert status(page) == "900 rows; 1–10 shown."
        search(page, "RIVER  answer 777", "^2 of 900")
        assert titles(page) == ["Name a river. 777", "Name a river. 778"]  # the second is most like the first
        search(page, "no such thing", "^Nothing")
        assert titles(page) == []
        search(page, "", "^900 rows")
        assert len(titles(page)) == 10


def test_pages_turn_by_mouse_and_by_keyboard(opened, large_file):
    with opened(large_file) as page:
        go = {name: page.locator(f"{ACCEPTED} [data-go={name}]") for name in ("first", "previous", "next", "last")}
        go["next"].click()
        page.locator(f"{ACCEPTED} .found", has_text="11–20 shown").wait_for()
        assert titles(page)[0] == "Name a river. 10"
        go["last"].focus()
        page.keyboard.press("Enter")
        page.locator(f"{ACCEPTED} .found", has_text="891–900 shown").wait_for()
        assert titles(page)[-1] == "Name a river. 899"
        assert go["next"].get_attribute("aria-disabled") == "true"
        go["next"].dispatch_event("click")  # does nothing
        assert titles(page)[-1] == "Name a river. 899"
        go["first"].press("Space")
        page.locator(f"{ACCEPTED} .found", has_text="; 1–10 shown").wait_for()
        assert titles(page)[0] == "Name a river. 0"
        assert go["previous"].get_attribute("aria-disabled") == "true"


def test_filters_and_orders(opened, page_file, folder):
    rejected = summary(folder / "run")["rejected"]
    with opened(page_file) as page:
        page.locator(f"{REJECTED} [data-filter=rule]").select_option("novelty")
        page.locator(
            f"{REJECTED} .found", has_text=f"{rejected['novelty']} of {sum(rejected.values())} match"
        ).wait_for()
        assert set(page.locator(f"{REJECTED} .badge").all_inner_texts()) == {"novelty"}
        page.locator(f"{ACCEPTED} [data-filter=strategy]").select_option("evol-instruct")
        page.locator(f"{ACCEPTED} .found", has_text="match").wait_for()
        page.locator(f"{ACCEPTED} [data-order]").select_option("down")
        page.locator(f"{ACCEPTED} .found", has_text="match").wait_for()
        page.wait_for_timeout(100)
        likeness = page.locator(f"{ACCEPTED} dt", has_text="Most similar").all_inner_texts()
        scores = [float(label.split()[-1]) for label in likeness]
        assert scores == sorted(scores, reverse=True)
        row = page.locator(f"{ACCEPTED} .task").first
        row.locator("summary").click()
        assert "evol-instruct with m" in row.inner_text()


def test_lineage_leads_from_demonstrations_to_prompt_and_reply(opened, page_file, folder):
    last = rows(folder / "run" / "dataset.jsonl")[-1]
    (request,) = ledger(
        folder / "run",
        f"SELECT request FROM completions WHERE prompt_key = '{last['source']['prompt_key']}' AND choice = 0",
    )
    prompt = json.loads(request[0])["messages"][0]["content"]
    with opened(page_file) as page:
        search(page, last["id"], "^1 of 60")
        row = page.locator(f"{ACCEPTED} .task")
        row.locator("summary").click()
        asked = row.locator("dt", has_text="Asked").first
        asked.wait_for()
        assert asked.locator("xpath=../dd").inner_text().split() == prompt.split()
        shown = row.locator("dt", has_text="Shown in the prompt").locator("xpath=../dd").inner_text()
        for id in last["source"]["demonstrations"]:
            assert f" {id}: " in shown
        assert row.locator("dt", has_text="Reply").count() >= 1


def test_long_texts_fold_and_unfold(opened, tmp_path):
    report(ReportConfig(run=make_run(tmp_path / "run", text="so long " * 150, n=2), out=tmp_path / "report.html"))
    with opened(tmp_path / "report.html") as page:
        text = page.locator(f"{ACCEPTED} .instruction").first
        before = text.bounding_box()["height"]
        button = page.locator(f"{ACCEPTED} .more").first
        assert button.get_attribute("aria-expanded") == "false"
        button.press("Enter")
        assert button.get_attribute("aria-expanded") == "true"
        assert text.bounding_box()["height"] > 1.5 * before


def test_rows_that_are_not_all_here_say_so(opened, tmp_path, monkeypatch):
    monkeypatch.setattr("selfinstruct.page.tasks.ACCEPTED_BUDGET", 8000)
    monkeypatch.setattr("selfinstruct.page.tasks.STEPS_BUDGET", 150)
    report(ReportConfig(run=make_run(tmp_path / "run", n=900), out=tmp_path / "report.html"))
    with opened(tmp_path / "report.html") as page:
        n = int(re.match(r"(\d+) rows", status(page))[1])
        assert 100 < n < 900
        assert f"{n} of 900 accepted tasks are in this page" in page.locator(f"{ACCEPTED} .sampled").inner_text()
        search(page, "river", f"^{n} of {n}")
        row = page.locator(f"{ACCEPTED} .task").nth(3)
        row.locator("summary").click()
        row.get_by_text("Not in this page").wait_for()


# -- for everybody -----------------------------------------------------------------------------------------------------


def test_all_of_it_is_reached_by_keyboard(opened, page_file):
    with opened(page_file) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        page.locator(f"{ACCEPTED} [type=search]").focus()
        page.keyboard.type("river")
        for expected in ("SELECT", "SELECT", "SUMMARY"):
            page.keyboard.press("Tab")
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert (page.evaluate("document.activeElement.tagName"), outline) == (expected, "solid")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(opened, page_file, scheme):
    with opened(page_file, color_scheme=scheme) as page:
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        found = page.evaluate(CONTRASTS)
        assert len(found) > 300
        assert min(found)[0] >= 4.5, min(found)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 200) is (scheme == "dark")


def test_a_phone_has_room_for_it(opened, page_file):
    with opened(page_file, viewport={"width": 390, "height": 844}) as page:
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.locator(f"{ACCEPTED} .instruction").first.bounding_box()["width"] > 280


def test_paper_has_all_but_the_controls(opened, page_file):
    with opened(page_file) as page:
        assert page.pdf().startswith(b"%PDF")
        page.emulate_media(media="print")
        assert not page.locator(f"{ACCEPTED} .controls").is_visible()
        assert not page.locator("nav.contents").is_visible()
        assert page.locator(".results").is_visible()
        # What is folded on the screen is not on paper.
        assert page.locator("details.fold:not([open]) .task").first.evaluate("e => e.checkVisibility()")


def test_without_a_script_the_first_rows_are_there(opened, page_file):
    with opened(page_file, java_script_enabled=False) as page:
        assert page.locator(f"{ACCEPTED} .task").count() == 10
        assert not page.locator(f"{ACCEPTED} .controls").is_visible()
        assert not page.locator(f"{ACCEPTED} .pages").is_visible()
        assert status(page) == "The first 10 of 60."
        page.locator(f"{ACCEPTED} summary").first.click()
        assert page.locator(f"{ACCEPTED} .lineage dt", has_text="Asked").first.is_visible()


# -- while a run goes on -----------------------------------------------------------------------------------------------


def test_a_page_that_is_written_anew_loads_itself(opened, folder, tmp_path):
    run, out = tmp_path / "run", tmp_path / "report.html"
    shutil.copytree(folder / "run", run)
    summary_text = (run / "summary.json").read_text()
    (run / "summary.json").unlink()
    watching = threading.Thread(target=report, args=[ReportConfig(run=run, out=out, watch=0.5)])
    watching.start()
    wait_for(lambda: out.exists() or not watching.is_alive())
    with opened(out, reduced_motion="reduce") as page:
        assert "In progress, as of 20" in page.locator(".live").inner_text()
        assert page.locator(".pulse").evaluate("e => getComputedStyle(e).animationName") == "none"
        assert page.locator(".reload input").is_checked()
        write_text(run / "summary.json", summary_text)
        page.locator(".live").wait_for(state="detached")
        assert "The run has not ended" not in page.locator(".answer").inner_text()
    watching.join(timeout=30)
    assert not watching.is_alive()
