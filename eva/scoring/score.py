"""Outcomes -> accuracy and its companions. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from eva.protocol.stop_reasons import FAILURES, INFRASTRUCTURE
from eva.records.outcome import COUNTS, Outcome
from eva.scoring.interval import Interval, share_interval, smallest_difference


@dataclass(frozen=True)
class Score:
    """The figures over `outcomes` and over the `to_go` questions that have no record yet. A question without a record
    counts as wrong.

    `to_go` is None where nobody knows how many there are. An average is None where no record has a usable value.
    """

    outcomes: Sequence[Outcome]
    to_go: int | None

    @property
    def partial(self) -> bool:
        """Whether the run has not finished, or may not have finished."""
        return self.to_go != 0

    @property
    def recorded(self) -> int:
        return len(self.outcomes)

    @property
    def missing(self) -> int:
        """The known number of questions without a record."""
        return self.to_go or 0

    @property
    def total(self) -> int:
        """The denominator."""
        return self.recorded + self.missing

    @property
    def correct(self) -> int:
        return sum(outcome.correct for outcome in self.outcomes)

    @property
    def empty(self) -> int:
        return sum(not outcome.answer.strip() for outcome in self.outcomes)

    @property
    def answered(self) -> int:
        return self.recorded - self.empty

    @property
    def accuracy(self) -> float | None:
        """As a fraction; None of an unfinished run."""
        return None if self.partial else self.bounds[0]

    @cached_property
    def interval(self) -> Interval | None:
        """The interval of the accuracy. None of an unfinished run: its first records are not a random sample."""
        if self.partial:
            return None
        return share_interval([one.video for one in self.outcomes], [one.correct for one in self.outcomes])

    @cached_property
    def smallest_difference(self) -> float | None:
        """The smallest difference from a fixed accuracy that this run could show; None of an unfinished run."""
        if self.partial:
            return None
        return smallest_difference([one.video for one in self.outcomes], [one.correct for one in self.outcomes])

    @property
    def pending(self) -> int:
        """Questions of which nothing is known yet: an infrastructure failure is not an answer."""
        return self.missing + self.failures[INFRASTRUCTURE]

    @property
    def bounds(self) -> tuple[float, float]:
        """The accuracy if every pending question turned out wrong, and if every one turned out right."""
        if not self.total:
            return 0.0, 0.0
        return self.correct / self.total, self.correct / self.total + self.pending / self.total

    @property
    def average_rounds(self) -> float | None:
        return _mean(outcome.num_rounds for outcome in self.outcomes)

    @property
    def average_tokens(self) -> float | None:
        return _mean(outcome.total_tokens for outcome in self.outcomes)

    @property
    def average_visual_tokens(self) -> float | None:
        return _mean(outcome.visual_tokens for outcome in self.outcomes)

    @property
    def average_seconds(self) -> float | None:
        return _mean(outcome.seconds for outcome in self.outcomes)

    @cached_property
    def chances(self) -> list[float]:
        """How likely a guess is right, of each question whose options can be read."""
        return [chance for outcome in self.outcomes if (chance := outcome.chance) is not None]

    @property
    def chance(self) -> float | None:
        """The expected accuracy of guessing among each question's options; None where no options can be read."""
        return _mean(self.chances)

    @property
    def stop_reasons(self) -> dict[str, int]:
        """The most common first."""
        return dict(Counter(outcome.stop_reason for outcome in self.outcomes).most_common())

    @property
    def failures(self) -> dict[str, int]:
        """For each of FAILURES the number of records."""
        return {kind: sum(outcome.failure == kind for outcome in self.outcomes) for kind in FAILURES}

    @property
    def error_indices(self) -> list[int]:
        return sorted(outcome.index for outcome in self.outcomes if outcome.error)

    @property
    def unusable(self) -> dict[str, list[int]]:
        """For each of COUNTS the indices of the records that the average leaves out."""
        return {
            name: sorted(outcome.index for outcome in self.outcomes if getattr(outcome, name) is None)
            for name in COUNTS
        }


def _mean(values: Iterable[int | float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None
