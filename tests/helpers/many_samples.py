"""Records for pages: as many as a large dataset has, and such as nobody expects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import read_records
from page_runs import INDEX

MANY = 10_900
# Whether the page has read all blocks of its replies.
ALL_READ = "() => !document.querySelector('#count').textContent.includes('read')"
# From the key to the next frame that is on the screen, in milliseconds.
KEYSTROKE = """(text) => new Promise((resolve) => {
    const field = document.querySelector('#search');
    const start = performance.now();
    field.value = text;
    field.dispatchEvent(new Event('input'));
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
})"""

# What a record of unknown origin can have in its fields.
HOSTILE: tuple[dict[str, Any], ...] = (
    {
        "trajectory": [
            None,
            5,
            "x",
            [],
            {"calls": {"a": 1}},
            {"calls": [None, 7, {"asked": [1], "executed": 3, "frames": "x"}]},
        ]
    },
    {"trajectory": [{"reply": {"a": 1}, "usage": [1], "seconds": float("nan"), "finish_reason": 5}]},
    {"trajectory": [{"calls": [{"asked": {"start_time": 1e308, "end_time": -1e308, "nframes": 2}}]}]},
    {"trajectory": [{"calls": [{"asked": {"start_time": 10**400, "end_time": 1, "nframes": 10**400}}]}]},
    {"trajectory": [{"calls": [{"asked": {"start_time": float("inf"), "end_time": True, "nframes": ":::"}}]}]},
    {
        "trajectory": [
            {"calls": [{"frames": [None, 5, {"a": 1}], "labels_s": 3, "executed": {"times_s": [1, "x", None]}}]}
        ]
    },
    {
        "trajectory": [
            {"calls": [{"frames": ["/\ud800.bmp"], "executed": {"times_s": [1e300], "width": "<b>", "height": 1}}]}
        ]
    },
    {"time_reference": ["x"], "video_duration_s": "long", "seconds": float("inf"), "videos": "x", "gt": {"a": 1}},
    {"messages": "\ud800 <|im_start|>\udfff?\nA. \u2028\nB. </script>", "answer": ["B"], "category": {"a": 1}},
    {"estimated_visual_tokens": float("nan"), "error": {"x": [1]}, "failure": [], "extra": float("inf"), "opening": 5},
    {"trajectory": {}, "messages": [{"role": "user"}], "video_duration_s": -5, "constructor": 1, "__proto__": None},
)


def record(**more: Any) -> dict[str, Any]:
    basic = {"index": 3, "videos": ["a/clip.mp4"], "messages": "", "gt": "B", "answer": "B",
             "stop_reason": "answer_found", "num_rounds": 2, "total_tokens": 100}  # fmt: skip
    return {**basic, **more}


def write_many(run: Path, target: Path, count: int = MANY) -> None:
    """Write `count` records, copied from two of a run of page_runs.py."""
    records = read_records(run)
    looking, silent = records[INDEX["two looks"]], records[INDEX["at once"]]
    with target.open("w") as file:
        for number in range(count):
            file.write(json.dumps(copied(silent if number % 5 else looking, number)) + "\n")


def copied(record: Mapping[str, Any], number: int) -> dict[str, Any]:
    rounds = [
        {**round_, "reply": f"{round_['reply']} word {number} " + "talk " * 60} for round_ in record["trajectory"]
    ]
    return {
        **record,
        "index": number,
        "videos": [f"video{number // 100}.mp4"],
        "answer": "AB"[number % 2],
        "messages": record["messages"].replace("What is shown?", f"What is shown in {number}? " + "text " * 40),
        "trajectory": rounds,
    }
