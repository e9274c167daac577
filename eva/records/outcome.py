"""A record -> what it counts for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eva.protocol.stop_reasons import EXCEPTION, INFRASTRUCTURE, MODEL, SETTLED

# The counts that a record which is scored must have; one with an unusable value is left out of the averages.
COUNTS = ("num_rounds", "total_tokens")
# Up to here a float counts exactly; what lies beyond counts nothing.
_MAX_COUNT = 2**53


@dataclass(frozen=True)
class Outcome:
    """What a record counts for. `video` is the first one's path, `seconds` the sample's wall time.

    A count and the seconds are None where the record does not say, or says what cannot be: a text, NaN, less than 0.
    """

    index: int
    ground_truth: str
    answer: str
    stop_reason: str
    num_rounds: int | float | None
    total_tokens: int | float | None
    error: str
    video: str = ""
    seconds: float | None = None
    failure: str = ""

    @property
    def correct(self) -> bool:
        return same_answer(self.ground_truth, self.answer)

    @property
    def settled(self) -> bool:
        return not self.error and self.stop_reason in SETTLED


def same_answer(ground_truth: str, answer: str) -> bool:
    return ground_truth.strip().upper() == answer.strip().upper()


def read_outcome(record: object, *, default_index: int | None = None) -> Outcome:
    """The outcome in a record. Raises ValueError, which names the field that is missing or of the wrong kind.

    What a record must have is its index (or `default_index`); counts that it lacks are None.
    """
    if not isinstance(record, dict):
        raise ValueError("a record must be a JSON object")
    index = record.get("index", default_index)
    if not isinstance(index, int) or isinstance(index, bool):
        raise ValueError(f"'index' must be an integer, not {index!r:.80}")
    return Outcome(
        index=index,
        ground_truth=_text(record, "gt"),
        answer=_text(record, "answer"),
        stop_reason=_text(record, "stop_reason"),
        num_rounds=_number(record, "num_rounds"),
        total_tokens=_number(record, "total_tokens"),
        error=_text(record, "error"),
        video=_first_video(record),
        seconds=_number(record, "seconds"),
        failure=_failure(record),
    )


def _first_video(record: Mapping[str, Any]) -> str:
    videos = record.get("videos")
    return str(videos[0]) if isinstance(videos, list) and videos else ""


def _failure(record: Mapping[str, Any]) -> str:
    """Whose failure it is: as the record says, else (the reference's records) by the stop reason."""
    if "failure" in record:
        return _text(record, "failure")
    if _text(record, "stop_reason") == EXCEPTION:
        return INFRASTRUCTURE
    return "" if _text(record, "answer").strip() else MODEL


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return "" if value is None else str(value)


def _number(record: Mapping[str, Any], name: str) -> int | float | None:
    value: Any = record.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= _MAX_COUNT else None
