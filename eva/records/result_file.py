"""Result and cache files, the reference's too -> their entries. Reads only; what writes them is records.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva.errors import EvaError
from eva.json_text import parse_json
from eva.records.outcome import COUNTS, Outcome, read_outcome


class ResultError(EvaError):
    """A result file that cannot be used; the message names the file, the line and the field."""


@dataclass(frozen=True)
class Entry:
    """One line of a result: what it counts for, the whole record, and its line number, counted from 1."""

    outcome: Outcome
    record: Mapping[str, Any]
    line: int = 0


def read_entries(path: Path, *, growing: bool = False) -> Iterator[Entry]:
    """Every line's entry, one at a time, so that a large file need not be held; blank lines are no entries.

    A record without an index gets its line number, counted from 0; counts that it lacks are None. With `growing`,
    for a cache that a run is writing right now, a last line that is not whole yet is passed over.
    Raises ResultError.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield _entry(line, number)
                except ValueError as error:
                    if growing and not line.endswith(b"\n"):
                        return
                    raise ResultError(f"{path}, line {number}: {error}") from error
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}") from error


def _entry(line: bytes, number: int) -> Entry:
    record = parse_json(line)
    return Entry(read_outcome(record, default_index=number - 1), record, number)


def read_scored(path: Path) -> Iterator[Entry]:
    """`read_entries` of a file that is to be scored, which needs the two counts on every line. One with an unusable
    value is None in the outcome. Raises ResultError, for a file without entries too."""
    empty = True
    for entry in read_entries(path):
        empty = False
        for name in COUNTS:
            if name not in entry.record:
                raise ResultError(f"{path}, line {entry.line}: {name!r} is missing")
        yield entry
    if empty:
        raise ResultError(f"{path} holds no entries")


def read_outcomes(path: Path) -> list[Outcome]:
    """The outcome of every line of a file that is to be scored (protocol section 6). Raises ResultError."""
    return [entry.outcome for entry in read_scored(path)]
