"""The servers of a run: which one a sample goes to, which are out, and when to go on.

A server that fails is not an answer. Requests wait while it is down, and samples move to another server where there
is one; only a request that keeps failing on a server that serves others is that sample's own trouble.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from eva.endpoint.client import ChatModel, Reply
from eva.endpoint.errors import KeepsFailingError, OutageError, ServerLostError, UnavailableError
from eva.endpoint.limit import AdaptiveLimit
from eva.protocol.messages import Message

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

PROBE_EVERY_S = 2.0
# vLLM closes the connection after a 500 without saying so, so the next request fails whatever it asks: a few tries
# come before the question whether the server is down.
QUICK_TRIES = 3
REQUEST_TRIES = 4
# A request that its server goes down under so often may be what brings it down.
OUTAGES_A_REQUEST = 2
MAX_BACKOFF_S = 8.0


class Request(Protocol[T_co]):
    """What a server is asked for a sample, from wherever that sample runs."""

    @property
    def size(self) -> int:
        """How many messages it has."""
        ...

    async def send(self, model: ChatModel) -> T_co:
        """Ask once. Raises as ChatModel.complete."""
        ...

    async def try_out(self, model: ChatModel) -> str:
        """Ask for one token of it; why that failed, or the empty text."""
        ...


@dataclass(frozen=True)
class Conversation:
    """The messages of a sample that runs in this process."""

    messages: Sequence[Message]

    @property
    def size(self) -> int:
        """See Request."""
        return len(self.messages)

    async def send(self, model: ChatModel) -> Reply:
        """See Request."""
        return await model.complete(self.messages)

    async def try_out(self, model: ChatModel) -> str:
        """See Request."""
        return await model.try_out([as_one_message(self.messages)])


@dataclass(eq=False)
class Server:
    """One endpoint: how many samples run on it, when it last answered (monotonic clock), and why it is out, if it is.

    `witness` is a request of a finished sample that it answered: proof that it can, when it is asked again.
    """

    model: ChatModel
    limit: AdaptiveLimit
    samples: int = 0
    last_reply: float = field(default_factory=time.monotonic)
    trouble: str = ""
    down_since: float = 0.0
    witness: Request[object] | None = None
    probing: asyncio.Task[bool] | None = None

    @property
    def up(self) -> bool:
        return not self.trouble


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
        self._tasks: set[asyncio.Task[Any]] = set()
        self._end: Exception | None = None

    @asynccontextmanager
    async def seat(self, *, avoiding: Collection[Server] = ()) -> AsyncIterator[Seat]:
        """A place on the least loaded server that is up, one of `avoiding` only if all are; waits. Raises
        OutageError."""
        await self._wait_for(lambda: any(server.up for server in self._servers))
        up = (server for server in self._servers if server.up)
        server = min(up, key=lambda server: (server in avoiding, server.samples))
        server.samples += 1
        seat = Seat(self, server)
        try:
            yield seat
            # The longest shows most of what the server must be able to do, the latest is the surest to be on disk.
            server.witness = longest(seat.answered, server.witness)
        finally:
            server.samples -= 1

    async def wait_for(self, server: Server) -> None:
        """Wait until `server` is up. Raises ServerLostError if another one is up instead, OutageError after the
        timeout."""
        if server.up:
            return
        lost = ServerLostError(UnavailableError(server.trouble), server)
        await self._wait_for(lambda: any(other.up for other in self._servers))
        if not server.up:
            raise lost

    async def _wait_for(self, ready: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: ready() or self._end)
        if self._end:
            raise self._end

    async def serves_others(self, servers: Collection[Server]) -> bool | None:
        """Whether one of `servers` answers, now, what it answered to a sample that finished; None if none has yet.

        Waits until a server is up. Raises OutageError.
        """
        await self._wait_for(lambda: any(server.up for server in self._servers))
        if not any(server.witness for server in self._servers):
            return None
        for server in servers:
            if server.up and server.witness and not await server.witness.try_out(server.model):
                return True
        return False

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
            server.probing = self._spawn(self._probe(server))
        return await asyncio.shield(server.probing)

    async def _probe(self, server: Server) -> bool:
        failure = await server.model.probe()
        if failure and server.up:
            server.down_since = time.monotonic()
            await self._change(server, failure)
            self._spawn(self._watch(server))
        return not failure

    async def _watch(self, server: Server) -> None:
        """Ask until the server answers, or until none has for too long."""
        while failure := await server.model.probe():
            if self._seconds_of_outage() > self._outage_timeout_s:
                self._end = OutageError(f"no server has answered for {self._outage_timeout_s:g} s, last {failure}")
                break
            await asyncio.sleep(PROBE_EVERY_S)
        server.last_reply = time.monotonic()
        await self._change(server, failure)

    def _seconds_of_outage(self) -> float:
        if any(server.up for server in self._servers):
            return 0
        return time.monotonic() - max(server.down_since for server in self._servers)

    async def _change(self, server: Server, trouble: str) -> None:
        server.trouble = trouble
        down = [server for server in self._servers if not server.up]
        self._notify("; ".join(f"waiting for {server.model.address}: {server.trouble}" for server in down))
        await self._wake()

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that `close` ends. Its own error ends the run, which would wait for its word for ever."""
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except Exception as error:
            self._end = error
            await self._wake()
            raise

    async def close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            await server.model.client.close()


