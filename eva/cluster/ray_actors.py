"""Ray: joining its cluster, listing its machines, and starting an actor on one. No other module imports Ray."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from typing import Any, cast

import ray
import ray._private.worker
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from eva.cluster.node import Node, NodeSettings
from eva.errors import EvaError

CONNECT_TIMEOUT_S = 10.0


class ClusterError(EvaError):
    """A cluster on which no run can start."""


class NodeGoneError(EvaError):
    """The actor of a node can no longer be reached."""


def connect(address: str) -> None:
    """Join the cluster at `address` (HOST:PORT, or "auto" for the one that this machine is in) as its driver.

    Raises ClusterError, within a minute, if there is no cluster or if it runs another Ray or Python.
    """
    # Ray must not report the use of a run to its authors.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        # Without these checks, Ray starts a cluster of its own where it finds none, and tries for minutes where another
        # program answers.
        found = canonicalize_bootstrap_address_or_die(address)
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
        cast(Any, ray)._raylet.GcsClient(address=found)
        ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
        # Otherwise complaints of the cluster's processes are printed between the lines of the summary.
        ray._private.worker._worker_logs_enabled = False
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise ClusterError(
            f"no Ray cluster can be joined at {address} ({shorten(error)}): this machine must be one of its nodes, "
            "start it there with  ray start --address=HOST:PORT"
        ) from error


def shorten(error: Exception) -> str:
    """The first and the last line. Errors of Ray have pages: the first line says what failed, the last one why."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ... ".join(line.strip()[:160] for line in dict.fromkeys([lines[0], lines[-1]]))


@dataclass(eq=False)
class NodeActor:
    """A machine of the cluster, by its identity in Ray and its name for people. Once started, the Node on it."""

    node_id: str
    name: str
    actor: Any = None

    def start(self, settings: NodeSettings) -> None:
        """Start the Node. It ends with this process. It reserves no CPU in Ray: other programs of the cluster, such as
        servers, may have reserved all."""
        here = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        # As many calls at the same time as there are samples.
        node = ray.remote(Node).options(num_cpus=0, max_concurrency=100_000, scheduling_strategy=here)
        self.actor = node.remote(settings)

    async def call(self, method: str, *arguments: object) -> Any:
        """Call a method of Node. Raises NodeGoneError if the node is gone."""
        try:
            return await getattr(self.actor, method).remote(*arguments)
        except RayTaskError as error:
            raise EvaError(f"the node {self.name} failed in {method}: {shorten(error)}") from error
        except RayError as error:
            raise NodeGoneError(f"the node {self.name} was lost: {shorten(error)}") from error

    def kill(self) -> None:
        """End the actor at once."""
        ray.kill(self.actor)


def list_nodes() -> list[NodeActor]:
    """The machines that are up and have CPUs: one that was started with --num-cpus=0 runs no samples. Raises
    ClusterError."""
    try:
        nodes = cast(Any, ray).nodes()  # it has no types
    except (RayError, ConnectionError) as error:
        raise ClusterError(f"the head of the Ray cluster does not answer: {shorten(error)}") from error
    return [
        NodeActor(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})")
        for node in nodes
        if node["Alive"] and node["Resources"].get("CPU", 0) > 0
    ]
