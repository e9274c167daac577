"""Where in the video the agent looked, and whether it saw what the annotators say holds the answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eva.protocol.stop_reasons import EXCEPTION
from eva.records.schema import Record
from eva.scoring.categories import time_reference_s
from eva.scoring.interval import SIDE_RESAMPLES, Interval, clustered_interval


@dataclass(frozen=True)
class Glance:
    """One tool call that showed frames: its round, counted from 0, and the frames' times in seconds, as decoded."""

    round: int
    times_s: tuple[float, ...]


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` samples and its 95 % interval, clustered by video (None with fewer than two videos)."""

    count: int
    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Evidence:
    """`looked` is the share of samples in which a frame lay inside the annotated time; then the accuracies of those
    in which one did and in which none did (None where there is no such sample)."""

    looked: Estimate
    accuracy_with: Estimate | None
    accuracy_without: Estimate | None


def glances(record: Record) -> list[Glance]:
    """The looks of a record; none in the reference's records, nor where a foreign tool gave no times."""
    found = []
    for number, round_ in enumerate(record.rounds):
        for executed in (call.executed for call in round_.calls if call.executed is not None):
            times_s = tuple(float(time_s) for time_s in executed.times_s or () if time_s is not None)
            if times_s:
                found.append(Glance(number, times_s))
    return found


def looked_into_reference(record: Record, looks: Sequence[Glance]) -> bool | None:
    """Whether a frame lies inside LVBench's `time_reference`; None where that is unknown, and for exceptions.

    A frame must: a window over the whole film with a frame every ten minutes has not seen the ten seconds in question.
    The reference is in whole seconds, so its last second counts to its end ("00:41-00:41" lasts one second).
    """
    reference = time_reference_s(record)
    if reference is None or record.trajectory is None or record.stop_reason == EXCEPTION:
        return None
    start_s, end_s = reference
    return any(start_s <= time_s < end_s + 1 for look in looks for time_s in look.times_s)


def evidence(videos: Sequence[str], looked: Sequence[bool | None], correct: Sequence[bool]) -> Evidence | None:
    """The figures over the samples whose `looked` is known; None if there is none."""
    known = [(video, saw, right) for video, saw, right in zip(videos, looked, correct, strict=True) if saw is not None]
    share = estimate([video for video, _, _ in known], [saw for _, saw, _ in known])
    if share is None:
        return None
    groups = [[(video, right) for video, saw, right in known if saw is wanted] for wanted in (True, False)]
    with_it, without = (estimate([video for video, _ in group], [right for _, right in group]) for group in groups)
    return Evidence(share, with_it, without)


def estimate(videos: Sequence[str], values: Sequence[float]) -> Estimate | None:
    """The mean of `values`, one a sample, for a picture or a side figure; None of no samples."""
    if not values:
        return None
    return Estimate(
        len(values), sum(values) / len(values), clustered_interval(videos, values, n_resamples=SIDE_RESAMPLES)
    )


def without_interval(one: Estimate) -> Estimate:
    """As it is shown of an unfinished run, whose samples are no draw from all."""
    return replace(one, interval=None)
