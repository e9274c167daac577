"""How many processors this process may use: the machine may have many more than the job was given."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc/self")


def available_cpus(proc: Path = PROC) -> int:
    """At least 1: those that the affinity allows (Slurm, taskset), and no more than the control groups' quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Of a quota of 1.5 processors, one process would leave a third unused.
    return max(1, min([allowed, *map(math.ceil, _quotas(proc))]))


def _quotas(proc: Path) -> Iterator[float]:
    """The quotas in processors of this process's control groups and of all groups around them, where there are any."""
    for folder in _group_folders(proc):
        with suppress(OSError, ValueError):  # no limit says "max", and the outermost group has no such file
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)
        with suppress(OSError, ValueError):
            quota_us = int((folder / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:  # -1: no limit
                yield quota_us / int((folder / "cpu.cfs_period_us").read_text())


def _group_folders(proc: Path) -> Iterator[Path]:
    with suppress(OSError):
        groups = dict(_groups((proc / "cgroup").read_text()))
        for line in (proc / "mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            root, mount_point = before.split()[3:5]
            kind, _, options = after.split()[:3]
            version = {"cgroup2": "2", "cgroup": "1" if "cpu" in options.split(",") else ""}.get(kind, "")
            if version in groups:
                yield from _upwards(Path(mount_point), root, groups[version])


def _groups(text: str) -> Iterator[tuple[str, str]]:
    """("1" or "2", path of the group in that version's hierarchy of processors)."""
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield "2", path
        elif "cpu" in controllers.split(","):
            yield "1", path


def _upwards(mount_point: Path, root: str, group: str) -> Iterator[Path]:
    """The group's folder and those around it, up to the mount point. In a container, the mount may show less than the
    path says."""
    inner = group.removeprefix(root.rstrip("/")).strip("/")
    folder = mount_point / inner
    yield folder
    while folder != mount_point:
        folder = folder.parent
        yield folder
