"""The number of processors that this process may use. The machine may have many more."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc/self")


def available_cpus(proc: Path = PROC) -> int:
    """The number that the affinity (Slurm, taskset) and the quotas of the control groups allow; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Rounded up: with a quota of 1.5 processors, one process would leave a third unused.
    return max(1, min([allowed, *map(math.ceil, _read_quotas(proc))]))


def _read_quotas(proc: Path) -> Iterator[float]:
    """The quotas, in processors, of the control groups of this process and of all groups around them."""
    for folder in _group_folders(proc):
        with suppress(OSError, ValueError):  # "max" means no limit, and the outermost group has no such file
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)
        with suppress(OSError, ValueError):
            quota_us = int((folder / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:  # -1 means no limit
                yield quota_us / int((folder / "cpu.cfs_period_us").read_text())


def _group_folders(proc: Path) -> Iterator[Path]:
    with suppress(OSError):
        groups = dict(_parse_groups((proc / "cgroup").read_text()))
        for line in (proc / "mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            root, mount_point = before.split()[3:5]
            kind, _, options = after.split()[:3]
            version = {"cgroup2": "2", "cgroup": "1" if "cpu" in options.split(",") else ""}.get(kind, "")
            if version in groups:
                yield from _folders_up(Path(mount_point), root, groups[version])


def _parse_groups(text: str) -> Iterator[tuple[str, str]]:
    """Pairs: the version of the control groups, "1" or "2", and the path of the group in its hierarchy."""
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield "2", path
        elif "cpu" in controllers.split(","):
            yield "1", path


def _folders_up(mount_point: Path, root: str, group: str) -> Iterator[Path]:
    """The folder of the group and those around it, up to the mount point. In a container, the mount may show only a
    part of the path."""
    inner = group.removeprefix(root.rstrip("/")).strip("/")
    folder = mount_point / inner
    yield folder
    while folder != mount_point:
        folder = folder.parent
        yield folder
