"""Several generators at work at the same time, each on a thread of its own, and their items in a given order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

# How many items a lane works ahead: a picture of a 4K video weighs 25 MB.
AHEAD = 4


@dataclass
class _Lane(Generic[Item]):
    """One generator, on its thread; what it raises stands in the queue behind its items."""

    start: Callable[[], Iterator[Item]]
    stop: threading.Event
    items: queue.Queue[Item | BaseException] = field(default_factory=lambda: queue.Queue(AHEAD))

    def work(self) -> None:
        try:
            for item in self.start():
                self.items.put(item)
                if self.stop.is_set():
                    return
            self.items.put(StopIteration())
        except BaseException as error:  # raised where the item would have been taken
            self.items.put(error)

    def empty(self) -> None:
        """Let a thread that waits for room go on, and see that it is to stop."""
        while not self.items.empty():
            self.items.get_nowait()


def in_turns(starts: Sequence[Callable[[], Iterator[Item]]], turns: Iterable[int]) -> Iterator[Item]:
    """For each of `turns` the next item of that generator; each works AHEAD items ahead.

    Raises what a generator raises, once its turn comes; RuntimeError for a turn after its end. When this ends, no
    generator is at work any more.
    """
    stop = threading.Event()
    lanes = [_Lane(start, stop) for start in starts]
    threads = [threading.Thread(target=lane.work, daemon=True) for lane in lanes]
    for thread in threads:
        thread.start()
    try:
        for turn in turns:
            item = lanes[turn].items.get()
            if isinstance(item, StopIteration):
                raise RuntimeError(f"generator {turn} ended before its turn")
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        for lane, thread in zip(lanes, threads, strict=True):
            lane.empty()
            thread.join()
