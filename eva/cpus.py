"""The number of processors that this process may use. The machine may have many more."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def available_cpus(proc: Path = Path("/proc/self"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """The number that the affinity (Slurm, taskset) and the quotas of the control groups allow; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Rounded up: with a quota of 1.5 processors, one process would leave a third unused.
    return max(1, min([allowed, *map(math.ceil, _quotas(proc, groups))]))


def _quotas(proc: Path, groups: Path) -> Iterator[float]:
    """The quotas, in processors, of the control groups of this process and of all groups around them."""
    with suppress(OSError):
        for line in (proc / "cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            top = groups if number == "0" else groups / "cpu"
            group = top / path.strip("/")
            # In a container, the path can be that of the host, and only the top is there.
            for folder in (group, *group.parents) if number == "0" or "cpu" in controllers.split(",") else ():
                with suppress(OSError, ValueError):  # "max" means no limit, and the outermost group has no such file
                    quota, period = (folder / "cpu.max").read_text().split()
                    yield int(quota) / int(period)
                with suppress(OSError, ValueError):
                    quota_us = int((folder / "cpu.cfs_quota_us").read_text())
                    if quota_us > 0:  # -1 means no limit
                        yield quota_us / int((folder / "cpu.cfs_period_us").read_text())
                if folder == top:
                    break
