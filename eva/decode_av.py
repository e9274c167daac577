"""Exact frames by PyAV (FFmpeg).

Packets are demuxed first: their presentation times say which frames there are, without decoding any. While
decoding, each frame's own time is held against that list, so that a file whose packets do not map one to one to
frames (hidden frames, a start that cannot be decoded) is noticed rather than served shifted by one.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from eva.errors import MiscountedError, UndecodableError, VideoError
from eva.frames import Timeline

# Each decoding thread holds frames of its own; more of them cost memory without making one video much faster.
MAX_THREADS = 4


@dataclass(frozen=True)
class Clock:
    """How the stream counts time."""

    time_base: Fraction
    start_pts: int
    average_fps: float | None

    def seconds(self, pts: int) -> float:
        return float((pts - self.start_pts) * self.time_base)


@dataclass(frozen=True)
class Promise:
    """The frames that the packets announce, as presentation times in ascending order."""

    pts: tuple[int, ...]
    one_each: bool  # every packet has a time of its own, so that a frame is known by its time
    missing: int  # further frames whose bytes the file no longer holds


class AvVideo:
    """A video decoded by PyAV. Nothing is held open between calls."""

    decoder = "av"

    def __init__(self, path: Path, *, recount: bool = False) -> None:
        self._path = path
        with _opened(path) as (container, stream):
            self._clock = _clock(stream)
            self._promise, first = _survey(container, stream)
        if first is None:
            raise UndecodableError(f"no frame of the video {path} can be decoded")
        kept = not recount and self._promise.one_each and first.pts == self._promise.pts[0]
        self._pts = self._promise.pts if kept else None  # none: frames are known by counting them
        self.timeline = self._timeline(first)

    def frames(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(index, RGB) once for each distinct index, in ascending order; see decode.Video."""
        wanted = sorted(set(indices))
        to_rgb = RgbConverter()
        with _opened(self._path) as (container, stream):
            for index, frame in self._chosen(Decoding(container, stream), wanted):
                yield index, to_rgb(frame)

    def _chosen(self, decoding: Decoding, wanted: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        remaining = iter(wanted)
        target = next(remaining, None)
        for index, frame in self._numbered(decoding):
            if target is None:
                return
            if index > target:
                raise self._cannot_decode(target)
            if index == target:
                yield index, frame
                target = next(remaining, None)
        if target is not None:
            raise self._cannot_decode(target) if decoding.damaged or self._pts is None else self._miscounted()

    def _numbered(self, decoding: Decoding) -> Iterator[tuple[int, VideoFrame]]:
        """Each decoded frame with its index; gaps only where the decoder reported damage."""
        expected = 0
        for frame in decoding:
            index = expected if self._pts is None else self._index_of(frame.pts)
            if index != expected and not decoding.damaged:
                raise self._miscounted()
            if index is not None and index >= expected:
                yield index, frame
                expected = index + 1

    def _index_of(self, pts: int | None) -> int | None:
        if self._pts is None or pts is None:
            return None
        index = bisect_left(self._pts, pts)
        return index if index < len(self._pts) and self._pts[index] == pts else None

    def _timeline(self, first: VideoFrame) -> Timeline:
        times_s = self._times_s()
        turned = _quarter_turns(first) % 2 == 1
        size = (first.height, first.width) if turned else (first.width, first.height)
        missing = 0 if self._pts is None else self._promise.missing
        return Timeline(*size, self._average_fps(times_s), times_s, missing)

    def _times_s(self) -> tuple[float, ...]:
        if self._pts is not None:
            return tuple(self._clock.seconds(pts) for pts in self._pts)
        with _opened(self._path) as (container, stream):
            pts = [frame.pts for frame in Decoding(container, stream)]
        return self._counted_times_s(pts)

    def _counted_times_s(self, pts: list[int | None]) -> tuple[float, ...]:
        """Times of frames that were counted by decoding; evenly spaced where the file gives none that rise."""
        known = [time for time in pts if time is not None]
        if len(known) < len(pts) or any(late >= later for late, later in pairwise(known)):
            return tuple(index / (self._clock.average_fps or 25.0) for index in range(len(pts)))
        # Without times in the packets, decoders count from the first packet's turn to be decoded, not shown.
        shift = 0 if self._promise.one_each else known[0] - self._clock.start_pts
        return tuple(self._clock.seconds(time - shift) for time in known)

    def _average_fps(self, times_s: tuple[float, ...]) -> float:
        if self._clock.average_fps is not None:
            return self._clock.average_fps
        return (len(times_s) - 1) / (times_s[-1] - times_s[0]) if len(times_s) > 1 else 1.0

    def _cannot_decode(self, index: int) -> VideoError:
        held = len(self.timeline.times_s)
        if index >= held:
            text = f"frame {index} of {self._path} is not in the file: it ends after {held} of {self.timeline.count}"
            return VideoError(f"{text} frames; fetch it again")
        when = f"frame {index} at {self.timeline.times_s[index]:.3f} s"
        return VideoError(f"{when} of {self._path} cannot be decoded: the file is damaged; fetch it again")

    def _miscounted(self) -> MiscountedError:
        return MiscountedError(f"the packets of {self._path} do not map one to one to its frames")


class Decoding:
    """One pass over a video's frames in presentation order. A damaged packet is noted and gives no frame."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container, self._stream = container, stream
        self.damaged = False
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)

    def __iter__(self) -> Iterator[VideoFrame]:
        for packet in _packets(self._container, self._stream):
            yield from self.decode(packet)
        yield from self.decode(None)

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            return self._stream.decode(packet)
        except FFmpegError:
            self.damaged = True
            return []


class RgbConverter:
    """8-bit RGB as FFmpeg's swscale gives it by default, turned as the container says the video is shown."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """RGB of height x width x 3, uint8."""
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray().astype(np.uint8, copy=False)
        turns = _quarter_turns(frame)
        return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _quarter_turns(frame: VideoFrame) -> int:
    """Counterclockwise quarter turns (0 to 3) to show the frame upright; odd angles are left alone, as in decord."""
    turns, rest = divmod(frame.rotation, 90)
    return 0 if rest else turns % 4


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and the stream to show; it is closed again on the way out."""
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (FFmpegError, UnicodeError, ValueError) as error:
        raise UndecodableError(f"{path} cannot be opened as a video: {reason(error)}") from error
    with container:
        yield container, _video_stream(container, path)


def reason(error: Exception) -> str:
    """What FFmpeg says went wrong, without its error number and without the path, which may be long."""
    return getattr(error, "strerror", None) or str(error)


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    """FFmpeg's choice among the moving pictures; cover art is none."""
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        raise VideoError(f"{path} holds no video stream")
    best = container.streams.best("video")
    return next((stream for stream in moving if stream is best), moving[0])


def _clock(stream: VideoStream) -> Clock:
    rate = stream.average_rate or stream.guessed_rate
    return Clock(
        time_base=stream.time_base or Fraction(1, 1000),
        start_pts=stream.start_time or 0,
        average_fps=float(rate) if rate else None,
    )


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The stream's packets; where the file breaks off, they end."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except FFmpegError:
        return


def _survey(container: InputContainer, stream: VideoStream) -> tuple[Promise, VideoFrame | None]:
    """Read every packet and decode the first frame."""
    decoding = Decoding(container, stream)
    first: VideoFrame | None = None
    pts: list[int | None] = []
    for packet in _packets(container, stream):
        if not packet.is_discard:  # cut off by an edit list: decoded, never shown
            pts.append(packet.pts)
        if first is None:
            first = next(iter(decoding.decode(packet)), None)
    if first is None:
        first = next(iter(decoding.decode(None)), None)
    return _promise(pts), first


def _promise(pts: list[int | None]) -> Promise:
    known = sorted(time for time in pts if time is not None)
    one_each = bool(known) and len(set(known)) == len(pts)
    return Promise(tuple(known), one_each, 0)
