"""How long the videos of 20 zips take to unpack, beside `unzip`: 900 stored videos of 1 MB.

    python benchmarks/unpacking.py      prints a table, and exits with 1 if the ratio is over 1.2

Both write to the same disk, and both are measured until the disk has the bytes (`sync`).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eva.dataset.unpack import put, take, zip_members

ZIPS, VIDEOS, VIDEO_BYTES, ROUNDS = 20, 900, 1_000_000, 5
MAX_RATIO = 1.2


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_zips(folder / "zips")
        rounds = [(timed(unzip, folder), timed(unpack, folder)) for _ in range(ROUNDS)]
    theirs, ours = (statistics.median(times) for times in zip(*rounds, strict=True))
    print("| | seconds, median of 5 |", "|---|---|", f"| unzip | {theirs:.2f} |", f"| here | {ours:.2f} |", sep="\n")
    print(f"ratio {ours / theirs:.2f}, limit {MAX_RATIO}")
    return int(ours > theirs * MAX_RATIO)


def make_zips(folder: Path) -> None:
    folder.mkdir()
    for number in range(ZIPS):
        with zipfile.ZipFile(folder / f"{number:02}.zip", "w") as archive:
            for video in range(number, VIDEOS, ZIPS):
                archive.writestr(f"data/{video}.mp4", os.urandom(VIDEO_BYTES))


def timed(job: Callable[[Path, Path], None], folder: Path) -> float:
    target = folder / "videos"
    target.mkdir()
    os.sync()
    start = perf_counter()
    job(folder / "zips", target)
    os.sync()
    seconds = perf_counter() - start
    if sum(path.stat().st_size for path in target.rglob("*.mp4")) != VIDEOS * VIDEO_BYTES:
        raise SystemExit("a video is missing")
    shutil.rmtree(target)
    return seconds


def unzip(zips: Path, target: Path) -> None:
    for path in sorted(zips.iterdir()):
        subprocess.run(["unzip", "-q", "-j", str(path), "-d", str(target)], check=True)


def unpack(zips: Path, target: Path) -> None:
    for path in sorted(zips.iterdir()):
        with path.open("rb") as file:
            for member in zip_members(file):
                take(member, target / "part")
                put(target / "part", [target / member.name])


if __name__ == "__main__":
    sys.exit(main())
