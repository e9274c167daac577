"""Where in the video the agent looked, and whether it saw the part that holds the answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eva.protocol.stop_reasons import EXCEPTION
from eva.records.schema import Record
from eva.scoring.categories import time_reference_s
from eva.scoring.interval import Interval, share_interval


@dataclass(frozen=True)
class Look:
    """One tool call that showed frames: its round, counted from 0, and the frames' times in seconds, as decoded.

    The frames that an agent opens with count to the first round.
    """

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


def find_looks(record: Record) -> list[Look]:
    """The looks of a record. There are none without a trajectory, as in the reference's records, or without times."""
    calls = [(0, call) for call in record.looks]
    calls += [(number, call) for number, round_ in enumerate(record.rounds) for call in round_.calls]
    found = []
    for number, executed in ((number, call.executed) for number, call in calls if call.executed is not None):
        times_s = tuple(float(time_s) for time_s in executed.times_s or () if time_s is not None)
        if times_s:
            found.append(Look(number, times_s))
    return found


def looked_into_reference(record: Record, looks: Sequence[Look]) -> bool | None:
    """Whether a frame lies inside LVBench's `time_reference`; None where that is unknown, and for exceptions.

    A window around it is not enough: with a frame every ten minutes it has not shown these ten seconds.
    The reference is in whole seconds, so its last second counts to its end ("00:41-00:41" lasts one second).
    """
    reference = time_reference_s(record)
    if reference is None or record.trajectory is None or record.stop_reason == EXCEPTION:
        return None
    start_s, end_s = reference
    return any(start_s <= time_s < end_s + 1 for look in looks for time_s in look.times_s)


def estimate(videos: Sequence[str], values: Sequence[float], *, n_resamples: int) -> Estimate | None:
    """The mean of `values`, a share, one per sample, for a chart or a table; None of no samples."""
    if not values:
        return None
    return Estimate(len(values), sum(values) / len(values), share_interval(videos, values, n_resamples=n_resamples))
