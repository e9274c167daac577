"""JSON of unknown origin -> values that can be written again, and that are of the kind that is wanted. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, AnyStr, TypeGuard

# Python reads and writes JSON by recursion. Its limit depends on the depth of the caller, so that one function may read
# what another one cannot write. This fixed limit is far below both.
MOST_LEVELS = 200


def parse_json(text: str | bytes) -> Any:
    """The value in a JSON text. Raises ValueError, also if lists and objects are nested more than MOST_LEVELS deep."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise _too_deep() from error
    if _brackets(text) > MOST_LEVELS and is_deeper(value, MOST_LEVELS):
        raise _too_deep()
    return value


def numbered_lines(file: Iterable[AnyStr]) -> Iterator[tuple[int, AnyStr]]:
    """The lines of a JSON Lines file that are not blank, with their numbers, counted from 1."""
    return ((number, line) for number, line in enumerate(file, start=1) if line.strip())


def is_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects are nested more than `levels` deep in a JSON value; `[]` is one level."""
    nodes = [value]
    for _ in range(levels):
        if not nodes:
            return False
        nodes = [child for node in nodes if isinstance(node, (dict, list)) for child in _children(node)]
    return any(isinstance(node, (dict, list)) for node in nodes)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a JSON value is a number. Python takes true and false for integers too; JSON does not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number(value: object) -> int | float | None:
    """A finite number that a browser can hold, or None."""
    try:
        return value if is_number(value) and math.isfinite(value) else None
    except OverflowError:  # an integer beyond the floats
        return None


def mapping(value: object) -> Mapping[str, Any]:
    """A JSON object, or an empty one in the place of anything else."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """A JSON list, or an empty one in the place of anything else."""
    return value if isinstance(value, list) else []


def text(value: object) -> str:
    """A text as it is, null as the empty text, any other value as Python writes it."""
    return "" if value is None else str(value)


def json_text(value: object) -> str:
    """A text as it is, null as the empty text, any other value as JSON."""
    return text(value) if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _brackets(text: str | bytes) -> int:
    """No value is nested deeper than its text has opening brackets, and to count these is cheap."""
    return text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else text.count("[") + text.count("{")


def _children(node: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects are nested more than {MOST_LEVELS} deep")
