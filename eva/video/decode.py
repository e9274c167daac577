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
from eva.video.container import VideoFile
from eva.video.decode_decord import DecordVideo
from eva.video.decode_pyav import AvVideo
from eva.video.index import VideoIndex, read_index
from eva.video.picture import Rgb
from eva.video.sampling import Timeline

Made = TypeVar("Made")


class Video(Protocol):
    """An opened video."""

    decoder: str
    timeline: Timeline
    file: VideoFile  # as it was opened

    def frames(self, indices: Sequence[int], make: Callable[[Rgb], Made]) -> Iterator[tuple[int, Made]]:
        """(index, what `make` makes of its RGB) once for each distinct index, in any order.

        `make` is called from any thread, for several frames at the same time.
        Raises VideoError for a frame that cannot be decoded; MiscountedError where the timeline proves wrong.
        """


class IndexStore(Protocol):
    """A place that keeps the indexes of videos; `recount` and `by_time` as in index.read_index."""

    def load(self, file: VideoFile, *, recount: bool, by_time: bool) -> VideoIndex | None:
        """The index of this file; None where there is none that can be believed."""

    def save(self, file: VideoFile, index: VideoIndex, *, recount: bool, by_time: bool) -> None:
        """Keep an index. Raises OSError."""


def open_video(path: Path, *, backend: str, recount: bool, indexes: IndexStore | None) -> Video:
    """Open `path` with "av", "decord", or "auto": av, and decord where av cannot decode the file.

    "torchcodec" is av, and the frames of every file are chosen by time. "like-decord" is "auto", but a file whose
    frames are chosen by time, because decord cannot use it, is refused.

    `recount` decodes the whole file to learn its frames, for files whose packets mislead (MiscountedError). The index
    that av needs is taken from `indexes`, or kept there.
    Raises VideoError, whose message names the file.
    """
    file, by_time = VideoFile.of(path), backend == LIKE_TORCHCODEC
    if backend == "decord":
        return DecordVideo(file)
    index = indexes.load(file, recount=recount, by_time=by_time) if indexes else None
    if index is None:
        try:
            index = read_index(file, recount=recount, by_time=by_time)
        except UndecodableError as undecodable:
            if backend in ("av", LIKE_TORCHCODEC):
                raise
            try:
                return DecordVideo(file)
            except ReadError:
                raise
            except VideoError:
                raise undecodable from None  # the reason of the default decoder is the clearer one
        file.check_unchanged()
        if indexes:
            indexes.save(file, index, recount=recount, by_time=by_time)
    if backend == LIKE_DECORD and index.timeline.shown_to_s is not None:
        raise VideoError(f"decord cannot use {path}: its frames can only be chosen by time")
    return AvVideo(file, index)
