"""Several generators at work at the same time, their items in the order asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from eva.video.interleave import AHEAD, in_turns


def letters(text: str) -> Iterator[str]:
    yield from text


def test_items_come_in_the_order_of_the_turns() -> None:
    starts = [partial(letters, "ace"), partial(letters, "bd")]
    assert "".join(in_turns(starts, [0, 1, 0, 1, 0])) == "abcde"


def test_the_generators_work_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=10)

    def meeting(name: str) -> Iterator[str]:
        together.wait()  # breaks unless the other one is here, too
        yield name

    assert list(in_turns([partial(meeting, "a"), partial(meeting, "b")], [0, 1])) == ["a", "b"]


def test_what_a_generator_raises_is_raised_when_its_turn_comes() -> None:
    def failing() -> Iterator[str]:
        yield "b"
        raise ValueError("spoiled")

    streams: list[Callable[[], Iterator[str]]] = [partial(letters, "ac"), failing]
    items = in_turns(streams, [0, 1, 0, 1])
    assert [next(items) for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="spoiled"):
        next(items)


def test_a_turn_after_the_end_of_its_generator_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="generator 0 ended"):
        list(in_turns([partial(letters, "a")], [0, 0]))


def test_no_generator_works_further_ahead_than_it_may_and_none_is_left_at_work() -> None:
    made: list[int] = []
    closed: list[bool] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                made.append(len(made))
                yield made[-1]
        finally:
            closed.append(True)

    before = threading.active_count()
    items = in_turns([endless], [0] * 100)
    assert [next(items), next(items)] == [0, 1]
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert closed == [True]
    assert len(made) <= 2 + 2 * AHEAD
