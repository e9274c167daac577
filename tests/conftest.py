"""Fixtures shared by all tests, and the rule of the quick ones.

A test outside of processes/ that is not marked `process` starts no process and opens no connection. The folder
helpers/ holds what the fixtures are made of.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from page_runs import FIRST, Ran, make_run
from tokenizer import build_tokenizer
from videos import Recipe, encode

PROCESSES = Path(__file__).with_name("processes")
# Where files run side by side, these begin first, so that none of them is alone at the end; in this order, some keep
# the processor busy while others wait.
LONGEST = (
    "test_vllm.py", "test_survival.py", "test_ray.py", "test_two_hosts.py", "test_cache.py", "test_page.py",
    "test_six_datasets.py", "test_decode.py",
)  # fmt: skip

# A loaded machine must not fail a test.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if PROCESSES in item.path.parents:
            item.add_marker(pytest.mark.process)
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


# --- what a quick test may not do

STARTS = frozenset({"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"})
CONNECTS = frozenset({"socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"})
running: list[pytest.Item] = []


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Python's audit hook: fails a quick test at the moment at which it starts a process or uses a socket."""
    if event not in STARTS | CONNECTS or not running or running[-1].get_closest_marker("process"):
        return
    if arguments and "fc-list" in str(arguments[0]):
        return  # Matplotlib asks for the fonts once per machine.
    what = "starts a process" if event in STARTS else "uses a socket"
    pytest.fail(
        f"{running[-1].nodeid} {what} ({event}). Mark it with @pytest.mark.process, or move it into tests/processes."
    )


sys.addaudithook(refuse)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    running.append(item)  # for its fixtures too, whatever their scope
    try:
        return (yield)
    finally:
        running.pop()


# --- fixtures


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """Encodes a recipe; the same one once per session."""
    videos = tmp_path_factory.mktemp("videos")

    def path_of(recipe: Recipe) -> Path:
        # Two test files may give different recipes the same name.
        folder = videos / hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
        if not (folder / recipe.name).exists():
            folder.mkdir()
            encode(recipe, folder)
        return folder / recipe.name

    return path_of


@pytest.fixture(scope="session")
def report_run(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Ran:
    return make_run(tmp_path_factory.mktemp("report_run"), tokenizer_dir, FIRST)
