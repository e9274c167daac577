"""Fixtures shared by the tests; what they are made of is in harness.py, scripted_server.py,
tokenizer.py and videos.py."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from page_runs import FIRST, Ran, make_run
from tokenizer import build_tokenizer
from videos import Recipe, encode

# Where files run side by side, these begin first, so that none of them is alone at the end; in this order, some keep
# the processor busy while others wait.
LONGEST = (
    "test_vllm.py", "test_survival.py", "test_ray.py", "test_two_hosts.py", "test_cache.py", "test_page.py",
    "test_six_datasets.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """Encodes a recipe; the same one once a session."""
    folder = tmp_path_factory.mktemp("videos")
    paths: dict[str, Path] = {}

    def path_of(recipe: Recipe) -> Path:
        key = repr(recipe)  # two may share a name
        if key not in paths:
            paths[key] = encode(recipe, Path(tempfile.mkdtemp(dir=folder)))
        return paths[key]

    return path_of


@pytest.fixture(scope="session")
def report_run(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Ran:
    return make_run(tmp_path_factory.mktemp("report_run"), tokenizer_dir, FIRST)
