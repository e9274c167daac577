"""A file of lines that one process appends to; it notices when another program changes the file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_APPEND


@dataclass(frozen=True)
class Span:
    """Where a line lies in a file, in bytes."""

    offset: int
    size: int


class OwnFile:
    """The file at `path`, made by the first `append` where there is none. All methods raise OSError.

    It stays open: what was written can be read also after another program deleted or replaced the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._fd: int | None = None
        with suppress(FileNotFoundError):
            self._fd = os.open(path, _FLAGS)
            self.size = os.fstat(self._fd).st_size

    def append(self, line: bytes) -> Span:
        """Put a line on disk, whole: one write, then fsync. Where that fails the file is as before."""
        if self._fd is None:
            self._fd = os.open(self.path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        written = os.write(self._fd, line)
        offset = os.lseek(self._fd, 0, os.SEEK_CUR) - written
        try:
            if written != len(line):
                raise OSError(errno.ENOSPC, "the disk took only part of the record")
            os.fsync(self._fd)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, offset)
            raise
        self.size = offset + written
        return Span(offset, written)

    def truncate(self, size: int) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, size)
            self.size = size

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """All lines with their offsets."""
        if self._fd is None:
            return
        offset = 0
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            for line in file:
                yield offset, line
                offset += len(line)

    def read(self, span: Span) -> bytes | None:
        """The line at a span; None where it is not there any more."""
        if self._fd is None:
            return None
        try:
            line = os.pread(self._fd, span.size, span.offset)
        except OSError:  # a network disk cannot read what another machine deleted
            return None
        return line if len(line) == span.size and line.endswith(b"\n") else None

    def foreign_change(self) -> str:
        """What another program did to the file, as the end of a sentence about it; the empty text if nothing."""
        try:
            now = self.path.stat()
            same = self._fd is not None and os.path.samestat(now, os.fstat(self._fd))
        except FileNotFoundError:
            return "" if self._fd is None else "was deleted or moved by another program"
        except OSError as error:
            return f"cannot be looked at: {error.strerror}"
        if not same:
            return f"was replaced: another program put a file of {now.st_size} bytes there"
        return "" if now.st_size == self.size else f"was changed by another program and has {now.st_size} bytes now"

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
