"""Exact frames by PyAV (FFmpeg).

Packets are demuxed first: their presentation times say which frames there are, and nothing is decoded for that. While
decoding, each frame's own time is compared with that list. So a file whose packets do not map one to one to frames
(hidden frames, a start that cannot be decoded) is noticed, and no frame is shifted by one.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import dropwhile, groupby, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from eva.cpus import available_cpus
from eva.errors import MiscountedError, ReadError, UndecodableError, VideoError
from eva.video.container import Identity, moving_pictures, open_container, unchanged
from eva.video.encode import Rgb
from eva.video.gaps import VP8, GapFinder, Integers
from eva.video.interleave import in_turns
from eva.video.packets import (
    MPEG_TS,
    EntryPoint,
    NoteTaker,
    Survey,
    VideoIndex,
    first_slice,
    is_chosen_by_time,
    is_disposable,
    is_undated,
    make_survey,
    packets_of,
)
from eva.video.sample_table import listed_notes
from eva.video.timeline import Timeline, compact

EXACT_IN_FLOATS = 2**53
# Each decoding thread holds frames of its own. More threads cost memory, and hardly make one video faster.
MAX_THREADS = 4
# Each decoder opens the file, and FFmpeg holds 75 bytes for each frame that an MP4 lists.
MAX_LISTED = 1_000_000
# decord shows wrong frames in these containers, or knows no times. Their rate may be that of fields or of places for
# frames, or a guess of FFmpeg. Elsewhere decord chooses frames by the stated rate, so it stays, also where it is wrong.
MAY_STATE_WRONG_RATE = {"avi", "mpegts", "mpeg", "asf"}
UNKNOWN_FPS = 25.0
# A stated rate that differs by more than this share from that of the frames is wrong.
RATE_TOLERANCE = 0.05

Made = TypeVar("Made")
# A keyframe to start at (None: the file's start), and the indices to decode from it, in ascending order.
Pass = tuple[EntryPoint | None, list[int]]
# A decoded frame's presentation time and duration, and whether it is a keyframe.
Shown = tuple[int | None, int, bool]


@dataclass(frozen=True)
class Counted:
    """All frames that decoding the whole file gives."""

    shown: Sequence[Shown]
    damaged: bool  # there are packets that the decoder refused


@dataclass(frozen=True)
class Clock:
    """How the stream counts time."""

    time_base: Fraction
    start_pts: int
    average_fps: float | None
    sure: bool  # whether the average rate stays, whatever the times of the frames
    by_time: bool  # frames are chosen by their times, see timeline.Timeline
    delay_s: float | None  # in a stream without presentation times: how late the decoder gives each frame; else None

    def seconds(self, pts: int) -> float:
        # This division is as exact as that by a Fraction.
        return (pts - self.start_pts) * self.time_base.numerator / self.time_base.denominator

    def all_seconds(self, pts: Integers) -> array[float]:
        """`seconds` of each of these times, which ascend."""
        highest = max(abs(int(end) - self.start_pts) for end in (pts[0], pts[-1])) * self.time_base.numerator
        if highest > EXACT_IN_FLOATS:
            return array("d", map(self.seconds, pts.tolist()))
        since_start = pts - self.start_pts
        since_start *= self.time_base.numerator
        return compact(since_start / self.time_base.denominator)


class AvVideo:
    """A video decoded by PyAV. The file is closed between calls; at each call it must have this identity."""

    decoder = "av"

    def __init__(self, path: Path, identity: Identity, index: VideoIndex) -> None:
        self._path, self.identity, self.index = path, identity, index
        self.timeline, self.gap, self._pts = index.timeline, index.gap, index.pts

    def frames(self, indices: Sequence[int], make: Callable[[Rgb], Made]) -> Iterator[tuple[int, Made]]:
        """(index, what `make` makes of its RGB) once for each distinct index; see decode.Video."""
        with unchanged(self._path, self.identity):
            yield from self._decode(sorted(set(indices)), make)

    def _decode(self, wanted: list[int], make: Callable[[Rgb], Made]) -> Iterator[tuple[int, Made]]:
        done = 0
        if self._pts is None or self.index.gap:
            yield from self._decode_passes(list(passes(wanted, self.index.entries)), make, sparsely=False)
            return
        try:
            for made in self._decode_sparsely(wanted, make):
                yield made
                done += 1
        except ReadError:
            raise
        except VideoError:
            # Decoding everything shows whether the file is damaged. What the decoder fills in depends on all that it
            # decoded before, and on its threads.
            yield from self._decode_passes(list(passes(wanted[done:], ())), make, sparsely=False, threads=1)

    def _decode_sparsely(self, wanted: Sequence[int], make: Callable[[Rgb], Made]) -> Iterator[tuple[int, Made]]:
        """Leaves out frames that these do not need, and decodes independent passes at the same time."""
        groups = list(passes(wanted, self.index.entries))
        count = min(len(groups), threads_at_most(), MAX_LISTED // self.timeline.count)
        if count < 2:
            return self._decode_passes(groups, make, sparsely=True)
        # Decoders with one thread each need less CPU than one decoder with several.
        decoders = [
            partial(self._decode_passes, groups[first::count], make, sparsely=True, threads=1) for first in range(count)
        ]
        turns = (place % count for place, (_, targets) in enumerate(groups) for _ in targets)
        return in_turns(decoders, turns)

    def _decode_passes(
        self, groups: Sequence[Pass], make: Callable[[Rgb], Made], *, sparsely: bool, threads: int | None = None
    ) -> Iterator[tuple[int, Made]]:
        """(index, what `make` makes of it) for the targets of each pass."""
        to_rgb = RgbConverter(self.timeline)
        with _open_stream(self._path, self.identity) as (container, stream):
            one = self.index.gap or stream.codec_context.name in VP8  # whose threads differ where bits are damaged
            decoding = Decoding(container, stream, threads=1 if one else threads or threads_at_most(), strict=sparsely)
            for entry, targets in groups:
                if entry is not None:
                    decoding.enter_at(entry)
                frames = decoding.sparsely({self._pts_of(target) for target in targets}) if sparsely else decoding
                numbered = self._number(frames, decoding, first=entry.index if entry else 0)
                for index, frame in self._choose(numbered, targets, decoding):
                    yield index, make(to_rgb(frame))

    def _choose(
        self, numbered: Iterator[tuple[int, VideoFrame]], targets: list[int], decoding: Decoding
    ) -> Iterator[tuple[int, VideoFrame]]:
        """The frames with the indices `targets`, which ascend. Stops after the last one."""
        for target in targets:
            index, frame = next(((i, f) for i, f in numbered if i >= target), (None, None))
            if index != target or frame is None:
                certain = decoding.damaged or self._pts is None or target >= len(self._pts)
                raise self._decode_error(target) if certain else self._miscounted_error()
            yield target, frame

    def _number(
        self, frames: Iterable[VideoFrame], decoding: Decoding, *, first: int
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Each decoded frame from the index `first` on, with its index. Only frames that are damaged, or whose packets
        were left out, are missing. Raises MiscountedError."""
        expected = first
        for frame in frames:
            index = expected if self._pts is None else self._index_of(frame.pts)
            if first and index is not None and index < first:
                continue  # shown before the keyframe at which this pass starts, though it may follow it in the file
            if not decoding.damaged and not self._is_next(index, expected, decoding):
                raise self._miscounted_error()
            if index is not None and index >= expected:
                if decoding.is_sound(frame):
                    yield index, frame
                expected = index + 1

    def _is_next(self, index: int | None, expected: int, decoding: Decoding) -> bool:
        if index == expected:
            return True
        if index is None or self._pts is None or decoding.given is None:
            return False
        return index > expected and decoding.given.isdisjoint(self._pts[expected:index])

    def _pts_of(self, index: int) -> int | None:
        return self._pts[index] if self._pts is not None and index < len(self._pts) else None

    def _index_of(self, pts: int | None) -> int | None:
        if self._pts is None or pts is None:
            return None
        index = bisect_left(self._pts, pts)
        return index if index < len(self._pts) and self._pts[index] == pts else None

    def _decode_error(self, index: int) -> VideoError:
        held = len(self.timeline.times_s)
        if index >= held:
            text = f"frame {index} of {self._path} is not in the file: it ends after {held} of {self.timeline.count}"
            return VideoError(f"{text} frames; fetch it again")
        when = f"frame {index} at {self.timeline.times_s[index]:.3f} s"
        return VideoError(f"{when} of {self._path} cannot be decoded: the file is damaged; fetch it again")

    def _miscounted_error(self) -> MiscountedError:
        return MiscountedError(f"the packets of {self._path} do not map one to one to its frames")


