"""The frame store: the frames of each video, so that none is decoded twice, and the video's index beside them.

    {frame root}/store/{stem}-{key of the video}/index-{version}.npz
    {frame root}/store/{stem}-{key of the video}/{width}x{height}-{decoder}/{index}.{format}

Every file appears whole or not at all, by a rename. Any number of processes may share a store. Two of them may make the
same frame at the same time: the pictures are the same, and one takes the place of the other.

Only a crash of the machine breaks this rule: a file that was renamed before it may be empty or hold zeros. fsync per
frame would prevent that, but 1,000 frames of 2.8 MB take 29 s to write, with fsync 38 s. Instead, a frame from before
the last boot is made again when a call asks for it. An index has checksums.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
import zipfile
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eva.files import PARTIAL_SUFFIX
from eva.frames import STORE
from eva.video.container import EntryPoint, VideoFile
from eva.video.index import VideoIndex
from eva.video.picture import whole_size
from eva.video.sampling import Timeline

# A file name may have 255 bytes; a character takes up to 4, and the key is added.
MAX_STEM = 40
# Goes up when what an index says of the same video changes.
VERSION = 9

Make = Callable[[Sequence[int]], Iterable[tuple[int, bytes]]]


def folder_name(stem: str) -> str:
    """`stem` without what would leave a folder or break a line: separators, control characters, `..`."""
    name = "".join(char if char.isprintable() and char not in "/\\" else "_" for char in stem)
    return name if name.strip(". ") else "_" * max(1, len(name))


def video_folder(root: Path, video: VideoFile) -> Path:
    """The folder of one video below a frame root: readable at its start, and different for every video."""
    path = video.path.absolute()
    key = hashlib.sha256(f"{video.size}|{video.mtime_ns}|".encode() + os.fsencode(path)).hexdigest()[:20]
    return root / STORE / f"{folder_name(path.stem)[:MAX_STEM]}-{key}"


def fill(frames: Mapping[int, Path], size: tuple[int, int], make: Make) -> tuple[int, int]:
    """Have the files of all `frames`, by their index. `make` makes those that are missing, or no whole pictures of this
    `size` (width, height), in ascending order. Gives their number, and the bytes written for them. Raises what `make`
    raises; then none of them is kept."""
    missing = [index for index in sorted(frames) if not _mark_used(frames[index], size)]
    for folder in {frames[index].parent for index in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    return len(missing), write_whole((frames[index], data) for index, data in make(missing)) if missing else 0


def _mark_used(frame: Path, size: tuple[int, int]) -> bool:
    """Whether the frame is there and can be believed; then it counts as used now."""
    with suppress(FileNotFoundError):
        booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        if frame.stat().st_mtime >= booted_at and whole_size(frame) == size:
            os.utime(frame)
            return True
    return False


def write_whole(files: Iterable[tuple[Path, bytes]]) -> int:
    """Write files, each of which appears whole or not at all, and none before the last one is written: on the way,
    `files` may find that they are wrong. Gives their bytes. Raises what `files` raises, and OSError."""
    partials: dict[Path, Path] = {}
    written_bytes = 0
    try:
        for path, data in files:
            partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
            partials[partial] = path
            written_bytes += partial.write_bytes(data)
        for partial, path in partials.items():
            partial.replace(path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    return written_bytes


@dataclass(frozen=True)
class Indexes:
    """The indexes below a frame root: what reading all packets of a video found, so that they are read once. One that
    is not whole (each array has a checksum) is not believed. See decode.IndexStore."""

    root: Path

    def load(self, file: VideoFile, *, recount: bool, by_time: bool) -> VideoIndex | None:
        """The index; None where there is none to believe."""
        try:
            with np.load(self._path(file, recount=recount, by_time=by_time), allow_pickle=False) as stored:
                width, height, average_fps, shown_to_s = stored["numbers"].tolist()
                times_s = array("d", stored["times_s"].tobytes())
                shown_to_s = None if np.isnan(shown_to_s) else shown_to_s
                timeline = Timeline(int(width), int(height), average_fps, times_s, shown_to_s)
                entries = tuple(EntryPoint(*row) for row in stored["entries"].reshape(-1, 3).tolist())
                return VideoIndex(timeline, array("q", stored["pts"].tobytes()) if "pts" in stored else None, entries)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, EOFError, AttributeError, NotImplementedError, zipfile.BadZipFile):
            return None  # not whole, or something else

    def save(self, file: VideoFile, index: VideoIndex, *, recount: bool, by_time: bool) -> None:
        """Keep an index. Raises OSError."""
        timeline = index.timeline
        shown_to_s = np.nan if timeline.shown_to_s is None else timeline.shown_to_s
        arrays = {
            "numbers": np.array([timeline.width, timeline.height, timeline.average_fps, shown_to_s], np.float64),
            "times_s": np.array(timeline.times_s, np.float64),
            "entries": np.array([(entry.index, entry.pts, entry.seek_to) for entry in index.entries], np.int64),
        }
        if index.pts is not None:
            arrays["pts"] = np.array(index.pts, np.int64)
        data = io.BytesIO()
        np.savez(data, **arrays)  # type: ignore[arg-type]  # its stub takes them for `allow_pickle`
        place = self._path(file, recount=recount, by_time=by_time)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole([(place, data.getvalue())])

    def _path(self, file: VideoFile, *, recount: bool, by_time: bool) -> Path:
        name = f"{'counted' if recount else 'index'}{'-by-time' if by_time else ''}-{VERSION}.npz"
        return video_folder(self.root, file) / name
