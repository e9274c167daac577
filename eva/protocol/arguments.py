"""A tool call's arguments -> the numbers that they stand for. Pure.

Models sometimes write numbers as strings. The reference crashes on those. Here a string that reads as a number is that
number, and a value that is not a number fails the call as the model's fault (docs/protocol.md, section 3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_INTEGER = re.compile(r"[+-]?[0-9]{1,400}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]+):([0-9]+(?:\.[0-9]*)?)")


class UnusableArgumentError(ValueError):
    """An argument that no frame tool can run with; the message names it."""


@dataclass(frozen=True)
class FrameRequest:
    """A call in numbers: window in seconds, number of frames, resize ratio.

    `start_s` and `end_s` are None where the model gave no number. `nframes` may be a float such as 4.0.
    """

    start_s: int | float | None
    end_s: int | float | None
    nframes: int | float
    resize: int | float


def read_request(arguments: Mapping[str, Any]) -> FrameRequest:
    """Raises UnusableArgumentError where `nframes` or `resize` is not a number: the call then has no budget."""
    resize = arguments.get("resize")
    return FrameRequest(
        start_s=_parse_seconds(arguments["start_time"]),
        end_s=_parse_seconds(arguments["end_time"]),
        nframes=_require_number("nframes", arguments["nframes"]),
        resize=1.0 if resize is None else _require_number("resize", resize),
    )


def _require_number(name: str, value: object) -> int | float:
    number = _parse_number(value)
    if number is None:
        raise UnusableArgumentError(f"{name} is not a number: {str(value)[:80]!r}")
    return number


def _parse_seconds(value: object) -> int | float | None:
    clock = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if clock is None:
        return _parse_number(value)
    hours, minutes, seconds = clock.groups(default="0")
    return _finite_or_none(float(hours) * 3600 + float(minutes) * 60 + float(seconds))


def _parse_number(value: object) -> int | float | None:
    if isinstance(value, str):
        text = value.strip()
        if _INTEGER.fullmatch(text):
            return int(text)
        return _finite_or_none(float(text)) if _NUMBER.fullmatch(text) else None
    if isinstance(value, (int, float)):
        return value
    return None


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
