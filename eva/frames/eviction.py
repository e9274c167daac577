"""Eviction: when the frame store outgrows its cap, the least recently used frames that no running sample needs go.

The time stamp of a frame says when it was last used. A run renews those of the frames of its running samples, so that
other runs on the same store leave them. It ends with its process, however that ends.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from eva.files import LEFT_S, PARTIAL_SUFFIX
from eva.frames import STORE
from eva.video.picture import FORMATS

log = logging.getLogger(__name__)

# A frame that was just used may be on its way to a sample that does not hold it yet.
SETTLED_S = 60.0
# On a full disk where nothing else helps, a frame may go before its call can hold it: then that sample fails.
FULL_SETTLED_S = 5.0
# How often frames of running samples are renewed: well within both.
RENEW_S = 2.0
# Evicting goes a step below the cap, or every call after it would list the whole store again.
STEP = 0.05
# The part of the store that goes when the disk is full, whatever the cap: enough for many calls.
FULL_SHARE = 0.25
MAX_DEFAULT_BYTES = 200 * 10**9


class StoredFile(NamedTuple):
    """A frame in the store, whole or half written. `used_at` is the time stamp of its last use."""

    path: Path
    size: int
    used_at: float


@dataclass
class Evictor:
    """What this process holds of the store below `root`, and the cap on the store's size (None: see `start`).

    The cap holds for all runs on the store together. The store may be above it by a step for each run, by what the
    calls under way write, and by what must stay: frames of running samples, and those used in the last `settled_s`
    seconds."""

    root: Path
    cap_bytes: int | None
    settled_s: float = SETTLED_S
    _held: dict[int, set[Path]] = field(default_factory=dict)  # by sample
    _unlisted_bytes: float = -1  # what this run may write before it lists the store again
    _made_room_at: float = -math.inf
    _evicting: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Evict what is above the cap, before anything is written. Without a cap, choose one by the room on the disk.
        May take seconds. Raises OSError where this user may not write there."""
        store = self.root / STORE
        store.mkdir(parents=True, exist_ok=True)
        if not os.access(store, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(f"{store} belongs to another user: choose another folder, or share it in a group")
        if self.cap_bytes is None:
            # Frames of earlier runs count as room, or each run would get a smaller cap.
            room = shutil.disk_usage(self.root).free + sum(file.size for file in stored_files(self.root))
            self.cap_bytes = min(MAX_DEFAULT_BYTES, room // 2)
            size = f"{self.cap_bytes / 1e9:.1f} GB, at most half of the room on its disk"
            log.info("the frame store %s may grow to %s; --frame-cache-gb sets another size", store, size)
        self.count_written(0)
        threading.Thread(target=self._renew, daemon=True).start()

    def hold(self, sample: int, frames: Iterable[Path]) -> bool:
        """Keep `frames` until `release(sample)`; False where some were evicted before."""
        held = self._held.get(sample, set()) | set(frames)
        self._held[sample] = held  # another thread never sees a set that grows
        try:
            for frame in held:
                os.utime(frame)
        except FileNotFoundError:
            return False
        return True

    def release(self, sample: int) -> None:
        """The sample is over; its frames may go."""
        self._held.pop(sample, None)

    def close(self) -> None:
        """Release the frames of all samples."""
        self._closed.set()
        self._held.clear()

    def count_written(self, written_bytes: int) -> None:
        """Count what a call wrote, and evict if the store is above its cap now. May take seconds; for any thread.
        Raises OSError."""
        with self._evicting:
            self._unlisted_bytes -= written_bytes
            if self._unlisted_bytes < 0:
                self._evict(keep=1, settled_s=self.settled_s)

    def make_room(self, failed_at: float) -> None:
        """Evict a good part of the store, though it may be below its cap: the disk is full. Does nothing where that was
        done after `failed_at`, a moment of time.monotonic()."""
        with self._evicting:
            if self._made_room_at < failed_at:
                if not self._evict(keep=1 - FULL_SHARE, settled_s=self.settled_s):
                    self._evict(keep=1 - FULL_SHARE, settled_s=min(FULL_SETTLED_S, self.settled_s))
                self._made_room_at = time.monotonic()

    def _evict(self, *, keep: float, settled_s: float) -> bool:
        """Delete files, those used least recently first, until the share `keep` and the cap allow the rest. Returns
        whether one went."""
        # Of a time in the future, the distance counts: clocks of two machines differ a little.
        now, cap = time.time(), self.cap_bytes or MAX_DEFAULT_BYTES
        files = [(abs(now - file.used_at), file) for file in stored_files(self.root)]
        used = total = sum(file.size for _, file in files)
        limit = min(used * keep, used if used <= cap else cap * (1 - STEP))
        held = set[Path]().union(*list(self._held.values()))
        for age_s, file in sorted(files, reverse=True):
            if file.path.suffix == PARTIAL_SUFFIX:  # left by a process that died, where it is older than any call
                goes = age_s > LEFT_S
            else:
                goes = used > limit and age_s >= settled_s and file.path not in held
            if goes:
                with suppress(FileNotFoundError):  # another run was faster
                    if file.path.stat().st_mtime != file.used_at:
                        continue  # it was used since it was listed
                    file.path.unlink()
                used -= file.size
        room = cap - used
        self._unlisted_bytes = room if 0 <= room < cap * STEP else cap * STEP
        return used < total

    def _renew(self) -> None:
        while not self._closed.wait(RENEW_S):
            for frame in set[Path]().union(*list(self._held.values())):
                with suppress(OSError):  # its next call will tell
                    os.utime(frame)


def stored_files(root: Path) -> list[StoredFile]:
    """The frames below a frame root, whole and half written; not the indexes, which are small."""
    suffixes = (*(f".{name}" for name in FORMATS), PARTIAL_SUFFIX)
    found = []
    for folder, _, names in os.walk(root / STORE):
        for name in names:
            if name.endswith(suffixes):
                with suppress(FileNotFoundError):
                    stat = Path(folder, name).stat()
                    found.append(StoredFile(Path(folder, name), stat.st_size, stat.st_mtime))
    return found
