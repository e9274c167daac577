"""The servers of a run: which of them a sample is assigned to, which are down, and when requests go on.

The failure of a server is not an answer. Requests wait while their server is down, and samples move to another server
if one is up. A sample fails only if its request keeps failing on a server that answers others.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from eva.endpoint.completion import NOTHING, Reply
from eva.endpoint.errors import KeepsFailingError, OutageError, RankRefusedError, ServerLostError, UnavailableError
from eva.endpoint.limit import AdaptiveLimit
from eva.endpoint.ranks import Ranks
from eva.protocol.messages import Message

if TYPE_CHECKING:
    from eva.endpoint.client import ChatModel

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

PROBE_EVERY_S = 2.0
# vLLM closes the connection after a 500 without a notice, so the next request fails, whatever it is. The server is
# probed only after this many tries.
QUICK_TRIES = 3
REQUEST_TRIES = 4
# A request under which its server goes down this often may be the cause.
OUTAGES_PER_REQUEST = 2
# How often the servers are asked for the weights that they serve.
WEIGHTS_EVERY_S = 60.0
# The pause after the first failure of a request. It doubles with each further one.
BACKOFF_S = 0.5


class ChatRequest(Protocol[T_co]):
    """A request of a sample to a server. The sample may run on another machine."""

    @property
    def size(self) -> int:
        """The number of its messages."""
        ...

    async def send(self, model: ChatModel) -> T_co:
        """Send it once. Raises as ChatModel.complete."""
        ...

    async def ask_one_token(self, model: ChatModel) -> str:
        """Request one token for the same content. Why that failed, or the empty text."""
        ...


@dataclass(frozen=True)
class Conversation:
    """The messages of a sample that runs in this process, and the further fields of the request."""

    messages: Sequence[Message]
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """See ChatRequest."""
        return len(self.messages)

    async def send(self, model: ChatModel) -> Reply:
        """See ChatRequest."""
        return await model.complete(self.messages, self.fields)

    async def ask_one_token(self, model: ChatModel) -> str:
        """See ChatRequest."""
        return await model.ask_one_token([as_one_message(self.messages)])


@dataclass(eq=False)
class Server:
    """One server: how many samples are on it, and when it last answered (`last_reply_at`, monotonic clock).

    `failure` says why it is down; it is empty while the server is up. `known_good` is a request of a finished sample
    that the server answered. If the server answers it again, the server works. `unproved` are the samples, by index,
    that ended on it since it last stated its weights.
    """

    model: ChatModel
    limit: AdaptiveLimit
    ranks: Ranks
    samples: int = 0
    last_reply_at: float = field(default_factory=time.monotonic)
    failure: str = ""
    down_at: float = field(default_factory=time.monotonic)
    known_good: ChatRequest[object] | None = None
    probing: asyncio.Task[bool] | None = None
    unproved: list[int] = field(default_factory=list)

    @property
    def up(self) -> bool:
        return not self.failure


class Servers:
    """All servers. `notify` gets what the run waits for, and the empty text when it goes on.

    `ranks`: see Ranks. A server that is down at the start is probed until it answers.
    """

    def __init__(
        self,
        models: Sequence[ChatModel],
        *,
        ceiling: int,
        outage_timeout_s: float,
        ranks: int | None,
        notify: Callable[[str], None],
    ) -> None:
        self._servers = [
            Server(model, AdaptiveLimit(ceiling), Ranks(model, ranks), failure=model.down) for model in models
        ]
        self._outage_timeout_s = outage_timeout_s
        self._notify = notify
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._end: Exception | None = None
        for server in self._servers:
            if not server.up:
                self._spawn(self._watch(server))
        self._spawn(self._watch_weights())

    @asynccontextmanager
    async def assign(self, *, avoiding: Collection[Server]) -> AsyncIterator[Assignment]:
        """Assign a sample to the server with the fewest samples that is up, and to its rank with the fewest. It is one
        of `avoiding` only if no other is up. Waits until one is up. Raises OutageError."""
        await self._wait_for(lambda: any(server.up for server in self._servers))
        up = (server for server in self._servers if server.up)
        server = min(up, key=lambda server: (server in avoiding, server.samples))
        server.samples += 1
        assignment = Assignment(self, server)
        try:
            assignment.rank = await server.ranks.take()
            yield assignment
            # The longest request shows most of what the server must be able to do. Of equals, the frames of the latest
            # are most likely still on disk.
            server.known_good = longest(assignment.answered, server.known_good)
        finally:
            server.ranks.leave(assignment.rank)
            server.samples -= 1

    async def wait_for(self, server: Server) -> None:
        """Wait until `server` is up. Raises ServerLostError if another one is up first, OutageError after the outage
        timeout."""
        if server.up:
            return
        lost = ServerLostError(UnavailableError(server.failure), server)
        await self._wait_for(lambda: any(other.up for other in self._servers))
        if not server.up:
            raise lost

    async def _wait_for(self, ready: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: ready() or self._end)
        self.raise_end()

    def raise_end(self) -> None:
        """Raises what ends the run, if anything does."""
        if self._end:
            raise self._end

    async def serves_others(self, servers: Collection[Server]) -> bool | None:
        """Whether one of `servers` now answers again what it answered to a sample that finished; None if no sample has
        finished yet.

        Waits until a server is up. Raises OutageError.
        """
        await self._wait_for(lambda: any(server.up for server in self._servers))
        if not any(server.known_good for server in self._servers):
            return None
        for server in servers:
            if server.up and server.known_good and not await server.known_good.ask_one_token(server.model):
                return True
        return False

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
        """Probe until the server answers, or until no server has answered for the outage timeout."""
        while failure := await server.model.probe():
            if self._seconds_of_outage() > self._outage_timeout_s:
                self._end = OutageError(f"no server has answered for {self._outage_timeout_s:g} s, last {failure}")
                break
            await asyncio.sleep(PROBE_EVERY_S)
        server.ranks.forget()
        server.last_reply_at = time.monotonic()
        await self._change(server, failure)

    async def _watch_weights(self) -> None:
        while True:
            await asyncio.sleep(WEIGHTS_EVERY_S)
            await self.check_weights()

    async def check_weights(self) -> None:
        """Ask each server that is up which weights it serves. Raises WeightsChangedError."""
        await asyncio.gather(*(self._check_weights(server) for server in self._servers if server.up))

    async def _check_weights(self, server: Server) -> None:
        before = len(server.unproved)
        if await server.model.check_weights():
            del server.unproved[:before]

    @property
    def unproved(self) -> set[int]:
        """The samples that ended since their server last stated its weights, of servers that state them."""
        return {index for server in self._servers if server.model.weights for index in server.unproved}

    def _seconds_of_outage(self) -> float:
        if any(server.up for server in self._servers):
            return 0
        return time.monotonic() - max(server.down_at for server in self._servers)

    async def _change(self, server: Server, failure: str) -> None:
        server.failure = failure
        down = [server for server in self._servers if not server.up]
        text = "; ".join(f"waiting for {server.model.address}: {server.failure}" for server in down)
        if len(down) == len(self._servers):
            text += f"; the run ends if no server answers within {self._outage_timeout_s:g} s (--outage-timeout)"
        self._notify(text)
        await self._wake()

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that `close` ends. Its error ends the run: otherwise the run would wait for the task without end."""
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
        """End all probes."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Assignment:
    """A sample on one rank of one server. All its requests go there: its prefix and its images are cached there.

    `answered` is the last request that got a reply.
    """

    pool: Servers
    server: Server
    rank: int | None = None
    answered: ChatRequest[object] | None = None

    async def complete(self, messages: Sequence[Message], fields: Mapping[str, Any] = NOTHING) -> Reply:
        """The next reply. Waits while the server is down. Raises as `ask`."""
        return await self.ask(Conversation(tuple(messages), fields))

    async def ask(self, request: ChatRequest[T]) -> T:
        """The answer to the request. Waits while the server is down.

        Raises BadRequestError (HTTP 400), RefusesAllError, ServerLostError, KeepsFailingError, OutageError,
        WeightsChangedError.
        """
        failures = outages = 0
        cause: UnavailableError | None = None
        while True:
            await self.pool.wait_for(self.server)
            try:
                async with self.server.limit.slot() as started_at:
                    return await self._ask(request)
            except RankRefusedError:
                await self._change_rank()
            except UnavailableError as failure:
                failures += 1
                # The closed connection after a 500 says nothing: the 500 is the cause.
                cause = failure if failure.overload or cause is None else cause
                soon = failures < QUICK_TRIES and not failure.timeout
                if soon or await self.pool.verify_up(self.server, started_at=started_at):
                    if failures >= REQUEST_TRIES:
                        raise KeepsFailingError(cause, self.server) from failure
                    await asyncio.sleep(backoff_s(failures))
                else:
                    failures, outages = 0, outages + 1
                    if outages >= OUTAGES_PER_REQUEST:
                        raise ServerLostError(failure, self.server) from failure

    async def _change_rank(self) -> None:
        refused, self.rank = self.rank, None
        self.server.ranks.leave(refused)
        if refused is not None:
            await self.server.ranks.refuse(refused)
            self.rank = await self.server.ranks.take()

    async def _ask(self, request: ChatRequest[T]) -> T:
        reply = await request.send(replace(self.server.model, rank=self.rank))
        self.pool.raise_end()
        self.server.last_reply_at = time.monotonic()
        self.answered = request
        return reply


def longest(latest: ChatRequest[object] | None, before: ChatRequest[object] | None) -> ChatRequest[object] | None:
    """The one with more messages, `latest` if both have the same number; None if there is neither."""
    return max((one for one in (latest, before) if one is not None), key=lambda one: one.size, default=None)


def as_one_message(messages: Sequence[Message]) -> Message:
    """All texts and images of a conversation in one message. It is as large, and it is not a round of the sample."""
    parts: list[Message] = []
    for message in messages:
        content = message["content"]
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
    return {"role": "user", "content": parts}


def backoff_s(failures: int) -> float:
    """The pause after so many failures, plus up to a quarter at random: requests shall not return all at once."""
    return float(BACKOFF_S * 2 ** (failures - 1) * random.uniform(1, 1.25))  # noqa: S311
