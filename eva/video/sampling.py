"""Which frames of a video a request means, and how large they are (docs/protocol.md, section 5). Pure arithmetic.

All times are in seconds. They count from the start of the video stream; in a video whose frames are chosen by time
(Timeline.shown_to_s) they are the container's own.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eva.errors import EvaError
from eva.protocol.arguments import FrameRequest

# A model can ask for any size. A larger picture (200 MB of RGB, twice an 8K frame) is refused.
MAX_PIXELS = 2**26


class SelectionError(EvaError):
    """A request that no video can fulfil. The message quotes the wrong value."""


@dataclass(frozen=True)
class Window:
    """The part of a video from which frames are taken."""

    start_s: float
    end_s: float


def clamp_window(window: Window, *, begin_s: float, end_s: float) -> Window:
    """The part of `window` within the stream's bounds; the whole stream where nothing is left of it."""
    clamped = Window(max(window.start_s, begin_s), min(window.end_s, end_s))
    return Window(begin_s, end_s) if clamped.end_s <= clamped.start_s else clamped


def sample_times(window: Window, nframes: int) -> list[float]:
    """`nframes` evenly spaced times from the window's start to just before its end; one frame: the middle."""
    if nframes <= 0:
        raise SelectionError(f"the number of frames must be positive, not {nframes}")
    if nframes == 1:
        return [(window.start_s + window.end_s) / 2]
    # Both ends are sampled, the last one a little early: no frame is shown at the very end of the stream.
    margin_s = min(0.001, (window.end_s - window.start_s) / (4 * nframes))
    # An end that is NaN becomes the start, as in the reference.
    last_s = max(window.start_s, window.end_s - margin_s)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite times become NaN, and no frame has such a time
        times: list[float] = np.linspace(window.start_s, last_s, nframes).tolist()
    return times


@dataclass(frozen=True)
class Plan:
    """What is executed, once the stream is known. `indices` has one entry per picture; repeats are kept."""

    window: Window
    indices: list[int]
    width: int
    height: int


@dataclass(frozen=True)
class Timeline:
    """The times and the size of a video's frames: all that choosing frames needs, without pixels.

    The reference has two decoders, and two rules. In a video that decord opens, frames are chosen by the average rate,
    the last frame has the average duration, and the times of the first and the last frame are rounded to 32 bits, as
    decord gives them. In a video that decord cannot open, frames are chosen by time: `shown_to_s` is then the end of
    the last frame by its own duration, and None otherwise.
    """

    width: int
    height: int
    average_fps: float
    times_s: Sequence[float]  # in presentation order
    shown_to_s: float | None = None

    @property
    def begin_s(self) -> float:
        return self.times_s[0] if self.shown_to_s is not None else float(np.float32(self.times_s[0]))

    @property
    def end_s(self) -> float:
        if self.shown_to_s is not None:
            return self.shown_to_s
        # A window that is clamped to the end samples other frames without this rounding.
        return float(np.float32(self.times_s[-1])) + 1 / self.average_fps

    @property
    def length_s(self) -> float:
        """The time for which the frames are shown, without the rounding of the bounds."""
        shown_to_s = self.times_s[-1] + 1 / self.average_fps if self.shown_to_s is None else self.shown_to_s
        return shown_to_s - self.times_s[0]

    def indices_at(self, times_s: Sequence[float]) -> list[int]:
        """The frame, counted in presentation order, for each time; repeats are kept. Raises SelectionError for times at
        which there is no frame.

        Where the average rate decides, it does so also where the rate varies: the frame may be another than the one
        that is shown at that time. The published numbers were measured so.
        """
        by_time, last = self.shown_to_s is not None, len(self.times_s) - 1
        for time_s in times_s:
            # Outside, torchcodec refuses a time, where decord takes the nearest frame.
            if not (self.begin_s <= time_s < self.end_s if by_time else math.isfinite(time_s * self.average_fps)):
                bounds = f"the video is from {self.begin_s} to {self.end_s} s"
                raise SelectionError(f"{time_s} s is not a time at which a frame is shown: {bounds}")
        if by_time:
            return [bisect_right(self.times_s, time_s) - 1 for time_s in times_s]
        places = (round((time_s - self.begin_s) * self.average_fps) for time_s in times_s)
        return [min(max(place, 0), last) for place in places]


def output_size(width: int, height: int, *, resize: float, factor: int) -> tuple[int, int]:
    """(width, height) in pixels after scaling by `resize`, each a multiple of `factor` or 1.

    A size that rounds to 0 becomes 1 pixel: the published numbers were measured so.
    """
    if not (math.isfinite(resize) and resize > 0):
        raise SelectionError(f"the resize ratio must be a positive number, not {resize}")
    if factor <= 0:
        raise SelectionError(f"the size factor must be positive, not {factor}")
    scaled = tuple(max(1, round(side * resize / factor) * factor) for side in (width, height))
    if scaled[0] * scaled[1] > MAX_PIXELS:
        size = f"{scaled[0]}x{scaled[1]}; at most {MAX_PIXELS} pixels are allowed"
        raise SelectionError(f"resize {resize} and factor {factor} would make frames of {size}")
    return scaled[0], scaled[1]


def make_plan(timeline: Timeline, request: FrameRequest, *, factor: int, clamp: bool) -> Plan:
    """The frames of this video that the request means, cut to it where they `clamp`. The sides of the pictures are
    multiples of `factor`, or 1. Raises SelectionError where it makes no sense."""
    window = Window(request.start_s, request.end_s)
    if clamp:
        window = clamp_window(window, begin_s=timeline.begin_s, end_s=timeline.end_s)
    if window.end_s <= window.start_s:
        raise SelectionError(f"the window ends at {window.end_s} s, not after its start at {window.start_s} s")
    times_s = sample_times(window, int(request.nframes))
    indices = timeline.indices_at(times_s)
    size = output_size(timeline.width, timeline.height, resize=request.resize, factor=factor)
    # An end that is NaN, see sample_times, is no time to write down.
    executed = Window(window.start_s, times_s[-1]) if math.isnan(window.end_s) else window
    return Plan(executed, indices, *size)
