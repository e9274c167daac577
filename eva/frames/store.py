"""The frame store: the frames of each video, so that none is decoded twice, and the video's index beside them.

    {frame root}/store/{stem}-{key of the video}/index.npz
    {frame root}/store/{stem}-{key of the video}/{width}x{height}-{decoder}/{index}.{format}

Every file appears whole or not at all, by a rename. Any number of processes may share a store. Two of them may make the
same frame at the same time: the pictures are the same, and one takes the place of the other.

Only a crash of the machine breaks this rule: a file that was renamed before it may be empty or hold zeros. fsync per
frame would prevent that, but 1,000 frames of 2.8 MB take 29 s to write, with fsync 38 s. Instead, a frame from before
the last boot is made again when a call asks for it. An index has a checksum.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eva.files import PARTIAL_SUFFIX
from eva.video.picture import whole_size

if TYPE_CHECKING:
    from eva.video.container import VideoFile  # which takes PyAV along

STORE = "store"
# A file name may have 255 bytes; a character takes up to 4, and the key is added.
MAX_STEM = 40

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


@dataclass(frozen=True)
class FillCost:
    """What it cost to have all frames of a call: the number of frames decoded for it, and of bytes written."""

    decoded: int = 0
    written_bytes: int = 0


@dataclass(frozen=True)
class FrameFolder:
    """The stored frames of one video at one size, from one decoder, in one format."""

    folder: Path
    picture_format: str
    width: int
    height: int

    def path(self, index: int) -> Path:
        """The file of the frame with this index, whether it exists or not."""
        return self.folder / f"{index:07d}.{self.picture_format}"

    def fill(self, indices: Iterable[int], make: Make) -> FillCost:
        """Have all frames of `indices`. `make` makes those that are missing or broken, in ascending order. Raises what
        `make` raises; then none of them is kept."""
        missing = [index for index in sorted(set(indices)) if not self._mark_used(self.path(index))]
        if not missing:
            return FillCost()
        self.folder.mkdir(parents=True, exist_ok=True)
        return write_whole((self.path(index), data) for index, data in make(missing))

    def _mark_used(self, path: Path) -> bool:
        """Whether the frame exists and can be believed; if so, it counts as used now."""
        with suppress(FileNotFoundError):
            booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
            if path.stat().st_mtime >= booted_at and whole_size(path) == (self.width, self.height):
                os.utime(path)
                return True
        return False


def write_whole(files: Iterable[tuple[Path, bytes]]) -> FillCost:
    """Write files, each of which appears whole or not at all, and none before the last one is written: on the way,
    `files` may find that they are wrong. Raises what `files` raises, and OSError."""
    partials: dict[Path, Path] = {}
    written_bytes = 0
    try:
        for path, data in files:
            partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
            partials[partial] = path
            partial.write_bytes(data)
            written_bytes += len(data)
        for partial, path in partials.items():
            partial.replace(path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    return FillCost(len(partials), written_bytes)
