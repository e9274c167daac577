"""When each frame of a video is shown."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eva.video.sampling import SelectionError, frame_indices, shown_indices


@dataclass(frozen=True)
class Timeline:
    """The times and the size of a video's frames: all that choosing frames needs, without pixels.

    The reference has two decoders, and two rules. In a video that decord opens, frames are chosen by the average rate,
    the last frame has the average duration, and the times of the first and the last frame are rounded to 32 bits, as
    decord gives them. In a video that decord cannot open, frames are chosen by time: `shown_to_s` is then the end of
    the last frame by its own duration, and None otherwise.

    `stated_fps` is the rate that the container states, where it is not that of the frames; it is not used.
    """

    width: int
    height: int
    average_fps: float
    times_s: Sequence[float]  # in presentation order
    missing: int = 0  # frames after those that the container lists, but the file does not hold
    shown_to_s: float | None = None
    stated_fps: float | None = None

    @property
    def count(self) -> int:
        return len(self.times_s) + self.missing

    @property
    def begin_s(self) -> float:
        return self.times_s[0] if self.shown_to_s is not None else float(np.float32(self.times_s[0]))

    @property
    def end_s(self) -> float:
        lost_s = self.missing / self.average_fps
        if self.shown_to_s is None:
            # A window that is clamped to the end samples other frames without this rounding.
            return float(np.float32(self.times_s[-1] + lost_s)) + 1 / self.average_fps
        return self.shown_to_s + lost_s

    @property
    def length_s(self) -> float:
        """The time for which the frames are shown, without the rounding of the bounds."""
        shown_to_s = self.times_s[-1] + 1 / self.average_fps if self.shown_to_s is None else self.shown_to_s
        return shown_to_s + self.missing / self.average_fps - self.times_s[0]

    @property
    def drift_s(self) -> float:
        """How far the time of a frame is from the time for which the average rate chooses it, at most."""
        if self.shown_to_s is not None:
            return 0.0
        expected_s = self.times_s[0] + np.arange(len(self.times_s)) / self.average_fps
        return float(np.abs(np.array(self.times_s) - expected_s).max())

    def indices_at(self, times_s: list[float]) -> list[int]:
        """The frame for each time; repeats are kept. Raises SelectionError for times at which there is no frame."""
        if self.shown_to_s is None:
            return frame_indices(times_s, begin_s=self.begin_s, average_fps=self.average_fps, count=self.count)
        for time_s in times_s:
            if not self.begin_s <= time_s < self.end_s:  # torchcodec refuses it, where decord takes the nearest frame
                raise SelectionError(
                    f"no frame is shown at {time_s} s: the video is from {self.begin_s} to {self.end_s} s"
                )
        if not self.missing:
            return shown_indices(times_s, shown_at_s=self.times_s)
        lost_s = (self.shown_to_s + place / self.average_fps for place in range(self.missing))
        return shown_indices(times_s, shown_at_s=(*self.times_s, *lost_s))


def compact(numbers: np.ndarray[Any, np.dtype[Any]]) -> array[Any]:
    """Floats or integers of 64 bits in an array of Python, whose items are Python's own, and which is equal or not as a
    whole."""
    packed = array("d" if numbers.dtype == np.float64 else "q")
    packed.frombytes(numbers.data.cast("B"))
    return packed
