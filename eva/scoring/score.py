"""Outcomes -> accuracy and its companions. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eva.protocol.stop_reasons import FAILURES, INFRASTRUCTURE
from eva.records.outcome import COUNTS, Outcome
from eva.scoring.interval import Interval, share_interval, smallest_difference


@dataclass(frozen=True)
class Chance:
    """The expected accuracy of guessing among each question's options, over the questions whose options can be read."""

    accuracy: float | None
    questions: int


@dataclass(frozen=True)
class Score:
    """The figures over the records of a result. Its fields are the keys of `--json`; shares are fractions.

    A question without a record counts as wrong. While questions are `to_go` (None: nobody knows how many), the run is
    `partial`: it has no accuracy yet, and no interval, because its first records are not a random sample. An average is
    over the records that tell a usable value, None where none does; `unusable_counts` has the indices of the others.
    """

    partial: bool
    # The denominator: the records, and what is to go.
    total: int | None
    recorded: int
    to_go: int | None
    # The known number of questions without a record.
    missing: int
    # Questions of which nothing is known yet: the missing, and failures of the infrastructure.
    pending: int
    correct: int
    accuracy: float | None
    # The accuracy if every pending question turned out wrong, and if every one turned out right.
    accuracy_bounds: tuple[float, float] | None
    interval_95: Interval | None
    # The smallest difference from a fixed accuracy that this run could show.
    smallest_difference: float | None
    chance: Chance
    answered: int
    empty: int
    average_rounds: float | None
    average_total_tokens: float | None
    average_visual_tokens: float | None
    average_seconds: float | None
    # The most common first.
    stop_reasons: dict[str, int]
    failures: dict[str, int]
    error_indices: list[int]
    unusable_counts: dict[str, list[int]]
    # Of all records: the replies that ended at --max-tokens.
    replies_cut: int


def make_score(outcomes: Sequence[Outcome], to_go: int | None) -> Score:
    """`to_go` is the number of questions that have no record yet."""
    partial, missing = to_go != 0, to_go or 0
    total, right = len(outcomes) + missing, sum(one.correct for one in outcomes)
    failures = {kind: sum(one.failure == kind for one in outcomes) for kind in FAILURES}
    pending = missing + failures[INFRASTRUCTURE]
    bounds = (right / total, (right + pending) / total) if total else (0.0, 0.0)
    empty = sum(not one.answer.strip() for one in outcomes)
    videos, values = [one.video for one in outcomes], [one.correct for one in outcomes]
    chances = [one.chance for one in outcomes if one.chance is not None]
    return Score(
        partial=partial,
        total=None if to_go is None else total,
        recorded=len(outcomes),
        to_go=to_go,
        missing=missing,
        pending=pending,
        correct=right,
        accuracy=None if partial else bounds[0],
        accuracy_bounds=None if to_go is None else bounds,
        interval_95=None if partial else share_interval(videos, values),
        smallest_difference=None if partial else smallest_difference(videos, values),
        chance=Chance(mean(chances), len(chances)),
        answered=len(outcomes) - empty,
        empty=empty,
        average_rounds=mean(one.num_rounds for one in outcomes),
        average_total_tokens=mean(one.total_tokens for one in outcomes),
        average_visual_tokens=mean(one.visual_tokens for one in outcomes),
        average_seconds=mean(one.seconds for one in outcomes),
        stop_reasons=dict(Counter(one.stop_reason for one in outcomes).most_common()),
        failures=failures,
        error_indices=sorted(one.index for one in outcomes if one.error),
        unusable_counts={name: sorted(one.index for one in outcomes if getattr(one, name) is None) for name in COUNTS},
        replies_cut=sum(one.replies_cut for one in outcomes),
    )


def mean(values: Iterable[float | None]) -> float | None:
    """Of the known values; None where there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
