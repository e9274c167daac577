"""Which sample runs when, which runs again, and how a run ends early."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from eva.errors import EvaError
from eva.items import Item
from eva.servers import KeepsFailing, Outage, ServerLost

SAMPLE_TRIES = 3
# Before a failing sample stands in line again: other samples may be through by then.
PAUSE_S = 2.0
# So few unfinished samples that all keep failing are taken for bad samples, more for a bad server.
FEW = 5


class Interrupted(EvaError):
    """The user or the batch system asked the run to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


def by_video(items: Sequence[Item]) -> list[Item]:
    """The items of one video next to one another, so that its frames are still at hand; videos and the items of each
    in the order that they came in."""
    first: dict[str, int] = {}
    for item in items:
        first.setdefault(item.videos[0], len(first))
    return sorted(items, key=lambda item: first[item.videos[0]])


@dataclass
class _Trouble:
    """A sample that failed on a server that answers: how often, and how many samples had finished by then."""

    finished_before: int
    tries: int = 0


@dataclass
class Schedule:
    """The samples of a run. `run` gives a sample to the servers, `give_up` records one that keeps failing."""

    run: Callable[[Item], Awaitable[None]]
    give_up: Callable[[Item, KeepsFailing], None]
    outage_timeout_s: float
    _waiting: deque[Item] = field(default_factory=deque)
    _troubles: dict[int, _Trouble] = field(default_factory=dict)
    _running: int = 0
    _stopping: bool = False
    _finished: int = 0
    _last_finish: float = field(default_factory=monotonic)

    async def run_all(self, items: Sequence[Item], *, max_concurrent: int, grace_s: float) -> None:
        """Run every item to its record. Raises Interrupted, Outage, or what keeps records from being written."""
        self._waiting.extend(items)
        workers = [asyncio.create_task(self._work()) for _ in range(min(max_concurrent, len(items)))]
        with self._interruptible(workers, grace_s) as interrupted:
            try:
                await asyncio.gather(*workers)
            except asyncio.CancelledError:
                if not interrupted:
                    raise
            finally:
                await _cancelled(workers)
        if interrupted:
            raise Interrupted(interrupted[0])

    async def _work(self) -> None:
        while self._waiting and not self._stopping:
            item = self._waiting.popleft()
            self._running += 1
            try:
                await self._attempt(item)
            finally:
                self._running -= 1

    async def _attempt(self, item: Item) -> None:
        try:
            await self.run(item)
        except ServerLost:
            self._waiting.appendleft(item)
            return
        except KeepsFailing as failing:
            if not self._is_hopeless(item):
                await self._again_later(item, failing)
                return
            self.give_up(item, failing)
        self._finished += 1
        self._last_finish = monotonic()

    def _is_hopeless(self, item: Item) -> bool:
        trouble = self._troubles.setdefault(item.index, _Trouble(self._finished))
        trouble.tries += 1
        alone = self._finished > trouble.finished_before or self._running + len(self._waiting) <= FEW
        return trouble.tries >= SAMPLE_TRIES and alone

    async def _again_later(self, item: Item, failing: KeepsFailing) -> None:
        if monotonic() - self._last_finish > self.outage_timeout_s:
            raise Outage(f"no sample has finished for {self.outage_timeout_s:g} s; the last one failed with {failing}")
        await asyncio.sleep(PAUSE_S)
        self._waiting.append(item)

    @contextmanager
    def _interruptible(self, workers: Sequence[asyncio.Task[None]], grace_s: float) -> Iterator[list[int]]:
        """The first SIGINT or SIGTERM stops new samples and gives running ones `grace_s`, the second none."""
        received: list[int] = []
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            for worker in workers:
                worker.cancel()

        def on_signal(number: int) -> None:
            received.append(number)
            self._stopping = True
            loop.call_later(grace_s if len(received) == 1 else 0, cancel)

        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, on_signal, number)
        try:
            yield received
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


async def _cancelled(workers: Sequence[asyncio.Task[None]]) -> None:
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