def read_index(path: Path, identity: Identity, *, recount: bool, by_time: bool) -> VideoIndex:
    """Read all packets of a video, and decode it whole where they mislead or `recount` says so. `by_time`: its frames
    are chosen by time, whatever file it is.

    Raises UndecodableError where no frame can be decoded, ChangedError where the file does not have this identity, or
    has it no longer.
    """
    with unchanged(path, identity):
        return _read_index(path, identity, recount=recount, by_time=by_time)


def _read_index(path: Path, identity: Identity, *, recount: bool, by_time: bool) -> VideoIndex:
    undecodable = UndecodableError(f"no frame of the video {path} can be decoded")
    with _open_stream(path, identity) as (container, stream):
        survey, first = _survey(path, identity, container, stream)
        if first is None:
            raise undecodable
        coded = (stream.width, stream.height)
        shown = _upright(coded, _quarter_turns(first))
        by_time = by_time or is_chosen_by_time(container, stream, shown[0])
        clock = _make_clock(container, stream, first, by_time=by_time)
        size = coded if clock.by_time else shown
    counted = _count_frames(path, identity, threads=1) if survey.gap else None
    if not recount and clock.delay_s is None and _is_as_surveyed(survey, first, counted):
        times_s = clock.all_seconds(survey.pts)
        timeline = _make_timeline(size, clock, times_s, clock.seconds(survey.shown_to), survey.missing)
        return VideoIndex(timeline, compact(survey.pts), survey.entries, survey.gap)
    counted = counted or _count_frames(path, identity, threads=threads_at_most())
    if not counted.shown:
        raise undecodable
    return VideoIndex(_make_timeline(size, clock, *_times_s(counted.shown, clock, survey.pts)), None, (), survey.gap)


