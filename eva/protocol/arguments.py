"""A tool call's arguments -> the numbers they stand for. Pure.

Models write numbers as strings now and then; the reference crashed on those in its arithmetic. Here a string that
reads as a number is that number. What is no number at all fails the call, as the model's fault.
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
    """An argument that no frame tool can run with; the message quotes it."""


@dataclass(frozen=True)
class FrameRequest:
    """A call in numbers: window in seconds, number of frames, resize ratio.

    `start_s` and `end_s` are None where the model gave no number; `nframes` may still be a float such as 4.0.
    """

    start_s: int | float | None
    end_s: int | float | None
    nframes: int | float
    resize: int | float


def read_request(arguments: Mapping[str, Any]) -> FrameRequest:
    """Raises UnusableArgumentError where `nframes` or `resize` is no number, so that not even a budget can be worked
    out."""
    resize = arguments.get("resize")
    return FrameRequest(
        start_s=_seconds(arguments["start_time"]),
        end_s=_seconds(arguments["end_time"]),
        nframes=_needed("nframes", arguments["nframes"]),
        resize=1.0 if resize is None else _needed("resize", resize),
    )


def _needed(name: str, value: object) -> int | float:
    number = _number(value)
    if number is None:
        raise UnusableArgumentError(f"{name} is not a number: {str(value)[:80]!r}")
    return number


def _seconds(value: object) -> int | float | None:
    clock = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if clock is None:
        return _number(value)
    hours, minutes, seconds = clock.groups(default="0")
    return _finite(float(hours) * 3600 + float(minutes) * 60 + float(seconds))


def _number(value: object) -> int | float | None:
    if isinstance(value, str):
        text = value.strip()
        if _INTEGER.fullmatch(text):
            return int(text)
        return _finite(float(text)) if _NUMBER.fullmatch(text) else None
    if isinstance(value, (int, float)):
        return value
    return None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
