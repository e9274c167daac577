"""Ray: joining its cluster, which machines it has, and an actor on each of them. No other module knows it."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass, field
from typing import Any, cast

import ray
import ray._private.worker
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from eva.cluster.node import Node, Orders
from eva.errors import EvaError
from eva.frames.tool import FrameCounts

CONNECT_TIMEOUT_S = 10.0
MOST_OF_A_LINE = 160
# Calls of one actor under way: a sample waits in one or two of them.
MOST_CALLS = 100_000


class ClusterError(EvaError):
    """A cluster that no run can start on."""


class NodeGoneError(EvaError):
    """The actor of a node can no longer be reached."""


def connect(address: str) -> None:
    """Join the cluster at `address` (HOST:PORT, or "auto" for the one that this machine is in) as its driver.

    Raises ClusterError, within a minute, where there is none or where it runs another Ray or Python.
    """
    # Nothing of a run is told to anybody.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        # Ray itself would start a cluster of its own where it finds none, and try for minutes where something else
        # answers.
        found = canonicalize_bootstrap_address_or_die(address)
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
        cast(Any, ray)._raylet.GcsClient(address=found)
        ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
        # What the cluster's own processes complain of would still be printed, among the run's summary.
        ray._private.worker._worker_logs_enabled = False
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise ClusterError(
            f"no Ray cluster can be joined at {address} ({brief(error)}): this machine must be one of its nodes, "
            "start it there with  ray start --address=HOST:PORT"
        ) from error


def disconnect() -> None:
    """Leave the cluster; the actors that this process started end."""
    ray.shutdown()


def brief(error: Exception) -> str:
    """Ray's errors go on for pages: what was tried stands in the first line, the reason in the last."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    ends = lines[:1] if len(lines) == 1 else [lines[0], lines[-1]]
    return " ... ".join(line.strip()[:MOST_OF_A_LINE] for line in ends)


@dataclass(frozen=True)
class Host:
    """A machine of the cluster, as Ray knows it."""

    node_id: str
    name: str


@dataclass(eq=False)
class Remote:
    """The actor on a node."""

    host: Host
    actor: Any
    usage: FrameCounts = field(default_factory=FrameCounts)

    async def call(self, method: str, *arguments: object) -> Any:
        """Raises NodeGoneError where no answer will come."""
        try:
            return await getattr(self.actor, method).remote(*arguments)
        except RayTaskError as error:
            raise EvaError(f"the node {self.host.name} failed in {method}: {brief(error)}") from error
        except RayError as error:
            raise NodeGoneError(f"the node {self.host.name} was lost: {brief(error)}") from error

    def kill(self) -> None:
        """End the actor at once."""
        ray.kill(self.actor)


def make_remote(host: Host, orders: Orders) -> Remote:
    """An actor on that machine, which ends with this process. It takes no CPU from Ray's books: the cluster is ours, or
    the servers that run on it are."""
    options = {
        "num_cpus": 0,
        "max_concurrency": MOST_CALLS,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(host.node_id, soft=False),
    }
    return Remote(host, ray.remote(Node).options(**options).remote(orders))


def hosts() -> list[Host]:
    """The machines that are up and lend CPUs: one started with --num-cpus=0 plays nothing. Raises ClusterError."""
    try:
        nodes = cast(Any, ray).nodes()  # it has no types
    except (RayError, ConnectionError) as error:
        raise ClusterError(f"the head of the Ray cluster does not answer: {brief(error)}") from error
    return [
        Host(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})")
        for node in nodes
        if node["Alive"] and node["Resources"].get("CPU", 0) > 0
    ]
