"""The servers of a run: which one a sample goes to, which are out, and when to go on.

A server that fails is not an answer. Requests wait while it is down, and samples move to another server where there
is one; only a request that keeps failing on a server that serves others is that sample's own trouble.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from eva.errors import EvaError
from eva.model import ChatModel, Reply, Unavailable
from eva.prompt import Message

PROBE_EVERY_S = 2.0
# vLLM closes the connection after a 500 without saying so, so the next request fails whatever it asks: a few tries
# come before the question whether the server is down.
QUICK_TRIES = 3
REQUEST_TRIES = 4
MAX_BACKOFF_S = 8.0


class ServerLost(EvaError):
    """The sample's server went down while others stand: the sample starts again on another."""


class KeepsFailing(EvaError):
    """A request failed time after time on a server that answers others; `failure` is the last time's."""

    def __init__(self, failure: Unavailable) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Outage(EvaError):
    """No server has answered for longer than the run may wait."""


class AdaptiveLimit:
    """How many requests may be under way: halved by overload, climbing back by one per round of successes."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._limit = float(ceiling)
        self._active = 0
        self._halvings = 0
        self._changed = asyncio.Condition()

    @property
    def limit(self) -> int:
        return int(self._limit)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Room for one request. An overload that passes through halves the limit, a success raises it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._active < self.limit)
            self._active += 1
        halvings = self._halvings
        try:
            yield
            self._limit = min(self._ceiling, self._limit + 1 / self._limit)
        except Unavailable as failure:
            # Requests that were under way together fail together: they halve the limit once.
            if failure.overload and halvings == self._halvings:
                self._limit = max(1.0, self._limit / 2)
                self._halvings += 1
            raise
        finally:
            async with self._changed:
                self._active -= 1
                self._changed.notify_all()


@dataclass(eq=False)
class Server:
    """One endpoint: how many samples run on it, whether it is up, when it last answered (monotonic clock)."""

    model: ChatModel
    limit: AdaptiveLimit
    samples: int = 0
    up: bool = True
    last_reply: float = field(default_factory=time.monotonic)
    probing: asyncio.Task[bool] | None = None


class Servers:
    """The pool. `notify` is told what the run waits for, and the empty text when it goes on."""

    def __init__(
        self,
        models: Sequence[ChatModel],
        *,
        ceiling: int,
        outage_timeout_s: float,
        notify: Callable[[str], None],
    ) -> None:
        self._servers = [Server(model, AdaptiveLimit(ceiling)) for model in models]
        self._outage_timeout_s = outage_timeout_s
        self._notify = notify
        self._changed = asyncio.Condition()
        self._watchers: set[asyncio.Task[None]] = set()
        self._outage: str = ""

    @asynccontextmanager
    async def seat(self) -> AsyncIterator[Seat]:
        """A place on the least loaded server that is up; waits for one. Raises Outage."""
        await self._wait_for(lambda: any(server.up for server in self._servers))
        server = min((server for server in self._servers if server.up), key=lambda server: server.samples)
        server.samples += 1
        try:
            yield Seat(self, server)
        finally:
            server.samples -= 1

    async def wait_for(self, server: Server) -> None:
        """Wait until `server` is up. Raises ServerLost if another one is up instead, Outage after the timeout."""
        if not server.up:
            await self._wait_for(lambda: any(other.up for other in self._servers))
        if not server.up:
            raise ServerLost(f"the server at {server.model.base_url} is down")

    async def _wait_for(self, ready: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: ready() or self._outage)
        if not ready():
            raise Outage(self._outage)

    async def still_serves(self, server: Server, *, since: float) -> bool:
        """Whether `server` answered anyone after `since` (monotonic clock), or answers a probe now.

        A server that does not is taken out, and watched until it answers again.
        """
        if server.last_reply > since:
            return True
        if not server.up:
            return False
        # Requests that failed together share one probe.
        if server.probing is None or server.probing.done():
            server.probing = asyncio.create_task(self._probe(server))
        return await asyncio.shield(server.probing)

    async def _probe(self, server: Server) -> bool:
        failure = await server.model.probe()
        if failure and server.up:
            server.up = False
            self._notify(f"waiting for {server.model.base_url}: {failure}")
            watcher = asyncio.create_task(self._watch(server))
            self._watchers.add(watcher)
            watcher.add_done_callback(self._watchers.discard)
            async with self._changed:
                self._changed.notify_all()
        return not failure

    async def _watch(self, server: Server) -> None:
        """Ask until the server answers, or until none has for too long."""
        while failure := await server.model.probe():
            last_reply = max(other.last_reply for other in self._servers)
            alone = not any(other.up for other in self._servers)
            if alone and time.monotonic() - last_reply > self._outage_timeout_s:
                self._outage = f"no server has answered for {self._outage_timeout_s:g} s, last {failure}"
                break
            await asyncio.sleep(PROBE_EVERY_S)
        else:
            server.up = True
            server.last_reply = time.monotonic()
            self._notify("")
        async with self._changed:
            self._changed.notify_all()

    async def close(self) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for server in self._servers:
            await server.model.client.close()


@dataclass(frozen=True)
class Seat:
    """A sample's place on one server: all its rounds are asked there, where its prefix and images are cached."""

    pool: Servers
    server: Server

    async def complete(self, messages: Sequence[Message]) -> Reply:
        """The next reply, however long the server takes to come back.

        Raises BadRequest (HTTP 400), ServerLost, KeepsFailing, Outage.
        """
        failures = 0
        while True:
            await self.pool.wait_for(self.server)
            started = time.monotonic()
            try:
                async with self.server.limit.slot():
                    reply = await self.server.model.complete(messages)
                self.server.last_reply = time.monotonic()
                return reply
            except Unavailable as failure:
                failures += 1
                if (failures < QUICK_TRIES and not failure.timeout) or await self._serves_others(started):
                    if failures >= REQUEST_TRIES:
                        raise KeepsFailing(failure) from failure
                    await asyncio.sleep(backoff_s(failures))
                else:
                    failures = 0

    async def _serves_others(self, since: float) -> bool:
        return await self.pool.still_serves(self.server, since=since)


def backoff_s(failures: int) -> float:
    """Half a second, doubling, with up to a quarter more so that requests do not return in step."""
    return float(min(MAX_BACKOFF_S, 0.5 * 2 ** (failures - 1)) * random.uniform(1, 1.25))  # noqa: S311
