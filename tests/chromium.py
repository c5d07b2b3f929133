"""A Chromium without a network for tests of pages: what a page fetches, or says as an error, fails the test."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
)  # fmt: skip

NAMES = ("chromium", "chromium-browser", "google-chrome")

HERE = ("file:", "data:", "blob:")
"""Schemes of addresses that need no network."""

READY_WITHIN = 60_000
"""Milliseconds; a page is ready in about two seconds where nothing else runs."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for the tests of a file; skipped where there is none, failed where CI requires it."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = "no Chromium on this machine (apt-get install chromium)"
        if os.environ.get("UNCANNY_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, file: Path, width: int = 1440, **context: Any) -> Iterator[Page]:
    """The page of a file, opened from disk and ready; requests and errors until the end of the block fail the test.

    context  settings of the browser's context, such as color_scheme="dark"
    """
    faults: list[str] = []
    around = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **context)
    around.set_default_timeout(READY_WITHIN)
    page = around.new_page()

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            faults.append(f"console {message.type}: {message.text}")

    def asked(request: Request) -> None:
        if not request.url.startswith(HERE):
            faults.append(f"request: {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: faults.append(f"page error: {error}"))
    page.on("request", asked)
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    try:
        page.goto(file.resolve().as_uri())
        if context.get("java_script_enabled", True):
            page.wait_for_selector("html.ready", state="attached")
        yield page
        page.wait_for_timeout(50)  # what the last act set off may still speak
        if faults:
            raise AssertionError("\n".join(faults))
    finally:
        around.close()
