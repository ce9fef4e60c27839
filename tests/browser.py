# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium: Debian's package, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.requirements import skip_or_fail

OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

expect.set_options(timeout=60_000)

SCREENSHOTS = os.environ.get("BOOKDROP_TEST_PICTURES")
"""Folder for the screenshots of the documentation. Without it none are taken."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a new profile, which is deleted with it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        skip_or_fail("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


def take_screenshot(page: Page, name: str) -> None:
    """Save the page for the documentation, in light and dark, where BOOKDROP_TEST_PICTURES names a folder."""
    if SCREENSHOTS is None:
        return
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(500)  # the transition between colour schemes
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{scheme}.png")
    page.emulate_media(color_scheme="light")
