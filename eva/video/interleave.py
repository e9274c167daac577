"""Several generators run at the same time, each on its own thread; their items come in a given order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

# How many items a generator may be ahead. A picture of a 4K video has 25 MB.
AHEAD = 4


def in_turns(starts: Sequence[Callable[[], Iterator[Item]]], turns: Iterable[int]) -> Iterator[Item]:
    """For each number in `turns` the next item of the generator with that number. Each is up to AHEAD items ahead.

    Raises the error of a generator when its turn comes; RuntimeError for a turn after its end. When this ends, no
    generator runs any more.
    """
    stop = threading.Event()
    queues: list[queue.Queue[Item | BaseException]] = [queue.Queue(AHEAD) for _ in starts]
    threads = [
        threading.Thread(target=_produce, args=(start, items, stop), daemon=True)
        for start, items in zip(starts, queues, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        for turn in turns:
            item = queues[turn].get()
            if isinstance(item, StopIteration):
                raise RuntimeError(f"generator {turn} ended before its turn")
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        for items, thread in zip(queues, threads, strict=True):
            while not items.empty():  # a thread that waits for room continues, and sees `stop`
                items.get_nowait()
            thread.join()


def _produce(
    start: Callable[[], Iterator[Item]], items: queue.Queue[Item | BaseException], stop: threading.Event
) -> None:
    try:
        for item in start():
            items.put(item)
            if stop.is_set():
                return
        items.put(StopIteration())
    except BaseException as error:  # `in_turns` raises it
        items.put(error)
