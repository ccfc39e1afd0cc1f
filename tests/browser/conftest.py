"""A real headless browser, and a page of `serve` in it that must run without a single error."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.chromium import chromium, launched
from tests.support.serving import OPEN, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from playwright.sync_api import Browser, Page

    from tests.support.fleet import Fleet
    from worker.config.serve import Tokens

    Opened = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; a test that wants one where there is none is skipped.

    For one module, as its driver keeps a loop running in this thread, where other tests begin one of their own.
    """
    if chromium() is None:
        pytest.skip("no Chromium is on this machine: apt-get install chromium brings one")
    with sync_playwright() as playwright, launched(playwright) as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser, fleet: Fleet) -> Opened:
    """Opens the page of `serve`, in a browser without cookies; whatever the page complains of fails the test."""

    @contextmanager
    def open_page(tokens: Tokens = OPEN, *, of: Fleet = fleet, away: bool = False, **options: Any) -> Iterator[Page]:
        complaints: list[str] = []
        with serving(of, tokens) as client:
            context = browser.new_context(**options)
            context.set_default_timeout(20_000 if os.environ.get("CI") is None else 60_000)
            page = context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
            page.on("dialog", lambda dialog: complaints.append(f"a script ran: {dialog.message}"))
            page.goto(str(client.base_url))
            try:
                yield page
            finally:
                context.close()
        refused = "Failed to load resource: the server responded with a status of"  # what is asked for and refused
        assert [each for each in complaints if not each.startswith(refused) or not (tokens.needed or away)] == []

    return open_page
