"""Which sample runs when, which runs again, and how a run ends early."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from time import monotonic

from eva.dataset.items import Item
from eva.endpoint.errors import FailingError, KeepsFailingError, OutageError, ServerLostError
from eva.endpoint.pool import Server
from eva.errors import EvaError

SAMPLE_TRIES = 3
# Before a failing sample stands in line again: other samples may be through by then.
PAUSE_S = 2.0
# Before it is asked again whether one of the samples that wait can be played by now.
POLL_S = 0.5
# Where no sample was answered yet, so few that all keep failing are taken for bad samples, more for a bad server.
FEW = 5
# A sample whose server went down so often may be what brings it down.
LOSSES = 3


class RunInterruptedError(EvaError):
    """The user or the batch system asked the run to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


class NodeLostError(EvaError):
    """The machine that was to play a sample is gone. The sample starts again; no server is to blame."""


def by_video(items: Sequence[Item]) -> list[Item]:
    """The items of one video next to one another, so that its frames are still at hand; videos and the items of each
    in the order that they came in."""
    first: dict[str, int] = {}
    for item in items:
        first.setdefault(item.videos[0], len(first))
    return sorted(items, key=lambda item: first[item.videos[0]])


def first_come(waiting: deque[Item]) -> Item:
    """Take the one that has waited longest."""
    return waiting.popleft()


@dataclass
class _Trouble:
    """A sample that failed on servers that answer others, or whose servers went down: how often, where, since when."""

    tries: int = 0
    losses: int = 0
    servers: set[Server] = field(default_factory=set)
    since: float = field(default_factory=monotonic)

    @property
    def suspect(self) -> bool:
        return self.losses >= LOSSES


@dataclass
class Schedule:
    """The samples of a run.

    `run` gives a sample to a server, where it can to another one than those named; `serves_others` tells whether one of
    them answers other samples, None if no server has yet; `give_up` records a sample that keeps failing; `take` takes
    the next one out of those that wait, None while none of them can be played.
    """

    run: Callable[[Item, Collection[Server]], Awaitable[None]]
    serves_others: Callable[[Collection[Server]], Awaitable[bool | None]]
    give_up: Callable[[Item, FailingError], None]
    outage_timeout_s: float
    take: Callable[[deque[Item]], Item | None] = first_come
    _waiting: deque[Item] = field(default_factory=deque)
    _troubles: defaultdict[int, _Trouble] = field(default_factory=lambda: defaultdict(_Trouble))
    _alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    _running: int = 0
    _stopping: bool = False
    _last_finish: float = field(default_factory=monotonic)

    async def run_all(self, items: Sequence[Item], *, max_concurrent: int, grace_s: float) -> None:
        """Run every item to its record. Raises RunInterruptedError, OutageError, or what keeps records from being
        written."""
        self._waiting.extend(items)
        workers = [asyncio.create_task(self._work()) for _ in range(min(max_concurrent, len(items)))]
        interrupted = self._listen(workers, grace_s)
        try:
            await asyncio.gather(*workers)
        except asyncio.CancelledError:
            if not interrupted:
                raise
        finally:
            await _cancelled(workers)
        if interrupted:
            raise RunInterruptedError(interrupted[0])

    async def _work(self) -> None:
        while self._waiting and not self._stopping:
            item = self.take(self._waiting)
            if item is None:
                await asyncio.sleep(POLL_S)
                continue
            self._running += 1
            try:
                await self._attempt(item)
            finally:
                self._running -= 1

    async def _attempt(self, item: Item) -> None:
        try:
            await self._run(item)
        except NodeLostError:
            self._waiting.appendleft(item)
        except ServerLostError as lost:
            trouble = self._troubles[item.index]
            trouble.losses += 1
            if trouble.suspect:
                await self._failed(item, lost, trouble)
            else:
                self._waiting.appendleft(item)
        except KeepsFailingError as failing:
            await self._failed(item, failing, self._troubles[item.index])
        else:
            self._last_finish = monotonic()

    async def _run(self, item: Item) -> None:
        trouble = self._troubles.get(item.index, _Trouble())
        # What may bring a server down is tried again one at a time, so that it is told from who was with it.
        async with self._alone if trouble.suspect else nullcontext():
            await self.run(item, trouble.servers)

    async def _failed(self, item: Item, failing: FailingError, trouble: _Trouble) -> None:
        trouble.tries += 1
        trouble.servers.add(failing.server)
        if trouble.tries >= SAMPLE_TRIES and await self._alone_fails(trouble):
            self.give_up(item, failing)
        elif monotonic() - max(self._last_finish, trouble.since) > self.outage_timeout_s:
            raise OutageError(
                f"no sample has finished for {self.outage_timeout_s:g} s; the last one failed with {failing}"
            )
        else:
            await asyncio.sleep(PAUSE_S)
            self._waiting.append(item)

    async def _alone_fails(self, trouble: _Trouble) -> bool:
        well = await self.serves_others(trouble.servers)
        return self._running + len(self._waiting) <= FEW if well is None else well

    def _listen(self, workers: Sequence[asyncio.Task[None]], grace_s: float) -> list[int]:
        """The signals received: the first SIGINT or SIGTERM stops new samples and gives running ones `grace_s`, the
        second none.

        They stay caught when the samples have ended, so that none breaks into the merging of what there is.
        """
        received: list[int] = []
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            for worker in workers:
                worker.cancel()

        def on_signal(number: int) -> None:
            received.append(number)
            self._stopping = True
            loop.call_later(grace_s if len(received) == 1 else 0, cancel)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal, number)
        return received


async def _cancelled(workers: Sequence[asyncio.Task[None]]) -> None:
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
