"""The uncertainty of an accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of an accuracy, as fractions."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def clustered_interval(videos: Sequence[str], correct: Sequence[bool]) -> Interval | None:
    """95 % percentile bootstrap of the share of `correct`, whole videos being drawn, not questions.

    Questions on one video stand or fall together, so that intervals over questions come out too narrow. Draws are
    seeded and the order of the records does not count: the same records give the same interval. None with fewer than
    two videos.
    """
    totals = Counter(videos)
    names = sorted(totals)
    if len(names) < 2:
        return None
    hits = Counter(video for video, right in zip(videos, correct, strict=True) if right)
    from scipy.stats import bootstrap  # noqa: PLC0415  takes a second to import, and not every caller gets here

    result = bootstrap(
        (np.array([hits[name] for name in names]), np.array([totals[name] for name in names])),
        _share,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def _share(hits: NDArray[np.int64], totals: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
    return np.asarray(hits.sum(axis=axis) / totals.sum(axis=axis), dtype=np.float64)
