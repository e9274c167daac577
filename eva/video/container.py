"""Opening a video file that may hold anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from stat import S_ISREG

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from eva.errors import ChangedError, ReadError, UndecodableError, VideoError

# These name other files, which may be any file of this machine.
PLAYLISTS = {"hls", "dash", "imf"}
CONCATENATION = b"ffconcat version"
OPEN_FILES = Path("/proc/self/fd")


@dataclass(frozen=True)
class Identity:
    """Which file a path names. Another file, or the same one written anew, has another identity."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Identity:
        """The identity of the file at `path`. Raises ReadError; VideoError where it is no file."""
        try:
            stat = path.stat()
        except OSError as error:
            raise read_error(path, error) from error
        if not S_ISREG(stat.st_mode):
            raise VideoError(f"{path} is not a video but a folder or a device")
        return cls.from_stat(stat)

    @classmethod
    def from_stat(cls, stat: os.stat_result) -> Identity:
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@contextmanager
def unchanged(path: Path, identity: Identity) -> Iterator[None]:
    """Raises ChangedError where, after the block, `path` no longer names the file that had this identity. It takes the
    place of another VideoError, too."""
    try:
        yield
    except VideoError:
        check_unchanged(path, identity)
        raise
    check_unchanged(path, identity)


def check_unchanged(path: Path, identity: Identity) -> None:
    """Raises ChangedError where `path` no longer names the file that had this identity."""
    try:
        now = Identity.of(path)
    except VideoError:
        raise changed_error(path) from None
    if now != identity:
        raise changed_error(path)


def changed_error(path: Path) -> ChangedError:
    return ChangedError(f"the video {path} was changed or replaced while it was read, and nothing was kept: try again")


def read_error(path: Path, error: OSError) -> ReadError:
    return ReadError(f"the video {path} cannot be read: {error.strerror}")


def playlist_error(path: Path) -> VideoError:
    return VideoError(f"{path} is a list of other files, not a video")


@contextmanager
def open_file(path: Path, identity: Identity | None) -> Iterator[Source]:
    """The file at `path`, which is closed at the end of the block. Raises ReadError; ChangedError where the file does
    not have this identity."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise read_error(path, error) from error
    with file:
        if identity is not None and Identity.from_stat(os.fstat(file.fileno())) != identity:
            raise changed_error(path)
        yield Source(path, file)


class Source:
    """A video file as FFmpeg reads it. Most of FFmpeg's demuxers take every error for the end of the file, and say
    nothing. So Python reads the file for them, and PyAV raises the error where the packet was asked for."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path, self._file, self._failed = path, file, False
        # The address of relative references in the file: nothing lies there, whatever the folder of this process.
        self.name = str(OPEN_FILES / str(file.fileno()) if OPEN_FILES.is_dir() else path.absolute())

    def fileno(self) -> int:
        return self._file.fileno()

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

    def seek(self, offset: int, whence: int) -> int:
        """The new position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def open_container(path: Path, identity: Identity | None = None) -> Iterator[InputContainer]:
    """The container at `path`, which is closed at the end of the block. `identity`: the file that it must be.

    Raises VideoError, whose message names the file. In the block, whatever reads packets raises ReadError.
    """
    with open_file(path, identity) as file:
        if file.read(len(CONCATENATION)) == CONCATENATION:
            raise playlist_error(path)
        file.seek(0, os.SEEK_SET)
        with _open(path, file) as container:
            if container.format.name in PLAYLISTS:
                raise playlist_error(path)
            yield container


def _open(path: Path, file: Source) -> InputContainer:
    try:
        # A playlist with another name must not reach the network.
        return av.open(file, "r", metadata_errors="replace", options={"protocol_whitelist": "file"})
    except (FFmpegError, UnicodeError, ValueError) as error:
        raise UndecodableError(f"{path} cannot be opened as a video: {_reason(error)}") from error


def moving_pictures(container: InputContainer, path: Path) -> list[VideoStream]:
    """The video streams without cover art; at least one. Raises VideoError."""
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        raise VideoError(f"{path} holds no video stream")
    return moving


def _reason(error: Exception) -> str:
    """What FFmpeg says went wrong, without its error number and without the path, which may be long."""
    return getattr(error, "strerror", None) or str(error)
