"""A Ray cluster of several nodes on this machine, by Ray's own utility. Each node has a disk of its own: a folder that
its variable EVA_TEST_DISK names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import environment
from ray.cluster_utils import Cluster

STORE_BYTES = 80 * 2**20
DISK = "EVA_TEST_DISK"


@dataclass
class Nodes:
    """`head` is where the drivers run; it has no CPUs to lend, so nothing is played there."""

    folder: Path
    cluster: Any = field(init=False)
    nodes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def disk(self, name: str) -> Path:
        return self.folder / name

    def add(self, name: str, videos: Iterable[Path], **variables: str) -> None:
        """A node whose disk has these videos, and whose environment these variables."""
        folder = self.disk(name) / "videos"
        folder.mkdir(parents=True, exist_ok=True)
        for video in videos:
            if not (folder / video.name).exists():
                (folder / video.name).symlink_to(video)
        env = environment(**variables, **{DISK: str(self.disk(name))})
        self.nodes[name] = self.cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, env_vars=env)

    def kill(self, name: str) -> None:
        """As if its power went."""
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def shutdown(self) -> None:
        self.cluster.shutdown()


@contextlib.contextmanager
def ray_cluster(folder: Path) -> Iterator[Nodes]:
    with contextlib.ExitStack() as stack:
        nodes = Nodes(folder)
        stack.callback(nodes.shutdown)
        yield nodes


def processes_on(disk: Path, *words: str, **variables: str) -> dict[int, str]:
    """By number, the command lines of the processes whose disk that is, that have these variables, and that hold one of
    the words."""
    wanted = {f"{name}={value}".encode() for name, value in {DISK: str(disk), **variables}.items()}
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            ours = entry.name.isdigit() and wanted <= set((entry / "environ").read_bytes().split(b"\0"))
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode() if ours else ""
        except OSError:
            continue
        if any(word in command for word in words):
            found[int(entry.name)] = command
    return found
