"""Fixtures shared by the tests; what they are made of is in harness.py, scripted_server.py,
tokenizer.py and videos.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizer import build_tokenizer
from videos import Recipe, encode


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits longest for others begins first: a real server takes a minute to start."""
    items.sort(key=lambda item: item.path.name != "test_vllm.py")


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """Encodes a recipe; the same one once a session."""
    folder = tmp_path_factory.mktemp("videos")

    def path_of(recipe: Recipe) -> Path:
        path = folder / recipe.name
        return path if path.exists() else encode(recipe, folder)

    return path_of
