"""Which nodes of a cluster are in: those that came, those that were lost, and those that are tried again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from eva.cluster.node import Arrival, NodeSettings, versions
from eva.cluster.placement import Loss, Placement
from eva.cluster.ray_actors import ClusterError, Host, NodeActor, NodeGoneError, list_hosts, start_actor
from eva.errors import EvaError
from eva.frames.tool import FrameCounts

log = logging.getLogger(__name__)

# For a node to import the harness and the tokenizer, perhaps from a slow network disk, and to find its videos.
START_TIMEOUT_S = 600.0
# For a node to end samples or its frame workers. After this time nobody waits for it.
END_TIMEOUT_S = 10.0
# The pause before a node whose actor died or could not start is tried again; it doubles.
PAUSE_S = 2.0
MAX_PAUSE_S = 60.0
NEVER = float("inf")


class VersionsDifferError(ClusterError):
    """A node runs other code than the driver, or has other packages."""


class BackgroundTasks:
    """Tasks beside the samples. The error of one ends the run: without it the nodes would not be watched any more."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._error = task.exception() or self._error

    def check(self) -> None:
        """Raise the error of a task that failed."""
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Stop all tasks."""
        for task in tuple(self._tasks):
            task.cancel()


class Nodes:
    """The nodes that are in. `placement` learns which come and go.

    `full` says that the disk of a node was full; `lost_at` is when the last node was lost (monotonic clock).
    """

    def __init__(
        self,
        settings: NodeSettings,
        videos: Collection[str],
        placement: Placement,
        tasks: BackgroundTasks,
    ) -> None:
        self._settings, self._videos, self._placement = settings, frozenset(videos), placement
        self._tasks = tasks
        self._versions: Mapping[str, str] = {}
        self._nodes: dict[str, NodeActor] = {}
        self._counts_of_lost = FrameCounts()
        self._retries: dict[str, int] = {}
        self._due_at: dict[str, float] = {}
        self.full = ""
        self.lost_at = 0.0

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, node_id: str) -> NodeActor:
        return self._nodes[node_id]

    @property
    def counts(self) -> FrameCounts:
        """The frames of all samples so far, also on nodes that were lost."""
        return _sum([self._counts_of_lost, *(node.counts for node in self._nodes.values())])

    async def start(self) -> None:
        """Start the nodes that the cluster has. Raises ClusterError if one runs other code, or if none is ready."""
        self._versions = versions()
        problems = await asyncio.gather(*map(self._join, list_hosts()))
        if not self._nodes:
            raise ClusterError("no node of the cluster can run samples; " + "; ".join(filter(None, problems)))

    async def start_new(self) -> None:
        """Begin to start the machines that have come, and those whose pause is over. Raises ClusterError."""
        for host in await asyncio.to_thread(list_hosts):
            if host.node_id not in self._nodes and time.monotonic() >= self._due_at.get(host.node_id, 0):
                self._due_at[host.node_id] = NEVER  # until this attempt is over
                self._tasks.spawn(self._join_late(host))

    async def _join_late(self, host: Host) -> None:
        try:
            await self._join(host)
        except VersionsDifferError as error:
            log.warning("%s", error)

    async def _join(self, host: Host) -> str:
        """Start an actor on the machine. Why that failed, or the empty text. Raises VersionsDifferError."""
        self._due_at[host.node_id] = NEVER
        node = start_actor(host, self._settings)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                arrival = await self._start_node(node)
        except (TimeoutError, EvaError) as error:
            node.kill()
            if isinstance(error, VersionsDifferError):
                raise
            return self._leave_out(host, str(error) or f"it was not ready after {START_TIMEOUT_S:g} s")
        if arrival.problem:
            node.kill()
            return self._leave_out(host, arrival.problem)
        self._nodes[host.node_id] = node
        self._retries.pop(host.node_id, None)
        self._placement.join(host.node_id, arrival.videos)
        log.info(
            "node %s: %d frame workers, %d of %d videos, images as %s (%s)",
            host.name, arrival.workers, len(arrival.videos), len(self._videos), arrival.transport,
            arrival.transport_reason,
        )  # fmt: skip
        return ""

    async def _start_node(self, node: NodeActor) -> Arrival:
        here, there = self._versions, await node.call("versions")
        differing = [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)]
        if differing:
            raise VersionsDifferError(
                f"the node {node.host.name} is not set up as this machine: "
                + ", ".join(f"{name} {there.get(name)} there, {here.get(name)} here" for name in sorted(differing))
            )
        arrival: Arrival = await node.call("start", self._videos)
        return arrival

    def _leave_out(self, host: Host, reason: str) -> str:
        self._put_off(host)
        sentence = f"node {host.name} is left out: {reason}"
        log.warning("%s", sentence)
        return sentence

    def _put_off(self, host: Host) -> None:
        retry = self._retries[host.node_id] = self._retries.get(host.node_id, -1) + 1
        self._due_at[host.node_id] = time.monotonic() + min(MAX_PAUSE_S, PAUSE_S * 2**retry)

    def lose(self, node: NodeActor, reason: str, *, full: bool = False) -> None:
        """Go on without the node. Each of its samples calls this, and the first call counts. A `full` one never comes
        back."""
        if self._nodes.get(node.host.node_id) is not node:
            return
        del self._nodes[node.host.node_id]
        self._counts_of_lost = _sum([self._counts_of_lost, node.counts])
        self.lost_at = time.monotonic()
        samples = self._placement.leave(node.host.node_id, Loss(reason, self.lost_at))
        self._put_off(node.host)
        log.warning("%s; %d of its samples start again elsewhere", reason, len(samples))
        if full:
            self.full, self._due_at[node.host.node_id] = reason, NEVER
        node.kill()

    async def ask_one_token(self, url: str) -> str:
        """Why the server at `url` does not answer again what it answered to any node, or the empty text."""
        reason = "there is no node that can ask the server"
        for node in tuple(self._nodes.values()):
            try:
                reason = await node.call("ask_one_token", url)
            except NodeGoneError as gone:
                reason = str(gone)
            if not reason:
                break
        return reason

    async def close(self) -> None:
        """End all actors."""
        closing = [node.call("close") for node in self._nodes.values()]
        with suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                await asyncio.gather(*closing, return_exceptions=True)
        for node in self._nodes.values():
            node.kill()


def _sum(counts: Collection[FrameCounts]) -> FrameCounts:
    return FrameCounts(sum(one.asked for one in counts), sum(one.decoded for one in counts))
