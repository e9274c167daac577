"""The frame store: the frames of each video, so that none is decoded twice, and the video's index beside them.

    {frame root}/store/{stem}-{key of the video}/index.bin
    {frame root}/store/{stem}-{key of the video}/{width}x{height}-{decoder}/{index}.{format}

Every file appears whole or not at all. Any number of processes may share a store.

Only a crash of the machine breaks this rule: a file that was renamed before it may be empty or hold zeros. fsync per
frame (as in eva.files.replacing) would prevent that, but it makes every run slower for the sake of a rare event: 1,000
frames of 2.8 MB took 29 s to write, with fsync 38 s. Instead, a frame from before the last boot is made again when a
call asks for it. Its modification time says when it was last used, and thereby checked, so no other mark is needed. An
index has a checksum.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eva.video.picture import whole_size

if TYPE_CHECKING:
    from eva.video.container import VideoFile  # which takes PyAV along

STORE = "store"
PARTIAL_SUFFIX = ".partial"
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

    def __add__(self, other: FillCost) -> FillCost:
        return FillCost(self.decoded + other.decoded, self.written_bytes + other.written_bytes)


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
        """Have all frames of `indices`. `make` makes those that are missing or broken.

        No two processes make a frame at the same time. This one waits for a frame that another process makes, and
        makes it where the other process failed. Raises what `make` raises; then nothing of that batch is kept.
        """
        missing, cost = self._find_missing(sorted(set(indices))), FillCost()
        if missing:
            self.folder.mkdir(parents=True, exist_ok=True)
        while missing:
            with self._claim(missing) as claimed:
                # While this process waited, another one may have made them.
                wanted = self._find_missing(claimed)
                made = make(wanted) if wanted else ()
                cost += write_whole((self.path(index), data) for index, data in made)
            missing = [index for index in missing if index not in claimed]
        return cost

    def _find_missing(self, indices: Iterable[int]) -> list[int]:
        return [index for index in indices if not self._mark_used(self.path(index))]

    def _mark_used(self, path: Path) -> bool:
        """Whether the frame exists and can be believed; if so, it counts as used now."""
        with suppress(FileNotFoundError):
            if path.stat().st_mtime >= booted_at() and whole_size(path) == (self.width, self.height):
                os.utime(path)
                return True
        return False

    @contextmanager
    def _claim(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """Those of `indices` that no other process has claimed. If others claimed all of them, wait for the first.

        A claim is a lock on one byte of a file. It ends with its process, however that ends.
        """
        with (self.folder / ".claims").open("wb") as file:
            claimed = [index for index in indices if try_lock(file.fileno(), length=1, start=index)]
            if not claimed:
                set_lock(file.fileno(), fcntl.F_WRLCK, length=1, start=indices[0], wait=True)
                claimed = [indices[0]]
            yield claimed


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


def booted_at() -> float:
    """When this machine was last started, as a time stamp."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def set_lock(file: int, kind: int, *, length: int = 0, start: int = 0, wait: bool = False) -> None:
    """Lock or unlock `length` bytes of a file (0: all from `start` on); `kind` is F_RDLCK, F_WRLCK or F_UNLCK.

    The lock belongs to this opening of the file, and not to the process: two runs of one process are kept apart, too.
    """
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    fcntl.fcntl(file, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))


def try_lock(file: int, *, length: int = 0, start: int = 0) -> bool:
    """Lock `length` bytes of a file alone (see set_lock), unless somebody else has a lock there. Returns whether it is
    locked now."""
    try:
        set_lock(file, fcntl.F_WRLCK, length=length, start=start)
    except (BlockingIOError, PermissionError):  # which of the two is the system's choice
        return False
    return True
