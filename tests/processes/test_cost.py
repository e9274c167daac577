"""What the harness itself costs: memory that does not grow with the samples, and little time a sample."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Bench, make_video, row
from killable import KillableServer, killable

# 10,000 are the number to prove the point with, EVA_TEST_SAMPLES=10000; fewer show a slope as well.
SAMPLES = int(os.environ.get("EVA_TEST_SAMPLES", "1500"))
MOST_CPU_MS = 15.0
# A record's outcome and place stay in memory; a conversation, a reply or a task must not.
MOST_BYTES_A_SAMPLE = 3000
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reading:
    """A process at one moment, after so many records."""

    records: int
    resident_bytes: int
    cpu_s: float


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> list[Reading]:
    folder = tmp_path_factory.mktemp("cost")
    server = KillableServer(folder / "server", {"replies": {"*": ["I know. " * 100 + "<answer>B</answer>"]}})
    with killable(server):
        bench = Bench(folder / "bench", server.base_url, tokenizer_dir)
        make_video(bench.videos / "clip.mp4", frames=10)
        bench.write(row(f"question {number}") for number in range(SAMPLES))
        process = bench.start()
        taken: list[Reading] = []
        while process.poll() is None and (not taken or taken[-1].records < SAMPLES):
            time.sleep(0.2)
            taken.extend(read(process.pid, bench.cache))
        run = bench.finish(process)
    assert run.code == 0, run.said
    assert len(run.records()) == SAMPLES
    return [reading for reading in taken if reading.records]


def read(pid: int, cache: Path) -> list[Reading]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return []
    records = cache.read_bytes().count(b"\n") if cache.exists() else 0
    cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
    return [Reading(records, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), cpu_s)]


def test_a_sample_without_frames_costs_at_most_15_ms_of_cpu(readings: list[Reading]) -> None:
    """The start, with its imports, is apart from it."""
    first, last = readings[0], readings[-1]
    assert last.records - first.records > SAMPLES / 2
    assert 1000 * (last.cpu_s - first.cpu_s) / (last.records - first.records) <= MOST_CPU_MS


def test_memory_does_not_grow_with_the_samples(readings: list[Reading]) -> None:
    warm = next(reading for reading in readings if reading.records > SAMPLES / 5)
    last = readings[-1]
    grown = last.resident_bytes - warm.resident_bytes
    assert grown / (last.records - warm.records) < MOST_BYTES_A_SAMPLE, f"{grown} bytes"
