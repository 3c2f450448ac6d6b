"""A real browser, which may not reach anything but files; skipped where none is installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
Opening = Callable[..., Any]


def browser_path() -> str | None:
    """Where a browser is installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, or a browser like it, without a window.

    While it is there an event loop runs in this thread, so that other tests cannot have theirs: hence one a module.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    path = browser_path()
    if path is None:
        pytest.skip("no chromium, chromium-browser or google-chrome is installed")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=path, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any) -> Opening:
    """Opens a page from disk as `with opened(path, **context options) as page`.

    Whatever the page complained of, or asked the network for, fails the test at the end of the block.
    """

    @contextmanager
    def opening(path: Path, **options: Any) -> Iterator[Any]:
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **options})
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if not is_own(request.url) else None)
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error(e.violatedDirective, e.blockedURI))"
        )

        def is_own(url: str) -> bool:
            return url.startswith((path.as_uri(), "data:,"))

        page.goto(path.as_uri())
        try:
            yield page
            assert complaints == []
        finally:
            context.close()

    return opening
