"""Opening a video file that may hold anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from eva.errors import ChangedError, UndecodableError, VideoError

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
        """The identity of the file at `path`. Raises VideoError."""
        try:
            return cls.from_stat(path.stat())
        except OSError as error:
            raise VideoError(f"the video {path} cannot be looked at: {error.strerror}") from error

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


def playlist_error(path: Path) -> VideoError:
    return VideoError(f"{path} is a list of other files, not a video")


@contextmanager
def open_file(path: Path, identity: Identity | None) -> Iterator[BinaryIO]:
    """The file at `path`, which is closed at the end of the block. Raises OSError; ChangedError where it does not have
    this identity."""
    with path.open("rb") as file:
        if identity is not None and Identity.from_stat(os.fstat(file.fileno())) != identity:
            raise changed_error(path)
        yield file


@contextmanager
def open_container(path: Path, identity: Identity | None = None) -> Iterator[InputContainer]:
    """The container at `path`, which is closed at the end of the block. `identity`: the file that it must be.

    Raises VideoError, whose message names the file.
    """
    try:
        with open_file(path, identity) as file:
            # FFmpeg opens the file that is checked here, whatever the path names a moment later.
            if file.read(len(CONCATENATION)) == CONCATENATION:
                raise playlist_error(path)
            container = _open(path, file.fileno())
    except (FFmpegError, UnicodeError, ValueError, OSError) as error:
        raise UndecodableError(f"{path} cannot be opened as a video: {_reason(error)}") from error
    with container:
        if container.format.name in PLAYLISTS:
            raise playlist_error(path)
        yield container


def _open(path: Path, fileno: int) -> InputContainer:
    # Absolute, or `concat:x.mp4` would be an address. A playlist with another name must not reach the network.
    name = OPEN_FILES / str(fileno) if OPEN_FILES.is_dir() else path.absolute()
    return av.open(str(name), metadata_errors="replace", options={"protocol_whitelist": "file"})


def moving_pictures(container: InputContainer, path: Path) -> list[VideoStream]:
    """The video streams without cover art; at least one. Raises VideoError."""
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        raise VideoError(f"{path} holds no video stream")
    return moving


def _reason(error: Exception) -> str:
    """What FFmpeg says went wrong, without its error number and without the path, which may be long."""
    return getattr(error, "strerror", None) or str(error)
