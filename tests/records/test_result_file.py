"""eva/records/result_file.py on real files: whole, old, and broken ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eva.records.cache import encode
from eva.records.result_file import ResultError, read_records, read_scored


def record(index: int = 0, **more: Any) -> dict[str, Any]:
    basic = {"gt": "B", "answer": "B", "stop_reason": "answer_found", "num_rounds": 2, "total_tokens": 100}
    return {"index": index, **basic, **more}


def write(folder: Path, *lines: bytes) -> Path:
    path = folder / "result_x.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def test_every_line_but_a_blank_one_is_a_record(tmp_path: Path) -> None:
    first, second = read_records(write(tmp_path, encode(record()), b"\n", encode(record(7, answer="C", uid="5"))))
    assert (first.index, first.outcome.correct) == (0, True)
    assert (second.index, second.outcome.correct, second.extra) == (7, False, {"uid": "5"})


def test_records_come_one_at_a_time(tmp_path: Path) -> None:
    records = read_records(write(tmp_path, encode(record()), b"{\n"))
    assert next(records).index == 0, "the second line is not read before it is wanted"
    with pytest.raises(ResultError, match="line 2"):
        next(records)


def test_line_ends_of_unicode_inside_a_record_end_no_line(tmp_path: Path) -> None:
    text = "a\u2028b\u0085c\x0bd\ud800"
    (found,) = read_records(write(tmp_path, encode(record(answer=text))))
    assert found.outcome.answer == text


NESTED = b'{"index": 1, "more": ' + b"[" * 500 + b"]" * 500 + b"}"


@pytest.mark.parametrize("line", [b"[]", b"7", b"\xff", b"[" * 100_000, NESTED], ids=lambda line: line[:16])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(ResultError, match=r"result_x\.jsonl, line 2"):
        list(read_records(write(tmp_path, encode(record()), line + b"\n")))


NO_COUNTS = {
    "text": "2", "NaN": float("nan"), "infinite": float("inf"), "beyond the floats": 10**400, "true": True,
    "null": None, "negative": -1, "a negative part": -0.5, "absurd": 2**60, "a list": [],
}  # fmt: skip


@pytest.mark.parametrize("value", NO_COUNTS)
def test_a_count_that_cannot_be_is_not_known(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, encode(record()), encode(record(1, total_tokens=NO_COUNTS[value])))
    assert [found.total_tokens for found in read_records(path)] == [100, None]
    assert [record.outcome.total_tokens for record in read_scored(path)] == [100, None]


def test_a_count_that_is_missing_keeps_a_file_from_being_scored_but_not_from_being_read(tmp_path: Path) -> None:
    del (bare := record(1))["total_tokens"]
    path = write(tmp_path, encode(record()), encode(bare))
    assert [found.total_tokens for found in read_records(path)] == [100, None]
    with pytest.raises(ResultError, match="line 2: 'total_tokens' is missing"):
        list(read_scored(path))


def test_a_file_without_records_can_be_read_but_not_scored(tmp_path: Path) -> None:
    path = write(tmp_path, b"\n \n")
    assert list(read_records(path)) == []
    with pytest.raises(ResultError, match="no entries"):
        list(read_scored(path))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(ResultError, match=path.name):
            list(read_records(path))


@pytest.mark.parametrize("index", [None, "7", 7.0, True, [7], "missing"], ids=repr)
def test_a_record_without_an_integer_index_is_known_by_its_line(tmp_path: Path, index: Any) -> None:
    odd = {**record(), "index": index}
    if index == "missing":
        del odd["index"]
    (found,) = read_records(write(tmp_path, b"\n", encode(odd)))
    assert found.index == 1
