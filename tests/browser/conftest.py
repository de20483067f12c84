"""A real Chromium for the tests in this directory, driven by playwright.

The browser is the machine's own (``apt-get install chromium``, or the path in ``CHROMIUM``):
playwright's package is used, its download of browsers is not.  Where either is missing the tests
fail and say so; they are never skipped.

Each person in a test is a browser context: cookies of its own, hence a visitor of its own.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
AWAY = ("WebSocket connection", "Failed to load resource: net::")
"""How the console tells of a connection that could not be made or was lost."""
DEADLINE = 10_000
"""Milliseconds that the page has for whatever a test waits for."""


def chromium() -> str:
    """The path of the browser; fails the test where there is none."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not found:
        pytest.fail("no Chromium here: apt-get install chromium, or set CHROMIUM to its path")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module, with a profile directory that is removed afterwards."""
    expect.set_options(timeout=DEADLINE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), headless=True, chromium_sandbox=False, args=list(FLAGS)
        )
        yield browser
        browser.close()


@pytest.fixture
def person(browser: Browser) -> Iterator[Callable[..., Page]]:
    """``person(**options)`` -> an empty page of a new visitor; the options are the context's.

    The test fails at its end if a page threw an error or the browser refused to run or load
    something: the content security policy is strict, and a breach shows only on the console.  That
    the network or a worker was away is no such error.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_context(**options: object) -> Page:
        context = browser.new_context(**options)
        context.set_default_timeout(DEADLINE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        return page

    yield open_context
    for context in contexts:
        context.close()
    assert [line for line in complaints if not line.startswith(AWAY)] == []


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where pictures go: to ``GPULSE_SCREENSHOTS``, else a directory that pytest cleans up."""
    directory = Path(os.environ.get("GPULSE_SCREENSHOTS") or tmp_path)
    directory.mkdir(parents=True, exist_ok=True)
    return directory
