"""Where frames are kept so that no question decodes them again, and the index of each video beside them.

    {frame root}/store/{stem}-{key of the video}/index.bin
    {frame root}/store/{stem}-{key of the video}/{width}x{height}-{decoder}/{index}.{format}

Every file is written whole or not at all. Any number of processes may share a store.

Only a machine that goes down breaks this rule: what was renamed may then be empty or hold zeros. Writing each frame
through to the disk (fsync) would prevent that, but makes every run slower for the sake of a rare event: 1,000 frames of
2.8 MB took 29 s to write, with fsync 38 s. Instead, a frame from before the last boot is made again when it is next
asked for. Its modification time says when it was last used, and thereby checked, so no other mark is needed. An index
has a checksum.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from eva.errors import VideoError
from eva.video.picture_files import whole_size

STORE = "store"
PARTIAL_SUFFIX = ".partial"
# A file name may have 255 bytes; a character takes up to 4, and the key comes on top.
MAX_STEM = 40

Make = Callable[[Sequence[int]], Iterable[tuple[int, bytes]]]


@dataclass(frozen=True)
class VideoFile:
    """A video as it is on disk now; written anew, it is another one."""

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> VideoFile:
        """Raises VideoError where it cannot be looked at."""
        try:
            stat = path.stat()
        except OSError as error:
            raise VideoError(f"the video {path} cannot be looked at: {error.strerror}") from error
        return cls(str(path.absolute()), stat.st_size, stat.st_mtime_ns)

    @property
    def folder_name(self) -> str:
        """Readable in front, and different for every video."""
        text = f"{self.size}|{self.mtime_ns}|".encode() + os.fsencode(self.path)
        key = hashlib.sha256(text).hexdigest()[:20]
        return f"{folder_name(Path(self.path).stem)[:MAX_STEM]}-{key}"


def folder_name(stem: str) -> str:
    """`stem` without what would break out of a folder or of a line: separators, control characters, `..`."""
    name = "".join(char if char.isprintable() and char not in "/\\" else "_" for char in stem)
    return name if name.strip(". ") else "_" * max(1, len(name))


def video_folder(root: Path, video: VideoFile) -> Path:
    """What is kept of one video below a frame root."""
    return root / STORE / video.folder_name


@dataclass(frozen=True)
class Filled:
    """What it took to have all frames of a call: how many were decoded for it, and how many bytes were written."""

    decoded: int = 0
    written_bytes: int = 0


@dataclass(frozen=True)
class Shelf:
    """The frames of one video at one size, from one decoder, in one format."""

    folder: Path
    picture_format: str
    width: int
    height: int

    def path(self, index: int) -> Path:
        """Where the frame with this index is, once it is there."""
        return self.folder / f"{index:07d}.{self.picture_format}"

    def fill(self, indices: Iterable[int], make: Make) -> Filled:
        """Have all frames of `indices`, by `make` those that are missing or broken and that no other process is making.

        A frame that another process makes is waited for, and made here where the other one failed. What `make` raises
        is passed on, and then nothing of that batch is kept.
        """
        missing, filled = self._missing(sorted(set(indices))), Filled()
        if missing:
            self.folder.mkdir(parents=True, exist_ok=True)
        while missing:
            with self._claimed(missing) as claimed:
                made = self._keep(make, self._missing(claimed))
            filled = Filled(filled.decoded + made.decoded, filled.written_bytes + made.written_bytes)
            missing = [index for index in missing if index not in claimed]
        return filled

    def _missing(self, indices: Iterable[int]) -> list[int]:
        return [index for index in indices if not self._used_now(self.path(index))]

    def _used_now(self, path: Path) -> bool:
        """Whether the frame is there and can be believed; if so, it counts as used now."""
        with suppress(FileNotFoundError):
            if path.stat().st_mtime >= booted_at() and whole_size(path) == (self.width, self.height):
                os.utime(path)
                return True
        return False

    @contextmanager
    def _claimed(self, indices: Sequence[int]) -> Iterator[set[int]]:
        """Those of `indices` that no other process has claimed; where it has them all, wait for the first.

        A claim is a lock on one byte of a file, and ends with its process, however that ends.
        """
        with (self.folder / ".claims").open("wb") as file:
            claimed = {index for index in indices if _locked(file.fileno(), index)}
            if not claimed:
                fcntl.lockf(file, fcntl.LOCK_EX, 1, indices[0])
                claimed = {indices[0]}
            yield claimed

    def _keep(self, make: Make, indices: Sequence[int]) -> Filled:
        """Make the frames, and keep them once all are there: on the way their numbers may prove wrong."""
        partials: dict[Path, Path] = {}
        written = 0
        try:
            for index, data in make(indices) if indices else ():
                partial = partial_path(self.path(index))
                partials[partial] = self.path(index)
                partial.write_bytes(data)
                written += len(data)
            for partial, path in partials.items():
                partial.replace(path)
        finally:
            for partial in partials:
                partial.unlink(missing_ok=True)
        return Filled(len(partials), written)


def partial_path(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that others see it whole or not at all."""
    partial = partial_path(path)
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def booted_at() -> float:
    """When this machine was last started, as a time stamp."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _locked(file: int, place: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):  # which of the two is left to the system
        return False
    return True
