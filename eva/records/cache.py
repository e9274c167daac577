"""The cache and the result: JSON Lines on disk, one line per record. No other module writes them.

The cache grows by one line per finished sample, and that line is on disk before the sample counts as done. Only
offsets and outcomes are held in memory, so that ten thousand records need little of it.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import filelock

from eva.errors import EvaError, room_hint
from eva.files import WriteError, replace_text, replacing
from eva.records.outcome import Outcome
from eva.records.schema import Record, read_record, record_json

log = logging.getLogger(__name__)


class CacheError(EvaError):
    """A cache or result file that cannot be used; the message names it."""


class CacheLostError(CacheError):
    """Another program deleted, replaced or changed the cache of this run; the message says where its records are."""


class Cache:
    """An append-only JSONL file of records, held by one run at a time (see `open_cache`).

    The file stays open: what was written can be read also after another program deleted or replaced it. Each method
    raises CacheLostError where one did so.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loss = ""
        self._load()

    def _load(self) -> None:
        self._outcomes: dict[int, Outcome] = {}
        self._spans: dict[int, tuple[int, int]] = {}  # offset and length in bytes
        self._size = 0
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            with open(self._fd, "rb", closefd=False) as file:
                for number, line in enumerate(file, start=1):
                    self._load_line(number, line)
        except OSError as error:
            raise CacheError(f"cannot use the cache {self.path}: {error.strerror}") from error

    def _load_line(self, number: int, line: bytes) -> None:
        """Note one more line. A run that was killed while it wrote leaves half a line at the end: it is cut off."""
        outcome = None
        with suppress(ValueError):
            outcome = read_record(line).outcome
        if not line.endswith(b"\n"):
            if outcome is None:
                os.ftruncate(self._fd, self._size)
                log.warning("%s: the last line was cut short (%d bytes) and is taken off", self.path, len(line))
                return
            line += b"\n"
            os.write(self._fd, b"\n")  # which moves the place of reading behind it
        if outcome is not None:
            self._outcomes[outcome.index], self._spans[outcome.index] = outcome, (self._size, len(line))
        elif line.strip():
            log.warning("%s, line %d is not a record and is skipped", self.path, number)
        self._size += len(line)

    @property
    def outcomes(self) -> Mapping[int, Outcome]:
        """The recorded outcomes by item index; of several lines for one index the last."""
        return self._outcomes

    @property
    def lost(self) -> bool:
        """Whether a CacheLostError was raised."""
        return bool(self._loss)

    def append(self, record: Record) -> None:
        """Put one record on disk, whole. Raises CacheError, as on a full disk, and then the cache is as before."""
        line = encode(record_json(record))
        self._check(line)
        try:
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
        except OSError as error:
            hint = room_hint(error, self.path.parent, "--output-dir")
            raise CacheError(f"cannot write to the cache {self.path}: {error.strerror or error}{hint}") from error
        self._size = offset + written
        self._outcomes[record.index], self._spans[record.index] = record.outcome, (offset, written)

    def drop(self, indices: Collection[int]) -> None:
        """Write the cache anew without the records of these indices, and without what is no record."""
        self._write(self.path, [index for index in self._spans if index not in indices])
        self.close()
        self._load()

    def merge(self, result: Path) -> None:
        """Write the records sorted by index, one line each, to `result`. Raises CacheError, WriteError."""
        self._write(result, sorted(self._spans))

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, path: Path, indices: Collection[int]) -> None:
        self._check()
        with replacing(path, "--output-dir") as new:
            for index in indices:
                line = self._read(index)
                if not line:
                    raise CacheError(f"the cache {self.path} was changed: the record of item {index} is not there")
                new.write(line)

    def _read(self, index: int) -> bytes:
        """The line of a record; empty where it is not there any more."""
        offset, size = self._spans[index]
        try:
            line = os.pread(self._fd, size, offset)
        except OSError:  # a network disk cannot read what another machine deleted
            return b""
        return line if len(line) == size and line.endswith(b"\n") else b""

    def _check(self, line: bytes = b"") -> None:
        """Raise CacheLostError, and save `line` too, where the file is not as this run left it."""
        if not self._loss and not self._is_as_left():
            self._loss = self._save_elsewhere(line)
        if self._loss:
            raise CacheLostError(self._loss)

    def _is_as_left(self) -> bool:
        try:
            now = self.path.stat()
            return os.path.samestat(now, os.fstat(self._fd)) and now.st_size == self._size
        except OSError:
            return False

    def _save_elsewhere(self, line: bytes) -> str:
        """Write the records that can still be read to a file of their own; what happened, and what is where."""
        lines = [kept for kept in (*map(self._read, self._spans), line) if kept]
        names = (self.path.with_name(f"{self.path.name}.rescued{number or ''}") for number in count())
        rescue = next(name for name in names if not name.exists())
        what = f"the cache {self.path} was deleted, replaced or changed by another program"
        try:
            with replacing(rescue) as new:
                new.writelines(lines)
        except WriteError as error:
            return f"{what}; its records could not be saved elsewhere: {error}"
        return (
            f"{what}; {len(lines)} of the {len(self._spans) + bool(line)} records of this run are in {rescue}: see "
            f"what is at {self.path} now, then move {rescue} there; what is missing will be asked again"
        )


@contextmanager
def open_cache(path: Path) -> Iterator[Cache]:
    """The cache at `path`, for this process alone while the context lasts.

    A torn last line is cut off and lines that are not records are passed over.
    Raises CacheError if another run holds the cache, naming its process, or if the file cannot be used.
    """
    # Not in the lock file: over NFS, closing a second handle to that one would give up the lock.
    holder = path.with_name(f".{path.name}.holder")
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        who = "another process"
        with suppress(FileNotFoundError):  # its run has locked the cache this very moment
            who = holder.read_text(encoding="utf-8", errors="replace").strip()
        raise CacheError(f"the cache {path} is in use by {who}: wait for that run, or end it") from None
    except OSError as error:
        raise CacheError(f"cannot lock the cache {path}: {error.strerror}") from error
    try:
        replace_text(holder, f"process {os.getpid()} on {socket.gethostname()}")
        with closing(Cache(path)) as cache:
            yield cache
    finally:
        lock.release()


def encode(record: Mapping[str, Any]) -> bytes:
    """One JSON line, not ASCII-escaped. A lone surrogate cannot be UTF-8 and stays an escape."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")
