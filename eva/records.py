"""The cache and the result: JSON lines on disk, one a record. No other module writes them.

The cache grows by one line a finished sample, and that line is on disk before the next one starts. Only offsets and
outcomes are held in memory, so ten thousand records weigh nothing.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import filelock

from eva.errors import EvaError
from eva.scoring import Outcome, read_outcome


class CacheError(EvaError):
    """A cache or result file that cannot be used; the message names it."""


@dataclass(frozen=True)
class Span:
    """Where a line lies in the cache, in bytes."""

    offset: int
    size: int


class Cache:
    """An append-only JSONL file of records, held by one run at a time (see `open_cache`)."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self._warn = warn
        self._outcomes: dict[int, Outcome] = {}
        self._spans: dict[int, Span] = {}
        self._load()

    @property
    def outcomes(self) -> Mapping[int, Outcome]:
        """The recorded outcomes by item index; of several lines for one index the last."""
        return self._outcomes

    def append(self, record: Mapping[str, Any]) -> None:
        """Put one record on disk, whole: a single write, then fsync. Raises CacheError, for instance on a full disk."""
        line = encode(record)
        try:
            with self.path.open("ab", buffering=0) as file:
                offset = file.tell()
                if file.write(line) != len(line):
                    file.truncate(offset)
                    raise OSError("the disk took only part of the record, is it full?")
                os.fsync(file.fileno())
        except OSError as error:
            raise CacheError(f"cannot write to the cache {self.path}: {error.strerror or error}") from error
        self._note(read_outcome(dict(record)), Span(offset, len(line)))

    def drop(self, indices: Collection[int]) -> None:
        """Take every line of these indices out of the cache."""
        with replacing(self.path) as new:
            for _, line in self._lines():
                outcome = _outcome(line)
                if outcome is None or outcome.index not in indices:
                    new.write(line)
        self._load()

    def clear(self) -> None:
        """Delete the cache."""
        self.path.unlink(missing_ok=True)
        self._load()

    def merge(self, result: Path) -> None:
        """Write the records sorted by index, one line each, to `result`. Raises CacheError."""
        with replacing(result) as new:
            if self._spans:
                with self.path.open("rb") as cache:
                    for _, span in sorted(self._spans.items()):
                        cache.seek(span.offset)
                        new.write(cache.read(span.size))

    def _note(self, outcome: Outcome, span: Span) -> None:
        self._outcomes[outcome.index], self._spans[outcome.index] = outcome, span

    def _load(self) -> None:
        self._outcomes, self._spans = {}, {}
        if not self.path.exists():
            return
        self._mend_tail()
        for number, (offset, line) in enumerate(self._lines(), start=1):
            outcome = _outcome(line)
            if outcome is not None:
                self._note(outcome, Span(offset, len(line)))
            elif line.strip():
                self._warn(f"{self.path}, line {number} is not a record and is skipped")

    def _mend_tail(self) -> None:
        """A run that was killed while it wrote leaves half a line: cut it off. A whole line only lacks its end."""
        last, offset = b"", 0
        for offset, last in self._lines():  # noqa: B007  only the last one is wanted
            pass
        if not last or last.endswith(b"\n"):
            return
        with self.path.open("r+b") as file:
            if _outcome(last) is None:
                file.truncate(offset)
                self._warn(f"{self.path}: the last line was cut short ({len(last)} bytes) and is taken off")
            else:
                file.seek(0, os.SEEK_END)
                file.write(b"\n")

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        offset = 0
        try:
            with self.path.open("rb") as file:
                for line in file:
                    yield offset, line
                    offset += len(line)
        except OSError as error:
            raise CacheError(f"cannot read the cache {self.path}: {error.strerror}") from error


@contextmanager
def open_cache(path: Path, warn: Callable[[str], None]) -> Iterator[Cache]:
    """The cache at `path`, for this process alone while the context lasts.

    A torn last line is cut off and lines that are no records are passed over; `warn` is told of each.
    Raises CacheError if another run holds the cache, naming its process, or if the file cannot be used.
    """
    # Not in the lock file: over NFS, closing a second handle to that one would give up the lock.
    holder = path.with_name(f".{path.name}.holder")
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        who = _read_holder(holder) or "another process"
        raise CacheError(f"the cache {path} is in use by {who}: wait for that run, or end it") from None
    except OSError as error:
        raise CacheError(f"cannot lock the cache {path}: {error.strerror}") from error
    try:
        replace_text(holder, f"process {os.getpid()} on {socket.gethostname()}")
        yield Cache(path, warn)
    finally:
        lock.release()


def _read_holder(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:  # its run has locked the cache this very moment
        return ""


def encode(record: Mapping[str, Any]) -> bytes:
    """One JSON line, not ASCII-escaped. A lone surrogate cannot be UTF-8 and stays an escape."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")


def _outcome(line: bytes) -> Outcome | None:
    try:
        return read_outcome(json.loads(line))
    except (ValueError, RecursionError):
        return None


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` once it is whole and on disk."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
            try:
                yield new
                new.flush()
                os.fsync(new.fileno())
                Path(new.name).chmod(_mode(path))
                Path(new.name).replace(path)
            except BaseException:
                Path(new.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error.strerror}") from error


def replace_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all. Raises CacheError."""
    with replacing(path) as new:
        new.write(text.encode("utf-8", errors="backslashreplace"))


def _mode(path: Path) -> int:
    if path.exists():
        return path.stat().st_mode & 0o777
    return 0o644
