"""A CSV, JSONL or Parquet file -> rows, each a mapping from column to value."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eva.dataset.convert import ConvertError, RowError
from eva.json_text import numbered_lines, parse_json

Row = Mapping[str, Any] | RowError


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a CSV file with a header line; all values are text. A row with more or fewer cells is a RowError.

    The file is UTF-8, or UTF-16 with its mark. Cells are separated by commas, semicolons or tabs, as Excel writes them.
    """
    with path.open(encoding=_csv_encoding(path), newline="") as file:
        reader = csv.DictReader(file, strict=True, delimiter=_find_delimiter(file.readline(), columns))
        file.seek(0)
        header = list(reader.fieldnames or ())
        _require(path, columns, header)
        twice = sorted({name for name in columns if header.count(name) > 1})
        if twice:
            raise ConvertError(f"{path} has more than one column {', '.join(twice)}")
        for row in reader:
            # DictReader puts surplus cells under the key None, and None into missing cells.
            if None in row or None in row.values():
                yield RowError("the row has more or fewer cells than the header", f"line {reader.line_num}")
            else:
                yield row


def _csv_encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8-sig"


def _find_delimiter(header: str, columns: Sequence[str]) -> str:
    """The separator with which the header names most of the columns; of equals the comma."""
    return max(",;\t", key=lambda one: len(set(columns).intersection(*csv.reader([header], delimiter=one))))


def read_jsonl(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """One JSON object per line. Blank lines are skipped; any other line is a RowError."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in numbered_lines(file):
            row = _json_object(line)
            absent = sorted(set(columns) - set(row or ()))
            if row is None:
                yield RowError("not a JSON object", f"line {number}")
            elif absent:
                yield RowError("a column is absent", f"{', '.join(absent)} in line {number}")
            else:
                yield row


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a Parquet file. Raises ConvertError where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: PLC0415 - optional
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConvertError("Parquet files need pyarrow: pip install -r requirements/convert.txt") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _require(path, columns, file.schema_arrow.names)
            for batch in file.iter_batches(columns=list(dict.fromkeys(columns))):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ConvertError(f"{path} is not a readable Parquet file: {error}") from error


def _require(path: Path, columns: Sequence[str], there: Sequence[str]) -> None:
    absent = [name for name in columns if name not in there]
    if absent:
        raise ConvertError(f"{path} has no column {', '.join(absent)}; it has {', '.join(there) or 'none'}")


# What a spreadsheet calls the first row of each format: a CSV file has a header above it.
FIRST_ROW = {"csv": 2, "jsonl": 1, "parquet": 1}
READERS = {"csv": read_csv, "jsonl": read_jsonl, "parquet": read_parquet}
