"""A run's records as figures and charts need them: a few numbers per sample, so that no record need be held. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eva.protocol.stop_reasons import EXCEPTION
from eva.records.meta import Meta
from eva.records.outcome import Outcome
from eva.records.schema import Record
from eva.scoring.categories import categories
from eva.scoring.interval import Interval, share_interval
from eva.scoring.published import Published
from eva.scoring.time_use import SampleTimes, sample_times

_REFERENCE = re.compile(r"(\d{1,4}):(\d\d)-(\d{1,4}):(\d\d)")


@dataclass(frozen=True)
class Sample:
    """One sample. `video_duration_s` and `looked_into_reference` are None where the record does not tell."""

    outcome: Outcome
    video_duration_s: float | None
    categories: tuple[str, ...]
    looked_into_reference: bool | None
    times: SampleTimes


@dataclass(frozen=True)
class Run:
    """A result of an agent under its name on the page. `published` is what is published of its dataset; `partial` says
    that the run has not finished."""

    name: str
    dataset: str
    samples: Sequence[Sample]
    published: Published | None = None
    partial: bool = False
    agent: str = "eva"
    meta: Meta | None = None


def read_sample(dataset: str, record: Record) -> Sample:
    names = categories(dataset, record)
    return Sample(record.outcome, record.video_duration_s, names, looked_into_reference(record), sample_times(record))


# --- shares of samples


@dataclass(frozen=True)
class Estimate:
    """A share of `count` samples, and its interval; None with few videos, and of an unfinished run.

    Published figures and chance are not `measured`.
    """

    count: int
    value: float
    interval: Interval | None = None
    measured: bool = True

    def __str__(self) -> str:
        between = f" ({self.interval.low:.1%} to {self.interval.high:.1%})" if self.interval else ""
        return f"{self.value:.1%}{between} of {self.count:,}"


def share(run: Run, samples: Sequence[Sample], has: Callable[[Sample], object]) -> Estimate | None:
    """Of some samples of a run, those that have something; None of no samples."""
    if not samples:
        return None
    values = [bool(has(sample)) for sample in samples]
    interval = None if run.partial else share_interval([sample.outcome.video for sample in samples], values)
    return Estimate(len(values), sum(values) / len(values), interval)


def accuracy(run: Run, samples: Sequence[Sample]) -> Estimate | None:
    return share(run, samples, lambda sample: sample.outcome.correct)


# --- where the answer is, and where the agent looked


def by_evidence(run: Run) -> dict[str, Estimate | None]:
    """The share of samples with a frame in the annotated time, then the accuracy with and without such a frame.

    Over the samples of which it is known.
    """
    known = [one for one in run.samples if one.looked_into_reference is not None]
    return {
        "Looked into the annotated time": share(run, known, lambda one: one.looked_into_reference),
        "Accuracy where it looked": accuracy(run, [one for one in known if one.looked_into_reference]),
        "Accuracy where it did not": accuracy(run, [one for one in known if not one.looked_into_reference]),
    }


def time_reference_s(record: Record) -> tuple[float, float] | None:
    """LVBench's `time_reference` ("08:17-09:02") as (start, end) in seconds, both as annotated, in whole seconds.

    None where it is open ("08:17-None"), absent, or ends before it starts ("63:20-03:35"), which is an error.
    """
    value = record.extra.get("time_reference")
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return None
    start_s, end_s = (float(60 * int(found[part]) + int(found[part + 1])) for part in (1, 3))
    return (start_s, end_s) if start_s <= end_s else None


def shown_times_s(record: Record) -> list[float]:
    """The times of all shown frames in seconds, as decoded. There are none without a trajectory, as in the reference's
    records."""
    calls = [*record.looks, *(call for round_ in record.rounds for call in round_.calls)]
    executed = [call.executed for call in calls if call.executed is not None]
    return [time_s for one in executed for time_s in one.times_s or () if time_s is not None]


def looked_into_reference(record: Record) -> bool | None:
    """Whether a frame lies inside LVBench's `time_reference`; None where that is unknown, and for exceptions.

    A window around it is not enough: with a frame every ten minutes it has not shown these ten seconds.
    The reference is in whole seconds, so its last second counts to its end ("00:41-00:41" lasts one second).
    """
    reference = time_reference_s(record)
    if reference is None or record.trajectory is None or record.stop_reason == EXCEPTION:
        return None
    start_s, end_s = reference
    return any(start_s <= time_s < end_s + 1 for time_s in shown_times_s(record))
