"""Runs the samples of a run on the nodes of a Ray cluster. Each node has one actor (eva.cluster.node).

The driver schedules, decides who asks which server when, and writes the cache; the nodes run the samples. When a node
is lost, its samples start again on other nodes. A sample whose video no other node has waits for a node that has it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from eva.agent.loop import Episode
from eva.agent.record import exception_record
from eva.cluster.node import NodeSettings, SampleState
from eva.cluster.nodes import END_TIMEOUT_S, BackgroundTasks, Nodes
from eva.cluster.placement import LOSSES_BEFORE_ALONE, Placement
from eva.cluster.ray_actors import NodeActor, NodeGoneError, connect, disconnect
from eva.dataset.items import Item
from eva.endpoint.client import ChatModel
from eva.endpoint.errors import BadRequestError, FailingError, KeepsFailingError, OutageError
from eva.endpoint.pool import Assignment
from eva.errors import EvaError
from eva.frames.tool import FrameCounts, NoRoomForFramesError
from eva.records.schema import Record
from eva.run.schedule import NodeLostError

log = logging.getLogger(__name__)

# How often the nodes of the cluster are listed.
POLL_S = 2.0
# A sample under which this many nodes were lost, the last ones while nothing else ran on them, is given up.
MOST_LOSSES = LOSSES_BEFORE_ALONE + 2


class NodesLostError(EvaError):
    """A sample that no node can run to its end."""


@dataclass(frozen=True)
class RemoteRequest:
    """A request of a sample on a node. Its messages stay there. See pool.ChatRequest."""

    nodes: Nodes
    node: NodeActor
    number: int
    size: int

    async def send(self, model: ChatModel) -> None:
        """See ChatRequest. The reply, or the refusal, is given to the sample on its node."""
        answer = await self.node.call("ask", self.number, model.base_url, model.rank)
        if isinstance(answer, EvaError):
            raise answer
        if not answer:
            raise BadRequestError("the server refused the request")

    async def ask_one_token(self, model: ChatModel) -> str:
        """See ChatRequest. Any node may do it with a request of its own."""
        return await self.nodes.ask_one_token(model.base_url)


class ClusterExecutor:
    """See executor.Executor."""

    def __init__(self, settings: NodeSettings, videos: Collection[str]) -> None:
        self._outage_s = settings.options.outage_timeout
        self._placement, self._tasks = Placement(), BackgroundTasks()
        self._nodes = Nodes(settings, videos, self._placement, self._tasks)
        self._attempts = count()
        self._waiting: Collection[Item] = ()
        self._reported: Collection[str] = ()

    async def start(self) -> None:
        """Start the nodes, and watch for new ones. Raises ClusterError if one runs other code, or if none is ready."""
        await self._nodes.start()
        self._tasks.spawn(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            self._report_waiting()
            await self._nodes.start_new()

    def _report_waiting(self) -> None:
        """One line when samples begin to wait for a lost node."""
        losses = {item.videos[0]: loss for item in self._waiting if (loss := self._placement.loss_of(item))}
        if losses.keys() - set(self._reported):
            samples = sum(item.videos[0] in losses for item in self._waiting)
            log.warning(
                "%d samples wait for a node with their videos to join, at most %g s (--outage-timeout)",
                samples, self._outage_s,
            )  # fmt: skip
        self._reported = losses.keys()

    @property
    def counts(self) -> FrameCounts:
        """See Executor."""
        return self._nodes.counts

    def take(self, waiting: deque[Item]) -> Item | None:
        """See Executor. Raises NoRoomForFramesError, and OutageError if there was no node for the outage timeout."""
        self._tasks.check()
        self._waiting = waiting
        item = self._placement.take(waiting)
        return self._take_hopeless(waiting) if item is None else item

    def _take_hopeless(self, waiting: deque[Item]) -> Item | None:
        """Take the first sample out of `waiting` whose video was lost with its nodes longer ago than the timeout."""
        full = self._nodes.full
        if full and (not self._nodes or any(self._loss_reason(item) == full for item in waiting)):
            raise NoRoomForFramesError(full)
        if not self._nodes and self._is_long_ago(self._nodes.lost_at):
            raise OutageError(f"the cluster has had no node that can run samples for {self._outage_s:g} s")
        hopeless = next((item for item in waiting if self._nodes and self._is_hopeless(item)), None)
        if hopeless is not None:
            waiting.remove(hopeless)
        return hopeless

    def _is_long_ago(self, moment: float) -> bool:
        return time.monotonic() - moment > self._outage_s

    def _is_hopeless(self, item: Item) -> bool:
        loss = self._placement.loss_of(item)
        return loss is not None and self._is_long_ago(loss.lost_at)

    def _loss_reason(self, item: Item) -> str:
        loss = self._placement.loss_of(item)
        return loss.reason if loss else ""

    async def run(self, item: Item, assignment: Assignment) -> Record:
        """See Executor. A lost node is neither the failure of the sample nor that of the server."""
        self._tasks.check()
        try:
            node_id = self._placement.node_of(item)
            if node_id is not None:
                return await self._run_on(self._nodes[node_id], item, assignment)
            if not self._is_hopeless(item):
                raise NodeLostError("the node was lost before the sample began")
            return self._give_up(
                item, f"no node with its video joined within {self._outage_s:g} s; {self._loss_reason(item)}"
            )
        finally:
            self._placement.end(item)

    def _give_up(self, item: Item, reason: str) -> Record:
        log.warning("sample %d is given up: %s", item.index, reason)
        return exception_record(item, NodesLostError(reason), Episode())

    async def _run_on(self, node: NodeActor, item: Item, assignment: Assignment) -> Record:
        number = next(self._attempts)
        over = False
        try:
            state = self._note(node, await node.call("begin", number, item))
            while state.record is None:
                # A refusal is raised in the sample too, and its record says it.
                with suppress(BadRequestError):
                    await assignment.ask(RemoteRequest(self._nodes, node, number, state.size))
                state = self._note(node, await node.call("go_on", number))
            over = True
            return state.record
        except NodeGoneError as gone:
            over = True
            self._nodes.lose(node, str(gone))
            losses = self._placement.count_loss(item)
            if losses >= MOST_LOSSES:
                return self._give_up(item, f"{losses} nodes were lost while they ran it; {gone}")
            raise NodeLostError(str(gone)) from gone
        except NoRoomForFramesError as full:
            over = True
            self._nodes.lose(node, str(full), full=True)
            raise NodeLostError(str(full)) from full
        except FailingError as failing:
            if isinstance(failing, KeepsFailingError):
                self._placement.avoid_node(item)
            with suppress(NodeGoneError):
                failing.record = await node.call("give_up", number, failing.failure)
            raise
        finally:
            if not over:
                await asyncio.shield(self._tasks.spawn(self._drop(node, number)))

    async def _drop(self, node: NodeActor, number: int) -> None:
        with suppress(NodeGoneError, TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                await node.call("drop", number)

    def _note(self, node: NodeActor, state: SampleState) -> SampleState:
        node.counts = state.counts
        for line in state.lines:
            log.warning("%s", line)
        if state.full:
            raise NoRoomForFramesError(f"on the node {node.host.name}, {state.full}")
        return state

    async def close(self) -> None:
        """End the actors, and leave the cluster."""
        self._tasks.cancel()
        await self._nodes.close()
        disconnect()


async def join_cluster(address: str, settings: NodeSettings, videos: Collection[str]) -> ClusterExecutor:
    """An executor on the cluster at `address` (HOST:PORT, or "auto": the one that this machine is in), ready to run.

    Raises ClusterError if there is no cluster, if a node runs other code, or if no node is ready.
    """
    connect(address)
    cluster = ClusterExecutor(settings, videos)
    await cluster.start()
    return cluster
