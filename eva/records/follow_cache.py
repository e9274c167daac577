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
# A longer line is not a record: it is passed over, and never held.
MAX_LINE_BYTES = 64 << 20
# Of a line whose end is looked for, as much is read at a time.
_PART_BYTES = 1 << 20


@dataclass(frozen=True)
class Batch:
    """Records of a cache in their order, and the byte offset behind the last of them."""

    records: tuple[Record, ...]
    offset: int


@dataclass
class CacheFollower:
    """Follows one cache file; `offset` is how far, in bytes, and `more` whether the last step did not come to the end.

    `generation` is another number as soon as the file is another one, as after `--new-cache` and `--retry-error`: no
    offset in the old one then means anything. Lines longer than MAX_LINE_BYTES are passed over; `skipped` counts them.
    """

    path: Path
    generation: int = field(default_factory=lambda: secrets.randbits(40))
    offset: int = 0
    more: bool = False
    _offsets: dict[int, int] = field(default_factory=dict)
    # How far an end of the line at `offset` was looked for, so that no byte of it is read again at every step.
    _searched: int = 0
    # Where the lines that are too long begin, and how far each is known to reach.
    _gaps: dict[int, int] = field(default_factory=dict)
    # The one of them whose end has not come yet.
    _open_gap: int | None = None
    # Held open, so that a file that takes this one's place cannot have its number.
    _file: BinaryIO | None = None

    def follow(self) -> list[Record]:
        """Read on for a step: the new records. Raises OSError for a file that cannot be read."""
        self._reopen()
        records: list[Record] = []
        read = 0
        while self._file is not None and read < STEP_BYTES:
            self._file.seek(self._searched)
            part = self._file.readline(_PART_BYTES)
            if not part:
                break
            read += len(part)
            records += self._take(self._file, part)
        self.more = read >= STEP_BYTES
        return records

    @property
    def skipped(self) -> int:
        return len(self._gaps)

    def restart(self) -> None:
        """Give every record once more, as those of another file."""
        self.generation, self.offset, self._searched = secrets.randbits(40), 0, 0
        self._offsets, self._gaps, self._open_gap = {}, {}, None

    def after(self, offset: int) -> Batch:
        """The records behind a byte offset that an earlier answer gave, at most a step of them."""
        records = []
        for start, line in self._lines(offset):
            offset = start + len(line)
            record = _record(line)
            if record is not None:
                records.append(record)
        return Batch(tuple(records), self._past_gaps(offset))

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

    def _take(self, file: BinaryIO, part: bytes) -> list[Record]:
        """The record that ends with `part`, the next bytes of the line at `offset`; none as long as it has no end."""
        self._searched += len(part)
        whole = part.endswith(b"\n")
        if self._open_gap is not None or self._searched - self.offset > MAX_LINE_BYTES:
            self._pass_over(ended=whole)
            return []
        if not whole:
            return []
        start, self.offset = self.offset, self._searched
        if self._searched - start > len(part):
            file.seek(start)
            part = file.read(self._searched - start)
        record = _record(part)
        if record is None:
            return []
        self._offsets[record.index] = start
        return [record]

    def _pass_over(self, *, ended: bool) -> None:
        start = self.offset if self._open_gap is None else self._open_gap
        self._gaps[start] = self.offset = self._searched
        self._open_gap = None if ended else start

    def _lines(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Lines that were followed, with their offsets, until a step is full."""
        if self._file is None:
            return
        read, offset = 0, self._past_gaps(offset)
        while read < STEP_BYTES and offset < self.offset:
            self._file.seek(offset)
            line = self._file.readline(MAX_LINE_BYTES)
            yield offset, line
            read += len(line)
            offset = self._past_gaps(offset + len(line))

    def _past_gaps(self, offset: int) -> int:
        """`offset`, or the end of the line that is passed over around it."""
        for start, end in sorted(self._gaps.items()):
            if start <= offset < end:
                offset = end
        return offset

    def _reopen(self) -> None:
        """Begin anew where the file is gone, is another one, or is shorter than what was read of it."""
        if self._file is not None and not self._same(self._file):
            self.close()
            self.restart()
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
        return os.path.samestat(now, os.fstat(file.fileno())) and now.st_size >= self._searched


def _record(line: bytes) -> Record | None:
    """None for what is not a record, which a run passes over as well."""
    try:
        return read_record(line)
    except ValueError:
        return None
