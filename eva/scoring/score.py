"""Records -> accuracy and its companions. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eva.protocol.stop_reasons import FAILURES, INFRASTRUCTURE
from eva.records.outcome import COUNTS, Outcome


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
