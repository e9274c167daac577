"""The uncertainty of a mean over samples, such as an accuracy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RESAMPLES = 9999
# For the many figures of a table or a chart. The ends of the interval then vary by a few hundredths of its width.
FEWER_RESAMPLES = 1999
# The share of bounds that miss.
MISSES = 0.05
# The power with which a difference is to be found.
POWER = 0.8
# Draws times videos of one batch, which bounds the memory.
_BATCH = 1_000_000


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a mean, in the unit of the mean; of an accuracy as fractions.

    `bound_videos` is the number of videos where the interval is a one-sided bound; None of a bootstrap.
    """

    low: float
    high: float
    bound_videos: int | None = None

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def clustered_interval(
    videos: Sequence[str], values: Sequence[float], *, n_resamples: int = RESAMPLES
) -> Interval | None:
    """95 % percentile bootstrap of the mean of `values`. It draws whole videos, not samples.

    `videos` and `values` have one entry per sample. Of an accuracy the value is whether the sample is right.
    Questions on one video are right or wrong together, so an interval that draws questions is too narrow.
    Draws are seeded and the order of the records does not count: the same records give the same interval.
    None with fewer than two videos, and without resamples.
    """
    counts = Counter(videos)
    names = sorted(counts)
    if len(names) < 2 or not n_resamples:
        return None
    # These take a second to import, and not every caller comes here.
    import numpy as np  # noqa: PLC0415
    from scipy.stats import bootstrap  # noqa: PLC0415

    sums = dict.fromkeys(names, 0.0)
    for video, value in zip(videos, values, strict=True):
        sums[video] += value
    result = bootstrap(
        (np.array([sums[name] for name in names]), np.array([counts[name] for name in names])),
        _mean,
        paired=True,
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, _BATCH // len(names)),
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def share_interval(videos: Sequence[str], values: Sequence[float], *, n_resamples: int = RESAMPLES) -> Interval | None:
    """clustered_interval of a share, such as an accuracy: most values are 0 or 1.

    Where all are 1, or all 0, each draw is as the other, and a bootstrap would find no uncertainty at all. Then one end
    is the exact one-sided 95 % bound (Clopper and Pearson) of as many draws as there are videos. It says how likely a
    further video is like these.
    """
    count = len(set(videos))
    if count < 2 or not n_resamples or set(values) not in ({0}, {1}):
        return clustered_interval(videos, values, n_resamples=n_resamples)
    bound = MISSES ** (1 / count)
    return Interval(bound, 1.0, count) if values[0] else Interval(0.0, 1 - bound, count)


def smallest_difference(videos: Sequence[str], values: Sequence[float]) -> float | None:
    """The smallest true mean that a test of such `values` against 0 finds with POWER, two-sided at 5 %.

    `videos` and `values` are those of clustered_interval. Of the differences of pairs the result is the smallest
    difference that these pairs could have shown. None with fewer than two videos, and where the values do not vary.
    """
    error, count = standard_error(videos, values), len(set(videos))
    if not error:
        return None
    from scipy.stats import t  # noqa: PLC0415  takes a second to import, and not every caller comes here

    return error * float(t.ppf(0.975, count - 1) + t.ppf(POWER, count - 1))


def standard_error(videos: Sequence[str], values: Sequence[float]) -> float | None:
    """The standard error of the mean of `values`, whole videos being what is drawn. None with fewer than two videos."""
    count = len(set(videos))
    if count < 2:
        return None
    mean = math.fsum(values) / len(values)
    residuals = dict.fromkeys(videos, 0.0)
    for video, value in zip(videos, values, strict=True):
        residuals[video] += value - mean
    return math.sqrt(count / (count - 1) * math.fsum(one * one for one in residuals.values())) / len(values)


def _mean(sums: Any, counts: Any, axis: int) -> Any:
    """The means of draws of videos, as arrays: the sums of their values over the counts of their samples."""
    return sums.sum(axis=axis) / counts.sum(axis=axis)