def _is_as_surveyed(survey: Survey, first: VideoFrame, counted: Counted | None) -> bool:
    """Whether the packets map one to one to frames. This is certain only where all frames were decoded (`counted`). A
    packet that the decoder refuses keeps its place."""
    if counted is not None and not counted.damaged and [pts for pts, *_ in counted.shown] != survey.pts.tolist():
        return False
    return survey.one_each and first.pts == survey.pts[0]


def _make_timeline(
    size: tuple[int, int], clock: Clock, times_s: Sequence[float], shown_to_s: float, missing: int = 0
) -> Timeline:
    average_fps, stated_fps = _rates(clock, len(times_s) - 1, times_s[-1] - times_s[0])
    if shown_to_s <= times_s[0]:  # one frame whose duration is unknown
        shown_to_s = times_s[-1] + 1 / average_fps
    return Timeline(*size, average_fps, times_s, missing, shown_to_s if clock.by_time else None, stated_fps)


def _rates(clock: Clock, steps: int, span_s: float) -> tuple[float, float | None]:
    """The average rate, and the stated one where it is wrong. From the first frame to the last one there are so many
    steps, and so many seconds."""
    stated_fps, own_fps = clock.average_fps, steps / span_s if steps > 0 and span_s > 0 else None
    if stated_fps is None:
        return own_fps or UNKNOWN_FPS, None
    if clock.sure or own_fps is None or abs(stated_fps / own_fps - 1) <= RATE_TOLERANCE:
        return stated_fps, None
    return own_fps, stated_fps


def _count_frames(path: Path, identity: Identity, *, threads: int) -> Counted:
    with _open_stream(path, identity) as (container, stream):
        decoding = Decoding(container, stream, threads=threads)
        shown = [(frame.pts, frame.duration or 0, frame.key_frame) for frame in decoding]
        return Counted(shown, decoding.damaged)


