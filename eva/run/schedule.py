"""Which sample runs when, which runs again, and how a run ends early."""

from __future__ import annotations

import asyncio
import logging
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

log = logging.getLogger(__name__)

SAMPLE_TRIES = 3
# The pause before a failing sample waits in line again. Other samples may finish in it.
PAUSE_S = 2.0
# The pause after which `take` is tried again, when none of the waiting samples can run.
POLL_S = 0.5
# While no sample has finished: if at most this many samples are left and all keep failing, the samples are at fault.
# If more are left, the server is at fault.
FEW_SAMPLES = 5
# A sample whose server went down this often may be the cause. It runs while no other such sample does.
LOSSES_BEFORE_ALONE = 3


class RunInterruptedError(EvaError):
    """The user or the batch system asked the run to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


class RunEndedError(EvaError):
    """A run that cannot go on. What finished is in the cache."""


class NodeLostError(EvaError):
    """The machine that ran a sample is gone. The sample starts again. The server is not at fault."""


def by_video(items: Sequence[Item]) -> list[Item]:
    """The items of one video next to each other, so that its frames are still in the store. The order of the videos,
    and that of the items of a video, stays."""
    first: dict[str, int] = {}
    for item in items:
        first.setdefault(item.videos[0], len(first))
    return sorted(items, key=lambda item: first[item.videos[0]])


def first_come(waiting: deque[Item]) -> Item:
    """Take the first sample out of `waiting`."""
    return waiting.popleft()


@dataclass
class _Failures:
    """Of one sample: how often it failed on servers that answer others (`tries`), how often its server went down
    (`losses`), the servers on which it failed, and the moment of the first failure (monotonic clock)."""

    tries: int = 0
    losses: int = 0
    servers: set[Server] = field(default_factory=set)
    first_at: float = field(default_factory=monotonic)

    @property
    def suspect(self) -> bool:
        return self.losses >= LOSSES_BEFORE_ALONE


@dataclass
class Schedule:
    """The samples of a run.

    `run` runs a sample on a server, on another one than those named if possible. `serves_others` says whether one of
    the servers answers other samples; None if no sample has finished yet. `give_up` records a sample that keeps
    failing. `take` takes the next sample out of the waiting ones; None while none of them can run.
    """

    run: Callable[[Item, Collection[Server]], Awaitable[None]]
    serves_others: Callable[[Collection[Server]], Awaitable[bool | None]]
    give_up: Callable[[Item, FailingError], None]
    outage_timeout_s: float
    take: Callable[[deque[Item]], Item | None]
    _waiting: deque[Item] = field(default_factory=deque)
    _failures: defaultdict[int, _Failures] = field(default_factory=lambda: defaultdict(_Failures))
    _alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    _running: int = 0
    _workers: list[asyncio.Task[None]] = field(default_factory=list)
    _signals: list[int] = field(default_factory=list)
    _last_finish_at: float = field(default_factory=monotonic)

    async def run_all(self, items: Sequence[Item], *, max_concurrent: int) -> None:
        """Run every item until it has a record. Raises RunInterruptedError, OutageError, or the error that keeps
        records from being written."""
        self._waiting.extend(items)
        self._workers = [asyncio.create_task(self._work()) for _ in range(min(max_concurrent, len(items)))]
        try:
            await asyncio.gather(*self._workers)
        except asyncio.CancelledError:
            if not self._signals:
                raise
        finally:
            self._cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
        if self._signals:
            raise RunInterruptedError(self._signals[0])

    def end(self, number: int, grace_s: float) -> None:
        """End the run as a signal of this number does. The first one stops new samples and gives the running ones
        `grace_s`, the second one stops them at once."""
        again = bool(self._signals)
        self._signals.append(number)
        name, running = signal.Signals(number).name, f"{self._running} running sample{'s'[: self._running != 1]}"
        if again:
            log.warning("%s again: the %s end now, without a record", name, running)
        else:
            log.warning(
                "%s: no sample starts any more. The %s may finish for up to %g s (--grace). A second Ctrl-C ends them "
                "now. What has finished is saved.",
                name, running, grace_s,
            )  # fmt: skip
        asyncio.get_running_loop().call_later(0 if again else grace_s, self._cancel)

    def _cancel(self) -> None:
        for worker in self._workers:
            worker.cancel()

    async def _work(self) -> None:
        while self._waiting and not self._signals:
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
            failures = self._failures[item.index]
            failures.losses += 1
            if failures.suspect:
                await self._handle_failure(item, lost, failures)
            else:
                self._waiting.appendleft(item)
        except KeepsFailingError as failing:
            await self._handle_failure(item, failing, self._failures[item.index])
        else:
            self._last_finish_at = monotonic()

    async def _run(self, item: Item) -> None:
        failures = self._failures.get(item.index, _Failures())
        # Samples that may bring a server down run one at a time, so that the one that does is found.
        async with self._alone if failures.suspect else nullcontext():
            await self.run(item, failures.servers)

    async def _handle_failure(self, item: Item, failing: FailingError, failures: _Failures) -> None:
        failures.tries += 1
        failures.servers.add(failing.server)
        if failures.tries >= SAMPLE_TRIES and await self._is_at_fault(failures):
            self.give_up(item, failing)
        elif monotonic() - max(self._last_finish_at, failures.first_at) > self.outage_timeout_s:
            raise OutageError(
                f"no sample has finished for {self.outage_timeout_s:g} s; the last one failed with {failing}"
            )
        else:
            await asyncio.sleep(PAUSE_S)
            self._waiting.append(item)

    async def _is_at_fault(self, failures: _Failures) -> bool:
        """Whether the sample fails, and not its servers."""
        serve_others = await self.serves_others(failures.servers)
        return self._running + len(self._waiting) <= FEW_SAMPLES if serve_others is None else serve_others
