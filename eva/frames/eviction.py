"""What may be thrown away when the frame store outgrows its cap: the frames that no running sample refers to.

A lease is a shared lock on one byte of a file, so that other runs on the same store see it, and that it ends with
its process, however that ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import pwd
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from eva.errors import EvaError
from eva.frames.store import PARTIAL_SUFFIX, STORE
from eva.frames.store_size import SizeFile, locked_size
from eva.video.picture_files import FORMATS

LEASES, SIZE = "leases", "size"

# A frame just used may be on its way to a sample that holds no lease yet.
SETTLED_S = 60.0
# Longer than any call may take: what is still half written after it was left by a process that died.
STALE_S = 6 * 3600.0
# Evicting goes a step below the cap, or every call after it would look through the whole store again.
STEP = 0.05
# What goes when the disk is full, whatever the cap: enough for many calls.
FULL_SHARE = 0.25
# A call whose frames go before it can hold them is made again, which is better than the end of the run.
FULL_SETTLED_S = 5.0
MAX_DEFAULT_BYTES = 200 * 10**9


class StoreNotSharedError(EvaError):
    """A frame store of another user, in which this one may not write."""


@dataclass(frozen=True)
class Kept:
    """A file of the store."""

    path: Path
    size: int
    used_s: float  # when it was used last, as a time stamp


@dataclass
class Leases:
    """The leases of this process on the store below `root`, and the cap on the store's size (None: see `start`).

    The cap holds for all runs on the store together. It is passed by what the calls under way write, one for each
    frame worker, and by what must stay: frames that running samples refer to, or that were used in the last minute."""

    root: Path
    cap_bytes: int | None
    settled_s: float = SETTLED_S
    _held: dict[int, set[Path]] = field(default_factory=dict)
    _count: Counter[int] = field(default_factory=Counter)
    _file: int | None = None
    _uncounted_bytes: int = 0
    _look_above_bytes: float = 0
    _made_room_at: float = -math.inf
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

    def start(self, report: Callable[[str], None]) -> None:
        """Evict what is above the cap, before anything is written; without a cap, take one from the room that there is,
        and report it. May take seconds. Raises StoreNotSharedError, OSError."""
        check_rights(self.root / STORE)
        with self._guard:
            self._opened()
        with self._evicting, locked_size(self.root / STORE / SIZE) as size:
            kept = self._kept()
            if self.cap_bytes is None:
                self.cap_bytes = default_cap(self.root, sum(file.size for file in kept))
                report(
                    f"the frame store {self.root / STORE} may grow to {self.cap_bytes / 1e9:.1f} GB, at most half of "
                    "the room on its disk; --frame-cache-gb sets another size"
                )
            self._evict(kept, size)

    @property
    def _cap(self) -> int:
        return MAX_DEFAULT_BYTES if self.cap_bytes is None else self.cap_bytes

    def grew(self, written_bytes: int) -> None:
        """Evict, least recently used first, if the store is above its cap now, whoever made it grow. May take seconds;
        for any thread."""
        with self._evicting, locked_size(self.root / STORE / SIZE) as size:
            self._uncounted_bytes += written_bytes
            if size is None:
                return  # counted with the next call's
            known = size.read()
            if known is None or known + self._uncounted_bytes > max(self._cap, self._look_above_bytes):
                self._evict(self._kept(), size)
            else:
                size.write(known + self._uncounted_bytes)
            self._uncounted_bytes = 0

    def make_room(self, failed_at: float) -> None:
        """Evict a good part of the store, though it may be below its cap: the disk is full. Does nothing where that was
        done since `failed_at`, as time.monotonic() gives it."""
        with self._evicting, locked_size(self.root / STORE / SIZE) as size:
            if self._made_room_at < failed_at:
                kept = self._kept()
                limit = sum(file.size for file in kept) * (1 - FULL_SHARE)
                self._evict(kept, size, limit, min(FULL_SETTLED_S, self.settled_s))
                self._made_room_at = time.monotonic()

    def _kept(self) -> list[Kept]:
        return sorted(stored(self.root), key=lambda file: file.used_s)

    def _evict(
        self, kept: Sequence[Kept], size: SizeFile | None, limit: float = math.inf, settled_s: float | None = None
    ) -> None:
        used, now = sum(file.size for file in kept), time.time()
        limit = min(limit, used if used <= self._cap else self._cap * (1 - STEP))
        for file in kept:
            if used <= limit or file.used_s > now - (self.settled_s if settled_s is None else settled_s):
                break
            if self._delete(file, now):
                used -= file.size
        # Where most is leased, a step more must be written before it is worth another look.
        self._look_above_bytes = used + self._cap * STEP if used > self._cap else 0
        if size is not None:
            size.write(used)

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
            self._file = os.open(folder / LEASES, os.O_RDWR | os.O_CREAT, 0o666)
        return self._file

    def close(self) -> None:
        """Let go of everything."""
        with self._guard:
            if self._file is not None:
                os.close(self._file)
            self._file = None
            self._held.clear()
            self._count.clear()


def default_cap(root: Path, stored_bytes: int) -> int:
    """Half of what frames could take there, so that a store that is there already gets no smaller cap each time."""
    return min(MAX_DEFAULT_BYTES, (shutil.disk_usage(root).free + stored_bytes) // 2)


def check_rights(store: Path) -> None:
    """Raises StoreNotSharedError where another user made the store for themselves; OSError."""
    store.mkdir(parents=True, exist_ok=True)
    for path in (store, store / LEASES, store / SIZE):
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
