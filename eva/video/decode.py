"""Opening a video: its timeline first, then the pixels of chosen frames.

A frame is named by its index in presentation order, and has the pixels that decoding the file from its start gives.
PyAV is the default decoder; decord, the one the published numbers were measured with, is optional.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from eva.errors import UndecodableError, VideoError
from eva.video.container import Identity
from eva.video.decode_decord import DecordVideo
from eva.video.decode_pyav import AvVideo
from eva.video.encode import Rgb
from eva.video.packets import VideoIndex
from eva.video.timeline import Timeline

Made = TypeVar("Made")
BACKENDS = ("auto", "av", "decord")


class Video(Protocol):
    """An opened video."""

    decoder: str
    timeline: Timeline
    identity: Identity  # of the file from which all of this comes
    gap: bool  # packets are missing (see packets.VideoIndex)

    def frames(self, indices: Sequence[int], make: Callable[[Rgb], Made]) -> Iterator[tuple[int, Made]]:
        """(index, what `make` makes of its RGB) once for each distinct index, in ascending order.

        `make` is called from any thread, for several frames at the same time.
        Raises VideoError for a frame that cannot be decoded and, at the latest after the last frame, where the file
        was changed or replaced; MiscountedError where the timeline proves wrong.
        """
        ...


class Indexes(Protocol):
    """Where the indexes of videos are kept. `recount`: the index of frames that were counted by decoding."""

    def load(self, path: Path, identity: Identity, *, recount: bool) -> VideoIndex | None:
        """The index of the file at `path` that has this identity; None where there is none to believe."""
        ...

    def save(self, path: Path, identity: Identity, index: VideoIndex, *, recount: bool) -> None:
        """Keep an index. Raises OSError."""
        ...


def open_video(path: Path, *, backend: str = "auto", recount: bool = False, indexes: Indexes | None = None) -> Video:
    """Open `path` with "av", "decord", or "auto": av, and decord where av makes nothing of the file.

    `recount` decodes the whole file to learn its frames, for files whose packets mislead (MiscountedError). What av
    finds out about the file is taken from `indexes`, or kept there.
    Raises VideoError with a sentence that names the file.
    """
    _check_readable(path)
    identity = Identity.of(path)
    if backend == "decord":
        return DecordVideo(path, identity)
    try:
        return _by_av(path, identity, recount, indexes)
    except UndecodableError as undecodable:
        if backend == "av":
            raise
        return _second_opinion(path, identity, undecodable)


def _by_av(path: Path, identity: Identity, recount: bool, indexes: Indexes | None) -> Video:
    if indexes is None:
        return AvVideo(path, recount=recount, identity=identity)
    index = indexes.load(path, identity, recount=recount)
    video = AvVideo(path, recount=recount, index=index, identity=identity)
    if index is None:
        indexes.save(path, identity, video.index, recount=recount)
    return video


def _second_opinion(path: Path, identity: Identity, undecodable: UndecodableError) -> Video:
    try:
        return DecordVideo(path, identity)
    except VideoError:
        raise undecodable from None  # the default decoder's reason is the clearer one


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise VideoError(f"there is no video at {path}")
    if not path.is_file():
        raise VideoError(f"{path} is not a video but a folder or a device")
    if not os.access(path, os.R_OK):
        raise VideoError(f"the video {path} may not be read by this user")
