#!/usr/bin/env python3
"""What frames cost: this tool, compared with a process per call with decord and OpenCV.

    pip install --no-deps -r requirements/benchmarks.txt
    python benchmarks/frames.py [--whole-run]

Per row and tool the median of --repeats calls, for which the tools take turns: CPU seconds, wall seconds, peak memory,
and bytes written to and read from the disk. No byte of the video is in memory when a call begins.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path

from footage import Footage, make_video

HERE = Path(__file__).resolve().parent
TOOL = HERE.parent / "select_frame_fallback.py"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Row:
    """One call, on a video made for it. `decord`: it opens this video."""

    name: str
    footage: Footage
    start_s: float
    end_s: float
    nframes: int
    decord: bool = True


ROWS = (
    Row("16 of 3 min", Footage(3), 0, 180, 16),
    Row("32 of 12 min", Footage(12), 0, 720, 32),
    Row("32 of 1 h", Footage(60), 0, 3600, 32),
    Row("16 of 30 s in 1 h", Footage(60), 1801, 1831, 16),
    Row("8 of 20 s at 360p", Footage(1 / 3, 640, 360), 0, 20, 8),
    Row("1 of 20 s at 360p", Footage(1 / 3, 640, 360), 0, 20, 1),
    Row("8 of a million frames", Footage(1_000_000 / 3600, 64, 64, fps=60), 0, 16_666, 8),
    Row("16 of 3 min, HEVC", Footage(3, encoder="libx265"), 0, 180, 16),
    Row("16 of 3 min, VP9", Footage(3, encoder="libvpx-vp9"), 0, 180, 16, decord=False),
    Row("16 of 3 min, AV1", Footage(3, encoder="libsvtav1"), 0, 180, 16, decord=False),
)


@dataclass(frozen=True)
class Cost:
    """Of one call; `memory_mb` is the process's peak."""

    cpu_s: float
    wall_s: float
    memory_mb: float
    written_mb: float
    read_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, default=Path(tempfile.gettempdir()) / "eva-benchmark-videos")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="*", default=range(len(ROWS)), help="which rows, counted from 0")
    parser.add_argument("--whole-run", action="store_true", help="compare whole runs instead (see whole_run.py)")
    parser.add_argument("--questions", type=int, default=60, help="of the whole run, six on each video")
    arguments = parser.parse_args()
    arguments.videos.mkdir(parents=True, exist_ok=True)
    if arguments.whole_run:
        from whole_run import compare  # noqa: PLC0415 - brings the harness's own imports

        compare(made(arguments.videos, Footage(3)), arguments.questions)
        return
    print("| call | by | CPU s | of the first | wall s | of the first | peak MB | written MB | read MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for number in arguments.rows:
        row = ROWS[number]
        video = made(arguments.videos, row.footage)
        report(row, measure(row, video, arguments.repeats))


def made(folder: Path, footage: Footage) -> Path:
    """A video of the benchmark, made by another process: the peak memory of a child includes that of its parent."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(make_video, folder, footage).result()


def measure(row: Row, video: Path, repeats: int) -> dict[str, Cost]:
    """The median cost of each tool."""
    rounds = [one_round(row, video) for _ in range(repeats)]
    return {name: median([costs[name] for costs in rounds]) for name in rounds[0]}


def one_round(row: Row, video: Path) -> dict[str, Cost]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs = {}
        if row.decord:
            costs["baseline"] = by_process(HERE / "baseline_tool.py", video, words(row, video, folder / "baseline"))
        if importlib.util.find_spec("torchcodec"):
            costs["torchcodec"] = by_process(
                HERE / "torchcodec_tool.py", video, words(row, video, folder / "torchcodec")
            )
        costs["one-shot"] = by_process(TOOL, video, words(row, video, folder / "one-shot"))
        return costs | by_worker(row, video, folder / "store")


def words(row: Row, video: Path, root: Path) -> list[str]:
    numbers = [f"--start_time={row.start_s}", f"--end_time={row.end_s}", f"--nframes={row.nframes}", "--resize=1.0"]
    return [f"--video_path={video}", *numbers, "--factor=28", "--clamp", f"--save-root={root}"]


def by_process(script: Path, video: Path, arguments: Sequence[str]) -> Cost:
    """A process for the call, its start included."""
    evict(video)
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.DEVNULL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    wall_s, from_disk_mb = time.monotonic() - started, read_mb(process.pid)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{script} failed")
    root = Path(arguments[-1].partition("=")[2])
    return Cost(usage.ru_utime + usage.ru_stime, wall_s, usage.ru_maxrss / 1024, size_mb(root), from_disk_mb)


def by_worker(row: Row, video: Path, root: Path) -> dict[str, Cost]:
    """A warm worker: on a new video, on one with an index, and on one with frames in the store."""
    process = subprocess.Popen(
        [sys.executable, str(TOOL), "--worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    arguments = [*words(row, video, root), "--format=bmp"]
    warm_up = ["--video_path=/", f"--save-root={root}"]
    ask(process, warm_up)
    try:
        first = worker_cost(process, video, arguments, root)
        for picture in root.rglob("*.bmp"):
            picture.unlink()
        warm = worker_cost(process, video, arguments, root)
        return {
            "worker, new video": first,
            "worker, warm": warm,
            "revisited": worker_cost(process, video, arguments, root),
        }
    finally:
        process.kill()
        process.communicate()


def worker_cost(process: subprocess.Popen[str], video: Path, arguments: Sequence[str], root: Path) -> Cost:
    evict(video)
    before_mb, before_read_mb = size_mb(root), read_mb(process.pid)
    before_s, started = cpu_s(process.pid), time.monotonic()
    ask(process, arguments)
    wall_s, used_s = time.monotonic() - started, cpu_s(process.pid) - before_s
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak_mb = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return Cost(used_s, wall_s, peak_mb, size_mb(root) - before_mb, read_mb(process.pid) - before_read_mb)


def ask(process: subprocess.Popen[str], arguments: Sequence[str]) -> None:
    if process.stdin is None or process.stdout is None:
        raise SystemExit("the worker has no pipes")
    process.stdin.write(json.dumps({"words": list(arguments)}) + "\n")
    process.stdin.flush()
    process.stdout.readline()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def evict(video: Path) -> None:
    """Let the system forget the bytes of a file."""
    with video.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_mb(pid: int) -> float:
    """What a process has read from disks."""
    return int(Path(f"/proc/{pid}/io").read_text().partition("\nread_bytes:")[2].split()[0]) / 1e6


def size_mb(root: Path) -> float:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) / 1e6


def median(costs: Sequence[Cost]) -> Cost:
    def of(get: Callable[[Cost], float]) -> float:
        return statistics.median(map(get, costs))

    return Cost(*(of(attrgetter(field.name)) for field in fields(Cost)))


def report(row: Row, costs: dict[str, Cost]) -> None:
    base = next(iter(costs.values()))
    for name, cost in costs.items():
        cpu = f"{cost.cpu_s:.2f} | {cost.cpu_s / base.cpu_s:.2f}"
        wall = f"{cost.wall_s:.2f} | {cost.wall_s / base.wall_s:.2f}"
        sizes = f"{cost.memory_mb:.0f} | {cost.written_mb:.1f} | {cost.read_mb:.1f}"
        print(f"| {row.name} | {name} | {cpu} | {wall} | {sizes} |", flush=True)


if __name__ == "__main__":
    main()
