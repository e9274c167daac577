"""A real headless Chromium for the tests of pages, and everything that a page does in it that it should not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, sync_playwright

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")


@contextmanager
def chromium() -> Iterator[Browser]:
    # Root has no namespace to put a sandbox in.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page under observation: `trouble` holds dialogs, errors, and requests to anywhere but `allowed` prefixes."""

    page: Page
    allowed: tuple[str, ...]
    trouble: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self.read)
        self.page.on("pageerror", lambda error: self.note(str(error)))
        self.page.on("dialog", self.dismiss)
        self.page.on("request", self.check)
        self.page.on("popup", lambda page: self.note(f"popup {page.url}"))

    def read(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.note(message.text)

    def dismiss(self, dialog: Dialog) -> None:
        self.note(f"dialog {dialog.message}")
        dialog.dismiss()

    def check(self, request: Request) -> None:
        if not request.url.startswith(self.allowed):
            self.note(f"request {request.url}")

    def note(self, what: str) -> None:
        self.trouble.append(what)

    def calm(self) -> None:
        """Fails if anything happened that should not, a script of the data's having run included."""
        assert self.page.evaluate("() => window.pwned") is None
        assert self.trouble == []


def opened(
    browser: Browser,
    file: Path,
    *,
    hash: str = "",
    frames: Path | None = None,
    scheme: Literal["light", "dark"] = "light",
) -> Watched:
    """A page from the disk; it may load itself, data: addresses, and files below `frames`."""
    page = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme=scheme)
    allowed = (file.as_uri(), "data:") + ((frames.as_uri() + "/",) if frames else ())
    watched = Watched(page, allowed)
    page.goto(file.as_uri() + hash)
    return watched
