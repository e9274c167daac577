"""The uncertainty of a mean over samples, such as an accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 9999
# Of the figures that a table or a picture holds by the dozen: the ends of the interval then waver by a few hundredths
# of its width.
SIDE_RESAMPLES = 1999
# Draws times videos of one batch, which bounds the memory.
_BATCH = 1_000_000


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a mean, in the mean's own unit; of an accuracy as fractions."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def clustered_interval(
    videos: Sequence[str], values: Sequence[float], *, n_resamples: int = RESAMPLES
) -> Interval | None:
    """95 % percentile bootstrap of the mean of `values`, one a sample (of an accuracy: whether it is right), whole
    videos being drawn, not samples.

    Questions on one video stand or fall together, so that intervals over questions come out too narrow. Draws are
    seeded and the order of the records does not count: the same records give the same interval. None with fewer than
    two videos.
    """
    totals = Counter(videos)
    names = sorted(totals)
    if len(names) < 2:
        return None
    sums = dict.fromkeys(names, 0.0)
    for video, value in zip(videos, values, strict=True):
        sums[video] += value
    import numpy as np  # noqa: PLC0415  both take time to import, and not every caller gets here
    from scipy.stats import bootstrap  # noqa: PLC0415

    result = bootstrap(
        (np.array([sums[name] for name in names]), np.array([totals[name] for name in names])),
        _mean,
        paired=True,
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, _BATCH // len(names)),
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def _mean(sums: NDArray[np.float64], totals: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = sums.sum(axis=axis) / totals.sum(axis=axis)
    return mean
