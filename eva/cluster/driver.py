"""The nodes of a Ray cluster as the place where a run's samples are played: one actor a node (eva.cluster.node).

The driver schedules, decides who asks which server when, and writes the cache; the nodes play. A node that dies only
loses what it was playing, and that is played elsewhere; what no other node has waits for one to come. A node that comes
is taken.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from eva.agent.loop import Episode
from eva.agent.record import exception_record
from eva.cluster.node import Arrival, Orders, Turn, versions
from eva.cluster.placement import LOSSES_BEFORE_ALONE, Loss, Placement
from eva.cluster.ray_actors import ClusterError, Host, NodeGoneError, Remote, connect, disconnect, hosts, make_remote
from eva.dataset.items import Item
from eva.endpoint.client import ChatModel
from eva.endpoint.errors import BadRequestError, FailingError, KeepsFailingError, OutageError, UnavailableError
from eva.endpoint.pool import Seat
from eva.errors import EvaError
from eva.frames.tool import FrameCounts, NoRoomForFramesError
from eva.records.schema import Record
from eva.run.schedule import NodeLostError

# How often the cluster is asked which nodes it has.
POLL_S = 2.0
# For a node to import the harness and the tokenizer, from a slow network disk perhaps, and to look for its videos.
START_TIMEOUT_S = 600.0
# For a node to end samples or its frame workers; it is not waited for longer.
END_TIMEOUT_S = 10.0
# Before a node on which the actor died or could not start is tried again; doubling.
PAUSE_S = 2.0
MAX_PAUSE_S = 60.0
# A sample under which so many nodes were lost, the last ones while they played nothing else, is given up.
MOST_LOSSES = LOSSES_BEFORE_ALONE + 2


class VersionsDifferError(ClusterError):
    """A node runs other code than the driver, or has other packages."""


class NodesLostError(EvaError):
    """A sample that no node can play to its end."""


@dataclass(frozen=True)
class RemoteRequest:
    """What a sample on a node wants to ask; the messages stay there. See servers.Request."""

    cluster: Cluster
    node: Remote
    number: int
    size: int

    async def send(self, model: ChatModel) -> None:
        """See Request; a refusal is known to the sample already."""
        answer = await self.node.call("ask", self.number, model.base_url)
        if isinstance(answer, UnavailableError):
            raise answer
        if not answer:
            raise BadRequestError("the server refused the request")

    async def try_out(self, model: ChatModel) -> str:
        """See Request. Any node will do that has such a request."""
        return await self.cluster.try_out(model.base_url)


class Cluster:
    """See executor.Executor. `report` is told of nodes that come and go, and of samples that end as exceptions."""

    def __init__(self, orders: Orders, videos: Collection[str], report: Callable[[str], None]) -> None:
        self._orders, self._videos, self._report = orders, frozenset(videos), report
        self._versions: Mapping[str, str] = {}
        self._nodes: dict[str, Remote] = {}
        self._placement = Placement()
        self._waiting: Collection[Item] = ()
        self._told: Collection[str] = ()
        self._attempts = count()
        self._full = ""
        self._lost_at = 0.0
        self._spent = FrameCounts()
        self._trials: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: BaseException | None = None

    async def start(self) -> None:
        """Have the nodes that there are make ready. Raises ClusterError where one runs other code, or none can play."""
        self._versions = versions(self._orders.own_tool)
        problems = await asyncio.gather(*map(self._join, hosts()))
        if not self._nodes:
            raise ClusterError("no node of the cluster can play samples; " + "; ".join(filter(None, problems)))
        self._spawn(self._watch())

    @property
    def usage(self) -> FrameCounts:
        """See Executor."""
        usages = [self._spent, *(node.usage for node in self._nodes.values())]
        return FrameCounts(sum(usage.asked for usage in usages), sum(usage.decoded for usage in usages))

    def take(self, waiting: deque[Item]) -> Item | None:
        """See Executor. Raises NoRoomForFramesError, and OutageError where the cluster has had no node for too long."""
        self._check()
        self._waiting = waiting
        item = self._placement.take(waiting)
        return self._take_late(waiting) if item is None else item

    def _take_late(self, waiting: deque[Item]) -> Item | None:
        """Take the first sample out of `waiting` whose video was lost with its nodes too long ago."""
        if self._full and (not self._nodes or any(self._reason(item) == self._full for item in waiting)):
            raise NoRoomForFramesError(self._full)
        if not self._nodes and self._is_long_ago(self._lost_at):
            raise OutageError(f"the cluster has had no node that can play for {self._outage_s:g} s")
        late = next((item for item in waiting if self._nodes and self._gone_for_long(item)), None)
        if late is not None:
            waiting.remove(late)
        return late

    @property
    def _outage_s(self) -> float:
        return self._orders.options.outage_timeout

    def _is_long_ago(self, moment: float) -> bool:
        return time.monotonic() - moment > self._outage_s

    def _gone_for_long(self, item: Item) -> bool:
        loss = self._placement.gone(item)
        return loss is not None and self._is_long_ago(loss.lost_at)

    def _reason(self, item: Item) -> str:
        loss = self._placement.gone(item)
        return loss.reason if loss else ""

    async def run(self, item: Item, seat: Seat) -> Record:
        """See Executor. Where a node is lost, that is neither the sample's failure nor the server's."""
        self._check()
        try:
            node_id = self._placement.node_of(item)
            if node_id is not None:
                return await self._played(self._nodes[node_id], item, seat)
            if not self._gone_for_long(item):
                raise NodeLostError("the node was lost before it began")
            return self._give_up(
                item, f"no node with its video joined within {self._outage_s:g} s; {self._reason(item)}"
            )
        finally:
            self._placement.over(item)

    def _give_up(self, item: Item, reason: str) -> Record:
        self._report(f"sample {item.index} is given up: {reason}")
        return exception_record(item, NodesLostError(reason), Episode())

    async def _played(self, node: Remote, item: Item, seat: Seat) -> Record:
        number = next(self._attempts)
        over = False
        try:
            turn = self._heard(node, await node.call("begin", number, item))
            while turn.record is None:
                # What the server refused, the sample knows; its record will say so.
                with suppress(BadRequestError):
                    await seat.ask(RemoteRequest(self, node, number, turn.size))
                turn = self._heard(node, await node.call("go_on", number))
            over = True
            return turn.record
        except NodeGoneError as gone:
            over = True
            self._lose(node, str(gone))
            losses = self._placement.lost(item)
            if losses >= MOST_LOSSES:
                return self._give_up(item, f"{losses} nodes were lost while they played it; {gone}")
            raise NodeLostError(str(gone)) from gone
        except NoRoomForFramesError as full:
            over = True
            self._lose(node, str(full), full=True)
            raise NodeLostError(str(full)) from full
        except FailingError as failing:
            if isinstance(failing, KeepsFailingError):
                self._placement.failed(item)
            with suppress(NodeGoneError):
                failing.record = await node.call("give_up", number, failing.failure)
            raise
        finally:
            if not over:
                await asyncio.shield(self._spawn(self._drop(node, number)))

    async def _drop(self, node: Remote, number: int) -> None:
        with suppress(NodeGoneError, asyncio.TimeoutError):
            await asyncio.wait_for(node.call("drop", number), END_TIMEOUT_S)

    def _heard(self, node: Remote, turn: Turn) -> Turn:
        node.usage = turn.usage
        for line in turn.said:
            self._report(line)
        if turn.full:
            raise NoRoomForFramesError(f"on the node {node.host.name}, {turn.full}")
        return turn

    async def try_out(self, url: str) -> str:
        """Why the server at `url` does not answer what it answered before to some node, or the empty text."""
        reason = "no node is there to ask it"
        for node in tuple(self._nodes.values()):
            try:
                reason = await node.call("try_out", url)
            except NodeGoneError as gone:
                reason = str(gone)
            if not reason:
                break
        return reason

    # --- nodes that come and go

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            self._tell_who_waits()
            for host in await asyncio.to_thread(hosts):
                if host.node_id not in self._nodes and time.monotonic() >= self._due.get(host.node_id, 0):
                    self._due[host.node_id] = float("inf")  # until this trial is over
                    self._spawn(self._join_late(host))

    def _tell_who_waits(self) -> None:
        """One line when samples begin to wait for a lost node."""
        losses = {item.videos[0]: loss for item in self._waiting if (loss := self._placement.gone(item))}
        if losses.keys() - set(self._told):
            samples = sum(item.videos[0] in losses for item in self._waiting)
            self._report(
                f"{samples} samples wait for a node with their videos to join, at most {self._outage_s:g} s "
                "(--outage-timeout)"
            )
        self._told = losses.keys()

    async def _join_late(self, host: Host) -> None:
        try:
            await self._join(host)
        except VersionsDifferError as error:
            self._report(str(error))

    async def _join(self, host: Host) -> str:
        """Have an actor there; gives why there is none. Raises VersionsDifferError."""
        self._due[host.node_id] = float("inf")
        node = make_remote(host, self._orders)
        try:
            arrival = await asyncio.wait_for(self._arrival(node), START_TIMEOUT_S)
        except (EvaError, asyncio.TimeoutError) as error:
            node.kill()
            if isinstance(error, VersionsDifferError):
                raise
            return self._out(host, str(error) or f"it was not ready after {START_TIMEOUT_S:g} s")
        if arrival.problem:
            node.kill()
            return self._out(host, arrival.problem)
        self._nodes[host.node_id] = node
        self._trials.pop(host.node_id, None)
        self._placement.join(host.node_id, arrival.videos)
        self._report(
            f"node {host.name}: {arrival.workers} frame workers, {len(arrival.videos)} of {len(self._videos)} videos, "
            f"images as {arrival.transport} ({arrival.transport_reason})"
        )
        return ""

    async def _arrival(self, node: Remote) -> Arrival:
        here, there = self._versions, await node.call("versions")
        differing = [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)]
        if differing:
            raise VersionsDifferError(
                f"the node {node.host.name} is not set up as this machine: "
                + ", ".join(f"{name} {there.get(name)} there, {here.get(name)} here" for name in sorted(differing))
            )
        arrival: Arrival = await node.call("start", self._videos)
        return arrival

    def _out(self, host: Host, reason: str) -> str:
        self._put_off(host)
        sentence = f"node {host.name} is left out: {reason}"
        self._report(sentence)
        return sentence

    def _put_off(self, host: Host) -> None:
        trial = self._trials[host.node_id] = self._trials.get(host.node_id, -1) + 1
        self._due[host.node_id] = time.monotonic() + min(MAX_PAUSE_S, PAUSE_S * 2**trial)

    def _lose(self, node: Remote, reason: str, *, full: bool = False) -> None:
        """Play on without the node. All its samples come here, the first one does it."""
        if self._nodes.get(node.host.node_id) is not node:
            return
        del self._nodes[node.host.node_id]
        self._spent = FrameCounts(self._spent.asked + node.usage.asked, self._spent.decoded + node.usage.decoded)
        self._lost_at = time.monotonic()
        samples = self._placement.leave(node.host.node_id, Loss(reason, self._lost_at))
        self._put_off(node.host)
        self._report(f"{reason}; {len(samples)} of its samples start again elsewhere")
        if full:
            self._full, self._due[node.host.node_id] = reason, float("inf")
        node.kill()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that `close` ends. Its own error ends the run: nobody would look after the nodes any more."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._end = task.exception() or self._end

    def _check(self) -> None:
        if self._end is not None:
            raise self._end

    async def close(self) -> None:
        """End the actors, and leave the cluster as it was."""
        for task in tuple(self._tasks):
            task.cancel()
        closing = [node.call("close") for node in self._nodes.values()]
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), END_TIMEOUT_S)
        for node in self._nodes.values():
            node.kill()
        disconnect()


async def join_cluster(address: str, orders: Orders, videos: Collection[str], report: Callable[[str], None]) -> Cluster:
    """The cluster at `address` (HOST:PORT, or "auto": the one that this machine is in), ready to play.

    Raises ClusterError where there is none, where a node runs other code, or where none can play.
    """
    connect(address)
    cluster = Cluster(orders, videos, report)
    await cluster.start()
    return cluster
