"""Whether a long run needs more and more: memory, descriptors and files, at each quarter of its samples.

Every question makes two calls on one of a few videos: for frames that are in the store, and for a window of its own.
Some requests are refused by the server, some fail once, some calls fail. The cap of the store is so small that frames
are evicted.

    nice python benchmarks/endurance.py [--samples 3000] [--cap-mb 20]      prints a table
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))

from harness import Bench, block, call, environment, make_video, row  # noqa: E402
from killable import KillableServer, killable  # noqa: E402
from tokenizer import build_tokenizer  # noqa: E402

VIDEOS = 8
LENGTH_S = 12
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6
HEAD = "| records | seconds | run MB | descriptors | workers | workers MB | frame files | frames MB | temporary files |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--cap-mb", type=int, default=20, help="--frame-cache-gb, in MB")
    arguments = parser.parse_args()
    samples = arguments.samples
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        os.environ.update(environment(TMPDIR=str(folder / "tmp")))
        server = KillableServer(folder / "server", {"replies": {f"q {n}": replies(n) for n in range(samples)}})
        with killable(server):
            bench = Bench(folder / "bench", server.base_url, build_tokenizer(folder / "tokenizer"))
            for number in range(VIDEOS):
                make_video(bench.videos / f"{number}.mp4", frames=10 * LENGTH_S, width=320, height=240)
            bench.write(row(f"q {n}", video=f"{n * VIDEOS // samples}.mp4") for n in range(samples))
            watch(bench, samples, f"{arguments.cap_mb / 1000:g}")


def replies(number: int) -> list[Any]:
    start_s = number * 0.37 % (LENGTH_S - 2)
    looks = [block(call(0, LENGTH_S, 6)), block(call(start_s, start_s + 1, 4))]
    endings: dict[int, Any] = {
        3: {"status": 400, "message": "too long"},
        4: block(call("x", 1, 2)),
        5: {"status": 500, "times": 1, "text": "<answer>B</answer>"},
    }
    return [*looks, endings.get(number % 20, "<answer>B</answer>")]


def watch(bench: Bench, samples: int, cap_gb: str) -> None:
    # The last one a little before the end, when all is still at work.
    started, marks = time.monotonic(), [samples * part // 100 for part in (25, 50, 75, 98)]
    process = bench.start("--frame-cache-gb", cap_gb, "--json", str(bench.folder / "summary.json"))
    print(f"{HEAD}\n|{'---|' * HEAD.count(' |')}")
    while process.poll() is None and marks:
        time.sleep(0.05)
        records = bench.cache.read_bytes().count(b"\n") if bench.cache.exists() else 0
        if records >= marks[0]:
            marks.pop(0)
            print(reading(process.pid, bench, records, time.monotonic() - started), flush=True)
    run = bench.finish(process, timeout_s=600)
    left = [str(path.relative_to(bench.folder.parent)) for path in files(bench.folder.parent / "tmp")]
    print(
        f"\nExit code {run.code}, {len(run.records())} records; left behind: {left or 'nothing'}, and beside the result"
    )
    print("\n".join(sorted(path.name for path in bench.output_dir.iterdir())))


def reading(pid: int, bench: Bench, records: int, seconds: float) -> str:
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    frames = [size for path in files(bench.frame_root) if (size := path.stat().st_size)]
    return (
        f"| {records} | {seconds:.0f} | {resident_mb(pid):.0f} | {len([*Path(f'/proc/{pid}/fd').iterdir()])} "
        f"| {len(workers)} | {sum(map(resident_mb, map(int, workers))):.0f} "
        f"| {len(frames)} | {sum(frames) / 1e6:.0f} | {len(list(files(bench.folder.parent / 'tmp')))} |"
    )


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MB


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
