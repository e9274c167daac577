"""Which sample runs when, which runs again, and how a run ends early."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import nullcontext
from time import monotonic

from eva.dataset.items import Item
from eva.endpoint.errors import OutageError, UnansweredError
from eva.endpoint.pool import Server
from eva.errors import EvaError

log = logging.getLogger(__name__)

# A sample whose server or node went down so often may be the cause. It waits for the end of the run, too.
LOSSES = 3
# The pause after which `take` is tried again, when none of the waiting samples can run.
POLL_S = 0.5


class RunInterruptedError(EvaError):
    """The user or the batch system asked the run to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


class RunEndedError(EvaError):
    """A run that cannot go on. What finished is in the cache."""


def by_video(items: Sequence[Item]) -> list[Item]:
    """The items of one video next to each other, so that its frames are still in the store. The order of the videos,
    and that of the items of a video, stays."""
    first: dict[str, int] = {}
    for item in items:
        first.setdefault(item.videos[0], len(first))
    return sorted(items, key=lambda item: first[item.videos[0]])


class Schedule:
    """The samples of a run.

    `run` runs a sample on a server, on another one than those named if possible. A sample that fails is tried once more
    when no other one waits; `give_up` then records it. `take` takes the next sample out of the waiting ones; None while
    none of them can run.
    """

    def __init__(
        self,
        run: Callable[[Item, Collection[Server]], Awaitable[None]],
        give_up: Callable[[Item, UnansweredError], None],
        outage_timeout_s: float,
        take: Callable[[deque[Item]], Item | None],
    ) -> None:
        self._run, self._give_up, self._outage_timeout_s, self._take = run, give_up, outage_timeout_s, take
        self._waiting, self._late = deque[Item](), deque[Item]()
        self._failures: defaultdict[int, list[UnansweredError]] = defaultdict(list)
        self._alone = asyncio.Lock()
        self._workers: list[asyncio.Task[None]] = []
        self._signals: list[int] = []
        self._running = 0
        self._failing_since: float | None = None

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
        while (self._waiting or self._late) and not self._signals:
            late = not self._waiting
            item = self._take(self._late if late else self._waiting)
            if item is None:
                await asyncio.sleep(POLL_S)
                continue
            self._running += 1
            try:
                await self._attempt(item, late=late)
            finally:
                self._running -= 1

    async def _attempt(self, item: Item, *, late: bool) -> None:
        failures = self._failures[item.index]
        # At the end, those that may bring a server or a node down run one at a time: the one that does is found.
        suspect = late and failures[-1].lost
        try:
            async with self._alone if suspect else nullcontext():
                await self._run(item, {failure.server for failure in failures if failure.server})
        except UnansweredError as failing:
            failures.append(failing)
            if failing.lost and len(failures) < LOSSES:
                self._waiting.appendleft(item)
            elif late:
                self._give_up(item, failing)
            else:
                self._late.append(item)
            now = monotonic()
            self._failing_since = self._failing_since or now
            if now - self._failing_since > self._outage_timeout_s:
                raise OutageError(
                    f"no sample has finished for {self._outage_timeout_s:g} s; the last one failed with {failing}"
                ) from failing
        else:
            self._failing_since = None
            del self._failures[item.index]
