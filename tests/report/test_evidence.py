"""Which frames a record shows, where in the video its answer is, and whether a frame lay there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from harness import SHARED

from eva.records.schema import read_record
from eva.report.samples import (
    Estimate,
    Run,
    Sample,
    by_evidence,
    looked_into_reference,
    read_sample,
    shown_times_s,
    time_reference_s,
)


def trajectory(*rounds: list[list[float]]) -> list[dict[str, Any]]:
    """Rounds of calls of frame times."""
    return [{"calls": [{"executed": {"times_s": times}, "error": None} for times in calls]} for calls in rounds]


def test_the_frames_of_every_call_are_shown_and_those_that_an_agent_opens_with() -> None:
    opening = trajectory([[7.0]])[0]["calls"]
    rounds = trajectory([[0.0, 5.5]], [], [[1], [2.0, 3.0]])
    record = read_record({"index": 0, "schema": 1, "opening": opening, "trajectory": rounds})
    assert shown_times_s(record) == [7.0, 0.0, 5.5, 1, 2.0, 3.0]


@pytest.mark.parametrize(
    "broken",
    [
        None,
        "text",
        [None, 3, {}, {"calls": None}, {"calls": ["x", None, {}]}],
        [{"calls": [{"executed": None}, {"executed": {"times_s": "12"}}, {"executed": {"seconds": 1.0}}]}],
        [{"calls": [{"executed": {"times_s": [None, "3", True, float("nan"), float("inf"), 10**400, []]}}]}],
    ],
)
def test_a_foreign_trajectory_shows_no_frame_and_is_not_an_error(broken: object) -> None:
    assert shown_times_s(read_record({"index": 0, "trajectory": broken})) == []


def looked(times_s: list[float], reference: str = "00:41-00:43", **more: Any) -> bool | None:
    course = {"trajectory": trajectory([times_s]), "stop_reason": "answer_found"}
    return looked_into_reference(read_record({"index": 0, "time_reference": reference, **course, **more}))


@pytest.mark.parametrize(
    ("times_s", "owed"),
    [([41.0], True), ([0.0, 43.9], True), ([40.99, 44.0], False), ([0.0, 600.0], False), ([], False)],
)
def test_a_frame_inside_the_reference_counts_and_a_window_around_it_does_not(times_s: list[float], owed: bool) -> None:
    assert looked(times_s) is owed


def test_a_reference_of_one_second_lasts_that_second() -> None:
    assert looked([41.5], "00:41-00:41") is True
    assert looked([42.0], "00:41-00:41") is False


@pytest.mark.parametrize(
    "unknown", [{"time_reference": "08:17-None"}, {"trajectory": None}, {"stop_reason": "exception"}], ids=str
)
def test_without_a_reference_a_trajectory_or_a_fair_chance_nothing_is_known(unknown: dict[str, Any]) -> None:
    assert looked([41.0], **{"reference": "00:41-00:43", **unknown}) is None


def groups(looked: list[bool | None], right: list[bool], videos: str) -> dict[str, Estimate | None]:
    samples: list[Sample] = []
    for video, where, correct in zip(videos, looked, right, strict=True):
        record = read_record({"index": 0, "videos": [video], "gt": "B", "answer": "B" if correct else "C"})
        samples.append(replace(read_sample("lvbench", record), looked_into_reference=where))
    return by_evidence(Run("a", "lvbench", samples))


def test_the_shares_are_over_the_samples_that_are_known() -> None:
    found = groups([True, False, True, None, True], [True, False, False, True, True], "aabbc")
    whole, with_it, without = found.values()
    assert whole is not None and with_it is not None
    assert list(found) == ["Looked into the annotated time", "Accuracy where it looked", "Accuracy where it did not"]
    assert (whole.count, whole.value) == (4, 0.75)
    assert (with_it.count, with_it.value) == (3, pytest.approx(2 / 3))
    assert without == Estimate(1, 0.0, None)


def test_without_a_known_sample_there_are_no_figures() -> None:
    assert not any(groups([None], [True], "a").values())


def test_an_accuracy_that_no_sample_stands_for_is_none() -> None:
    found = groups([True, True], [True, True], "ab")
    assert found["Accuracy where it did not"] is None
    assert found["Looked into the annotated time"] == Estimate(2, 1.0, None), "two videos"


# --- where the answer stands


@pytest.mark.parametrize(
    ("text", "owed"),
    [
        ("00:15-00:19", (15, 19)),
        ("61:45-113:00", (3705, 6780)),
        ("00:41-00:41", (41, 41)),
        ("08:17-None", None),
        ("None-None", None),
        ("63:20-03:35", None),
        ("0:15", None),
        ("00:15-00:19 ", None),
        (15, None),
        (None, None),
    ],
)
def test_a_time_reference_is_two_clock_times_in_order(text: object, owed: tuple[float, float] | None) -> None:
    assert time_reference_s(read_record({"index": 0, "time_reference": text})) == owed


REAL = SHARED / "annotations" / "LVBench_raw_full_root.jsonl"


@pytest.mark.skipif(not REAL.is_file(), reason="the annotation files are not here")
def test_of_the_real_time_references_only_the_open_and_the_reversed_are_none() -> None:
    rows = [json.loads(line) for line in REAL.read_bytes().splitlines()]
    unread = {row["time_reference"] for row in rows if time_reference_s(read_record(row)) is None}
    assert {"08:17-None", "None-None"} < unread
    for text in unread - {"08:17-None", "None-None"}:
        (start, start_s), (end, end_s) = (clock.split(":") for clock in text.split("-"))
        assert (int(start), int(start_s)) > (int(end), int(end_s)), text
