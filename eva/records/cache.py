"""The cache and the result: JSON Lines on disk, one line per record. No other module writes them.

The cache grows by one line per finished sample, and that line is on disk before the sample counts as done. Only
offsets and outcomes are held in memory, so that ten thousand records need little of it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import filelock

from eva.errors import EvaError, room_hint
from eva.files import WriteError, replace_text, replacing
from eva.records.outcome import Outcome
from eva.records.own_file import OwnFile, Span
from eva.records.schema import Record, read_record, record_json

log = logging.getLogger(__name__)


class CacheError(EvaError):
    """A cache or result file that cannot be used; the message names it."""


class CacheLostError(CacheError):
    """Another program deleted, replaced or changed the cache of this run; the message says what is where."""


class Cache:
    """An append-only JSONL file of records, held by one run at a time (see `open_cache`).

    Each method that uses the file raises CacheLostError where another program deleted, replaced or changed it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loss = ""
        self._unsaved: list[bytes] = []
        self._rescue: Path | None = None
        self._load()

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
            span = self._file.append(line)
        except OSError as error:
            hint = room_hint(error, self.path.parent, "--output-dir")
            raise CacheError(f"cannot write to the cache {self.path}: {error.strerror or error}{hint}") from error
        self._note(record.outcome, span)

    def drop(self, indices: Collection[int]) -> None:
        """Take every line of these indices out of the cache. Raises CacheError."""
        self._check()
        with replacing(self.path, "--output-dir") as new:
            for _, line in self._lines():
                outcome = _outcome(line)
                if outcome is None or outcome.index not in indices:
                    new.write(line)
        self._reload()

    def clear(self) -> None:
        """Delete the cache."""
        self._check()
        self.path.unlink(missing_ok=True)
        self._reload()

    def merge(self, result: Path) -> None:
        """Write the records sorted by index, one line each, to `result`. Raises CacheLostError, WriteError."""
        self._check()
        with replacing(result, "--output-dir") as new:
            for index, span in sorted(self._spans.items()):
                line = self._file.read(span)
                if line is None:
                    self._lose(f"was changed by another program: the record of item {index} is not there any more")
                new.write(line)

    def close(self) -> None:
        self._file.close()

    def _note(self, outcome: Outcome, span: Span) -> None:
        self._outcomes[outcome.index], self._spans[outcome.index] = outcome, span

    def _reload(self) -> None:
        self.close()
        self._load()

    def _load(self) -> None:
        self._outcomes: dict[int, Outcome] = {}
        self._spans: dict[int, Span] = {}
        try:
            self._file = OwnFile(self.path)
            self._mend_last_line()
        except OSError as error:
            raise CacheError(f"cannot open the cache {self.path}: {error.strerror}") from error
        for number, (offset, line) in enumerate(self._lines(), start=1):
            outcome = _outcome(line)
            if outcome is not None:
                self._note(outcome, Span(offset, len(line)))
            elif line.strip():
                log.warning("%s, line %d is not a record and is skipped", self.path, number)

    def _mend_last_line(self) -> None:
        """A run that was killed while it wrote leaves half a line: cut it off. A whole line only lacks its end."""
        last, offset = b"", 0
        for offset, last in self._lines():  # noqa: B007  only the last one is wanted
            pass
        if not last or last.endswith(b"\n"):
            return
        if _outcome(last) is None:
            self._file.truncate(offset)
            log.warning("%s: the last line was cut short (%d bytes) and is taken off", self.path, len(last))
        else:
            self._file.append(b"\n")

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            yield from self._file.lines()
        except OSError as error:
            raise CacheError(f"cannot read the cache {self.path}: {error.strerror}") from error

    def _check(self, line: bytes = b"") -> None:
        """Raise CacheLostError, and rescue `line` too, where the file is not as this run left it."""
        loss = self._loss or self._file.foreign_change()
        if loss:
            self._unsaved += [line] if line else []
            self._lose(loss)

    def _lose(self, loss: str) -> NoReturn:
        self._loss = loss
        held = f"which held {len(self._spans)} records in {self._file.size} bytes"
        raise CacheLostError(f"the cache {self.path}, {held}, {loss}; {self._save_elsewhere()}")

    def _save_elsewhere(self) -> str:
        """Write the records that can still be read to a file of their own; gives what is where."""
        rescue = self._rescue or _free_name(self.path.with_name(f"{self.path.name}.rescued"))
        lines = [line for line in map(self._file.read, self._spans.values()) if line is not None] + self._unsaved
        if not lines:
            return f"none of its records can be read any more: see what is at {self.path} now"
        try:
            with replacing(rescue) as new:
                new.writelines(lines)
        except WriteError as error:
            return f"its records could not be saved elsewhere: {error}"
        self._rescue = rescue
        return (
            f"{len(lines)} of the {len(self._spans) + len(self._unsaved)} records of this run are in {rescue}: see "
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
        who = _read_holder(holder) or "another process"
        raise CacheError(f"the cache {path} is in use by {who}: wait for that run, or end it") from None
    except OSError as error:
        raise CacheError(f"cannot lock the cache {path}: {error.strerror}") from error
    try:
        replace_text(holder, f"process {os.getpid()} on {socket.gethostname()}")
        with closing(Cache(path)) as cache:
            yield cache
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


def _free_name(path: Path) -> Path:
    """`path`, with a number behind it where there is such a file already."""
    names = (path.with_name(f"{path.name}{number or ''}") for number in count())
    return next(name for name in names if not name.exists())


def _outcome(line: bytes) -> Outcome | None:
    try:
        return read_record(line).outcome
    except ValueError:
        return None
