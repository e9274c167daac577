"""The servers of a run: which of them a sample is assigned to, which are down, and when requests go on.

A request waits while its server is down, and is tried again a few times where the server answers others. A sample
whose server is down goes to another server if one is up.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from eva.endpoint.client import ChatModel
from eva.endpoint.completion import NOTHING, Reply
from eva.endpoint.errors import OutageError, RankRefusedError, UnansweredError, UnavailableError
from eva.protocol.messages import Message

T = TypeVar("T")
log = logging.getLogger(__name__)

PROBE_EVERY_S = 2.0
REQUEST_TRIES = 4
# The pause after the first failure of a request. It doubles with each further one.
BACKOFF_S = 0.5
# vLLM calls a data-parallel rank an engine. Each has a line of its own on the page of its metrics.
_ENGINE = re.compile(r'^vllm:prefix_cache_queries_total[^\n]*?[{,]engine="([0-9]{1,5})"', re.MULTILINE)


async def read_ranks(model: ChatModel) -> int | None:
    """How many ranks the server of `model` has; None if it is not vLLM, or does not answer now."""
    return len(set(_ENGINE.findall(await model.fetch_page("../metrics")))) or None


class Ranks:
    """The data-parallel ranks of the server of `model`, and how many samples are on each. All rounds of a sample go to
    one rank, because each has a cache of its own; vLLM gives a request that names none to the least loaded one.

    `configured` is their number: None asks the server, 0 leaves the choice to the server.
    """

    def __init__(self, model: ChatModel, configured: int | None) -> None:
        self._model, self._configured = model, configured
        self._count = self._reported = configured
        self._samples: Counter[int] = Counter()
        self._asking = asyncio.Lock()

    async def take(self) -> int | None:
        """The rank with the fewest samples, for one more; None if the server is to choose. `leave` follows."""
        async with self._asking:
            if self._count is None:
                self._count = await read_ranks(self._model) or 0
                if self._reported not in (None, self._count):
                    was = (self._model.address, self._reported, self._count)
                    log.warning("%s had %s data-parallel ranks: %s now", *was)
                self._reported = self._count
        if self._count < 2 and not self._configured:
            return None
        rank = min(range(self._count), key=self._samples.__getitem__)
        self._samples[rank] += 1
        return rank

    def leave(self, rank: int | None) -> None:
        """A sample on `rank` has ended, or goes to another rank."""
        if rank is not None:
            self._samples[rank] -= 1

    def forget(self) -> None:
        """The server was down, or refused a rank: it may have come back with other ranks."""
        self._count = self._configured


class AdaptiveLimit:
    """How many requests may be under way. An overload halves the number, and a round of successes raises it by one."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._limit = float(ceiling)
        self._active = self._halvings = 0
        self._changed = asyncio.Condition()

    @property
    def limit(self) -> int:
        return int(self._limit)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Wait for room for one request; gives the moment when there was room (monotonic clock). An overload that is
        raised inside halves the limit, a success raises it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._active < self.limit)
            self._active += 1
        halvings = self._halvings
        try:
            yield time.monotonic()
            self._limit = min(self._ceiling, self._limit + 1 / self._limit)
        except UnavailableError as failure:
            # Requests that were under way at the same time fail together: they halve the limit once.
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
    """One server: how many samples are on it, and when it last answered (`last_reply_at`, monotonic clock).

    `failure` says why it is down; it is empty while the server is up.
    """

    model: ChatModel
    limit: AdaptiveLimit
    ranks: Ranks
    failure: str
    samples: int = 0
    last_reply_at: float = field(default_factory=time.monotonic)
    down_at: float = field(default_factory=time.monotonic)
    probing: asyncio.Task[bool] | None = None

    @property
    def up(self) -> bool:
        return not self.failure


