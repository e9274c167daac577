#!/usr/bin/env python3
"""A frame tool for control runs: it shows the right video at the wrong time.

    DEMO_REPLACE=all|first python eval-eva.py --dataset demo --frame-tool demo/other_frames.py …

An agent that answers equally well with these frames does not look at them. With `first`, only the first looks of
two-look questions are replaced: the second look then goes to the wrong time if the first one decides it.
DEMO_QUESTIONS names the annotation file where it is not demo/data/demo.jsonl.
All other arguments go to select_frame_fallback.py. Its output and exit code come back unchanged.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent
FRAME_TOOL = HOME.parent / "select_frame_fallback.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False, allow_abbrev=False)
    parser.add_argument("--video_path", type=Path, required=True)
    parser.add_argument("--start_time", type=float, required=True)
    parser.add_argument("--end_time", type=float, required=True)
    asked, passed_on = parser.parse_known_args()
    questions = questions_on(asked.video_path.name)
    start_s, length_s = asked.start_time, asked.end_time - asked.start_time
    firsts_s = {question["looks_s"][0] for question in questions if len(question["looks_s"]) > 1}
    if os.environ.get("DEMO_REPLACE", "all") == "all" or start_s in firsts_s:
        duration_s = questions[0]["duration_s"]
        start_s = elsewhere(f"{asked.video_path.name} {start_s}", start_s, last_s=duration_s - length_s)
    window = [f"--start_time={start_s}", f"--end_time={start_s + length_s}"]
    command = [sys.executable, str(FRAME_TOOL), f"--video_path={asked.video_path}", *window, *passed_on]
    return subprocess.run(command, check=False).returncode


def questions_on(video: str) -> list[dict[str, Any]]:
    """The rows of the demo dataset that ask about `video`."""
    path = Path(os.environ.get("DEMO_QUESTIONS", HOME / "data" / "demo.jsonl"))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["videos"] == [video]]


def elsewhere(seed: str, start_s: float, *, last_s: float) -> float:
    """A time in [0, last_s] at least 10 s from `start_s`; the same seed gives the same time."""
    rng = random.Random(seed)
    while abs((other_s := rng.uniform(0, last_s)) - start_s) < 10:
        pass
    return other_s


if __name__ == "__main__":
    sys.exit(main())
