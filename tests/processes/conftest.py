"""Pages of small real runs, and the browser that shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Watched, chromium, opened
from harness import Bench, make_video, row
from page_runs import SECOND, Ran, make_run
from playwright.sync_api import Browser
from report_pages import Open, Pair, made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def runs(report_run: Ran, tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Pair:
    folder = tmp_path_factory.mktemp("second_run")
    second = make_run(folder, tokenizer_dir, SECOND, frames=report_run.frames)
    return Pair(report_run.result, second.result, report_run.frames)


@pytest.fixture(scope="session")
def page_file(runs: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(runs.first, "--frame-root", runs.frames, cwd=tmp_path_factory.mktemp("page"))


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    pages: list[Watched] = []

    def open_one(file: Path, **more: Any) -> Watched:
        pages.append(opened(browser, file, **more))
        return pages[-1]

    yield open_one
    for watched in pages:
        watched.page.close()


@pytest.fixture
def bench_at(tmp_path: Path, tokenizer_dir: Path) -> Callable[..., Bench]:
    """A place for runs with a clip of a second, and so many questions on it."""

    def make(base_url: str, name: str = "bench", *, samples: int = 3) -> Bench:
        bench = Bench(tmp_path / name, base_url, tokenizer_dir)
        make_video(bench.videos / "clip.mp4", frames=10)
        bench.write(row(f"question {number}") for number in range(samples))
        return bench

    return make
