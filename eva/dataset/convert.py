"""Rows of a multiple-choice table -> annotation lines as load_items reads them, or reasons why a row is left out."""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from eva.errors import EvaError
from eva.json_text import is_number, parse_json

AnswerKind = Literal["letter", "index0", "index1", "text"]
ANSWER_KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)
LETTERS = string.ascii_uppercase
LABEL = re.compile(r"^\(?([A-Z])[.:)]\s*")
ANSWER_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")


class ConvertError(EvaError):
    """An input that cannot be converted; the message names the file and says what to do."""


class RowError(ValueError):
    """A row that is not a question. Rows are counted by `reason`, one of a few texts; `detail` is about this row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class Columns:
    """The columns of the input by meaning. A single options column has a list; several have one option each."""

    video: str
    question: str
    options: tuple[str, ...]
    answer: str
    answer_kind: AnswerKind
    keep: tuple[str, ...] = ()

    def all(self) -> tuple[str, ...]:
        """All columns that are read."""
        return (self.video, self.question, *self.options, self.answer, *self.keep)


@dataclass(frozen=True)
class Dropped:
    """A row that is left out. `row` is its number as a spreadsheet shows it."""

    row: int
    error: RowError


def convert_rows(
    rows: Iterable[Mapping[str, Any] | RowError], columns: Columns, *, first_row: int
) -> Iterator[str | Dropped]:
    """Per row one line of the annotation file without its newline, or a Dropped where the row is not a question.

    A row that cannot be read is given as its RowError. A person knows the first row as number `first_row`. The `index`
    of a line counts the rows of the input from 0.
    When a dropped row is corrected and the file is converted again, all other questions keep the index of their cached
    answers.
    """
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for number, row in enumerate(rows):
        try:
            if isinstance(row, RowError):
                raise row
            item = _item(row, columns, index=number)
            line = _line(item)
            _refuse_repetition(item, seen, row=number + first_row)
            yield line
        except RowError as error:
            yield Dropped(number + first_row, error)


def _refuse_repetition(item: Mapping[str, Any], seen: dict[tuple[str, str], tuple[int, str]], *, row: int) -> None:
    truth = item["reward_model"]["ground_truth"]
    question = (item["videos"][0], item["prompt"][0]["content"])
    first_row, first_truth = seen.setdefault(question, (row, truth))
    if truth != first_truth:
        raise RowError("the same question again, with another answer", f"row {first_row} says {first_truth}")
    if first_row != row:
        raise RowError("the same question again", f"as in row {first_row}")


def _item(row: Mapping[str, Any], columns: Columns, *, index: int) -> dict[str, Any]:
    options = _options(row, columns.options)
    answer = _answer(row.get(columns.answer), options, columns.answer_kind)
    choices = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    question = _text(row.get(columns.question))
    if not question:
        raise RowError("no question")
    return {
        "videos": [_video(row.get(columns.video))],
        "prompt": [{"role": "user", "content": question + choices}],
        "reward_model": {"style": "rule", "ground_truth": LETTERS[answer]},
        "index": index,
        **{name: _finite(row.get(name)) for name in columns.keep},
    }


def _video(value: object) -> str:
    video = _text(value)
    if not video:
        raise RowError("no video")
    if "\0" in video or ".." in PurePosixPath(video).parts:
        raise RowError("the video's path leaves the folder of the videos", repr(video))
    return video


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
    return _without_labels(options)


def _list(cell: object) -> list[Any]:
    try:
        value = parse_json(cell) if isinstance(cell, str) else cell
    except ValueError as error:
        raise RowError("the options are not a JSON list", str(error)) from error
    if not isinstance(value, list):
        raise RowError("the options are not a list", type(value).__name__)
    return value


def _without_labels(options: list[str]) -> list[str]:
    """Without labels if every option has the letter of its place. In a single `C. elegans`, `C.` is not a label."""
    labels = [LABEL.match(option) for option in options]
    if [label and label[1] for label in labels] != list(LETTERS[: len(options)]):
        return options
    texts = [LABEL.sub("", option, count=1) for option in options]
    return texts if all(texts) else options


def _answer(value: object, options: Sequence[str], kind: AnswerKind) -> int:
    """The place of the right option, counted from 0."""
    text = _text(value)
    if not text:
        raise RowError("no answer")
    place = _place_by_text(text, options) if kind == "text" else _place_by_name(text, kind)
    if place is None or not 0 <= place < len(options):
        raise RowError("the answer is not among the options", f"{text!r} as {kind} of {len(options)}")
    if options.count(options[place]) > 1:
        raise RowError("the right option is there twice", repr(options[place]))
    return place


def _place_by_name(text: str, kind: AnswerKind) -> int | None:
    if kind == "letter":
        match = ANSWER_LETTER.fullmatch(text)
        return LETTERS.index(match[1].upper()) if match else None
    # A table program writes `2.0` where a column of integers has an empty cell.
    match = re.fullmatch(r"([0-9]{1,3})(\.0)?", text)
    return int(match[1]) - (kind == "index1") if match else None


def _place_by_text(text: str, options: Sequence[str]) -> int | None:
    label = LABEL.match(text)
    for candidate in (text, text[label.end() :] if label else text):
        if candidate in options:
            return options.index(candidate)
    return None


def _text(value: object) -> str:
    """A cell as text; empty for an absent cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str) and not is_number(value):
        raise RowError("a cell is neither text nor a number", type(value).__name__)
    return str(value).strip()


def _finite(value: object) -> object:
    """Tables use NaN and infinity for "no value"; JSON has neither."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(item: Mapping[str, Any]) -> str:
    try:
        line = json.dumps(item, ensure_ascii=False, allow_nan=False, default=_iso_date)
        line.encode("utf-8")
    except (TypeError, ValueError) as error:  # bytes in a kept column, half a surrogate pair in a text
        raise RowError("a value that JSON or UTF-8 cannot hold", str(error)) from error
    return line


def _iso_date(value: Any) -> str:
    if not hasattr(value, "isoformat"):
        raise TypeError(f"a {type(value).__name__} in a kept column")
    return str(value.isoformat())
