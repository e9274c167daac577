"""Following a cache that a run is writing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eva import tail as tail_module
from eva.records import open_cache
from eva.tail import Tail


def line(index: int, **more: object) -> str:
    return json.dumps({"index": index, "gt": "B", "answer": "B", "stop_reason": "answer_found", **more}) + "\n"


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def indices(tail: Tail) -> list[int]:
    return [entry.outcome.index for entry in tail.follow()]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache_own.jsonl"


def test_each_step_gives_what_is_new(cache: Path) -> None:
    tail = Tail(cache)
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
    tail = Tail(cache)
    assert indices(tail) == [0]
    assert tail.entry(7) is None
    append(cache, whole[20:])
    assert indices(tail) == [7]


def test_what_is_no_record_is_passed_over(cache: Path) -> None:
    append(cache, "\nnonsense\n[1]\n" + "[" * 100_000 + "\n" + "[" * 500 + "]" * 500 + "\n" + line(3))
    assert indices(Tail(cache)) == [3]


def test_a_part_by_byte_offset_is_what_came_after_it(cache: Path) -> None:
    append(cache, line(0) + line(1))
    tail = Tail(cache)
    tail.follow()
    first = tail.after(0)
    assert [entry.outcome.index for entry in first.entries] == [0, 1]
    append(cache, line(2))
    assert tail.after(first.offset).entries == ()  # not before it is followed
    tail.follow()
    assert [entry.outcome.index for entry in tail.after(first.offset).entries] == [2]


def test_a_large_cache_comes_in_steps(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "STEP_BYTES", 100)
    append(cache, "".join(line(n) for n in range(10)))
    tail = Tail(cache)
    found = indices(tail)
    assert 0 < len(found) < 10 and tail.more
    while tail.more:
        found += indices(tail)
    assert found == list(range(10))


def test_of_two_lines_for_an_index_the_last_is_shown(cache: Path) -> None:
    append(cache, line(5, answer="A") + line(5, answer="B"))
    tail = Tail(cache)
    tail.follow()
    found = tail.entry(5)
    assert found is not None and found.outcome.answer == "B"


def test_retry_error_and_new_cache_are_noticed(cache: Path) -> None:
    append(cache, line(0) + line(1))
    tail = Tail(cache)
    tail.follow()
    before = tail.generation
    with open_cache(cache, print) as writer:
        writer.drop([0])
    assert indices(tail) == [1] and tail.generation != before
    assert tail.entry(0) is None
    before = tail.generation
    with open_cache(cache, print) as writer:
        writer.clear()
        writer.append({"index": 8, "gt": "B", "answer": "B", "padding": "x" * 1000})
    assert indices(tail) == [8] and tail.generation != before
    before = tail.generation
    cache.unlink()
    assert indices(tail) == [] and tail.generation != before


def test_a_cache_cut_short_in_place_is_read_anew(cache: Path) -> None:
    append(cache, line(0) + line(1))
    tail = Tail(cache)
    tail.follow()
    cache.write_text(line(4), encoding="utf-8")
    assert indices(tail) == [4]
