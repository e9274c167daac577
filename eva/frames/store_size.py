"""How large the frame store is, known to all runs on it: a number in a file, under a lock."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eva.errors import DISK_FULL

# Whoever holds the lock looks through the whole store at most. A run that is stopped (Ctrl-Z) in the middle of that
# must not stop the others.
LOCK_TIMEOUT_S = 10.0
LOCK_POLL_S = 0.05
# Of one length, so that a number that was written in part is told from a whole one.
DIGITS = 20


@dataclass
class SizeFile:
    """The file, while its lock is held."""

    file: int

    def read(self) -> int | None:
        """The size in bytes; None where nobody has measured it."""
        text = os.pread(self.file, DIGITS, 0)
        return int(text) if len(text) == DIGITS and text.isdigit() else None

    def write(self, size: int) -> None:
        """Where the disk is too full for a number, nobody has measured it."""
        try:
            os.pwrite(self.file, b"%0*d" % (DIGITS, max(0, size)), 0)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            os.ftruncate(self.file, 0)


@contextmanager
def locked_size(path: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[SizeFile | None]:
    """The size file at `path`, for this process alone; None where another one does not let go of it. May block so long;
    for one thread of a process at a time. Raises OSError."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield SizeFile(file) if _locked(file, time.monotonic() + timeout_s) else None
    finally:
        os.close(file)  # and with it goes the lock


def _locked(file: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # which of the two is left to the system
            if time.monotonic() > deadline:
                return False
            time.sleep(LOCK_POLL_S)
        else:
            return True