class Servers:
    """All servers. `ranks`: see Ranks. A server that is down at the start is probed until it answers."""

    def __init__(
        self, models: Sequence[ChatModel], *, ceiling: int, outage_timeout_s: float, ranks: int | None
    ) -> None:
        self._servers = [Server(model, AdaptiveLimit(ceiling), Ranks(model, ranks), model.down) for model in models]
        self._outage_timeout_s = outage_timeout_s
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._end: Exception | None = None
        for server in self._servers:
            if not server.up:
                self._spawn(self._watch(server))

    @asynccontextmanager
    async def assign(self, *, avoiding: Collection[Server]) -> AsyncIterator[Assignment]:
        """Assign a sample to the server with the fewest samples that is up, and to its rank with the fewest. It is one
        of `avoiding` only if no other is up. Waits until one is up. Raises OutageError."""
        await self._wait_for_any()
        up = (server for server in self._servers if server.up)
        server = min(up, key=lambda server: (server in avoiding, server.samples))
        server.samples += 1
        assignment = Assignment(self, server)
        try:
            assignment.rank = await server.ranks.take()
            yield assignment
        except UnansweredError as failing:
            failing.server = server
            raise
        finally:
            server.ranks.leave(assignment.rank)
            server.samples -= 1

    def named(self, base_url: str, rank: int | None) -> Assignment:
        """The assignment to the server of that address, which another process made."""
        return Assignment(self, next(one for one in self._servers if one.model.base_url == base_url), rank)

    async def wait_for(self, server: Server) -> None:
        """Wait until `server` is up. Raises UnansweredError if another one is up first, OutageError after the outage
        timeout."""
        if not server.up:
            lost = UnansweredError(UnavailableError(server.failure), lost=True)
            await self._wait_for_any()
            if not server.up:
                raise lost

    async def _wait_for_any(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._end or any(server.up for server in self._servers))
        self.raise_end()

    def raise_end(self) -> None:
        """Raises what ends the run, if anything does."""
        if self._end:
            raise self._end

    async def verify_up(self, server: Server, *, started_at: float) -> bool:
        """Whether `server` has answered any request since `started_at` (monotonic clock), or answers a probe now.

        Otherwise it counts as down, and is probed until it answers again.
        """
        if server.last_reply_at > started_at:
            return True
        if not server.up:
            return False
        # Requests that failed together share one probe.
        if server.probing is None or server.probing.done():
            server.probing = self._spawn(self._probe(server))
        return await asyncio.shield(server.probing)

    async def _probe(self, server: Server) -> bool:
        failure = await server.model.probe()
        if failure and server.up:
            server.down_at = time.monotonic()
            await self._change(server, failure)
            self._spawn(self._watch(server))
        return not failure

    async def _watch(self, server: Server) -> None:
        """Probe until the server answers, be it another request, or until no server has answered for the outage
        timeout."""
        while server.last_reply_at <= server.down_at and (failure := await server.model.probe()):
            ends = [max(one.down_at, one.last_reply_at) for one in self._servers if not one.up]
            all_down = len(ends) == len(self._servers)
            if all_down and time.monotonic() - max(ends) > self._outage_timeout_s:
                raise OutageError(f"no server has answered for {self._outage_timeout_s:g} s, last {failure}")
            await asyncio.sleep(PROBE_EVERY_S)
        server.ranks.forget()
        server.last_reply_at = time.monotonic()
        await self._change(server, "")

    async def _change(self, server: Server, failure: str) -> None:
        server.failure = failure
        down = [server for server in self._servers if not server.up]
        text = "; ".join(f"waiting for {server.model.address}: {server.failure}" for server in down)
        if len(down) == len(self._servers):
            text += f"; the run ends if no server answers within {self._outage_timeout_s:g} s (--outage-timeout)"
        log.warning("%s", text or "all servers answer again")
        await self._wake()

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that `close` ends. Its error ends the run: otherwise the run would wait for the task without end."""

        async def guarded() -> T:
            try:
                return await work
            except Exception as error:
                self._end = error
                await self._wake()
                raise

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio complains of it
        return task

    async def close(self) -> None:
        """End all probes."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Assignment:
    """A sample on one rank of one server. All its requests go there: its prefix and its images are cached there.

    `refused_rank` is one that the server did not have.
    """

    pool: Servers
    server: Server
    rank: int | None = None
    refused_rank: int | None = None

    async def complete(self, messages: Sequence[Message], fields: Mapping[str, Any] = NOTHING) -> Reply:
        """The next reply. Waits while the server is down.

        Raises BadRequestError (HTTP 400), UnansweredError, ServersUnusableError.
        """
        failures = 0
        while True:
            await self.pool.wait_for(self.server)
            try:
                async with self.server.limit.slot() as started_at:
                    reply = await replace(self.server.model, rank=self.rank).complete(messages, fields)
                    self.pool.raise_end()
                    self.server.last_reply_at = time.monotonic()
                    return reply
            except RankRefusedError:
                self.server.ranks.leave(self.rank)
                self.server.ranks.forget()
                # Where the server refuses ranks that it claims to have, it is to choose.
                again = self.refused_rank is None
                self.refused_rank, self.rank = self.rank, await self.server.ranks.take() if again else None
            except UnavailableError as failure:
                failures += 1
                # Plus up to a quarter at random: requests shall not return all at once.
                await asyncio.sleep(BACKOFF_S * 2 ** (failures - 1) * random.uniform(1, 1.25))  # noqa: S311
                up = await self.pool.verify_up(self.server, started_at=started_at)
                if failures >= REQUEST_TRIES:
                    raise UnansweredError(failure, lost=not up) from failure
