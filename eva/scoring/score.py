"""Records -> accuracy and its companions. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EXCEPTION = "exception"
# Whose failure a record without an answer is.
MODEL, SAMPLE, INFRASTRUCTURE = FAILURES = ("model", "sample", "infrastructure")
# The counts that a record which is scored must have; one with an unusable value is left out of the averages.
COUNTS = ("num_rounds", "total_tokens")
# Up to here a float counts exactly; what lies beyond counts nothing.
_MAX_COUNT = 2**53
# A record with any other stop reason did not end by the model's own doing; --retry-error runs it again.
SETTLED = frozenset({"answer_found", "max_turns_exceeded", "no_answer_no_tool_call", "no_valid_tool_call"})


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


@dataclass(frozen=True)
class Score:
    """`total` is the denominator; the averages run over the `recorded` samples (0 where there are none).

    `unusable` names for each of COUNTS the indices of the records that the average leaves out.
    """

    total: int
    recorded: int
    correct: int
    empty: int
    average_rounds: float
    average_tokens: float
    stop_reasons: tuple[tuple[str, int], ...]
    error_indices: tuple[int, ...]
    failures: tuple[tuple[str, int], ...]
    average_seconds: float
    unusable: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def accuracy(self) -> float:
        return self.correct / self.total if self.total else 0.0

    @property
    def missing(self) -> int:
        return self.total - self.recorded

    @property
    def answered(self) -> int:
        return self.recorded - self.empty

    @property
    def pending(self) -> int:
        """Samples of which nothing is known yet: an infrastructure failure is no answer."""
        return self.missing + dict(self.failures)[INFRASTRUCTURE]

    @property
    def bounds(self) -> tuple[float, float]:
        """The accuracy if every pending sample turned out wrong, and right."""
        return self.accuracy, self.accuracy + (self.pending / self.total if self.total else 0.0)


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


def score(outcomes: Sequence[Outcome], *, total: int) -> Score:
    """Accuracy over `total` items, of which `outcomes` were recorded: an item without a record counts as wrong."""
    return Score(
        total=total,
        recorded=len(outcomes),
        correct=sum(outcome.correct for outcome in outcomes),
        empty=sum(not outcome.answer.strip() for outcome in outcomes),
        average_rounds=_mean(outcome.num_rounds for outcome in outcomes),
        average_tokens=_mean(outcome.total_tokens for outcome in outcomes),
        stop_reasons=tuple(Counter(outcome.stop_reason for outcome in outcomes).most_common()),
        error_indices=tuple(sorted(outcome.index for outcome in outcomes if outcome.error)),
        failures=tuple((kind, sum(outcome.failure == kind for outcome in outcomes)) for kind in FAILURES),
        average_seconds=_mean(outcome.seconds for outcome in outcomes),
        unusable=tuple((name, _without(name, outcomes)) for name in COUNTS),
    )


def _without(count: str, outcomes: Sequence[Outcome]) -> tuple[int, ...]:
    return tuple(sorted(outcome.index for outcome in outcomes if getattr(outcome, count) is None))


def _mean(values: Iterable[int | float | None]) -> float:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else 0.0
