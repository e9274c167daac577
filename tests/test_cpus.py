"""Processors are counted as the job got them, not as the machine has them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT

from eva.cpus import available_cpus

COUNT = "from eva.cpus import available_cpus; print(available_cpus())"


def counted(*before: str) -> int:
    """What a process counts that runs behind the words `before`."""
    command = [*before, sys.executable, "-c", COUNT]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def counted_in(folder: Path, cgroup: str, files: dict[str, str]) -> int:
    """What a process counts that is in the control group `cgroup`, with these files of groups."""
    for name, text in {**files, "proc/cgroup": cgroup}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text and text + "\n")
    return available_cpus(folder / "proc", folder)


V1 = "4:cpu,cpuacct:/docker/1a2b"
ONE_CPU = {"cpu.cfs_quota_us": "100000", "cpu.cfs_period_us": "100000"}
LIMITED = {
    "a quota of its own (v2)": ("0::/job", {"job/cpu.max": "50000 100000"}),
    "a quota of a group around it (v2)": (
        "0::/job/step", {"job/cpu.max": "100000 100000", "job/step/cpu.max": "max 100000"},
    ),
    "a container that sees only its own group (v2)": ("0::/", {"cpu.max": "10000 100000"}),
    "a group of its own (v1)": (V1, {f"cpu/docker/1a2b/{name}": text for name, text in ONE_CPU.items()}),
    "a container that sees only its own group (v1)": (V1, {f"cpu/{name}": text for name, text in ONE_CPU.items()}),
}  # fmt: skip
UNLIMITED = {
    "no quota (v2)": ("0::/job", {"job/cpu.max": "max 100000"}),
    "no quota (v1)": (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}),
    "more than there are": ("0::/", {"cpu.max": "9900000 100000"}),
    "no control groups": ("", {}),
}


@pytest.mark.parametrize("name", LIMITED)
def test_a_quota_limits_the_count(tmp_path: Path, name: str) -> None:
    assert counted_in(tmp_path, *LIMITED[name]) == 1


@pytest.mark.parametrize("name", UNLIMITED)
def test_without_a_quota_the_affinity_counts(tmp_path: Path, name: str) -> None:
    assert counted_in(tmp_path, *UNLIMITED[name]) == len(os.sched_getaffinity(0))


def test_a_part_of_a_processor_counts_as_one(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    assert counted_in(tmp_path, "0::/", {"cpu.max": "110000 100000"}) == 2


@pytest.mark.process
def test_a_process_bound_to_one_processor_counts_one() -> None:
    one = str(min(os.sched_getaffinity(0)))
    bind = f"import os, sys; os.sched_setaffinity(0, {{{one}}}); os.execv(sys.argv[1], sys.argv[1:])"
    assert counted(sys.executable, "-c", bind) == 1


@contextlib.contextmanager
def quota_group() -> Iterator[Path]:
    """A real control group of one processor."""
    name = f"eva-test-{os.getpid()}"
    v1, v2 = Path("/sys/fs/cgroup/cpu", name), Path("/sys/fs/cgroup", name)
    group = v1 if v1.parent.is_dir() else v2
    try:
        group.mkdir()
        if group == v1:
            (group / "cpu.cfs_quota_us").write_text("100000")
        else:
            (group / "cpu.max").write_text("100000 100000")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield group
    finally:
        group.rmdir()


@pytest.mark.process
def test_a_process_in_a_real_control_group_of_one_processor_counts_one() -> None:
    with quota_group() as group:
        enter = (
            "import os, sys; "
            "group = os.open(sys.argv[1] + '/cgroup.procs', os.O_WRONLY); "
            "os.write(group, str(os.getpid()).encode()); os.close(group); "
            "os.execv(sys.argv[2], sys.argv[2:])"
        )
        assert counted(sys.executable, "-c", enter, str(group)) == 1
