"""A cache that a run is writing right now -> its records, as far as their lines are whole. Reads only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from eva.json_text import parse_json
from eva.results import Entry
from eva.scoring import read_outcome

# Of a large cache a step at a time, so that nobody waits for all of it.
STEP_BYTES = 16 << 20


@dataclass(frozen=True)
class Lines:
    """Entries of a cache in their order, and the byte offset behind the last of them."""

    entries: tuple[Entry, ...]
    offset: int


@dataclass
class Tail:
    """Follows one cache file; `offset` is how far, in bytes, and `more` whether the last step did not come to the end.

    `generation` is another number as soon as the file is another one, as after `--new-cache` and `--retry-error`: no
    offset in the old one then means anything.
    """

    path: Path
    generation: int = field(default_factory=lambda: secrets.randbits(40))
    offset: int = 0
    more: bool = False
    _offsets: dict[int, int] = field(default_factory=dict)
    # Held open, so that a file that takes this one's place cannot have its number.
    _file: BinaryIO | None = None

    def follow(self) -> list[Entry]:
        """Read on for a step: the new entries. Raises OSError for a file that cannot be read."""
        self._reopen()
        start, entries = self.offset, []
        for offset, line in self._lines(start):
            self.offset = offset + len(line)
            entry = _entry(line)
            if entry is not None:
                self._offsets[entry.outcome.index] = offset
                entries.append(entry)
        self.more = self.offset - start >= STEP_BYTES
        return entries

    def after(self, offset: int) -> Lines:
        """The entries behind a byte offset that an earlier answer gave, at most a step of them."""
        entries = []
        for start, line in self._lines(offset):
            if start >= self.offset:
                break
            offset = start + len(line)
            entry = _entry(line)
            if entry is not None:
                entries.append(entry)
        return Lines(tuple(entries), offset)

    def entry(self, index: int) -> Entry | None:
        """The last record of an index."""
        if index not in self._offsets:
            return None
        return next((_entry(line) for _, line in self._lines(self._offsets[index])), None)

    def written_s(self) -> float | None:
        """When the file was written to last, as a time stamp; None where there is none."""
        return os.fstat(self._file.fileno()).st_mtime if self._file is not None else None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _lines(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Whole lines with their offsets, until a step is full: a last line without an end is still being written."""
        if self._file is None:
            return
        self._file.seek(offset)
        end = offset + STEP_BYTES
        while offset < end:
            line = self._file.readline()
            if not line.endswith(b"\n"):
                return
            yield offset, line
            offset += len(line)

    def _reopen(self) -> None:
        """Begin anew where the file is gone, is another one, or is shorter than what was read of it."""
        if self._file is not None and not self._same(self._file):
            self.close()
            self.generation, self.offset, self._offsets = secrets.randbits(40), 0, {}
        if self._file is None:
            try:
                self._file = self.path.open("rb")
            except FileNotFoundError:
                return

    def _same(self, file: BinaryIO) -> bool:
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(now, os.fstat(file.fileno())) and now.st_size >= self.offset


def _entry(line: bytes) -> Entry | None:
    """None for what is no record, which a run passes over as well."""
    try:
        record = parse_json(line)
        return Entry(read_outcome(record), record)
    except ValueError:
        return None
