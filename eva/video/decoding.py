"""The decoder of one video stream, and what makes RGB of its frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import dropwhile

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from eva.cpus import available_cpus
from eva.errors import ReadError, VideoError
from eva.video.container import packets_of
from eva.video.packets import EntryPoint
from eva.video.picture import Rgb
from eva.video.sampling import Timeline

# Each decoding thread holds frames of its own. More threads cost memory, and hardly make one video faster.
MAX_THREADS = 4
# The tests prove for these that frames are the same where the decoder leaves out those that no other one refers to. The
# decoder of AV1 leaves out others.
LEAVE_OUT = {"h264", "hevc", "mpeg4"}


class Decoding:
    """Passes over a video's frames in presentation order. A damaged packet is noted, and gives no frame.

    `strict`: a damaged packet raises VideoError, also where the decoder would fill in for what is missing.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, *, threads: int | None = None, strict: bool = False
    ) -> None:
        self._container, self._stream, self._context = container, stream, stream.codec_context
        self._strict = strict
        self._unsound_to: float | None = None  # pts: from an error to a keyframe after it, the decoder fills in
        self.damaged = False
        self.leaves_out = strict and self._context.name in LEAVE_OUT
        stream.thread_type = "AUTO"
        self._context.thread_count = threads or threads_at_most()
        if strict:
            self._context.options = {"err_detect": "explode"}

    def frames(self, entry: EntryPoint | None = None, wanted: set[int] | None = None) -> Iterator[VideoFrame]:
        """The frames with the pts `wanted`, and others before the last one of them, from the keyframe `entry` on; None:
        all, from the start. Where `leaves_out`, frames that those do not need may be missing. Then the decoder is
        empty."""
        waiting: set[int | None] = set(wanted or ())
        for packet in self._packets_from(entry):
            if self.leaves_out and wanted is not None:
                self._context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield from self.decode(packet)
            waiting.discard(packet.pts)
            if not waiting and wanted is not None:
                break
        yield from self.decode(None)

    def _packets_from(self, entry: EntryPoint | None) -> Iterator[Packet[VideoStream]]:
        packets = packets_of(self._container, self._stream)
        if entry is None:
            return packets
        self._container.seek(entry.seek_to, stream=self._stream)
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
        turns = quarter_turns(frame) if self._turns else 0
        width, height = upright(self._size, turns)
        converted = self._reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
        rgb = converted.to_ndarray().astype(np.uint8, copy=False)
        return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def upright(size: tuple[int, int], turns: int) -> tuple[int, int]:
    """(width, height) of a picture of this size after quarter turns, and back."""
    return (size[1], size[0]) if turns % 2 else size


def quarter_turns(frame: VideoFrame) -> int:
    """Counterclockwise quarter turns (0 to 3) that show the frame upright; as in decord, 0 for other angles."""
    turns, rest = divmod(frame.rotation, 90)
    return 0 if rest else turns % 4
