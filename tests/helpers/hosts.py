"""Two hosts on this machine, of Linux namespaces: each has its own address, disk, processes, name, /tmp and shared
memory, and a cable goes from the one to the other. Only root may make them."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import ROOT, environment, wait_until

CARD = "eth0"
# Where the disk of a host is, on that host. It outlives a reboot, /tmp around it does not.
DISK = Path("/tmp/disk")  # noqa: S108
# The disk and the card of a host stay when it goes down, as real ones do: this process keeps them.
BUILD = 'mount -t tmpfs none "$1" && echo ready && exec sleep infinity'
# What a new process must do before it is a host. /tmp is mounted last: the folders that are bound lie under the old
# one.
BOOT = """
set -eu
tmp=$1; disk=$2; shift 2
mount -t tmpfs none "$tmp"
for folder in "$disk:disk" "$@"; do
    mkdir -p "$tmp/${folder#*:}"
    mount --rbind "${folder%%:*}" "$tmp/${folder#*:}"
done
mount --move "$tmp" /tmp
mount -t tmpfs none /dev/shm
hostname "$NAME"
echo ready
while :; do sleep 3600 & wait; done
"""
WHOLE = ("--mount", "--uts", "--ipc", "--pid", "--net")


@dataclass
class Host:
    """`shared` are the folders under /tmp that all hosts see, as on a network disk."""

    name: str
    address: str
    folder: Path
    shared: Sequence[Path]
    hardware: subprocess.Popen[str] = field(init=False)
    init: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("tmp", "disk"):
            (self.folder / name).mkdir(parents=True)
        self.hardware = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation=private",
             "sh", "-c", BUILD, "sh", str(self.folder / "disk")],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for_ready(self.hardware)

    @property
    def disk(self) -> Path:
        """The host's disk as this test sees it."""
        return Path(f"/proc/{self.hardware.pid}/root{self.folder}/disk")

    def plug_in(self) -> None:
        self.on_network("ip", "address", "add", f"{self.address}/24", "dev", CARD)
        self.on_network("ip", "link", "set", "lo", "up")
        self.link("up")

    def link(self, state: str) -> None:
        """Pull the cable (down), or plug it in (up)."""
        self.on_network("ip", "link", "set", CARD, state)
        if state == "up":  # it goes with the link; Ray looks for its own address by it
            self.on_network("ip", "route", "replace", "default", "dev", CARD)

    def on_network(self, *command: str) -> None:
        subprocess.run(["nsenter", f"--target={self.hardware.pid}", "--net", *command], check=True)

    def boot(self) -> None:
        bound = [f"{folder}:{folder.relative_to('/tmp')}" for folder in self.shared]  # noqa: S108
        self.init = subprocess.Popen(
            ["nsenter", f"--target={self.hardware.pid}", "--net", "--mount",
             "unshare", *WHOLE[:-1], "--fork", "--kill-child", "--mount-proc", "--propagation=private",
             "bash", "-c", BOOT, "init", str(self.folder / "tmp"), str(self.folder / "disk"), *bound],
            stdout=subprocess.PIPE, text=True, env=environment(NAME=self.name),
        )  # fmt: skip
        wait_for_ready(self.init)

    def power_off(self) -> None:
        """All its processes are gone at once."""
        self.init.kill()
        self.init.communicate()

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """A process on this host."""
        enter = ["nsenter", f"--target={only_child(self.init.pid)}", *WHOLE]
        return subprocess.Popen(
            [*enter, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(**variables), start_new_session=True,
        )  # fmt: skip


def wait_for_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "a host could not be made; it says why above"


def only_child(pid: int) -> int:
    """The process that nsenter or unshare forked."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: children.read_text(encoding="utf-8").strip() != "")
    return int(children.read_text(encoding="utf-8"))


def may_make_hosts() -> str:
    """Why not, or the empty text."""
    if missing := [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]:
        return f"{', '.join(missing)} is not installed (apt-get install iproute2 util-linux)"
    tried = subprocess.run(["unshare", *WHOLE, "--fork", "--mount-proc", "ip", "link", "add", "test0", "type", "veth"],
                           capture_output=True, text=True, check=False)  # fmt: skip
    return f"no namespaces can be made here: {tried.stderr.strip()}" if tried.returncode else ""


@contextlib.contextmanager
def two_hosts(folder: Path, *shared: Path) -> Iterator[tuple[Host, Host]]:
    """They are up, and the cable is plugged in. Skips the test where they cannot be made."""
    if problem := may_make_hosts():
        pytest.skip(problem)
    with contextlib.ExitStack() as stack:
        seen = in_tmp([*shared, ROOT, Path(sys.prefix), Path(sys.base_prefix)])
        hosts = []
        for number, name in enumerate(("one", "two"), start=1):
            hosts.append(Host(name, f"10.77.0.{number}", folder / name, seen))
            stack.callback(end, hosts[-1].hardware)
        one, two = hosts
        one.on_network(
            "ip", "link", "add", "name", CARD, "type", "veth", "peer", "name", CARD, "netns", str(two.hardware.pid)
        )
        for host in hosts:
            host.plug_in()
            host.boot()
            stack.callback(host.power_off)
        yield one, two


def in_tmp(folders: Sequence[Path]) -> list[Path]:
    return [folder for folder in folders if folder.is_relative_to("/tmp")]  # noqa: S108


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
