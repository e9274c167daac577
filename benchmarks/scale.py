"""What the driver of a run on several nodes costs, and how many samples per minute the run plays.

The nodes are logical ones on this machine. The scripted server takes half a second per reply. Each question makes one
call, for a few frames of a small video that many questions share, so that frames cost little and the rest shows. The
nodes, the driver and the server share the cores of this machine, which limit the result.

    python benchmarks/scale.py [--nodes 1,2,4,8] [--slots 4] [--minutes 0.5]      prints a table
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))

from harness import Bench, block, call, environment, make_video, row  # noqa: E402
from killable import KillableServer, killable  # noqa: E402
from ray_cluster import DISK, Nodes, ray_cluster  # noqa: E402
from tokenizer import build_tokenizer  # noqa: E402

REPLY_S = 0.5
REPLIES = 2
VIDEOS = 16
FRAMES = 4
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reading:
    """A run at one moment; CPU seconds of the driver, of the nodes, and of the whole machine, with its other work."""

    at_s: float
    records: int
    driver_s: float
    nodes_s: float
    machine_s: float

    def __sub__(self, before: Reading) -> Reading:
        return Reading(*(getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="1,2,4,8", help="how many logical nodes, one run each")
    parser.add_argument("--slots", type=int, default=4, help="samples at a time on each node")
    parser.add_argument("--minutes", type=float, default=0.5, help="length of a run, were the nodes alone")
    arguments = parser.parse_args()
    print(f"Load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before it began.\n")
    print(
        "| nodes | samples | at a time | samples per minute | server's bound | driver ms a sample | nodes ms | cores |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for count in map(int, arguments.nodes.split(",")):
        print(one_run(count, arguments.slots * count, arguments.minutes), flush=True)


def one_run(count: int, slots: int, minutes: float) -> str:
    bound = 60 * slots / (REPLIES * REPLY_S)
    with setting(count, samples=round(bound * minutes)) as (bench, nodes):
        process = bench.start(
            "--ray", nodes.address, "--frame-workers", "1", "--max-concurrent", str(slots),
            video_root=f"${DISK}/videos", frame_root=f"${DISK}/frames",
        )  # fmt: skip
        spent = watched(process, bench, nodes)
    made, seconds = spent.records, spent.at_s
    return (
        f"| {count} | {made} | {slots} | {60 * made / seconds:.0f} | {bound:.0f} | {1000 * spent.driver_s / made:.1f} "
        f"| {1000 * spent.nodes_s / made:.1f} | {spent.machine_s / seconds:.2f} |"
    )


@contextmanager
def setting(count: int, *, samples: int) -> Iterator[tuple[Bench, Nodes]]:
    """A cluster, a server and a question set."""
    os.environ.update(environment(RAY_USAGE_STATS_ENABLED="0"))
    replies = [block(call(0, 1, FRAMES)), "<answer>B</answer>"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = {"replies": {"*": [{"text": text, "delay_s": REPLY_S} for text in replies]}}
        server = KillableServer(folder / "server", script)
        videos = [make_video(folder / "made" / f"{number}.mp4", frames=20) for number in range(VIDEOS)]
        with killable(server), ray_cluster(folder / "nodes") as nodes:
            for number in range(count):
                nodes.add(f"node{number}", videos)
            bench = Bench(folder / "bench", server.base_url, build_tokenizer(folder / "tokenizer"))
            bench.write(row(f"q {number}", video=f"{number * VIDEOS // samples}.mp4") for number in range(samples))
            yield bench, nodes


def watched(process: subprocess.Popen[str], bench: Bench, nodes: Nodes) -> Reading:
    """What was spent between the first tenth of the records, with all warm, and the last."""
    wanted = sum(1 for _ in bench.jsonl.open())
    first = last = None
    spent: dict[int, float] = {}
    while process.poll() is None and (last is None or last.records < wanted):
        time.sleep(0.1)
        last = read(process.pid, bench, nodes, spent)
        first = last if first is None and last.records >= wanted / 10 else first
    run = bench.finish(process)
    if run.code or first is None or last is None or len(run.records()) != wanted:
        raise SystemExit(f"the run failed:\n{run.said}")
    return last - first


def read(driver: int, bench: Bench, nodes: Nodes, spent: dict[int, float]) -> Reading:
    """`spent` remembers the CPU seconds of each process, which with the last record ends."""
    records = bench.cache.read_bytes().count(b"\n") if bench.cache.exists() else 0
    for pid in (driver, *playing(nodes.folder)):
        spent[pid] = max(spent.get(pid, 0), cpu_s(pid))
    with Path("/proc/stat").open() as stat:
        user, nice, system, *_ = map(int, stat.readline().split()[1:])
    on_nodes = sum(spent.values()) - spent[driver]
    return Reading(time.monotonic(), records, spent[driver], on_nodes, (user + nice + system) / TICKS_PER_S)


def playing(folder: Path) -> Iterator[int]:
    """The actors and frame workers of the nodes, whose disks are below `folder`."""
    for entry in Path("/proc").iterdir():
        try:
            ours = entry.name.isdigit() and f"{DISK}={folder}".encode() in (entry / "environ").read_bytes()
            if ours and any(word in (entry / "cmdline").read_bytes() for word in (b"ray::Node", b"select_frame")):
                yield int(entry.name)
        except OSError:
            continue


def cpu_s(pid: int) -> float:
    """0 for a process that has just ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


if __name__ == "__main__":
    main()
