"""Following a cache that a run is writing."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_a_line_without_end_is_never_held_whole_and_what_follows_is_shown(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "MAX_LINE_BYTES", 1000)
    append(cache, line(0) + "x" * 990)
    tail = CacheFollower(cache)
    assert indices(tail) == [0]
    append(cache, "x" * 5000)
    assert indices(tail) == []
    append(cache, "\n" + line(1))
    assert indices(tail) == [1]
    assert [record.index for record in tail.after(0).records] == [0, 1]
