"""What the packets of a video say without decoding: which frames there are, and where decoding may start."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

Integers = NDArray[np.int64]

HIDING = {"vp8", "libvpx"}  # codecs of which a packet may show no frame
BY_TIME_CODECS = {"av1", "vp9"}
BY_TIME_FORMATS = {"gif", "ivf"}
MPEG_TS = "mpegts"
# decord takes the bytes of a row of RGB, which are padded to a multiple of 32, for width x channels.
PADDED_WIDTH = 32
RGB_CHANNELS = 3
NO_TIME = -(2**63)


@dataclass(frozen=True)
class Packets:
    """The packets that show a frame, in file order. A time may be NO_TIME."""

    pts: Integers
    dts: Integers
    keys: NDArray[np.bool_]  # which are marked as keyframes
    shown_to: int  # the end of the last frame, by its own duration


@dataclass(frozen=True)
class EntryPoint:
    """A keyframe. Decoding from it gives the same frames, from this one on, as decoding from the file's start."""

    index: int  # of the keyframe among all frames, in presentation order
    pts: int
    seek_to: int  # the time by which the container finds it


def note(packets: Iterator[Packet[VideoStream]], codec: str, notes: array[int]) -> Iterator[Packet[VideoStream]]:
    """The packets. Their numbers are added to `notes`, for noted_packets, unless they show no frame, because they are
    hidden or an edit list cuts them off. An object for each would take more time and memory than reading it."""
    for packet in packets:
        if not (packet.is_discard or (codec in HIDING and _is_hidden(packet))):
            pts = NO_TIME if packet.pts is None else packet.pts
            dts = NO_TIME if packet.dts is None else packet.dts
            notes.extend((pts, dts, packet.is_keyframe, pts + (packet.duration or 0)))
        yield packet


def noted_packets(notes: array[int]) -> Packets:
    pts, dts, keys, ends = np.array(notes, np.int64).reshape(-1, 4).T
    return Packets(pts, dts, keys.astype(np.bool_), int(ends.max(initial=NO_TIME)))


def _is_hidden(packet: Packet[VideoStream]) -> bool:
    """Whether a packet of VP8 only helps to predict other frames."""
    return not memoryview(packet)[0] >> 4 & 1


def is_chosen_by_time(container: InputContainer, stream: VideoStream, width: int) -> bool:
    """Whether decord cannot use such a video, so that the reference's second decoder chooses its frames by time.

    `width` is that of the picture as it is shown. decord 0.6.0 has no decoder for AV1. It opens VP9, but once all its
    threads have work, it fails on the first packet with a hidden frame: in all but short videos and live recordings.
    That depends on the number of processors, which cannot be a rule, so all VP9 counts. decord also refuses a file that
    neither lists its frames nor says an average rate and a length of at least one frame: streamed files, Theora in Ogg,
    APNG, and GIF and IVF, of which only a newer FFmpeg finds that out. And it fails on the rows of some narrow
    pictures, and where no frame has a time.
    """
    codec = stream.codec_context.codec.canonical_name
    if codec in BY_TIME_CODECS or container.format.name in BY_TIME_FORMATS or is_undated(container, stream):
        return True
    return not _says_length(container, stream) or _misreads_rows(width)


def is_undated(container: InputContainer, stream: VideoStream) -> bool:
    """Whether no packet has a presentation time. A newer FFmpeg makes times up, which are not in order."""
    return container.format.name == "avi" and stream.codec_context.codec.canonical_name == "h264"


def _says_length(container: InputContainer, stream: VideoStream) -> bool:
    """Whether decord finds out how many frames there are."""
    if container.format.name == MPEG_TS:  # an older FFmpeg knows the rate of MPEG-1 there
        return True
    rate = stream.average_rate or 0
    return stream.frames > 0 or float(rate) * (container.duration or 0) / av.time_base >= 1


def _misreads_rows(width: int) -> bool:
    """Whether decord reads another number of channels than three out of the length of a row."""
    row = -(-width // PADDED_WIDTH) * PADDED_WIDTH * RGB_CHANNELS
    return row % width == 0 and row // width != RGB_CHANNELS