def _times_s(shown: Sequence[Shown], clock: Clock, packets: Integers) -> tuple[array[float], float]:
    """When each frame begins, and when the last one ends. `packets`: the times of the packets, which ascend; for frames
    whose own times are missing or do not rise."""
    known = [pts for pts, *_ in shown if pts is not None]
    if clock.delay_s is not None or len(known) < len(shown) or any(time >= later for time, later in pairwise(known)):
        slots, average_fps = _slots(len(shown), clock, packets)
        return _given_at(shown, slots, round((clock.delay_s or 0) * average_fps)), slots[-1]
    return array("d", map(clock.seconds, known)), clock.seconds(known[-1] + shown[-1][1])


def _slots(count: int, clock: Clock, packets: Integers) -> tuple[Sequence[float], float]:
    """When each of so many frames begins, when the last one ends, and the average rate: evenly spaced, or as the
    packets are, whose times count from the first one."""
    packet_s = [clock.seconds(pts) - clock.seconds(int(packets[0])) for pts in packets.tolist()]
    average_fps, _ = _rates(clock, count - 1, packet_s[-1] if packet_s else 0.0)
    if clock.sure or len(packet_s) != count or len(set(packet_s)) < count:
        return [index / average_fps for index in range(count + 1)], average_fps
    return [*packet_s, packet_s[-1] + 1 / average_fps], average_fps


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


class Decoding:
    """Passes over a video's frames in presentation order. A damaged packet is noted, and gives no frame.

    `strict`: a damaged packet raises VideoError, also where the decoder would fill in for what is missing.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, *, threads: int, strict: bool = False) -> None:
        self._container, self._stream = container, stream
        self._entry: EntryPoint | None = None
        self.given: set[int | None] | None = None  # the pts that the decoder got; None: all
        self._unsound_to: float | None = None  # pts: from an error to a keyframe after it, the decoder fills in
        self.damaged = False
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        self._strict = strict
        if strict:
            stream.codec_context.options = {"err_detect": "explode"}

    def enter_at(self, entry: EntryPoint) -> None:
        """Let the next pass start at the keyframe `entry`."""
        self._container.seek(entry.seek_to, stream=self._stream)
        self._entry, self._unsound_to = entry, None

    def __iter__(self) -> Iterator[VideoFrame]:
        self.given = None
        for packet in self._packets():
            yield from self.decode(packet)
        yield from self.decode(None)

    def sparsely(self, wanted: set[int | None]) -> Iterator[VideoFrame]:
        """The frames with the pts `wanted`, and those that they may refer to. Then the decoder is emptied."""
        self.given = set()
        waiting = set(wanted)
        for packet in self._packets():
            if packet.pts not in wanted and is_disposable(packet, self._stream.codec_context):
                continue
            self.given.add(packet.pts)
            yield from self.decode(packet)
            waiting.discard(packet.pts)
            if not waiting:
                break
        yield from self.decode(None)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        packets, entry = packets_of(self._container, self._stream), self._entry
        if entry is None:
            return packets
        # Seeking may lead to an earlier keyframe, and a packet that an edit list cuts off may have the same time.
        return dropwhile(lambda packet: packet.pts != entry.pts or packet.is_discard, packets)

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """The frames that the decoder gives for `packet`; None: the rest, at the end."""
        try:
            return self._stream.decode(packet)
        except FFmpegError as error:
            if self._strict:
                raise VideoError(f"a packet cannot be decoded: {error.strerror}") from error
            if isinstance(error, (MemoryError, BlockingIOError)):  # the second where a decoder can start no thread
                raise ReadError(f"this machine does not let a decoder work: {error.strerror}") from error
            self.damaged = True
            self._unsound_to = math.inf if packet is None or packet.pts is None else packet.pts
            return []

    def is_sound(self, frame: VideoFrame) -> bool:
        """False from an error to the next keyframe: there, the decoder fills in what is missing."""
        if self._unsound_to is not None and frame.key_frame and frame.pts is not None and frame.pts > self._unsound_to:
            self._unsound_to = None
        return self._unsound_to is None


def threads_at_most() -> int:
    return min(MAX_THREADS, available_cpus())


def passes(indices: Iterable[int], entries: Sequence[EntryPoint]) -> Iterator[Pass]:
    """The distinct `indices` in ascending order, grouped by the keyframe to start at; None: the file's start."""
    starts = [entry.index for entry in entries]

    def keyframe(index: int) -> EntryPoint | None:
        place = bisect_right(starts, index) - 1
        return entries[place] if place > 0 else None

    for entry, group in groupby(sorted(set(indices)), keyframe):
        yield entry, list(group)


