"""What a run of eval-eva.py costs while it goes on: records, memory and CPU time, read from outside."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from harness import Bench, make_video, row
from killable import KillableServer, killable

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reading:
    """A process at one moment, after so many records."""

    records: int
    resident_bytes: int
    cpu_s: float


def take_readings(folder: Path, tokenizer: Path, samples: int) -> list[Reading]:
    """Run `samples` questions that are answered at once, without a frame; a reading every 0.2 s."""
    server = KillableServer(folder / "server", {"replies": {"*": ["I know. " * 100 + "<answer>B</answer>"]}})
    with killable(server):
        bench = Bench(folder / "bench", server.base_url, tokenizer)
        make_video(bench.videos / "clip.mp4", frames=10)
        bench.write(row(f"question {number}") for number in range(samples))
        process = bench.start()
        taken: list[Reading] = []
        while process.poll() is None and (not taken or taken[-1].records < samples):
            time.sleep(0.2)
            taken.extend(read(process.pid, bench.cache))
        run = bench.finish(process)
    assert run.code == 0, run.said
    assert len(run.records()) == samples
    return [reading for reading in taken if reading.records]


def read(pid: int, cache: Path) -> list[Reading]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return []
    records = cache.read_bytes().count(b"\n") if cache.exists() else 0
    cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return [Reading(records, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), cpu_s)]


def cpu_s_per_record(first: Reading, last: Reading) -> float:
    return (last.cpu_s - first.cpu_s) / (last.records - first.records)
