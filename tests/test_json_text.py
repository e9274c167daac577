"""eva/json_text.py: JSON that any later caller can write again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eva.errors import EvaError
from eva.json_text import MOST_LEVELS, is_deeper, parse_json
from eva.records.meta import read_meta


def nested(levels: int, *, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


def with_deep_stack(text: str, calls: int) -> Any:
    return with_deep_stack(text, calls - 1) if calls else json.loads(json.dumps(parse_json(text)))


@pytest.mark.parametrize("levels", [1, MOST_LEVELS])
def test_what_is_read_can_be_written_by_a_caller_with_a_long_stack(levels: int) -> None:
    assert json.dumps(with_deep_stack(nested(levels), 500)) == nested(levels)


@pytest.mark.parametrize("levels", [MOST_LEVELS + 1, 980, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": [', "]}")], ids=["lists", "objects"])
def test_what_is_nested_too_deep_is_a_value_error_that_says_so(levels: int, opening: str, closing: str) -> None:
    with pytest.raises(ValueError, match=f"nested more than {MOST_LEVELS} deep"):
        parse_json(nested(levels, opening=opening, closing=closing))


def test_levels_are_counted_by_their_lists_and_objects() -> None:
    assert not is_deeper("text", 0)
    assert is_deeper([], 0)
    assert not is_deeper([1, {}, {"a": 2}], 2)
    assert is_deeper([1, {}, {"a": []}], 2)


def test_a_meta_file_nested_too_deep_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache_x.meta.json").write_text(
        f'{{"settings": {{"model": {nested(980)}}}, "environment": {{}}, "started": [], "mixed": [], '
        '"adopted": false, "coverage": {}}',
        encoding="utf-8",
    )
    with pytest.raises(EvaError, match=r"cache_x\.meta\.json cannot be read \(lists and objects are nested"):
        read_meta(tmp_path / "cache_x.jsonl")
