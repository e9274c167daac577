"""Fixtures shared by the tests; what they are made of is in harness.py, scripted_server.py and tokenizer.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizer import build_tokenizer


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))
