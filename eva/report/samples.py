"""A run's records as the charts need them: a few numbers per sample, so that no record need be held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eva.records.meta import Meta
from eva.records.schema import Record
from eva.scoring.categories import categories
from eva.scoring.evidence import Look, find_looks, looked_into_reference
from eva.scoring.published import Published
from eva.scoring.time_use import SampleTimes, sample_times


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
