"""The uncertainty of a mean over samples, such as an accuracy. Pure.

Questions on one video are right or wrong together, so videos are what is drawn here, not questions: `videos` and
`values` have one entry per sample. `benchmarks/intervals.py` measures how often the intervals hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# With fewer videos an interval would hold the truth less often than it says, or say next to nothing.
MIN_VIDEOS = 10
# The power with which a difference is to be found.
POWER = 0.8


class Interval(NamedTuple):
    """A 95 % interval, in the unit of its mean; of an accuracy as fractions."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


def mean_interval(videos: Sequence[str], values: Sequence[float]) -> Interval | None:
    """The mean of any values, such as differences: Student's t with the error of whole videos. None with few videos."""
    count = len(set(videos))
    if count < MIN_VIDEOS:
        return None
    mean = math.fsum(values) / len(values)
    half = t_quantile(0.975, count - 1) * standard_error(videos, values)
    return Interval(mean - half, mean + half)


def share_interval(videos: Sequence[str], values: Sequence[float]) -> Interval | None:
    """The mean of values from 0 to 1, such as an accuracy. None with few videos.

    Wilson's interval for as many independent questions as would have this error: at most as many as there are, and as
    many as there are videos where all are right or all are wrong.
    """
    count = len(set(videos))
    if count < MIN_VIDEOS:
        return None
    mean = math.fsum(values) / len(values)
    variance, error = mean * (1 - mean), standard_error(videos, values)
    independent = min(len(values), variance / error**2 if error else len(values)) if variance > 0 else count
    weight = t_quantile(0.975, count - 1) ** 2 / independent
    half = math.sqrt(weight * max(0.0, variance) + weight**2 / 4)
    low, high = (mean + weight / 2 - half) / (1 + weight), (mean + weight / 2 + half) / (1 + weight)
    return Interval(max(0.0, low), min(1.0, high))


def smallest_difference(videos: Sequence[str], values: Sequence[float]) -> float | None:
    """The smallest true mean that a test of such `values` against 0 finds with POWER, two-sided at 5 %.

    Of the differences of pairs it is the smallest difference that these pairs could have shown. None with few videos,
    and where the values do not vary.
    """
    count = len(set(videos))
    if count < MIN_VIDEOS:
        return None
    return (t_quantile(0.975, count - 1) + t_quantile(POWER, count - 1)) * standard_error(videos, values) or None


def standard_error(videos: Sequence[str], values: Sequence[float]) -> float:
    """Of the mean of `values`, on two videos or more."""
    mean = math.fsum(values) / len(values)
    residuals = dict.fromkeys(videos, 0.0)
    for video, value in zip(videos, values, strict=True):
        residuals[video] += value - mean
    count = len(residuals)
    return math.sqrt(count / (count - 1) * math.fsum(one * one for one in residuals.values())) / len(values)


def t_quantile(share: float, freedom: int) -> float:
    """The value below which this share of Student's t lies."""
    from scipy.special import stdtrit  # noqa: PLC0415  takes a third of a second to import, and not every caller comes

    return float(stdtrit(freedom, share))
