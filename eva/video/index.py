"""What a video is: its length and size, and its index, which says what frames it has, when they are shown, and where
decoding may begin.

The packets say that, and nothing but the first frame is decoded. Where they mislead, the whole file is decoded instead.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from eva.errors import UndecodableError, VideoError
from eva.protocol.messages import VideoInfo
from eva.video import WHOLE_SHARE
from eva.video.container import MATROSKA, MOV, MPEG_TS, EntryPoint, OpenVideo, open_stream
from eva.video.sample_table import HIDING, NO_TIME, Integers, Packets, listed_packets
from eva.video.sampling import Timeline

# decord cannot use these, see is_chosen_by_time.
BY_TIME_CODECS, BY_TIME_FORMATS = {"av1", "vp9"}, {"gif", "ivf"}
# decord takes the bytes of a row of RGB, which are padded to a multiple of 32, for width x channels.
PADDED_WIDTH, RGB_CHANNELS = 32, 3
# Of these codecs, frames shown from a keyframe on refer to nothing before it.
ENTERED = {"h264", "hevc", "vp8", "libvpx", "vp9", "libvpx-vp9", "av1", "libdav1d"}
# decord shows wrong frames in these containers, or knows no times. Their rate may be that of fields or of places for
# frames, or a guess of FFmpeg. Elsewhere decord chooses frames by the stated rate, so it stays, also where it is wrong.
MAY_STATE_WRONG_RATE = {"avi", "mpegts", "mpeg", "asf"}
UNKNOWN_FPS = 25.0
# A stated rate that differs by more than this share from that of the frames is wrong.
RATE_TOLERANCE = 0.05
LENGTH_TAG = re.compile(r"([0-9]{1,6}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,20})?)")

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


def probe(path: Path) -> VideoInfo:
    """Read the header of the first video stream. Raises VideoError, which names the file, also for an MP4
    that was cut off by so much that frames would be shown at wrong times."""
    with open_stream(path, threads=1) as video:
        stream, entries = video.stream, video.stream.index_entries
        listed = entries[-1].pos + entries[-1].size if video.container.format.name == MOV and len(entries) else 0
        if (held := video.container.size) < WHOLE_SHARE * listed:
            raise VideoError(f"{path} is cut off: of {listed} bytes it has {held}; fetch it again")
        if not stream.width or not stream.height:
            raise VideoError(f"the video stream of {path} does not say its size")
        # To a stream in Matroska that begins late, FFmpeg gives the length of the file.
        if stream.duration is None or stream.time_base is None or video.container.format.name == MATROSKA:
            duration_s = _tagged_s(video) or _shown_s(video)
        else:
            duration_s = float(stream.duration * stream.time_base)
        # ffprobe prints six decimals, and the reference takes the length from it: half a second is then cut off.
        return VideoInfo(round(duration_s, 6), stream.width, stream.height)


def _tagged_s(video: OpenVideo) -> float | None:
    """The length by the tag of a Matroska stream; None where no tag says it for certain."""
    stream = video.stream
    tag = next((text for key, text in stream.metadata.items() if key.partition("-")[0] == "DURATION"), "")
    clock = LENGTH_TAG.fullmatch(tag) if video.container.format.name == MATROSKA else None
    if clock is None or stream.duration is not None or stream.start_time is None or stream.time_base is None:
        return None
    begin_s = float(stream.start_time * stream.time_base)
    if begin_s and "_STATISTICS_TAGS" in stream.metadata:
        return None  # mkvmerge writes the length, and FFmpeg writes the end
    hours, minutes, seconds = clock.groups()
    length_s = 3600 * int(hours) + 60 * int(minutes) + float(seconds) - begin_s
    return length_s if length_s > 0 else None


def _shown_s(video: OpenVideo) -> float:
    """The time for which the frames are shown; the length of the container where none can be decoded."""
    try:
        return read_index(video, recount=False, by_time=False).timeline.length_s
    except UndecodableError:
        if video.container.duration:
            return video.container.duration / av.time_base  # another decoder may know it
        raise


def read_index(video: OpenVideo, *, recount: bool, by_time: bool) -> VideoIndex:
    """Learn the frames of a video that was just opened from its packets; decode it whole where they mislead or
    `recount` says so. `by_time`: its frames are chosen by time, whatever file it is.

    Raises UndecodableError where no frame can be decoded.
    """
    undecodable = UndecodableError(f"no frame of the video {video.path} can be decoded")
    stream, container = video.stream, video.container.format.name
    if stream.codec_context is None:
        raise UndecodableError(f"no decoder for the video stream of {video.path} is known")
    packets, notes = listed_packets(video), array("q")
    passing = video.packets() if packets else _noted(video, notes)
    first = next((frame for packet in passing for frame in video.decode(packet)), None) or next(
        iter(video.decode(None)), None
    )
    if first is None:
        raise undecodable
    if packets is None:
        for _ in passing:
            pass
        noted = np.array(notes, np.int64).reshape(-1, 4)
        packets = Packets(noted[:, 0], noted[:, 1], noted[:, 2] > 0, int(noted[:, 3].max(initial=NO_TIME)))
    coded, shown = (stream.width, stream.height), upright((stream.width, stream.height), quarter_turns(first))
    by_time = by_time or is_chosen_by_time(video, shown[0])
    clock = _make_clock(video, first, coded if by_time else shown, by_time=by_time)
    pts = np.sort(packets.pts[packets.pts != NO_TIME])
    one_each = len(pts) == len(packets.pts) > 0 and bool(np.all(pts[1:] > pts[:-1])) and first.pts == pts[0]
    if one_each and clock.delay_s is None and not recount:
        times_s = clock.seconds(np.append(pts, packets.shown_to))
        entries = _entries(packets, pts, container, stream.codec_context.name)
        return VideoIndex(clock.timeline(times_s, times_s.pop()), array("q", pts.tobytes()), entries)
    with open_stream(video.path) as again:
        counted = [(frame.pts, frame.duration or 0, frame.key_frame) for frame in again.frames()]
    if not counted:
        raise undecodable
    return VideoIndex(clock.timeline(*_times_s(counted, clock, pts)), None, ())


def _noted(video: OpenVideo, notes: array[int]) -> Iterator[Packet[VideoStream]]:
    """The packets. Numbers of each are added to `notes`: pts, dts, whether it is a keyframe, and its end. An object for
    each would take more time and memory than reading it. Left out are packets that show no frame: those that an edit
    list cuts off, and those of VP8 that only help to predict other frames."""
    hiding = video.codec.name in HIDING
    for packet in video.packets():
        if not (packet.is_discard or (hiding and not memoryview(packet)[0] >> 4 & 1)):
            pts = NO_TIME if packet.pts is None else packet.pts
            dts = NO_TIME if packet.dts is None else packet.dts
            notes.extend((pts, dts, packet.is_keyframe, pts + (packet.duration or 0)))
        yield packet


def is_chosen_by_time(video: OpenVideo, width: int) -> bool:
    """Whether decord cannot use such a video, so that the reference's second decoder chooses its frames by time.

    `width` is that of the picture as it is shown. decord 0.6.0 has no decoder for AV1. It opens VP9, but once all its
    threads have work, it fails on the first packet with a hidden frame: in all but short videos and live recordings.
    That depends on the number of processors, which cannot be a rule, so all VP9 counts. It also fails where no frame
    has a time.
    """
    stream, container = video.stream, video.container.format.name
    if video.codec.codec.canonical_name in BY_TIME_CODECS or container in BY_TIME_FORMATS or _is_undated(video):
        return True
    # It refuses a file that neither lists its frames nor says an average rate and a length of at least one frame:
    # streamed files, Theora in Ogg, APNG, and GIF and IVF, of which only a newer FFmpeg finds that out. Of MPEG-1 in
    # MPEG-TS, an older FFmpeg knows the rate.
    frames = stream.frames or float(stream.average_rate or 0) * (video.container.duration or 0) / av.time_base
    if frames < 1 and container != MPEG_TS:
        return True
    # It reads another number of channels than three out of the length of a row of some narrow pictures.
    row = -(-width // PADDED_WIDTH) * PADDED_WIDTH * RGB_CHANNELS
    return row % width == 0 and row // width != RGB_CHANNELS


def _is_undated(video: OpenVideo) -> bool:
    """Whether no packet has a presentation time. A newer FFmpeg makes times up, which are not in order."""
    return video.container.format.name == "avi" and video.codec.codec.canonical_name == "h264"


def upright(size: tuple[int, int], turns: int) -> tuple[int, int]:
    """(width, height) of a picture of this size after quarter turns, and back."""
    return (size[1], size[0]) if turns % 2 else size


def quarter_turns(frame: VideoFrame) -> int:
    """Counterclockwise quarter turns (0 to 3) that show the frame upright; as in decord, 0 for other angles."""
    turns, rest = divmod(frame.rotation, 90)
    return 0 if rest else turns % 4


@dataclass(frozen=True)
class _Clock:
    """How a stream counts time."""

    size: tuple[int, int]
    time_base: Fraction
    start_pts: int
    stated_fps: float | None
    sure: bool  # whether the stated rate stays, whatever the times of the frames
    by_time: bool  # frames are chosen by their times, see sampling.Timeline
    delay_s: float | None  # in a stream without presentation times: how late the decoder gives each frame; else None

    def seconds(self, pts: Integers) -> array[float]:
        """Exact up to 2**53, as a division of integers."""
        since_start = pts.astype(np.float64) - self.start_pts
        return array("d", (since_start * self.time_base.numerator / self.time_base.denominator).tobytes())

    def rate(self, steps: int, span_s: float) -> float:
        """The average rate: the stated one, unless it is wrong. From the first frame to the last one there are so many
        steps, and so many seconds."""
        own_fps = steps / span_s if steps > 0 and span_s > 0 else None
        if self.stated_fps is None or own_fps is None:
            return self.stated_fps or own_fps or UNKNOWN_FPS
        return self.stated_fps if self.sure or abs(self.stated_fps / own_fps - 1) <= RATE_TOLERANCE else own_fps

    def timeline(self, times_s: array[float], shown_to_s: float) -> Timeline:
        """Of the times of all frames, and the end of the last one."""
        average_fps = self.rate(len(times_s) - 1, times_s[-1] - times_s[0])
        if shown_to_s <= times_s[0]:  # one frame whose duration is unknown
            shown_to_s = times_s[-1] + 1 / average_fps
        return Timeline(*self.size, average_fps, times_s, shown_to_s if self.by_time else None)


def _make_clock(video: OpenVideo, first: VideoFrame, size: tuple[int, int], *, by_time: bool) -> _Clock:
    stream, container = video.stream, video.container.format.name
    # Of MPEG-1 in MPEG-TS, the guess is the rate of fields.
    rate = stream.average_rate or (None if container == MPEG_TS else stream.guessed_rate)
    time_base = stream.time_base or Fraction(1, 1000)
    return _Clock(
        size=size,
        time_base=time_base,
        start_pts=0 if by_time else stream.start_time or 0,
        stated_fps=float(rate) if rate else None,
        sure=container not in MAY_STATE_WRONG_RATE,
        by_time=by_time,
        delay_s=float((first.dts or 0) * time_base) if _is_undated(video) and rate else None,
    )


def _entries(packets: Packets, pts: Integers, container: str, codec: str) -> tuple[EntryPoint, ...]:
    # Seeking leads to the right packet in these two containers alone: in MPEG-TS to a later one, and the times of AVI
    # and FLV are not exact.
    if codec not in ENTERED or container not in (MOV, MATROSKA):
        return ()
    # Where frames that follow a keyframe in the file are shown before it (open GOP), frames of H.264 that are shown
    # after it may refer across it, too. HEVC forbids that.
    earliest_from = np.minimum.accumulate(packets.pts[::-1])[::-1]
    if codec == "h264" and np.any(earliest_from[packets.keys] < packets.pts[packets.keys]):
        return ()
    # MP4 lists decoding times, Matroska presentation times.
    seek_to = packets.dts if container == MOV else packets.pts
    places = np.flatnonzero(packets.keys & (seek_to != NO_TIME))
    indices = np.searchsorted(pts, packets.pts[places])
    return tuple(map(EntryPoint, indices.tolist(), packets.pts[places].tolist(), seek_to[places].tolist()))


def _times_s(shown: Sequence[Shown], clock: _Clock, packets: Integers) -> tuple[array[float], float]:
    """When each frame begins, and when the last one ends. `packets`: the times of the packets, which ascend; for frames
    whose own times are missing or do not rise."""
    known = [pts for pts, *_ in shown if pts is not None]
    if clock.delay_s is None and len(known) == len(shown) and all(time < later for time, later in pairwise(known)):
        times_s = clock.seconds(np.array([*known, known[-1] + shown[-1][1]], np.int64))
        return times_s, times_s.pop()
    packet_s = clock.seconds(packets - packets[:1] + clock.start_pts)
    average_fps = clock.rate(len(shown) - 1, packet_s[-1] if packet_s else 0.0)
    slots = [index / average_fps for index in range(len(shown) + 1)]
    if not clock.sure and len(set(packet_s)) == len(shown):
        slots = [*packet_s, packet_s[-1] + 1 / average_fps]
    # The second decoder of the reference takes a frame for shown when it comes out of the decoder, `delay` frames late.
    # At each keyframe it seeks, and shows the keyframe at once. The frames that would come after that are not shown.
    delay = round((clock.delay_s or 0) * average_fps)
    times_s, next_s = array("d", slots[:-1]), slots[-1]
    for index in range(len(shown) - 1, -1, -1):
        late_s = slots[min(index + delay, len(shown))]
        times_s[index] = next_s = slots[index] if shown[index][2] else min(late_s, next_s)
    return times_s, slots[-1]
