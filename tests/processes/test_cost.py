"""What the harness itself costs does not grow with the samples; how much it is, benchmarks/limits.py measures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from cost import Reading, cpu_s_per_record, take_readings

# 10,000 are the number to prove the point with, EVA_TEST_SAMPLES=10000; fewer show a slope as well.
SAMPLES = int(os.environ.get("EVA_TEST_SAMPLES", "1500"))
# A record's outcome and place stay in memory; a conversation, a reply or a task must not.
MOST_BYTES_PER_SAMPLE = 3000


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> list[Reading]:
    return take_readings(tmp_path_factory.mktemp("cost"), tokenizer_dir, SAMPLES)


def after(readings: Sequence[Reading], share: float) -> Reading:
    """The first reading with more than this share of the records."""
    return next(reading for reading in readings if reading.records > SAMPLES * share)


def test_the_last_samples_cost_about_as_much_cpu_as_the_first(readings: list[Reading]) -> None:
    """What grows with the samples before, a list that is read for each of them, would show here."""
    early, middle = after(readings, 0.1), after(readings, 0.5)
    assert cpu_s_per_record(middle, readings[-1]) < 2 * cpu_s_per_record(early, middle)


def test_memory_does_not_grow_with_the_samples(readings: list[Reading]) -> None:
    warm, last = after(readings, 0.2), readings[-1]
    grown = last.resident_bytes - warm.resident_bytes
    assert grown / (last.records - warm.records) < MOST_BYTES_PER_SAMPLE, f"{grown} bytes"
