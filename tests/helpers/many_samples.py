"""A result file of as many samples as a large dataset has, and how its page is asked."""

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
