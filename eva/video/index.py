"""Which frames a video has, when they are shown, and where decoding may begin: its index.

The packets say that, and nothing but the first frame is decoded. Where they mislead, the whole file is decoded instead.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from eva.errors import UndecodableError
from eva.video.container import MATROSKA, MOV, VideoFile, open_stream, packets_of
from eva.video.decoding import Decoding, quarter_turns, upright
from eva.video.packets import (
    MPEG_TS,
    NO_TIME,
    EntryPoint,
    Integers,
    Packets,
    is_chosen_by_time,
    is_undated,
    note,
)
from eva.video.sample_table import listed_packets
from eva.video.sampling import Timeline

# Of these codecs, frames shown from a keyframe on refer to nothing before it.
ENTERED = {"h264", "hevc", "vp8", "libvpx", "vp9", "libvpx-vp9", "av1", "libdav1d"}
# decord shows wrong frames in these containers, or knows no times. Their rate may be that of fields or of places for
# frames, or a guess of FFmpeg. Elsewhere decord chooses frames by the stated rate, so it stays, also where it is wrong.
MAY_STATE_WRONG_RATE = {"avi", "mpegts", "mpeg", "asf"}
UNKNOWN_FPS = 25.0
# A stated rate that differs by more than this share from that of the frames is wrong.
RATE_TOLERANCE = 0.05

# A decoded frame's presentation time and duration, and whether it is a keyframe.
Shown = tuple[int | None, int, bool]


@dataclass(frozen=True)
class VideoIndex:
    """All that must be known of a video before frames of it are decoded.

    `pts` has the presentation time of each frame that the file holds; None: frames are identified by counting them.
    """

    timeline: Timeline
    pts: array[int] | None
    entries: tuple[EntryPoint, ...]  # in ascending order; none where only decoding from the start is exact


@dataclass(frozen=True)
class Clock:
    """How the stream counts time."""

    time_base: Fraction
    start_pts: int
    average_fps: float | None
    sure: bool  # whether the average rate stays, whatever the times of the frames
    by_time: bool  # frames are chosen by their times, see sampling.Timeline
    delay_s: float | None  # in a stream without presentation times: how late the decoder gives each frame; else None

    def seconds(self, pts: Integers) -> array[float]:
        """Exact up to 2**53, as a division of integers."""
        since_start = pts.astype(np.float64) - self.start_pts
        seconds = since_start * self.time_base.numerator / self.time_base.denominator
        return array("d", seconds.tobytes())


def read_index(file: VideoFile, *, recount: bool, by_time: bool) -> VideoIndex:
    """Learn the frames of a video from its packets; decode it whole where they mislead or `recount` says so. `by_time`:
    its frames are chosen by time, whatever file it is.

    Raises UndecodableError where no frame can be decoded.
    """
    undecodable = UndecodableError(f"no frame of the video {file.path} can be decoded")
    with open_stream(file.path) as (container, stream):
        if stream.codec_context is None:
            raise UndecodableError(f"no decoder for the video stream of {file.path} is known")
        decoding, notes = Decoding(container, stream, threads=1), array("q")
        packets = listed_packets(file.path, container, stream)
        passing = packets_of(container, stream)
        if packets is None:
            passing = note(passing, stream.codec_context.name, notes)
        first = _first_frame(passing, decoding)
        if first is None:
            raise undecodable
        if packets is None:
            deque(passing, maxlen=0)
            noted = np.array(notes, np.int64).reshape(-1, 4)
            packets = Packets(noted[:, 0], noted[:, 1], noted[:, 2] > 0, int(noted[:, 3].max(initial=NO_TIME)))
        shown = upright((stream.width, stream.height), quarter_turns(first))
        by_time = by_time or is_chosen_by_time(container, stream, shown[0])
        clock = _make_clock(container, stream, first, by_time=by_time)
        size = (stream.width, stream.height) if by_time else shown
        pts = np.sort(packets.pts[packets.pts != NO_TIME])
        one_each = len(pts) == len(packets.pts) > 0 and bool(np.all(pts[1:] > pts[:-1])) and first.pts == pts[0]
        if one_each and clock.delay_s is None and not recount:
            times_s = clock.seconds(np.append(pts, packets.shown_to))
            timeline = _make_timeline(size, clock, times_s, times_s.pop())
            entries = tuple(_entries(packets, pts, container.format.name, stream.codec_context.name))
            return VideoIndex(timeline, array("q", pts.tobytes()), entries)
    with open_stream(file.path) as (container, stream):
        frames = Decoding(container, stream).frames()
        counted = [(frame.pts, frame.duration or 0, frame.key_frame) for frame in frames]
    if not counted:
        raise undecodable
    return VideoIndex(_make_timeline(size, clock, *_times_s(counted, clock, pts)), None, ())


def _first_frame(packets: Iterable[Packet[VideoStream]], decoding: Decoding) -> VideoFrame | None:
    for packet in packets:
        for frame in decoding.decode(packet):
            return frame
    return next(iter(decoding.decode(None)), None)


def _make_clock(container: InputContainer, stream: VideoStream, first: VideoFrame, *, by_time: bool) -> Clock:
    # Of MPEG-1 in MPEG-TS, the guess is the rate of fields.
    rate = stream.average_rate or (None if container.format.name == MPEG_TS else stream.guessed_rate)
    time_base = stream.time_base or Fraction(1, 1000)
    return Clock(
        time_base=time_base,
        start_pts=0 if by_time else stream.start_time or 0,
        average_fps=float(rate) if rate else None,
        sure=container.format.name not in MAY_STATE_WRONG_RATE,
        by_time=by_time,
        delay_s=float((first.dts or 0) * time_base) if is_undated(container, stream) and rate else None,
    )


def _make_timeline(size: tuple[int, int], clock: Clock, times_s: array[float], shown_to_s: float) -> Timeline:
    average_fps = _rate(clock, len(times_s) - 1, times_s[-1] - times_s[0])
    if shown_to_s <= times_s[0]:  # one frame whose duration is unknown
        shown_to_s = times_s[-1] + 1 / average_fps
    return Timeline(*size, average_fps, times_s, shown_to_s if clock.by_time else None)


def _rate(clock: Clock, steps: int, span_s: float) -> float:
    """The average rate: the stated one, unless it is wrong. From the first frame to the last one there are so many
    steps, and so many seconds."""
    stated_fps, own_fps = clock.average_fps, steps / span_s if steps > 0 and span_s > 0 else None
    if stated_fps is None:
        return own_fps or UNKNOWN_FPS
    wrong = own_fps is not None and not clock.sure and abs(stated_fps / own_fps - 1) > RATE_TOLERANCE
    return own_fps if own_fps is not None and wrong else stated_fps


def _entries(packets: Packets, pts: Integers, container: str, codec: str) -> Iterator[EntryPoint]:
    # Seeking leads to the right packet in these two containers alone: in MPEG-TS to a later one, and the times of AVI
    # and FLV are not exact.
    if codec not in ENTERED or container not in (MOV, MATROSKA):
        return
    # Where frames that follow a keyframe in the file are shown before it (open GOP), frames of H.264 that are shown
    # after it may refer across it, too. HEVC forbids that.
    earliest_from = np.minimum.accumulate(packets.pts[::-1])[::-1]
    if codec == "h264" and np.any(earliest_from[packets.keys] < packets.pts[packets.keys]):
        return
    # MP4 lists decoding times, Matroska presentation times.
    seek_to = packets.dts if container == MOV else packets.pts
    places = np.flatnonzero(packets.keys & (seek_to != NO_TIME))
    indices = np.searchsorted(pts, packets.pts[places])
    for row in zip(indices.tolist(), packets.pts[places].tolist(), seek_to[places].tolist(), strict=True):
        yield EntryPoint(*row)


def _times_s(shown: Sequence[Shown], clock: Clock, packets: Integers) -> tuple[array[float], float]:
    """When each frame begins, and when the last one ends. `packets`: the times of the packets, which ascend; for frames
    whose own times are missing or do not rise."""
    known = [pts for pts, *_ in shown if pts is not None]
    if clock.delay_s is None and len(known) == len(shown) and all(time < later for time, later in pairwise(known)):
        times_s = clock.seconds(np.array([*known, known[-1] + shown[-1][1]], np.int64))
        return times_s, times_s.pop()
    packet_s = clock.seconds(packets - packets[:1] + clock.start_pts)
    average_fps = _rate(clock, len(shown) - 1, packet_s[-1] if packet_s else 0.0)
    slots = [index / average_fps for index in range(len(shown) + 1)]
    if not clock.sure and len(set(packet_s)) == len(shown):
        slots = [*packet_s, packet_s[-1] + 1 / average_fps]
    return _given_at(shown, slots, round((clock.delay_s or 0) * average_fps)), slots[-1]


def _given_at(shown: Sequence[Shown], slots: Sequence[float], delay: int) -> array[float]:
    """When the second decoder of the reference shows each frame of a stream without presentation times.

    It takes a frame for shown when it comes out of the decoder, `delay` frames late. At each keyframe it seeks, and
    shows the keyframe at once. The frames that would come after that are not shown.
    """
    times_s, next_s = array("d", slots[:-1]), slots[-1]
    for index in range(len(shown) - 1, -1, -1):
        late_s = slots[min(index + delay, len(shown))]
        times_s[index] = next_s = slots[index] if shown[index][2] else min(late_s, next_s)
    return times_s
