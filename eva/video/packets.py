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
    """The packets. Numbers of each are added to `notes`: pts, dts, whether it is a keyframe, and its end. An object for
    each would take more time and memory than reading it. Left out are packets that show no frame: those that an edit
    list cuts off, and those of VP8 that only help to predict other frames."""
    for packet in packets:
        if not (packet.is_discard or (codec in HIDING and not memoryview(packet)[0] >> 4 & 1)):
            pts = NO_TIME if packet.pts is None else packet.pts
            dts = NO_TIME if packet.dts is None else packet.dts
            notes.extend((pts, dts, packet.is_keyframe, pts + (packet.duration or 0)))
        yield packet


def is_chosen_by_time(container: InputContainer, stream: VideoStream, width: int) -> bool:
    """Whether decord cannot use such a video, so that the reference's second decoder chooses its frames by time.

    `width` is that of the picture as it is shown. decord 0.6.0 has no decoder for AV1. It opens VP9, but once all its
    threads have work, it fails on the first packet with a hidden frame: in all but short videos and live recordings.
    That depends on the number of processors, which cannot be a rule, so all VP9 counts. It also fails where no frame
    has a time.
    """
    codec = stream.codec_context.codec.canonical_name
    if codec in BY_TIME_CODECS or container.format.name in BY_TIME_FORMATS or is_undated(container, stream):
        return True
    # It refuses a file that neither lists its frames nor says an average rate and a length of at least one frame:
    # streamed files, Theora in Ogg, APNG, and GIF and IVF, of which only a newer FFmpeg finds that out. Of MPEG-1 in
    # MPEG-TS, an older FFmpeg knows the rate.
    frames = stream.frames or float(stream.average_rate or 0) * (container.duration or 0) / av.time_base
    if frames < 1 and container.format.name != MPEG_TS:
        return True
    # It reads another number of channels than three out of the length of a row of some narrow pictures.
    row = -(-width // PADDED_WIDTH) * PADDED_WIDTH * RGB_CHANNELS
    return row % width == 0 and row // width != RGB_CHANNELS


def is_undated(container: InputContainer, stream: VideoStream) -> bool:
    """Whether no packet has a presentation time. A newer FFmpeg makes times up, which are not in order."""
    return container.format.name == "avi" and stream.codec_context.codec.canonical_name == "h264"
