#!/usr/bin/env python3
"""What the reference does for one call, for comparison: a process, decord, OpenCV, PNG files in a folder."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def main(open_video: Callable[[str], Any]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--video_path", required=True)
    parser.add_argument("--start_time", type=float)
    parser.add_argument("--end_time", type=float)
    parser.add_argument("--nframes", type=int)
    parser.add_argument("--resize", type=float)
    parser.add_argument("--factor", type=int)
    parser.add_argument("--save-root", type=Path)
    parser.add_argument("--clamp", action="store_true")
    arguments = parser.parse_args()
    arguments.save_root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=arguments.save_root))
    count = save(open_video(arguments.video_path), arguments, folder)
    print(
        f"Frames saved to {folder}, total frames saved: {count}, "
        f"from {folder}/frame_0000.png to {folder}/frame_{count - 1:04d}.png"
    )


def save(reader: Any, arguments: argparse.Namespace, folder: Path) -> int:
    fps, count = reader.get_avg_fps(), len(reader)
    start_s, end_s = max(0, arguments.start_time), min(arguments.end_time, count / fps)
    times_s = np.linspace(start_s, end_s - 0.001, arguments.nframes)
    indices = [min(round(time_s * fps), count - 1) for time_s in times_s]
    for place, rgb in enumerate(reader.get_batch(indices).asnumpy()):
        size = [max(1, round(side * arguments.resize / arguments.factor) * arguments.factor) for side in rgb.shape[:2]]
        resized = cv2.resize(rgb, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"frame_{place:04d}.png"), cv2.cvtColor(resized, cv2.COLOR_RGB2BGR))
    return len(indices)


if __name__ == "__main__":
    import decord

    main(lambda path: decord.VideoReader(path, ctx=decord.cpu(0)))
