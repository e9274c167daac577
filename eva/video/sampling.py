"""Which frames a request means, and how large they are (docs/protocol.md, section 5). Pure arithmetic.

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


def check_window(window: Window) -> None:
    """Raises SelectionError for a window that does not end after its start."""
    if window.end_s <= window.start_s:
        raise SelectionError(f"the window ends at {window.end_s} s, not after its start at {window.start_s} s")


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


def frame_indices(times_s: list[float], *, begin_s: float, average_fps: float, count: int) -> list[int]:
    """The frame, counted in presentation order, for each time; repeats are kept.

    The average rate decides, also where the rate varies, so the frame may be another than the one that is shown at
    that time. The published numbers were measured so. Raises SelectionError for times that are not finite.
    """
    places = [(time_s - begin_s) * average_fps for time_s in times_s]
    for time_s, place in zip(times_s, places, strict=True):
        if not math.isfinite(place):
            raise SelectionError(f"{time_s} s is not a time at which a frame can be shown")
    return [min(max(round(place), 0), count - 1) for place in places]


def shown_indices(times_s: list[float], *, shown_at_s: Sequence[float]) -> list[int]:
    """The frame that is shown at each time: the last one that begins at or before it; before all, the first one."""
    return [max(bisect_right(shown_at_s, time_s) - 1, 0) for time_s in times_s]


def output_size(width: int, height: int, *, resize: float | None, factor: int) -> tuple[int, int]:
    """(width, height) in pixels after scaling by `resize`, each a multiple of `factor` or 1; no `resize`: unchanged.

    A size that rounds to 0 becomes 1 pixel: the published numbers were measured so.
    """
    if resize is None:
        return width, height
    if not (math.isfinite(resize) and resize > 0):
        raise SelectionError(f"the resize ratio must be a positive number, not {resize}")
    if factor <= 0:
        raise SelectionError(f"the size factor must be positive, not {factor}")
    scaled = _scaled(width, resize, factor), _scaled(height, resize, factor)
    if scaled[0] * scaled[1] > MAX_PIXELS:
        raise SelectionError(
            f"resize {resize} and factor {factor} would make frames of {scaled[0]}x{scaled[1]}; "
            f"at most {MAX_PIXELS} pixels are allowed"
        )
    return scaled


def _scaled(size: int, resize: float, factor: int) -> int:
    return max(1, round(size * resize / factor) * factor)
