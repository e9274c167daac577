"""A request for frames -> a plan for one video -> pictures (docs/protocol.md, section 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from eva.errors import VideoError
from eva.video.decode import Video
from eva.video.picture import Rgb
from eva.video.sampling import Window, check_window, clamp_window, output_size, sample_times


@dataclass(frozen=True)
class SelectionRequest:
    """Which frames of a video are asked for. No `end_s`: up to the stream's end; no `resize`: full size."""

    video: Path
    start_s: float
    end_s: float | None
    nframes: int
    resize: float | None
    factor: int
    clamp: bool


@dataclass(frozen=True)
class Plan:
    """What is executed, once the stream is known. `indices` has one entry per picture; repeats are kept."""

    window: Window
    indices: list[int]
    width: int
    height: int


def make_plan(video: Video, request: SelectionRequest) -> Plan:
    """The frames of this video that the request means. Raises SelectionError where it makes no sense."""
    timeline = video.timeline
    window = Window(request.start_s, timeline.end_s if request.end_s is None else request.end_s)
    if request.clamp:
        window = clamp_window(window, begin_s=timeline.begin_s, end_s=timeline.end_s)
    check_window(window)
    times_s = sample_times(window, request.nframes)
    indices = timeline.indices_at(times_s)
    size = output_size(timeline.width, timeline.height, resize=request.resize, factor=request.factor)
    # An end that is NaN, see sample_times, is no time to write down.
    executed = Window(window.start_s, times_s[-1]) if math.isnan(window.end_s) else window
    return Plan(executed, indices, *size)


def describe(video: Video, plan: Plan) -> dict[str, Any]:
    """What was executed, as frames.json says it."""
    timeline = video.timeline
    return {
        "video": str(video.file.path),
        "decoder": video.decoder,
        "start_s": plan.window.start_s,
        "end_s": plan.window.end_s,
        "indices": plan.indices,
        "times_s": [timeline.times_s[index] for index in plan.indices],
        "width": plan.width,
        "height": plan.height,
        "average_fps": timeline.average_fps,
    }


def pictures(video: Video, indices: Sequence[int], plan: Plan, picture_format: str) -> Iterator[tuple[int, bytes]]:
    """(index, picture file) for each distinct index, one by one: memory does not grow with their number. Raises
    VideoError; ReadError, at the latest after the last one, where the file was changed or replaced."""
    try:
        yield from video.frames(indices, lambda rgb: encode(resize(rgb, plan.width, plan.height), picture_format))
    except VideoError:
        video.file.check_unchanged()
        raise
    video.file.check_unchanged()


def resize(rgb: Rgb, width: int, height: int) -> Rgb:
    """Bicubic by OpenCV, without antialiasing: the published numbers were measured so."""
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def encode(rgb: Rgb, picture_format: str) -> bytes:
    """An RGB picture as the bytes of a file in one of choices.FORMATS."""
    _, data = cv2.imencode(f".{picture_format}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return data.tobytes()