class RgbConverter:
    """8-bit RGB as FFmpeg's swscale gives it by default, in the size of the video.

    As in decord, a frame of another size is scaled: FFmpeg does not cut off a few columns on the left, because rows
    must begin at aligned addresses. And frames are turned as the container says the video is shown, except where they
    are chosen by time: the second decoder of the reference does not turn.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._reformatter, self._size = VideoReformatter(), (timeline.width, timeline.height)
        self._turns = timeline.shown_to_s is None

    def __call__(self, frame: VideoFrame) -> Rgb:
        """RGB of height x width x 3, uint8."""
        turns = _quarter_turns(frame) if self._turns else 0
        width, height = _upright(self._size, turns)
        converted = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        rgb = converted.to_ndarray().astype(np.uint8, copy=False)
        return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _upright(size: tuple[int, int], turns: int) -> tuple[int, int]:
    """(width, height) of a picture of this size after quarter turns, and back."""
    return (size[1], size[0]) if turns % 2 else size


def _quarter_turns(frame: VideoFrame) -> int:
    """Counterclockwise quarter turns (0 to 3) that show the frame upright; as in decord, 0 for other angles."""
    turns, rest = divmod(frame.rotation, 90)
    return 0 if rest else turns % 4


@contextmanager
def _open_stream(path: Path, identity: Identity) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video stream; they are closed at the end of the block."""
    with open_container(path, identity) as container:
        stream = moving_pictures(container, path)[0]
        if stream.codec_context is None:
            raise UndecodableError(f"no decoder for the video stream of {path} is known")
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all  # it is not read, and where it is cut off, reading does not end
        yield container, stream


def _make_clock(container: InputContainer, stream: VideoStream, first: VideoFrame, *, by_time: bool) -> Clock:
    # Of MPEG-1 in MPEG-TS, the guess is the rate of fields.
    rate = stream.average_rate or (None if container.format.name == MPEG_TS else stream.guessed_rate)
    time_base = stream.time_base or Fraction(1, 1000)
    undated = is_undated(container, stream)
    return Clock(
        time_base=time_base,
        start_pts=0 if by_time else stream.start_time or 0,
        average_fps=float(rate) if rate else None,
        sure=container.format.name not in MAY_STATE_WRONG_RATE,
        by_time=by_time,
        delay_s=float((first.dts or 0) * time_base) if undated and rate else None,
    )


def _survey(
    path: Path, identity: Identity, container: InputContainer, stream: VideoStream
) -> tuple[Survey, VideoFrame | None]:
    """Read the list of packets, or every packet, and decode the first frame."""
    decoding, packets = Decoding(container, stream, threads=1), packets_of(container, stream)
    listed = listed_notes(path, identity, container, stream)
    if listed is not None:
        return make_survey(listed, container, stream, gap=False), _first_frame(packets, decoding)
    notes, gaps = NoteTaker(stream.codec_context), GapFinder(stream.codec_context)

    def noted() -> Iterator[Packet[VideoStream]]:
        for packet in packets:
            notes.note(packet)
            gaps.note(first_slice(packet, stream.codec_context), packet.pts)
            yield packet

    passing = noted()
    first = _first_frame(passing, decoding)
    deque(passing, maxlen=0)
    return make_survey(notes.notes(), container, stream, gap=gaps.found), first


def _first_frame(packets: Iterable[Packet[VideoStream]], decoding: Decoding) -> VideoFrame | None:
    for packet in packets:
        for frame in decoding.decode(packet):
            return frame
    return next(iter(decoding.decode(None)), None)
