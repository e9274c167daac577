"""Following a cache that a run is writing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from eva.records import follow_cache as tail_module
from eva.records.cache import open_cache
from eva.records.follow_cache import CacheFollower
from eva.records.schema import read_record


def line(index: int, **more: object) -> str:
    return json.dumps({"index": index, "gt": "B", "answer": "B", "stop_reason": "answer_found", **more}) + "\n"


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def indices(tail: CacheFollower) -> list[int]:
    return [record.index for record in tail.follow()]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache_own.jsonl"


def test_each_step_gives_what_is_new(cache: Path) -> None:
    tail = CacheFollower(cache)
    assert indices(tail) == []
    append(cache, line(0) + line(1))
    assert indices(tail) == [0, 1]
    assert indices(tail) == []
    append(cache, line(2))
    assert indices(tail) == [2]
    assert tail.offset == cache.stat().st_size


def test_a_torn_line_waits_until_it_is_whole(cache: Path) -> None:
    whole = line(7)
    append(cache, line(0) + whole[:20])
    tail = CacheFollower(cache)
    assert indices(tail) == [0]
    assert tail.record(7) is None
    append(cache, whole[20:])
    assert indices(tail) == [7]


def test_what_is_no_record_is_passed_over(cache: Path) -> None:
    append(cache, "\nnonsense\n[1]\n" + "[" * 100_000 + "\n" + "[" * 500 + "]" * 500 + "\n" + line(3))
    assert indices(CacheFollower(cache)) == [3]


def test_a_part_by_byte_offset_is_what_came_after_it(cache: Path) -> None:
    append(cache, line(0) + line(1))
    tail = CacheFollower(cache)
    tail.follow()
    first = tail.after(0)
    assert [record.index for record in first.records] == [0, 1]
    append(cache, line(2))
    assert tail.after(first.offset).records == ()  # not before it is followed
    tail.follow()
    assert [record.index for record in tail.after(first.offset).records] == [2]


def test_a_large_cache_comes_in_steps(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "STEP_BYTES", 100)
    append(cache, "".join(line(n) for n in range(10)))
    tail = CacheFollower(cache)
    found = indices(tail)
    assert 0 < len(found) < 10 and tail.more
    while tail.more:
        found += indices(tail)
    assert found == list(range(10))


def test_of_two_lines_for_an_index_the_last_is_shown(cache: Path) -> None:
    append(cache, line(5, answer="A") + line(5, answer="B"))
    tail = CacheFollower(cache)
    tail.follow()
    found = tail.record(5)
    assert found is not None and found.outcome.answer == "B"


def test_retry_error_and_new_cache_are_noticed(cache: Path) -> None:
    append(cache, line(0) + line(1))
    tail = CacheFollower(cache)
    tail.follow()
    before = tail.generation
    with open_cache(cache) as writer:
        writer.drop([0])
    assert indices(tail) == [1] and tail.generation != before
    assert tail.record(0) is None
    before = tail.generation
    with open_cache(cache) as writer:
        writer.clear()
        writer.append(read_record({"index": 8, "gt": "B", "answer": "B", "padding": "x" * 1000}))
    assert indices(tail) == [8] and tail.generation != before
    before = tail.generation
    cache.unlink()
    assert indices(tail) == [] and tail.generation != before


def test_a_cache_cut_short_in_place_is_read_anew(cache: Path) -> None:
    append(cache, line(0) + line(1))
    tail = CacheFollower(cache)
    tail.follow()
    cache.write_text(line(4), encoding="utf-8")
    assert indices(tail) == [4]


# --- lines without an end


@dataclass
class Counting:
    """A file that counts the bytes which are read of it."""

    file: BinaryIO
    count: int = 0

    def read(self, size: int) -> bytes:
        return self._counted(self.file.read(size))

    def readline(self, size: int) -> bytes:
        return self._counted(self.file.readline(size))

    def _counted(self, data: bytes) -> bytes:
        self.count += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def counted(tail: CacheFollower) -> Counting:
    assert tail._file is not None
    tail._file = counting = Counting(tail._file)  # type: ignore[assignment]
    return counting


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test reaches with few bytes."""
    monkeypatch.setattr(tail_module, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(tail_module, "STEP_BYTES", 400)
    monkeypatch.setattr(tail_module, "_PART_BYTES", 100)


def caught_up(tail: CacheFollower) -> list[int]:
    found = indices(tail)
    while tail.more:
        found += indices(tail)
    return found


def rows_of_a_page(tail: CacheFollower) -> list[int]:
    """What a page shows that asks for more until there is no more."""
    found, offset = [], 0
    for _ in range(1000):
        lines = tail.after(offset)
        found += [record.index for record in lines.records]
        offset = lines.offset
        if offset >= tail.offset:
            return found
    pytest.fail("the page asks again and again")


@pytest.mark.usefixtures("small")
def test_no_byte_of_a_line_without_end_is_read_twice(cache: Path) -> None:
    append(cache, line(0))
    tail = CacheFollower(cache)
    assert caught_up(tail) == [0]
    counting = counted(tail)
    for _ in range(50):
        append(cache, "x" * 100)
        assert caught_up(tail) == []
        assert caught_up(tail) == []
    assert counting.count == 5000
    assert tail.skipped == 1


@pytest.mark.usefixtures("small")
def test_a_line_that_is_too_long_is_passed_over_once_and_what_follows_is_shown(cache: Path) -> None:
    append(cache, line(0) + "x" * 990)
    tail = CacheFollower(cache)
    assert caught_up(tail) == [0] and tail.skipped == 0
    append(cache, "x" * 2000)
    assert caught_up(tail) == [] and tail.skipped == 1
    assert rows_of_a_page(tail) == [0]
    middle = tail.offset
    append(cache, "x" * 2000)
    assert caught_up(tail) == [] and tail.skipped == 1
    assert tail.after(middle).offset == tail.offset, "a page that came to the middle of it goes on behind it"
    append(cache, "\n" + line(1) + "y" * 5000 + "\n" + line(2))
    assert caught_up(tail) == [1, 2] and tail.skipped == 2
    assert rows_of_a_page(tail) == [0, 1, 2]
    found = tail.record(2)
    assert found is not None and found.outcome.index == 2
    append(cache, line(3))
    assert caught_up(tail) == [3]
    assert rows_of_a_page(tail) == [0, 1, 2, 3]


@pytest.mark.usefixtures("small")
def test_a_long_line_that_comes_in_parts_is_shown_when_it_is_whole(cache: Path) -> None:
    whole = line(7, padding="x" * 900)
    tail = CacheFollower(cache)
    for start in range(0, len(whole), 70):
        assert caught_up(tail) == []
        append(cache, whole[start : start + 70])
    assert caught_up(tail) == [7] and tail.skipped == 0
    assert rows_of_a_page(tail) == [7]


@pytest.mark.usefixtures("small")
def test_another_file_in_the_place_of_one_with_a_line_without_end_is_read_anew(cache: Path) -> None:
    append(cache, line(0) + "x" * 3000)
    tail = CacheFollower(cache)
    assert caught_up(tail) == [0] and tail.skipped == 1
    cache.write_text(line(4), encoding="utf-8")
    assert caught_up(tail) == [4] and tail.skipped == 0
