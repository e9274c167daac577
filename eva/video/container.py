"""Opening a video file that may hold anything, and decoding it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import dropwhile
from pathlib import Path
from stat import S_ISREG

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from eva.cpus import available_cpus
from eva.errors import ReadError, UndecodableError, VideoError

# Playlists and the like name other files, which may be any file of this machine or of the network.
NO_OTHER_FILE = {"protocol_whitelist": "none"}
# Names of containers.
MOV, MATROSKA, MPEG_TS = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts"
# Each decoding thread holds frames of its own. More threads cost memory, and hardly make one video faster.
MAX_THREADS = 4
# The tests prove for these that frames are the same where the decoder leaves out those that no other one refers to. The
# decoder of AV1 leaves out others.
LEAVE_OUT = {"h264", "hevc", "mpeg4"}


@dataclass(frozen=True)
class VideoFile:
    """A video as it was found. A file that was written anew is another one."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> VideoFile:
        """The file at `path`. Raises ReadError; VideoError where it is no file."""
        try:
            stat = path.stat()
        except OSError as error:
            raise _read_error(path, error) from error
        if not S_ISREG(stat.st_mode):
            raise VideoError(f"{path} is not a video but a folder or a device")
        return cls(path, stat.st_size, stat.st_mtime_ns)

    def check_unchanged(self) -> None:
        """Raises ReadError where another file is at the path now."""
        if VideoFile.of(self.path) != self:
            raise ReadError(f"the video {self.path} was changed or replaced while it was read: try again")


@dataclass(frozen=True)
class EntryPoint:
    """A keyframe. Decoding from it gives the same frames, from this one on, as decoding from the file's start."""

    index: int  # of the keyframe among all frames, in presentation order
    pts: int
    seek_to: int  # the time by which the container finds it


class Source(FileIO):
    """A video file as FFmpeg reads it. Most of FFmpeg's demuxers take every error for the end of the file, and say
    nothing. So Python reads the file for them, and PyAV raises the error where the packet was asked for."""

    def __init__(self, path: Path) -> None:
        self._path, self._failed = path, False
        try:
            super().__init__(path)
        except OSError as error:
            raise _read_error(path, error) from error

    def read(self, size: int | None = -1) -> bytes:
        """Raises ReadError once; then the file has ended, because a demuxer may read on, and PyAV takes one error at a
        time."""
        if self._failed:
            return b""
        try:
            return super().read(size) or b""
        except OSError as error:
            self._failed = True
            raise _read_error(self._path, error) from error

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position; below 0, as FFmpeg's own files say it, where a damaged file leads to no place."""
        try:
            return super().seek(offset, whence)
        except OSError as error:
            return -(error.errno or 1)


class OpenVideo:
    """One opening of a video file: its first video stream that is not cover art, and the decoder of that stream, with
    so many `threads` (None: as many as are useful).

    A damaged packet is noted, and gives no frame. `strict`: it raises VideoError, also where the decoder would fill in
    for what is missing.
    """

    def __init__(
        self, source: Source, container: InputContainer, path: Path, *, threads: int | None, strict: bool
    ) -> None:
        moving = [video for video in container.streams.video if not video.disposition & Disposition.attached_pic]
        if not moving:
            raise VideoError(f"{path} holds no video stream")
        for other in container.streams:
            if other is not moving[0]:
                other.discard = Discard.all  # where it is cut off, reading does not end
        self.path, self.source, self.container, self.stream = path, source, container, moving[0]
        self.codec = self.stream.codec_context
        self.damaged, self._strict = False, strict
        self._unsound_to: float | None = None  # pts: from an error to a keyframe after it, the decoder fills in
        if self.codec is not None:
            self.stream.thread_type = "AUTO"
            self.codec.thread_count = threads or threads_at_most()
            if strict:
                self.codec.options = {"err_detect": "explode"}

    @property
    def leaves_out(self) -> bool:
        """Whether frames that nobody wants may be missing."""
        return self._strict and self.codec.name in LEAVE_OUT

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """They end where the file is cut off, or where FFmpeg cannot read on in it. Raises ReadError where it is not
        the file that is at fault."""
        try:
            for packet in self.container.demux(self.stream):
                # Of an MP4 that is cut off, the last packet is not whole.
                if packet.size and not (packet.is_corrupt and self.container.format.name == MOV):
                    yield packet
        except MemoryError as error:
            raise ReadError("this machine has no memory for the packets of a video") from error
        except FFmpegError:
            return

    def frames(self, entry: EntryPoint | None = None, wanted: set[int] | None = None) -> Iterator[VideoFrame]:
        """The frames with the pts `wanted`, and others before the last one of them, from the keyframe `entry` on; None:
        all, from the start. Then the decoder is empty."""
        waiting, packets = set[int | None](wanted or ()), self.packets()
        if entry is not None:
            self.container.seek(entry.seek_to, stream=self.stream)
            # Seeking may lead to an earlier keyframe, and a packet that an edit list cuts off may have the same time.
            packets = dropwhile(lambda packet: packet.pts != entry.pts or packet.is_discard, packets)
        for packet in packets:
            if self.leaves_out and wanted is not None:
                self.codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield from self.decode(packet)
            waiting.discard(packet.pts)
            if not waiting and wanted is not None:
                break
        yield from self.decode(None)

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """The frames that the decoder gives for `packet`; None: the rest, at the end."""
        try:
            return self.stream.decode(packet)
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


@contextmanager
def open_stream(path: Path, *, threads: int | None = None, strict: bool = False) -> Iterator[OpenVideo]:
    """Open a file, which is closed at the end of the block. Raises VideoError, which names the file; in the block,
    whatever reads packets raises ReadError."""
    with Source(path) as source:
        try:
            container = av.open(source, "r", metadata_errors="replace", options=NO_OTHER_FILE)
        except (FFmpegError, UnicodeError, ValueError) as error:
            # Without the error number and the path, which may be long.
            reason = getattr(error, "strerror", None) or str(error)
            raise UndecodableError(f"{path} cannot be opened as a video: {reason}") from error
        with container:
            yield OpenVideo(source, container, path, threads=threads, strict=strict)


def threads_at_most() -> int:
    return min(MAX_THREADS, available_cpus())


def _read_error(path: Path, error: OSError) -> ReadError:
    return ReadError(f"the video {path} cannot be read: {error.strerror}")
