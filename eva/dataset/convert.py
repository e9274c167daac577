"""A table of multiple-choice questions -> annotation lines as load_items reads them, or why a row is left out."""

from __future__ import annotations

import codecs
import csv
import importlib
import io
import json
import math
import re
import string
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from eva.errors import EvaError
from eva.json_text import is_number, numbered_lines, parse_json

AnswerKind = Literal["letter", "index0", "index1", "text"]
ANSWER_KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)
KINDS = ("csv", "jsonl", "json", "xlsx", "parquet")
LETTERS = string.ascii_uppercase
LABEL = re.compile(r"^\(?([A-Z])[.:)]\s*")
ANSWER_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class ConvertError(EvaError):
    """An input that cannot be converted; the message names the file and says what to do."""


class RowError(ValueError):
    """A row that is not a question. Rows are counted by `reason`, one of a few texts. `row` is its number as a
    spreadsheet or an editor shows it."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.row = 0


@dataclass(frozen=True)
class Columns:
    """The columns of the input by meaning. A single options column has a list; several have one option each."""

    video: str
    question: str
    options: tuple[str, ...]
    answer: str
    answer_kind: AnswerKind
    keep: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.video, self.question, *self.options, self.answer, *self.keep)


# A row by its number, or what is wrong with it. Blank rows have a number, and are left out.
Row = tuple[int, Mapping[str, Any] | RowError]


def read_table(path: Path, kind: str, columns: Sequence[str], encoding: str | None = None) -> Iterable[Row]:
    """The rows of a file of one of KINDS. Text is read as its mark says, else as UTF-8, else in `encoding`.

    Raises ConvertError or OSError.
    """
    if kind == "parquet":
        return _parquet_rows(path, columns)
    if kind == "xlsx":
        return _rows_below_header(path, columns, _xlsx_cells(path))
    text = _text_of(path, encoding)
    if kind == "csv":
        return _rows_below_header(path, columns, _csv_cells(path, text, columns))
    if kind == "jsonl":
        return _objects(((number, _parsed(line)) for number, line in numbered_lines(io.StringIO(text))), columns)
    rows = _parsed(text)
    if not isinstance(rows, list):
        raise ConvertError(f"{path} does not hold a JSON list of objects")
    return _objects(enumerate(rows, start=1), columns)


def _text_of(path: Path, encoding: str | None) -> str:
    content = path.read_bytes()
    marked = [name for mark, name in MARKS.items() if content.startswith(mark)]
    for name in marked or ["utf-8", *([encoding] if encoding else [])]:
        try:
            return content.decode(name)
        except UnicodeDecodeError:
            continue
    raise ConvertError(f"{path} is not text in UTF-8: say with --encoding what it is in, such as cp1252 or gb18030")


def _csv_cells(path: Path, text: str, columns: Sequence[str]) -> Iterator[list[str]]:
    """Cells are separated by commas, semicolons or tabs: by what separates most names of columns in the first line."""
    header = text.partition("\n")[0].rstrip("\r")
    try:
        delimiter = max(",;\t", key=lambda one: len({*columns}.intersection(*csv.reader([header], delimiter=one))))
        yield from csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    except csv.Error as error:
        raise ConvertError(f"{path} is not readable as csv: {error}") from error


def _xlsx_cells(path: Path) -> Iterator[list[Any]]:
    """Of the first sheet. A formula is the value that it had."""
    openpyxl = _optional("openpyxl", "xlsx")
    try:
        with path.open("rb") as file:
            sheet = openpyxl.load_workbook(file, data_only=True).worksheets[0]
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ConvertError(f"{path} is not a readable xlsx file: {error}") from error
    for cells in sheet.iter_rows(values_only=True):
        shown = [str(cell).upper() if isinstance(cell, bool) else cell for cell in cells]
        yield shown if any(cell is not None for cell in cells) else []


def _rows_below_header(path: Path, columns: Sequence[str], rows: Iterator[list[Any]]) -> Iterator[Row]:
    header = [str(cell) for cell in next(rows, [])]
    _require(path, columns, header)
    twice = sorted({name for name in columns if header.count(name) > 1})
    if twice:
        raise ConvertError(f"{path} has more than one column {', '.join(twice)}")
    for number, cells in enumerate(rows, start=2):
        if len(cells) == len(header):
            yield number, dict(zip(header, cells, strict=True))
        elif cells:
            yield number, RowError("the row has more or fewer cells than the header", f"{len(cells)}")


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterable[Row]:
    pyarrow = _optional("pyarrow", "Parquet")
    parquet = _optional("pyarrow.parquet", "Parquet")
    try:
        _require(path, columns, parquet.read_schema(path).names)
        return enumerate(parquet.read_table(path, columns=list(dict.fromkeys(columns))).to_pylist(), start=1)
    except pyarrow.ArrowException as error:
        raise ConvertError(f"{path} is not a readable Parquet file: {error}") from error


def _optional(module: str, kind: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        raise ConvertError(f"{kind} files need {name}: pip install -r requirements/convert.txt") from error


def _require(path: Path, columns: Sequence[str], there: Sequence[str]) -> None:
    absent = [name for name in columns if name not in there]
    if absent:
        raise ConvertError(f"{path} has no column {', '.join(absent)}; it has {', '.join(there) or 'none'}")


def _parsed(text: str) -> Any:
    """The value of a JSON text, None where it is none."""
    try:
        return parse_json(text)
    except ValueError:
        return None


def _objects(rows: Iterable[tuple[int, object]], columns: Sequence[str]) -> Iterator[Row]:
    for number, row in rows:
        absent = sorted(set(columns).difference(row)) if isinstance(row, dict) else []
        if isinstance(row, dict) and not absent:
            yield number, row
        else:
            yield number, RowError("a column is absent", ", ".join(absent)) if absent else RowError("not a JSON object")


def convert_rows(rows: Iterable[Row], columns: Columns) -> Iterator[str | RowError]:
    """Per row one line of the annotation file without its newline, or a RowError where the row is not a question.

    The `index` of a line counts the rows of the input that are not blank, from 0. When a dropped row is corrected and
    the file is converted again, all other questions keep the index of their cached answers.
    """
    for index, (number, row) in enumerate(rows):
        try:
            if isinstance(row, RowError):
                raise row
            yield _line(row, columns, index)
        except RowError as error:
            error.row = number
            yield error


def _line(row: Mapping[str, Any], columns: Columns, index: int) -> str:
    options = _options(row, columns.options)
    answer = _answer(row.get(columns.answer), options, columns.answer_kind)
    choices = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    video, question = _text(row.get(columns.video)), _text(row.get(columns.question))
    if not question:
        raise RowError("no question")
    if not video:
        raise RowError("no video")
    if "\0" in video or ".." in PurePosixPath(video).parts:
        raise RowError("the video's path leaves the folder of the videos", repr(video))
    item = {
        "videos": [video],
        "prompt": [{"role": "user", "content": question + choices}],
        "reward_model": {"style": "rule", "ground_truth": LETTERS[answer]},
        "index": index,
        **{name: _kept(row.get(name)) for name in columns.keep},
    }
    try:
        line = json.dumps(item, ensure_ascii=False, allow_nan=False)
        line.encode("utf-8")
    except (TypeError, ValueError) as error:  # bytes in a kept column, half a surrogate pair in a text
        raise RowError("a value that JSON or UTF-8 cannot hold", str(error)) from error
    return line


def _options(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The options' texts, without labels of their own (`A. Apples`, as in the files of Video-MME, becomes `Apples`)."""
    cells = [row.get(name) for name in names] if len(names) > 1 else _list(row.get(names[0]))
    options = [_text(cell) for cell in cells]
    while options and not options[-1]:  # the row has fewer options than the table has columns
        options.pop()
    if len(options) < 2:
        raise RowError("fewer than 2 options")
    if len(options) > len(LETTERS):
        raise RowError(f"more than {len(LETTERS)} options")
    if not all(options):
        # Without it the letters of the options after it would move, and the answer with them.
        raise RowError("an empty option before the last one")
    # Labels are the letters of all places. In a single `C. elegans`, `C.` is not a label.
    labels = [LABEL.match(option) for option in options]
    texts = [LABEL.sub("", option, count=1) for option in options]
    labelled = [label and label[1] for label in labels] == list(LETTERS[: len(options)])
    return texts if labelled and all(texts) else options


