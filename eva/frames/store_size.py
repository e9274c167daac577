"""The size of the frame store, which all runs on it know: a number in a file, under a lock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eva.errors import DISK_FULL
from eva.frames.store import try_lock

# The longest work under the lock is to list the whole store. A run that is stopped (Ctrl-Z) during that work must not
# stop the others.
LOCK_TIMEOUT_S = 10.0
LOCK_POLL_S = 0.05
# Every number has this length, so that a number that was written in part is recognised.
DIGITS = 20


@dataclass(frozen=True)
class SizeFile:
    """The file, while this process holds its lock."""

    file: int

    def read(self) -> int | None:
        """The size in bytes; None where nobody has measured it."""
        text = os.pread(self.file, DIGITS, 0)
        return int(text) if len(text) == DIGITS and text.isdigit() else None

    def write(self, size: int) -> None:
        """Write the size. Where the disk is too full for a number, the file becomes empty: nobody has measured it."""
        try:
            os.pwrite(self.file, b"%0*d" % (DIGITS, max(0, size)), 0)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            os.ftruncate(self.file, 0)


@contextmanager
def locked_size(path: Path) -> Iterator[SizeFile | None]:
    """The size file at `path`, for this process alone; None where another process holds its lock for longer than
    LOCK_TIMEOUT_S. Only one thread of a process may be in here. Blocks. Raises OSError."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield SizeFile(file) if _wait_for_lock(file) else None
    finally:
        os.close(file)  # this also ends the lock


def _wait_for_lock(file: int) -> bool:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while not try_lock(file):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOCK_POLL_S)
    return True
