"""A cache that a run is writing right now -> its records, as far as their lines are whole. Reads only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from eva.records.schema import Record, read_record

# A large cache is read in steps, so that nobody waits for all of it.
STEP_BYTES = 16 << 20
# A longer line is not a record, and is never held whole.
MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True)
class Batch:
    """Records of a cache in their order, and the byte offset behind the last of them."""

    records: tuple[Record, ...]
    offset: int


@dataclass
class CacheFollower:
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

    def follow(self) -> list[Record]:
        """Read on for a step: the new records. Raises OSError for a file that cannot be read."""
        self._reopen()
        records, start = [], self.offset
        for offset, line in self._lines(start):
            if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
                break  # its end has not come yet
            self.offset = offset + len(line)
            if record := _record(line):
                self._offsets[record.index] = offset
                records.append(record)
        self.more = self.offset - start >= STEP_BYTES
        return records

    def restart(self) -> None:
        """Give every record once more, as those of another file."""
        self.generation, self.offset, self._offsets = secrets.randbits(40), 0, {}

    def after(self, offset: int) -> Batch:
        """The records behind a byte offset that an earlier answer gave, at most a step of them."""
        records = []
        for start, line in self._lines(offset):
            if start >= self.offset:
                break
            offset = start + len(line)
            if record := _record(line):
                records.append(record)
        return Batch(tuple(records), offset)

    def record(self, index: int) -> Record | None:
        """The last record of an index."""
        if index not in self._offsets:
            return None
        return next((_record(line) for _, line in self._lines(self._offsets[index])), None)

    def written_at(self) -> float | None:
        """When the file was written to last, as a time stamp; None where there is none."""
        return os.fstat(self._file.fileno()).st_mtime if self._file is not None else None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _lines(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Lines with their offsets, until a step is full."""
        end = offset + STEP_BYTES
        while self._file is not None and offset < end:
            self._file.seek(offset)
            line = self._file.readline(MAX_LINE_BYTES)
            if not line:
                return
            yield offset, line
            offset += len(line)

    def _reopen(self) -> None:
        """Begin anew where the file is gone, is another one, or is shorter than what was read of it."""
        try:
            if self._file is not None:
                now = self.path.stat()
                if os.path.samestat(now, os.fstat(self._file.fileno())) and now.st_size >= self.offset:
                    return
                self.close()
                self.restart()
            self._file = self.path.open("rb")
        except FileNotFoundError:
            if self._file is not None:
                self.close()
                self.restart()


def _record(line: bytes) -> Record | None:
    """None for what is not a record, which a run passes over as well."""
    try:
        return read_record(line)
    except ValueError:
        return None