@dataclass
class Seat:
    """A sample's place on one server: all its rounds are asked there, where its prefix and images are cached.

    `answered` is the last request that got its reply.
    """

    pool: Servers
    server: Server
    answered: Request[object] | None = None

    async def complete(self, messages: Sequence[Message]) -> Reply:
        """The next reply, however long the server takes to come back. Raises as `ask`."""
        return await self.ask(Conversation(tuple(messages)))

    async def ask(self, request: Request[T]) -> T:
        """What the request brings, however long the server takes to come back.

        Raises BadRequestError (HTTP 400), ServerLostError, KeepsFailingError, OutageError.
        """
        failures = outages = 0
        telling: UnavailableError | None = None
        while True:
            await self.pool.wait_for(self.server)
            try:
                async with self.server.limit.slot() as started:
                    return await self._ask(request)
            except UnavailableError as failure:
                failures += 1
                # Behind a 500 comes the closed connection, which says nothing.
                telling = failure if failure.overload or telling is None else telling
                soon = failures < QUICK_TRIES and not failure.timeout
                if soon or await self.pool.still_serves(self.server, since=started):
                    if failures >= REQUEST_TRIES:
                        raise KeepsFailingError(telling, self.server) from failure
                    await asyncio.sleep(backoff_s(failures))
                else:
                    failures, outages = 0, outages + 1
                    if outages >= OUTAGES_A_REQUEST:
                        raise ServerLostError(failure, self.server) from failure

    async def _ask(self, request: Request[T]) -> T:
        reply = await request.send(self.server.model)
        self.server.last_reply = time.monotonic()
        self.answered = request
        return reply


def longest(latest: Request[object] | None, before: Request[object] | None) -> Request[object] | None:
    """The one of more messages, of equals the latest; None where there is neither."""
    return max((one for one in (latest, before) if one is not None), key=lambda one: one.size, default=None)


def as_one_message(messages: Sequence[Message]) -> Message:
    """All texts and images of a conversation, in order: a request of its size that nobody takes for the sample's."""
    parts: list[Message] = []
    for message in messages:
        content = message["content"]
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {"role": "user", "content": parts}


def backoff_s(failures: int) -> float:
    """Half a second, doubling, with up to a quarter more so that requests do not return in step."""
    return float(min(MAX_BACKOFF_S, 0.5 * 2 ** (failures - 1)) * random.uniform(1, 1.25))  # noqa: S311
