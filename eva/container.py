"""Opening a video file that nobody vouches for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from eva.errors import UndecodableError, VideoError

# What these name may be any file of this machine.
PLAYLISTS = {"hls", "concat", "dash", "imf"}


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """The container at `path`, closed again on the way out. Raises VideoError, which names the file."""
    try:
        # Absolute, or `concat:x.mp4` would be an address; and a playlist in disguise must not reach the network.
        container = av.open(str(path.absolute()), metadata_errors="replace", options={"protocol_whitelist": "file"})
    except (FFmpegError, UnicodeError, ValueError) as error:
        raise UndecodableError(f"{path} cannot be opened as a video: {_reason(error)}") from error
    with container:
        if container.format.name in PLAYLISTS:
            raise VideoError(f"{path} is a list of other files, not a video")
        yield container


def moving_pictures(container: InputContainer, path: Path) -> list[VideoStream]:
    """The video streams but for cover art; at least one. Raises VideoError."""
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        raise VideoError(f"{path} holds no video stream")
    return moving


def _reason(error: Exception) -> str:
    """What FFmpeg says went wrong, without its error number and without the path, which may be long."""
    return getattr(error, "strerror", None) or str(error)
