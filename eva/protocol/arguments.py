"""A tool call's arguments -> the numbers that they stand for. Pure.

Models sometimes write numbers as strings. The reference crashes on most of those. Here a string that reads as a number
is that number, and a value that is not a number fails the call as the model's fault (docs/protocol.md, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eva.option_words import is_option


class UnusableArgumentError(ValueError):
    """An argument that no frame tool can run with; the message names it."""


@dataclass(frozen=True)
class FrameRequest:
    """A call in numbers: window in seconds, number of frames, resize ratio.

    `start_s` and `end_s` are NaN where the model gave no number. `nframes` may be a float such as 4.0. `asked`: all
    arguments as the model gave them, in its order; without `--fallback`, the frame tool gets all of them.
    """

    start_s: int | float
    end_s: int | float
    nframes: int | float
    resize: int | float
    asked: Mapping[str, Any] = field(default_factory=dict, compare=False)


def read_request(arguments: Mapping[str, Any]) -> FrameRequest:
    """Raises UnusableArgumentError where `nframes` or `resize` is not a number: the call then has no budget."""
    resize = arguments.get("resize")
    return FrameRequest(
        start_s=_parse_seconds(arguments["start_time"]),
        end_s=_parse_seconds(arguments["end_time"]),
        nframes=_require_number("nframes", arguments["nframes"]),
        resize=1.0 if resize is None else _require_number("resize", resize),
        asked=arguments,
    )


def _require_number(name: str, value: object) -> int | float:
    number = _parse_number(value)
    if number is None:
        raise UnusableArgumentError(f"{name} is not a number: {str(value)[:80]!r}")
    return number


def _parse_seconds(value: object) -> int | float:
    # The reference gives its tool the time as a word of its own: -1e-05 is then no time, but an unknown option.
    if is_option(str(value)):
        return math.nan
    if isinstance(value, str) and ":" in value:
        try:
            return parse_clock(value)
        except (ValueError, OverflowError):
            return math.nan
    number = _parse_number(value)
    return math.nan if number is None else number


def parse_clock(text: str) -> float:
    """Seconds of `[[HH:]MM:]SS[.mmm]`. As in the reference, any number may stand between the colons, and more parts
    may stand before the hours, each worth 60 of the next one. Raises ValueError, OverflowError."""
    total = 0.0
    for place, part in enumerate(reversed(text.split(":"))):
        total += float(part) * 60**place
    return total


def _parse_number(value: object) -> int | float | None:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
        try:
            return _finite_or_none(float(value))
        except ValueError:
            return None
    return value if isinstance(value, (int, float)) else None


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
