"""Where in the video the agent looked, and whether it saw the part that holds the answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eva.protocol.stop_reasons import EXCEPTION
from eva.records.schema import Record
from eva.scoring.categories import time_reference_s
from eva.scoring.interval import FEWER_RESAMPLES, Interval, clustered_interval


@dataclass(frozen=True)
class Glance:
    """One tool call that showed frames: its round, counted from 0, and the frames' times in seconds, as decoded."""

    round: int
    times_s: tuple[float, ...]


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` samples and its 95 % interval, clustered by video.

    The interval is None with fewer than two videos, and of an unfinished run.
    """

    count: int
    value: float
    interval: Interval | None

    def __str__(self) -> str:
        between = f" ({self.interval.low:.1%} to {self.interval.high:.1%})" if self.interval else ""
        return f"{self.value:.1%}{between} of {self.count:,}"


@dataclass(frozen=True)
class Evidence:
    """`looked` is the share of samples with a frame inside the annotated time. Then come the accuracies of the samples
    with and without such a frame, None where there is no such sample."""

    looked: Estimate
    accuracy_with: Estimate | None
    accuracy_without: Estimate | None


def glances(record: Record) -> list[Glance]:
    """The glances of a record. There are none without a trajectory, as in the reference's records, or without times."""
    found = []
    for number, round_ in enumerate(record.rounds):
        for executed in (call.executed for call in round_.calls if call.executed is not None):
            times_s = tuple(float(time_s) for time_s in executed.times_s or () if time_s is not None)
            if times_s:
                found.append(Glance(number, times_s))
    return found


def looked_into_reference(record: Record, looks: Sequence[Glance]) -> bool | None:
    """Whether a frame lies inside LVBench's `time_reference`; None where that is unknown, and for exceptions.

    A window around it is not enough: with a frame every ten minutes it has not shown these ten seconds.
    The reference is in whole seconds, so its last second counts to its end ("00:41-00:41" lasts one second).
    """
    reference = time_reference_s(record)
    if reference is None or record.trajectory is None or record.stop_reason == EXCEPTION:
        return None
    start_s, end_s = reference
    return any(start_s <= time_s < end_s + 1 for look in looks for time_s in look.times_s)


def evidence(
    videos: Sequence[str], looked: Sequence[bool | None], correct: Sequence[bool], *, partial: bool
) -> Evidence | None:
    """The figures over the samples whose `looked` is known; None if there is none."""
    known = [(video, saw, right) for video, saw, right in zip(videos, looked, correct, strict=True) if saw is not None]
    share = estimate([video for video, _, _ in known], [saw for _, saw, _ in known], partial=partial)
    if share is None:
        return None
    groups = [[(video, right) for video, saw, right in known if saw is wanted] for wanted in (True, False)]
    with_it, without = (
        estimate([video for video, _ in group], [right for _, right in group], partial=partial) for group in groups
    )
    return Evidence(share, with_it, without)


def estimate(
    videos: Sequence[str], values: Sequence[float], *, partial: bool, n_resamples: int = FEWER_RESAMPLES
) -> Estimate | None:
    """The mean of `values`, one per sample, for a chart or a table; None of no samples.

    With `partial` it has no interval: the samples of an unfinished run are not a random sample.
    """
    if not values:
        return None
    interval = clustered_interval(videos, values, n_resamples=0 if partial else n_resamples)
    return Estimate(len(values), sum(values) / len(values), interval)
