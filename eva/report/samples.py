"""A run's records as the charts need them: a few numbers per sample, so that no record need be held."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eva.protocol.stop_reasons import EXCEPTION
from eva.records.meta import Meta
from eva.records.schema import Record
from eva.scoring.categories import categories
from eva.scoring.published import Published
from eva.scoring.time_use import SampleTimes, sample_times

_REFERENCE = re.compile(r"(\d{1,4}):(\d\d)-(\d{1,4}):(\d\d)")


@dataclass(frozen=True)
class Look:
    """One tool call that showed frames: its round, counted from 0, and the frames' times in seconds, as decoded.

    The frames that an agent opens with count to the first round.
    """

    round: int
    times_s: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample. `rounds`, `tokens` and `video_duration_s` are None where the record does not tell.

    `first_look` and `later_looks` hold the shown frames' places in the video, from 0 (start) to 1 (end), of the first
    round that showed frames and of those after it.
    """

    video: str
    correct: bool
    stop_reason: str
    rounds: float | None
    tokens: float | None
    video_duration_s: float | None
    categories: tuple[str, ...]
    first_look: NDArray[np.float32]
    later_looks: NDArray[np.float32]
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
    """What the charts need of a record."""
    outcome, duration_s, looks = record.outcome, record.video_duration_s, find_looks(record)
    first_round = looks[0].round if looks else 0
    return Sample(
        video=outcome.video,
        correct=outcome.correct,
        stop_reason=outcome.stop_reason,
        rounds=outcome.num_rounds,
        tokens=outcome.total_tokens,
        video_duration_s=duration_s,
        categories=categories(dataset, record),
        first_look=_places((look for look in looks if look.round == first_round), duration_s),
        later_looks=_places((look for look in looks if look.round != first_round), duration_s),
        looked_into_reference=looked_into_reference(record, looks),
        times=sample_times(record),
    )


def _places(looks: Iterable[Look], duration_s: float | None) -> NDArray[np.float32]:
    times_s = np.array([time_s for look in looks for time_s in look.times_s] if duration_s else [], dtype=np.float64)
    # The last frame can lie beyond the length that the stream names.
    return np.clip(times_s / (duration_s or 1), 0, 1).astype(np.float32)


# --- where the answer is, and where the agent looked


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
