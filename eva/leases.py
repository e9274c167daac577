"""What may be thrown away when the frame store outgrows its cap: the frames that no running sample refers to.

A lease is a shared lock on one byte of a file, so that other runs on the same store see it, and that it ends with
its process, however that ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from eva.pictures import FORMATS
from eva.store import PARTIAL_SUFFIX, STORE

# A frame just used may be on its way to a sample that holds no lease yet.
SETTLED_S = 60.0
# Longer than any call may take: what is still half written after it was left by a process that died.
STALE_S = 6 * 3600.0
# Evicting goes a step below the cap, or every call after it would look through the whole store again.
STEP = 0.05


@dataclass(frozen=True)
class Kept:
    """A file of the store."""

    path: Path
    size: int
    used_s: float  # when it was used last, as a time stamp


@dataclass
class Leases:
    """The leases of this process on the store below `root`, and the cap on the store's size."""

    root: Path
    cap_bytes: int
    settled_s: float = SETTLED_S
    _held: dict[int, set[Path]] = field(default_factory=dict)
    _count: Counter[int] = field(default_factory=Counter)
    _file: int | None = None
    _used_bytes: int | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)  # a lock of one's own process does not hold it back
    _evicting: threading.Lock = field(default_factory=threading.Lock)

    def hold(self, sample: int, frames: Iterable[Path]) -> bool:
        """Keep `frames` until `release(sample)`; False where some were evicted before this could be said."""
        with self._guard:
            held = self._held.setdefault(sample, set())
            for frame in set(frames) - held:
                held.add(frame)
                self._take(_place(frame))
        return all(frame.is_file() for frame in frames)

    def release(self, sample: int) -> None:
        """The sample is over; its frames may go."""
        with self._guard:
            for frame in self._held.pop(sample, ()):
                self._give(_place(frame))

    def grew(self, written_bytes: int) -> None:
        """Evict, least recently used first, if the store is above its cap now. May take seconds; for any thread."""
        with self._evicting:
            if self._used_bytes is not None:
                self._used_bytes += written_bytes
            if self._used_bytes is None or self._used_bytes > self.cap_bytes:
                self._used_bytes = self._evicted()

    def _evicted(self) -> int:
        kept = sorted(stored(self.root), key=lambda file: file.used_s)
        used = sum(file.size for file in kept)
        if used <= self.cap_bytes:
            return used
        now = time.time()
        for file in kept:
            if used <= self.cap_bytes * (1 - STEP) or file.used_s > now - self.settled_s:
                break
            if self._delete(file, now):
                used -= file.size
        # Where most is leased, a step more must be written before it is worth another look.
        return min(used, int(self.cap_bytes * (1 - STEP)))

    def _delete(self, file: Kept, now: float) -> bool:
        if file.path.name.endswith(PARTIAL_SUFFIX) and file.used_s > now - STALE_S:
            return False
        place = _place(file.path)
        with self._guard:
            if self._count[place] or not self._alone(place):
                return False
            with suppress(FileNotFoundError):
                file.path.unlink()
            fcntl.lockf(self._opened(), fcntl.LOCK_UN, 1, place)
        return True

    def _alone(self, place: int) -> bool:
        """Whether no other process has a lease there; if so, none can take one until it is unlocked."""
        try:
            fcntl.lockf(self._opened(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _take(self, place: int) -> None:
        if not self._count[place]:
            fcntl.lockf(self._opened(), fcntl.LOCK_SH, 1, place)
        self._count[place] += 1

    def _give(self, place: int) -> None:
        self._count[place] -= 1
        if not self._count[place]:
            del self._count[place]
            fcntl.lockf(self._opened(), fcntl.LOCK_UN, 1, place)

    def _opened(self) -> int:
        if self._file is None:
            folder = self.root / STORE
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / "leases", os.O_RDWR | os.O_CREAT, 0o666)
        return self._file

    def close(self) -> None:
        """Let go of everything."""
        with self._guard:
            if self._file is not None:
                os.close(self._file)
            self._file = None
            self._held.clear()
            self._count.clear()


def stored(root: Path) -> Iterator[Kept]:
    """The frames below a frame root, whole and half written; not the indexes, which are small."""
    suffixes = (*(f".{name}" for name in FORMATS), PARTIAL_SUFFIX)
    for folder, _, names in os.walk(root / STORE):
        for name in names:
            if name.endswith(suffixes):
                with suppress(FileNotFoundError):
                    stat = Path(folder, name).stat()
                    yield Kept(Path(folder, name), stat.st_size, stat.st_mtime)


def _place(frame: Path) -> int:
    """The byte that stands for a frame; that two may share one only keeps both a little longer."""
    return int.from_bytes(hashlib.sha256(os.fsencode(frame)).digest()[:7], "big")
