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
from math import inf

import ray

from eva.cluster.node import Arrival, NodeSettings, Played, versions
from eva.cluster.placement import Placement
from eva.cluster.ray_actors import ClusterError, NodeActor, NodeGoneError, connect, list_nodes
from eva.dataset.items import Item
from eva.endpoint.errors import OutageError, UnansweredError
from eva.endpoint.pool import Assignment
from eva.errors import EvaError
from eva.frames.tool import FrameCounts, FrameToolUnusableError
from eva.records.schema import Record
from eva.run.executor import Executor

log = logging.getLogger(__name__)

# How often the nodes of the cluster are listed.
POLL_S = 2.0
# For a node to import the harness and the tokenizer, perhaps from a slow network disk, and to find its videos.
START_TIMEOUT_S = 600.0
# For a node to end its samples and its frame workers. After this time nobody waits for it.
END_TIMEOUT_S = 10.0
# The pause before a node that could not start is tried again.
PAUSE_S = 60.0


class ClusterExecutor(Executor):
    """Runs samples on the nodes that are in, by their identities in Ray.

    `_due_at` says when a node may start (again); `_lost` is why the last node was lost or left out, and `_lost_at` when
    one was lost (monotonic clock). `_told` says that the user knows of samples that wait for a node.
    """

    def __init__(self, settings: NodeSettings, videos: Collection[str]) -> None:
        self._settings, self._videos, self._versions = settings, frozenset(videos), versions()
        self._outage_s = settings.options.outage_timeout
        self._placement = Placement()
        self._nodes: dict[str, NodeActor] = {}
        self._counts: dict[NodeActor, FrameCounts] = {}
        self._due_at: dict[str, float] = {}
        self._lost, self._lost_at, self._told = "none has a CPU", 0.0, False

    # --- which nodes are in

    async def start(self, address: str) -> None:
        """Join the cluster at `address` (HOST:PORT, or "auto": the one that this machine is in), start its nodes, and
        watch for new ones. Raises ClusterError if there is no cluster, or if no node is ready."""
        connect(address)
        await asyncio.gather(*map(self._join, list_nodes()))
        if not self._nodes:
            raise ClusterError(f"no node of the cluster can run samples: {self._lost}")
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Start the machines that come, and those whose pause is over."""
        async with asyncio.TaskGroup() as joining:
            while True:
                await asyncio.sleep(POLL_S)
                for node in await asyncio.to_thread(list_nodes):
                    if node.node_id not in self._nodes and time.monotonic() >= self._due_at.get(node.node_id, 0):
                        joining.create_task(self._join(node))

    async def _join(self, node: NodeActor) -> None:
        """Start the node. A line says why that failed."""
        self._due_at[node.node_id] = inf  # until this attempt is over
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
            self._due_at[node.node_id] = time.monotonic() + PAUSE_S
            self._lost = f"node {node.name} is left out: {problem}"
            log.warning("%s", self._lost)
            return
        self._nodes[node.node_id] = node
        self._placement.join(node.node_id, arrival.videos)
        log.info(
            "node %s: %d frame workers, %d of %d videos, images as %s",
            node.name, arrival.workers, len(arrival.videos), len(self._videos), arrival.transport,
        )  # fmt: skip

    def _lose(self, node: NodeActor, error: Exception, reason: str, *, due_at: float = 0) -> UnansweredError:
        """Go on without the node; what its samples raise. Each of them calls this, and the first call counts."""
        if self._nodes.get(node.node_id) is node:
            del self._nodes[node.node_id]
            self._lost, self._lost_at = reason, time.monotonic()
            samples = self._placement.leave(node.node_id)
            self._due_at[node.node_id] = due_at
            log.warning("%s; %d of its samples start again elsewhere", reason, len(samples))
            node.kill()
        return UnansweredError(error, lost=True)

    # --- the samples

    @property
    def counts(self) -> FrameCounts:
        counts = self._counts.values()
        return FrameCounts(sum(one.asked for one in counts), sum(one.decoded for one in counts))

    def take(self, waiting: deque[Item]) -> Item | None:
        """Take a sample that has a node; None while none of them has one. Raises OutageError if none had one for the
        outage timeout, and none runs."""
        if self._watching.done():
            error = self._watching.exception()
            raise error.exceptions[0] if isinstance(error, BaseExceptionGroup) else asyncio.CancelledError()
        item = self._placement.take(waiting)
        if item is None and not self._told:
            log.warning("samples wait for a node with their videos to join, at most %g s", self._outage_s)
        self._told = item is None
        if item is None and not self._placement.busy and time.monotonic() - self._lost_at > self._outage_s:
            raise OutageError(
                f"no node that can run the waiting samples has joined for {self._outage_s:g} s; {self._lost}"
            )
        return item

    async def run(self, item: Item, assignment: Assignment) -> Record:
        """See Executor. A lost node is neither the failure of the sample nor that of the server."""
        try:
            # A suspect waits for its turn, and its node may be lost meanwhile.
            while (node := self._nodes.get(self._placement.node_of(item))) is None:
                if self.take(deque([item])) is None:
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
            server.ranks.forget()
        result = played.result
        if isinstance(result, FrameToolUnusableError):
            lost = self._lose(node, result, f"on the node {node.name}, {result}", due_at=inf)
            raise lost if self._nodes else result
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
