"""Opening a video: its timeline first, then the pixels of chosen frames.

A frame is named by its index in presentation order, and has the pixels that decoding the file from its start gives.
PyAV is the default decoder; decord, the one the published numbers were measured with, is optional.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from eva.errors import ReadError, UndecodableError, VideoError
from eva.video.choices import LIKE_DECORD, LIKE_TORCHCODEC
from eva.video.container import Identity
from eva.video.decode_decord import DecordVideo
from eva.video.decode_pyav import AvVideo, read_index
from eva.video.encode import Rgb
from eva.video.packets import VideoIndex
from eva.video.timeline import Timeline

Made = TypeVar("Made")


class Video(Protocol):
    """An opened video."""

    decoder: str
    timeline: Timeline
    identity: Identity  # of the file that was opened
    gap: bool  # packets are missing (see packets.VideoIndex)

    def frames(self, indices: Sequence[int], make: Callable[[Rgb], Made]) -> Iterator[tuple[int, Made]]:
        """(index, what `make` makes of its RGB) once for each distinct index, in ascending order.

        `make` is called from any thread, for several frames at the same time.
        Raises VideoError for a frame that cannot be decoded; ChangedError, at the latest after the last frame, where
        the file was changed or replaced; MiscountedError where the timeline proves wrong.
        """
        ...


class IndexStore(Protocol):
    """A place that keeps the indexes of videos; `recount` and `by_time` as in decode_pyav.read_index."""

    def load(self, path: Path, identity: Identity, *, recount: bool, by_time: bool) -> VideoIndex | None:
        """The index of the file at `path` that has this identity; None where there is none that can be believed."""
        ...

    def save(self, path: Path, identity: Identity, index: VideoIndex, *, recount: bool, by_time: bool) -> None:
        """Keep an index. Raises OSError."""
        ...


def open_video(path: Path, *, backend: str, recount: bool, indexes: IndexStore | None) -> Video:
    """Open `path` with "av", "decord", or "auto": av, and decord where av cannot decode the file.

    "torchcodec" is av, and the frames of every file are chosen by time. "like-decord" is "auto", but a file whose
    frames are chosen by time, because decord cannot use it, is refused.

    `recount` decodes the whole file to learn its frames, for files whose packets mislead (MiscountedError). The index
    that av needs is taken from `indexes`, or kept there.
    Raises VideoError, whose message names the file.
    """
    identity = Identity.of(path)
    if backend == "decord":
        return DecordVideo(path, identity)
    try:
        index = _find_index(path, identity, indexes, recount=recount, by_time=backend == LIKE_TORCHCODEC)
        video = AvVideo(path, identity, index)
    except UndecodableError as undecodable:
        if backend in ("av", LIKE_TORCHCODEC):
            raise
        return _open_by_decord(path, identity, undecodable)
    if backend == LIKE_DECORD and video.timeline.shown_to_s is not None:
        raise VideoError(f"decord cannot use {path}: its frames can only be chosen by time")
    return video


def _find_index(
    path: Path, identity: Identity, indexes: IndexStore | None, *, recount: bool, by_time: bool
) -> VideoIndex:
    kept = indexes.load(path, identity, recount=recount, by_time=by_time) if indexes else None
    if kept is not None:
        return kept
    index = read_index(path, identity, recount=recount, by_time=by_time)
    if indexes:
        indexes.save(path, identity, index, recount=recount, by_time=by_time)
    return index


def _open_by_decord(path: Path, identity: Identity, undecodable: UndecodableError) -> Video:
    try:
        return DecordVideo(path, identity)
    except ReadError:
        raise
    except VideoError:
        raise undecodable from None  # the reason of the default decoder is the clearer one
