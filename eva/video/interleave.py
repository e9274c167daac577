"""Several generators run at the same time, each on its own thread; their items come in a given order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

# How many items a generator may be ahead. A picture of a 4K video has 25 MB.
AHEAD = 4


@dataclass
class _Producer(Generic[Item]):
    """One generator on its thread. If it raises an error, the error follows its items in the queue."""

    start: Callable[[], Iterator[Item]]
    stop: threading.Event
    items: queue.Queue[Item | BaseException] = field(default_factory=lambda: queue.Queue(AHEAD))

    def run(self) -> None:
        try:
            for item in self.start():
                self.items.put(item)
                if self.stop.is_set():
                    return
            self.items.put(StopIteration())
        except BaseException as error:  # `in_turns` raises it
            self.items.put(error)

    def empty_queue(self) -> None:
        """Let a thread that waits for room continue, so that it sees `stop`."""
        while not self.items.empty():
            self.items.get_nowait()


def in_turns(starts: Sequence[Callable[[], Iterator[Item]]], turns: Iterable[int]) -> Iterator[Item]:
    """For each number in `turns` the next item of the generator with that number. Each is up to AHEAD items ahead.

    Raises the error of a generator when its turn comes; RuntimeError for a turn after its end. When this ends, no
    generator runs any more.
    """
    stop = threading.Event()
    producers = [_Producer(start, stop) for start in starts]
    threads = [threading.Thread(target=producer.run, daemon=True) for producer in producers]
    for thread in threads:
        thread.start()
    try:
        for turn in turns:
            item = producers[turn].items.get()
            if isinstance(item, StopIteration):
                raise RuntimeError(f"generator {turn} ended before its turn")
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        for producer, thread in zip(producers, threads, strict=True):
            producer.empty_queue()
            thread.join()
