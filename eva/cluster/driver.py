"""Runs the samples of a run on the nodes of a Ray cluster. Each node has one actor (eva.cluster.node).

The driver decides which sample runs on which node and asks which rank of which server, and it alone writes the cache.
When a node is lost, its samples start again on other nodes. A sample whose video no other node has waits for a node
that has it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress

import ray

from eva.agent.record import exception_record
from eva.cluster.node import Arrival, NodeSettings, Played, versions
from eva.cluster.placement import Loss, Placement
from eva.cluster.ray_actors import ClusterError, NodeActor, NodeGoneError, connect, list_nodes
from eva.dataset.items import Item
from eva.endpoint.errors import OutageError, UnansweredError
from eva.endpoint.pool import Assignment
from eva.errors import EvaError
from eva.frames.tool import FrameCounts, FrameToolUnusableError, NoRoomForFramesError
from eva.records.schema import Record
from eva.run.executor import Executor

log = logging.getLogger(__name__)

# How often the nodes of the cluster are listed.
POLL_S = 2.0
# For a node to import the harness and the tokenizer, perhaps from a slow network disk, and to find its videos.
START_TIMEOUT_S = 600.0
# For a node to end its samples and its frame workers. After this time nobody waits for it.
END_TIMEOUT_S = 10.0
# The pause before a node whose actor died is tried again, and before one that could not start.
PAUSE_S, LONG_PAUSE_S = 2.0, 60.0
NEVER = float("inf")


class ClusterExecutor(Executor):
    """Runs samples on the nodes that are in, by their identities in Ray.

    `_due_at` says when a node may start (again). `_full` is why the disk of a node takes no more frames; `_lost_at` is
    when the last node was lost (monotonic clock).
    """

    def __init__(self, settings: NodeSettings, videos: Collection[str]) -> None:
        self._settings, self._videos, self._versions = settings, frozenset(videos), versions()
        self._outage_s = settings.options.outage_timeout
        self._placement = Placement()
        self._nodes: dict[str, NodeActor] = {}
        self._counts: dict[NodeActor, FrameCounts] = {}
        self._due_at: dict[str, float] = {}
        self._full, self._lost_at = "", 0.0
        self._waiting: Collection[Item] = ()
        self._reported: Collection[str] = ()

    # --- which nodes are in

    async def start(self) -> None:
        """Start the nodes, and watch for new ones. Raises ClusterError if none is ready."""
        problems = await asyncio.gather(*map(self._join, list_nodes()))
        if not self._nodes:
            raise ClusterError("no node of the cluster can run samples; " + "; ".join(filter(None, problems)))
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Start the machines that come, and those whose pause is over. One line when samples begin to wait."""
        async with asyncio.TaskGroup() as joining:
            while True:
                await asyncio.sleep(POLL_S)
                lost = {item.videos[0] for item in self._waiting if self._placement.loss_of(item)}
                if lost - set(self._reported):
                    log.warning(
                        "%d samples wait for a node with their videos to join, at most %g s (--outage-timeout)",
                        sum(item.videos[0] in lost for item in self._waiting), self._outage_s,
                    )  # fmt: skip
                self._reported = lost
                for node in await asyncio.to_thread(list_nodes):
                    if node.node_id not in self._nodes and time.monotonic() >= self._due_at.get(node.node_id, 0):
                        joining.create_task(self._join(node))

    async def _join(self, node: NodeActor) -> str:
        """Start the node. Why that failed, or the empty text."""
        self._due_at[node.node_id] = NEVER  # until this attempt is over
        node.start(self._settings)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                arrival: Arrival = await node.call("start", self._versions, self._videos)
            problem = arrival.problem
        except TimeoutError:
            problem = f"it was not ready after {START_TIMEOUT_S:g} s"
        except EvaError as error:
            problem = str(error)
        if problem:
            node.kill()
            self._due_at[node.node_id] = time.monotonic() + LONG_PAUSE_S
            log.warning("node %s is left out: %s", node.name, problem)
            return f"node {node.name} is left out: {problem}"
        self._nodes[node.node_id] = node
        self._placement.join(node.node_id, arrival.videos)
        log.info(
            "node %s: %d frame workers, %d of %d videos, images as %s",
            node.name, arrival.workers, len(arrival.videos), len(self._videos), arrival.transport,
        )  # fmt: skip
        return ""

    def _lose(self, node: NodeActor, error: Exception, reason: str, *, full: bool = False) -> UnansweredError:
        """Go on without the node; what its samples raise. Each of them calls this, and the first call counts. A `full`
        one never comes back."""
        if self._nodes.get(node.node_id) is node:
            del self._nodes[node.node_id]
            self._lost_at = time.monotonic()
            samples = self._placement.leave(node.node_id, Loss(reason, self._lost_at))
            self._due_at[node.node_id] = NEVER if full else time.monotonic() + PAUSE_S
            self._full = reason if full else self._full
            log.warning("%s; %d of its samples start again elsewhere", reason, len(samples))
            node.kill()
        return UnansweredError(error, lost=True)

    # --- the samples

    @property
    def counts(self) -> FrameCounts:
        counts = self._counts.values()
        return FrameCounts(sum(one.asked for one in counts), sum(one.decoded for one in counts))

    def take(self, waiting: deque[Item]) -> Item | None:
        """Take a sample that has a node, or one that has waited for a lost node for too long.

        Raises NoRoomForFramesError, and OutageError if there was no node for the outage timeout.
        """
        if self._watching.done():
            error = self._watching.exception()
            raise error.exceptions[0] if isinstance(error, BaseExceptionGroup) else asyncio.CancelledError()
        self._waiting = waiting
        return self._place(waiting)

    def _place(self, waiting: deque[Item]) -> Item | None:
        item = self._placement.take(waiting)
        if item is not None:
            return item
        losses = [self._placement.loss_of(one) for one in waiting]
        if self._full and (not self._nodes or any(loss and loss.reason == self._full for loss in losses)):
            raise NoRoomForFramesError(self._full)
        if not self._nodes and time.monotonic() - self._lost_at > self._outage_s:
            raise OutageError(f"the cluster has had no node that can run samples for {self._outage_s:g} s")
        hopeless = next((one for one in waiting if self._nodes and self._hopeless_loss(one)), None)
        if hopeless is not None:
            waiting.remove(hopeless)
        return hopeless

    def _hopeless_loss(self, item: Item) -> Loss | None:
        loss = self._placement.loss_of(item)
        return loss if loss and time.monotonic() - loss.lost_at > self._outage_s else None

    async def run(self, item: Item, assignment: Assignment) -> Record:
        """See Executor. A lost node is neither the failure of the sample nor that of the server."""
        try:
            while (node := self._nodes.get(self._placement.node_of(item))) is None:
                if loss := self._hopeless_loss(item):
                    reason = f"no node with its video joined within {self._outage_s:g} s; {loss.reason}"
                    log.warning("sample %d is given up: %s", item.index, reason)
                    return exception_record(item, NodeGoneError(reason))
                # Its node was lost before it began.
                if self._place(deque([item])) is None:
                    await asyncio.sleep(POLL_S)
            return await self._run_on(node, item, assignment)
        finally:
            self._placement.end(item)

    async def _run_on(self, node: NodeActor, item: Item, assignment: Assignment) -> Record:
        server = assignment.server
        try:
            played: Played = await node.call("run", item, server.model.base_url, assignment.rank)
        except NodeGoneError as gone:
            raise self._lose(node, gone, str(gone)) from gone
        self._counts[node] = played.counts
        for line in played.lines:
            log.warning("%s", line)
        if played.refused_rank is not None:
            await server.ranks.refuse(played.refused_rank)
        result = played.result
        if isinstance(result, FrameToolUnusableError):
            raise self._lose(node, result, f"on the node {node.name}, {result}", full=True)
        if isinstance(result, UnansweredError) and result.lost:
            await assignment.pool.verify_up(server, started_at=time.monotonic())
        if isinstance(result, OutageError):
            # Where no server answers the driver either, its own probes end the run.
            raise self._lose(node, result, f"the node {node.name} reaches no server: {result}")
        if isinstance(result, EvaError):
            raise result
        return result

    async def close(self) -> None:
        """End the actors, and leave the cluster."""
        self._watching.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                await asyncio.gather(*(node.call("close") for node in self._nodes.values()), return_exceptions=True)
        for node in self._nodes.values():
            node.kill()
        ray.shutdown()


async def join_cluster(address: str, settings: NodeSettings, videos: Collection[str]) -> ClusterExecutor:
    """An executor on the cluster at `address` (HOST:PORT, or "auto": the one that this machine is in), ready to run.

    Raises ClusterError if there is no cluster, or if no node is ready.
    """
    connect(address)
    cluster = ClusterExecutor(settings, videos)
    await cluster.start()
    return cluster
