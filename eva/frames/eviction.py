"""Eviction: when the frame store outgrows its cap, the least recently used frames that no running sample holds go.

A sample holds a frame by a shared lock on one byte of a file, which stands for that frame. So other runs on the same
store see it, and it ends with its process, however that ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import os
import pwd
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from eva.errors import EvaError
from eva.frames.store import PARTIAL_SUFFIX, STORE, set_lock, try_lock
from eva.frames.store_size import SizeFile, locked_size
from eva.video.picture import FORMATS

log = logging.getLogger(__name__)

LOCKS, SIZE = "leases", "size"  # files of the store, which earlier versions use by the same names

# A frame that was just used may be on its way to a sample that does not hold it yet.
SETTLED_S = 60.0
# Longer than any call may take: a file that is still half written after this time was left by a process that died.
STALE_S = 6 * 3600.0
# Evicting goes a step below the cap, or every call after it would list the whole store again.
STEP = 0.05
# The part of the store that goes when the disk is full, whatever the cap: enough for many calls.
FULL_SHARE = 0.25
# When the disk is full, a frame may go before its call can hold it. Then the call is made again, and the run goes on.
FULL_SETTLED_S = 5.0
MAX_DEFAULT_BYTES = 200 * 10**9


class StoreNotSharedError(EvaError):
    """A frame store of another user, in which this user may not write."""


@dataclass(frozen=True)
class StoredFile:
    """A frame in the store, whole or half written."""

    path: Path
    size: int
    used_at: float  # time stamp of its last use


@dataclass
class Evictor:
    """What this process holds of the store below `root`, and the cap on the store's size (None: see `start`).

    The cap holds for all runs on the store together. The store may be above it by what the calls under way write, one
    call per frame worker, and by what must stay: frames that running samples hold, or that were used in the last
    `settled_s` seconds."""

    root: Path
    cap_bytes: int | None
    settled_s: float = SETTLED_S
    _held: dict[int, set[Path]] = field(default_factory=dict)  # by sample
    _holders: Counter[int] = field(default_factory=Counter)  # by byte of the locks' file
    _file: int | None = None
    _uncounted_bytes: int = 0
    _list_above_bytes: float = 0
    _made_room_at: float = -math.inf
    # File locks do not keep threads of one process apart.
    _holding: threading.Lock = field(default_factory=threading.Lock)
    _evicting: threading.Lock = field(default_factory=threading.Lock)

    def hold(self, sample: int, frames: Iterable[Path]) -> bool:
        """Keep `frames` until `release(sample)`; False where some were evicted before."""
        with self._holding:
            held = self._held.setdefault(sample, set())
            for frame in set(frames) - held:
                held.add(frame)
                self._lock(_byte_of(frame))
        return all(frame.is_file() for frame in frames)

    def release(self, sample: int) -> None:
        """The sample is over; its frames may go."""
        with self._holding:
            for frame in self._held.pop(sample, ()):
                self._unlock(_byte_of(frame))

    def start(self) -> None:
        """Evict what is above the cap, before anything is written. Without a cap, choose one by the room on the disk.
        May take seconds. Raises StoreNotSharedError, OSError."""
        check_rights(self.root / STORE)
        with self._holding:
            self._open()
        with self._evicting, locked_size(self.root / STORE / SIZE) as size:
            files = self._list()
            if self.cap_bytes is None:
                self.cap_bytes = default_cap(self.root, sum(file.size for file in files))
                log.info(
                    "the frame store %s may grow to %.1f GB, at most half of the room on its disk; --frame-cache-gb "
                    "sets another size",
                    self.root / STORE, self.cap_bytes / 1e9,
                )  # fmt: skip
            self._evict(files, size)

    @property
    def _cap(self) -> int:
        return MAX_DEFAULT_BYTES if self.cap_bytes is None else self.cap_bytes

    def count_written(self, written_bytes: int) -> None:
        """Count what a call wrote, and evict if the store is above its cap now, whoever wrote the rest. May take
        seconds; for any thread. Raises OSError."""
        with self._evicting, locked_size(self.root / STORE / SIZE) as size:
            self._uncounted_bytes += written_bytes
            if size is None:
                return  # counted with the next call's
            known = size.read()
            if known is None or known + self._uncounted_bytes > max(self._cap, self._list_above_bytes):
                self._evict(self._list(), size)
            else:
                size.write(known + self._uncounted_bytes)
            self._uncounted_bytes = 0

    def make_room(self, failed_at: float) -> None:
        """Evict a good part of the store, though it may be below its cap: the disk is full. Does nothing where that was
        done after `failed_at`, a moment of time.monotonic()."""
        with self._evicting, locked_size(self.root / STORE / SIZE) as size:
            if self._made_room_at < failed_at:
                self._evict(self._list(), size, keep=1 - FULL_SHARE, settled_s=FULL_SETTLED_S)
                self._made_room_at = time.monotonic()

    def _list(self) -> list[StoredFile]:
        return sorted(stored_files(self.root), key=lambda file: file.used_at)

    def _evict(
        self, files: Sequence[StoredFile], size: SizeFile | None, *, keep: float = 1, settled_s: float = math.inf
    ) -> None:
        """Delete files, which come least recently used first, until the share `keep` and the cap allow the rest."""
        used, now = sum(file.size for file in files), time.time()
        limit = min(used * keep, used if used <= self._cap else self._cap * (1 - STEP))
        for file in files:
            if used <= limit or file.used_at > now - min(settled_s, self.settled_s):
                break
            if self._delete(file, now):
                used -= file.size
        # Where samples hold most of it, another look is worth it only after a step more was written.
        self._list_above_bytes = used + self._cap * STEP if used > self._cap else 0
        if size is not None:
            size.write(used)

    def _delete(self, file: StoredFile, now: float) -> bool:
        """Delete a file, unless a sample holds it or a process still writes it. Returns whether it is gone."""
        if file.path.name.endswith(PARTIAL_SUFFIX) and file.used_at > now - STALE_S:
            return False
        byte = _byte_of(file.path)
        with self._holding:
            # While this process has the lock alone, no other process can hold the frame.
            if self._holders[byte] or not try_lock(self._open(), length=1, start=byte):
                return False
            with suppress(FileNotFoundError):
                file.path.unlink()
            set_lock(self._open(), fcntl.F_UNLCK, length=1, start=byte)
        return True

    def _lock(self, byte: int) -> None:
        if not self._holders[byte]:
            set_lock(self._open(), fcntl.F_RDLCK, length=1, start=byte, wait=True)
        self._holders[byte] += 1

    def _unlock(self, byte: int) -> None:
        self._holders[byte] -= 1
        if not self._holders[byte]:
            del self._holders[byte]
            set_lock(self._open(), fcntl.F_UNLCK, length=1, start=byte)

    def _open(self) -> int:
        """The file of the locks."""
        if self._file is None:
            folder = self.root / STORE
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / LOCKS, os.O_RDWR | os.O_CREAT, 0o666)
        return self._file

    def close(self) -> None:
        """Release the frames of all samples."""
        with self._holding:
            if self._file is not None:
                os.close(self._file)
            self._file = None
            self._held.clear()
            self._holders.clear()


def default_cap(root: Path, stored_bytes: int) -> int:
    """Half of what frames could take there. Frames of earlier runs count as room, or each run would get a smaller
    cap."""
    return min(MAX_DEFAULT_BYTES, (shutil.disk_usage(root).free + stored_bytes) // 2)


def check_rights(store: Path) -> None:
    """Raises StoreNotSharedError where the store belongs to another user who does not share it; OSError."""
    store.mkdir(parents=True, exist_ok=True)
    for path in (store, store / LOCKS, store / SIZE):
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise StoreNotSharedError(
                f"the frame store {store} belongs to {_owner(path)}, and you may not write in it: name a folder of "
                "your own with --frame-root, or share it (a common group, chmod g+s, and umask 002 for all its users)"
            )


def _owner(path: Path) -> str:
    owner = path.stat().st_uid
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:  # a user of another machine
        return f"user {owner}"


def stored_files(root: Path) -> Iterator[StoredFile]:
    """The frames below a frame root, whole and half written; not the indexes, which are small."""
    suffixes = (*(f".{name}" for name in FORMATS), ".ppm", PARTIAL_SUFFIX)  # earlier versions wrote ppm, too
    for folder, _, names in os.walk(root / STORE):
        for name in names:
            if name.endswith(suffixes):
                with suppress(FileNotFoundError):
                    stat = Path(folder, name).stat()
                    yield StoredFile(Path(folder, name), stat.st_size, stat.st_mtime)


def _byte_of(frame: Path) -> int:
    """The number of the byte that stands for a frame. Where two frames share one, both only stay a little longer."""
    return int.from_bytes(hashlib.sha256(os.fsencode(frame)).digest()[:7], "big")
