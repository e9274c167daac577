"""JSON of unknown origin -> values that can be written again. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

# Python reads and writes JSON by recursion. Its limit depends on the depth of the caller, so that one function may read
# what another one cannot write. This fixed limit is far below both.
MOST_LEVELS = 200


def parse_json(text: str | bytes) -> Any:
    """The value in a JSON text. Raises ValueError, also if lists and objects are nested more than MOST_LEVELS deep."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise _too_deep() from error
    if is_deeper(value, MOST_LEVELS):
        raise _too_deep()
    return value


def is_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects are nested more than `levels` deep in a JSON value; `[]` is one level."""
    nodes = [value]
    for _ in range(levels):
        if not nodes:
            return False
        nodes = [child for node in nodes if isinstance(node, (dict, list)) for child in _children(node)]
    return any(isinstance(node, (dict, list)) for node in nodes)


def _children(node: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects are nested more than {MOST_LEVELS} deep")
