"""Result and cache files, those of the reference too -> their records. Reads only; cache.py writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eva.errors import EvaError
from eva.json_text import numbered_lines, parse_json
from eva.records.outcome import COUNTS
from eva.records.schema import Record, read_record


class ResultError(EvaError):
    """A result file that cannot be used; the message names the file, the line and the field."""


def read_records(path: Path, *, needed: tuple[str, ...] = ()) -> Iterator[Record]:
    """The record of every line, one at a time; blank lines are passed over.

    A record without an integer index gets its line number, counted from 0. Raises ResultError, also where a line lacks
    one of the `needed` keys.
    """
    try:
        with path.open("rb") as file:
            for number, line in numbered_lines(file):
                try:
                    value = parse_json(line)
                    record = read_record(value, default_index=number - 1)
                except ValueError as error:
                    raise ResultError(f"{path}, line {number}: {error}") from error
                for name in needed:
                    if name not in value:
                        raise ResultError(f"{path}, line {number}: {name!r} is missing")
                yield record
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}") from error


def read_scored(path: Path) -> Iterator[Record]:
    """`read_records` of a file that is to be scored, which needs the two counts on every line. One with an unusable
    value is None in the record. Raises ResultError, for a file without records too."""
    record = None
    for record in read_records(path, needed=COUNTS):
        yield record
    if record is None:
        raise ResultError(f"{path} holds no entries")
