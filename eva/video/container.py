"""Opening a video file that may hold anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from stat import S_ISREG

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from eva.errors import ReadError, UndecodableError, VideoError

# Playlists and the like name other files, which may be any file of this machine or of the network.
NO_OTHER_FILE = {"protocol_whitelist": "none"}

# Names of containers.
MOV, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"


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
            raise read_error(path, error) from error
        if not S_ISREG(stat.st_mode):
            raise VideoError(f"{path} is not a video but a folder or a device")
        return cls(path, stat.st_size, stat.st_mtime_ns)

    def check_unchanged(self) -> None:
        """Raises ReadError where another file is at the path now."""
        if VideoFile.of(self.path) != self:
            raise ReadError(f"the video {self.path} was changed or replaced while it was read: try again")


def read_error(path: Path, error: OSError) -> ReadError:
    return ReadError(f"the video {path} cannot be read: {error.strerror}")


@contextmanager
def open_file(path: Path) -> Iterator[Source]:
    """The file at `path`, which is closed at the end of the block. Raises ReadError."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise read_error(path, error) from error
    with file:
        yield Source(path, file)


class Source:
    """A video file as FFmpeg reads it. Most of FFmpeg's demuxers take every error for the end of the file, and say
    nothing. So Python reads the file for them, and PyAV raises the error where the packet was asked for."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path, self._file, self._failed = path, file, False

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end of the file. Raises ReadError once; then the file has ended, because a
        demuxer may read on, and PyAV takes one error at a time."""
        if self._failed:
            return b""
        try:
            return self._file.read(size)
        except OSError as error:
            self._failed = True
            raise read_error(self._path, error) from error

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def open_stream(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container at `path` and its first video stream that is not cover art, of which alone packets are read. The
    file is closed at the end of the block.

    Raises VideoError, whose message names the file. In the block, whatever reads packets raises ReadError.
    """
    with open_file(path) as file:
        try:
            container = av.open(file, "r", metadata_errors="replace", options=NO_OTHER_FILE)
        except (FFmpegError, UnicodeError, ValueError) as error:
            # Without the error number and the path, which may be long.
            reason = getattr(error, "strerror", None) or str(error)
            raise UndecodableError(f"{path} cannot be opened as a video: {reason}") from error
        with container:
            moving = [video for video in container.streams.video if not video.disposition & Disposition.attached_pic]
            if not moving:
                raise VideoError(f"{path} holds no video stream")
            for other in container.streams:
                if other is not moving[0]:
                    other.discard = Discard.all  # where it is cut off, reading does not end
            yield container, moving[0]


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The stream's packets; they end where the file is cut off, or where FFmpeg cannot read on in it. Raises ReadError
    where it is not the file that is at fault."""
    try:
        for packet in container.demux(stream):
            # Of an MP4 that is cut off, the last packet is not whole.
            if packet.size and not (packet.is_corrupt and container.format.name == MOV):
                yield packet
    except MemoryError as error:
        raise ReadError("this machine has no memory for the packets of a video") from error
    except FFmpegError:
        return
