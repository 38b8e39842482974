"""A real browser that records requests."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

PATIENCE = 30_000  # milliseconds: other tests may use the cores
expect.set_options(timeout=PATIENCE)
NAMES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = (1200, 900), (390, 844)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; without it, tests are skipped locally and fail in CI."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        assert not os.environ.get("CI"), "no Chromium is installed"
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False
) -> Iterator[Page]:
    """Open the page; afterwards, check that it made no foreign requests and stored nothing."""
    view = {"width": size[0], "height": size[1]}
    context = browser.new_context(
        viewport=view, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    requested: set[str] = set()
    errors: list[str] = []
    page.on("request", lambda request: requested.add(request.url))
    page.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    page.get_by_role("heading", name="Bone age from a hand radiograph").wait_for()
    yield page
    elsewhere = {one for one in requested if not one.startswith((f"{url}/", "data:", "blob:"))}
    assert elsewhere == set()
    assert errors == []
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    assert page.evaluate("indexedDB.databases().then(found => found.length)") == 0
    context.close()
