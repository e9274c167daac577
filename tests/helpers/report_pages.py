"""report.py, and how a test walks the pages that it makes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from browser import Watched
from harness import called
from page_runs import INDEX
from playwright.sync_api import Page

Open = Callable[..., Watched]


@dataclass(frozen=True)
class Pair:
    """The results of two runs on the same questions, and where their frames lie."""

    first: Path
    second: Path
    frames: Path


def report(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return called("report.py", *arguments, cwd=cwd)


def made(*arguments: object, cwd: Path) -> Path:
    done = report(*arguments, "-o", "report.html", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "report.html"


def rows_shown(page: Page) -> list[str]:
    return page.locator("#table tbody a").all_inner_texts()


def sample(page: Page, name: str, *, run: str = "own") -> Page:
    page.goto(re.sub("#.*", "", page.url) + f"#{run}/{INDEX[name]}")
    page.wait_for_selector(f"#sample[aria-label$='{run}/{INDEX[name]}']")
    return page