def _list(cell: object) -> list[Any]:
    value = _parsed(cell) if isinstance(cell, str) else cell
    if isinstance(value, dict) and sorted(value) == list(LETTERS[: len(value)]):
        value = [value[letter] for letter in sorted(value)]
    if not isinstance(value, list):
        raise RowError("the options are neither a JSON list nor an object with the keys A, B, …")
    return value


def _answer(value: object, options: Sequence[str], kind: AnswerKind) -> int:
    """The place of the right option, counted from 0."""
    text, place = _text(value), None
    if not text:
        raise RowError("no answer")
    if kind == "text":
        place = next((options.index(one) for one in (text, LABEL.sub("", text, count=1)) if one in options), None)
    elif kind == "letter":
        letter = ANSWER_LETTER.fullmatch(text)
        place = LETTERS.index(letter[1].upper()) if letter else None
    elif number := re.fullmatch(r"([0-9]{1,3})(\.0)?", text):
        # A table program writes `2.0` where a column of integers has an empty cell.
        place = int(number[1]) - (kind == "index1")
    if place is None or not 0 <= place < len(options):
        raise RowError("the answer is not among the options", f"{text!r} as {kind} of {len(options)}")
    if options.count(options[place]) > 1:
        raise RowError("the right option is there twice", repr(options[place]))
    return place


def _text(value: object) -> str:
    """A cell as text; empty for an absent cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str) and not is_number(value):
        raise RowError("a cell is neither text nor a number", type(value).__name__)
    return str(value).strip()


def _kept(value: Any) -> object:
    """A value for reports. Tables use NaN and infinity for "no value"; JSON has neither, and no dates."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
