"""A cache that a run is writing right now -> its records, as far as their lines are whole. Reads only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from eva.json_text import parse_json
from eva.records.outcome import read_outcome
from eva.records.result_file import Entry

# Of a large cache a step at a time, so that nobody waits for all of it.
STEP_BYTES = 16 << 20
# A longer line is no record: it is passed over, and never held.
MAX_LINE_BYTES = 64 << 20
# Of a line whose end is looked for.
_PART_BYTES = 1 << 20


@dataclass(frozen=True)
class Lines:
    """Entries of a cache in their order, and the byte offset behind the last of them."""

    entries: tuple[Entry, ...]
    offset: int


@dataclass
class Tail:
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

    def follow(self) -> list[Entry]:
        """Read on for a step: the new entries. Raises OSError for a file that cannot be read."""
        self._reopen()
        entries: list[Entry] = []
        read = 0
        while self._file is not None and read < STEP_BYTES:
            self._file.seek(self._searched)
            part = self._file.readline(_PART_BYTES)
            if not part:
                break
            read += len(part)
            entries += self._found(self._file, part)
        self.more = read >= STEP_BYTES
        return entries

    @property
    def skipped(self) -> int:
        return len(self._gaps)

    def restart(self) -> None:
        """Give every entry once more, as those of another file."""
        self.generation, self.offset, self._searched = secrets.randbits(40), 0, 0
        self._offsets, self._gaps, self._open_gap = {}, {}, None

    def after(self, offset: int) -> Lines:
        """The entries behind a byte offset that an earlier answer gave, at most a step of them."""
        entries = []
        for start, line in self._lines(offset):
            offset = start + len(line)
            entry = _entry(line)
            if entry is not None:
                entries.append(entry)
        return Lines(tuple(entries), self._past_gaps(offset))

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

    def _found(self, file: BinaryIO, part: bytes) -> list[Entry]:
        """The entry that ends with `part`, the next bytes of the line at `offset`; none as long as it has no end."""
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
        entry = _entry(part)
        if entry is None:
            return []
        self._offsets[entry.outcome.index] = start
        return [entry]

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


def _entry(line: bytes) -> Entry | None:
    """None for what is no record, which a run passes over as well."""
    try:
        record = parse_json(line)
        return Entry(read_outcome(record), record)
    except ValueError:
        return None
