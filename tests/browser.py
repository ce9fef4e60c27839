# SPDX-License-Identifier: Apache-2.0
"""A real Chromium without a screen: Debian's own, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import missing

OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

expect.set_options(timeout=30_000)

PICTURES = os.environ.get("BOOKDROP_TEST_PICTURES")
"""Folder for the pictures of the documentation; without it none are taken."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own, which goes with it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


def take_picture(page: Page, name: str) -> None:
    """Keep what the page looks like, light and dark, for the documentation, if that is wanted."""
    if PICTURES is None:
        return
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(500)  # colours change gradually
        page.screenshot(path=Path(PICTURES) / f"{name}-{scheme}.png")
    page.emulate_media(color_scheme="light")
