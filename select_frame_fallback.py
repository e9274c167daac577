#!/usr/bin/env python3
"""The frame-selection tool: pictures of a stretch of video, evenly spaced (protocol section 5).

Prints one line that names the folder and exits 0. On failure: one sentence on stderr, exit 1 (2 for unusable
arguments, 74 where there is no room or right to write), and nothing left behind.

`--worker`, as the only argument, serves call after call: each line of standard input is a request {"arguments": [...]}
with the words of a command line, each line of standard output its reply, {"ok": ...} with what frames.json says and
the paths of the frames, or {"error": reason, "kind": "refused" or "cannot_write"}.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from eva.decode import BACKENDS, Video, open_video
from eva.errors import EvaError, MiscountedError
from eva.frames import Window, check_window, clamp_window, frame_indices, output_size, sample_times
from eva.serve import serve

# sysexits' EX_IOERR: not the request but the place to write to is at fault.
EXIT_CANNOT_WRITE = 74
NEGATIVE = re.compile(r"-[\d.]")
CLOCK = re.compile(r"(-?)(?:(?:(\d+):)?(\d+):)(\d+(?:\.\d*)?)")


@dataclass(frozen=True)
class Request:
    """What is asked for. No `end_s`: up to the stream's end; no `resize`: full size."""

    video: Path
    start_s: float
    end_s: float | None
    nframes: int
    resize: float | None
    factor: int
    clamp: bool


@dataclass(frozen=True)
class Plan:
    """What is executed, once the stream is known. `indices` has one entry a picture; repeats are kept."""

    window: Window
    indices: list[int]
    width: int
    height: int


@dataclass(frozen=True)
class Selection:
    """What was executed, as frames.json tells it. `times_s` are presentation times from the stream's start."""

    video: str
    decoder: str
    start_s: float
    end_s: float
    indices: list[int]
    times_s: list[float]
    width: int
    height: int
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if list(argv) == ["--worker"]:
        serve(answer)
    arguments = parse_arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that clean-up runs
    try:
        folder, selection = save_frames(arguments)
    except EvaError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {cannot_write(error)}", file=sys.stderr)
        return EXIT_CANNOT_WRITE
    print_bytes(success_line(folder, len(selection.indices)))
    return 0


def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A worker's reply to one request, which holds the words of a command line."""
    complaints = io.StringIO()
    try:
        with redirect_stderr(complaints):
            arguments = parse_arguments(request["arguments"])
        folder, selection = save_frames(arguments)
    except SystemExit:
        return {"error": complaints.getvalue().strip().rpartition("\n")[2], "kind": "refused"}
    except EvaError as error:
        return {"error": one_line(str(error)), "kind": "refused"}
    except OSError as error:
        return {"error": cannot_write(error), "kind": "cannot_write"}
    frames = [str((folder / picture_name(place)).absolute()) for place in range(len(selection.indices))]
    return {"ok": asdict(selection) | {"frames": frames}}


def cannot_write(error: OSError) -> str:
    return f"the frames cannot be written: {one_line(str(error))}"


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace; exits with status 2 where it is unusable."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("-i", "--video-path", "--video_path", type=Path, required=True)
    parser.add_argument("--start", "--start-time", "--start_time", type=seconds, default=0.0)
    parser.add_argument("--end", "--end-time", "--end_time", type=seconds, help="default: the stream's end")
    parser.add_argument("--nframes", type=int, default=32)
    parser.add_argument("--resize", type=float, help="ratio; default: full size, untouched")
    parser.add_argument("--factor", type=int, default=1, help="width and height become multiples of this")
    parser.add_argument("--backend", choices=BACKENDS, default="auto")
    parser.add_argument("--clamp", action="store_true", help="cut the window to the stream instead of refusing it")
    parser.add_argument("--save-root", "--save_root", type=Path, default=Path("/tmp"))  # noqa: S108 - documented
    parser.add_argument("--save-dir", "--save_dir", type=Path, help="the folder itself")
    return parser.parse_args(join_negatives(argv))


def join_negatives(argv: Sequence[str]) -> list[str]:
    """`--start -1e-05` as `--start=-1e-05`: argparse would take some negative values for options."""
    joined: list[str] = []
    for word in argv:
        if joined and NEGATIVE.match(word) and joined[-1].startswith("-") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def seconds(text: str) -> float:
    """Seconds from `12.5` or `[[HH:]MM:]SS[.mmm]`; ValueError for anything else, infinities included."""
    clock = CLOCK.fullmatch(text.strip())
    if clock is None:
        value = float(text)
        if not np.isfinite(value):
            raise ValueError(text)
        return value
    sign, hours, minutes, rest = clock.groups()
    total = 3600 * int(hours or 0) + 60 * int(minutes) + float(rest)
    return -total if sign else total


def save_frames(arguments: argparse.Namespace) -> tuple[Path, Selection]:
    """Select, decode and store; gives the folder and what is in it."""
    request = Request(
        video=arguments.video_path,
        start_s=arguments.start,
        end_s=arguments.end,
        nframes=arguments.nframes,
        resize=arguments.resize,
        factor=arguments.factor,
        clamp=arguments.clamp,
    )
    folder = arguments.save_dir or new_folder(arguments.save_root, request.video)
    with filled_at_once(folder, beside=arguments.save_dir or arguments.save_root) as partial:
        selection = select(request, arguments.backend, partial)
        (partial / "frames.json").write_text(json.dumps(asdict(selection)) + "\n")
    return folder, selection


def select(request: Request, backend: str, folder: Path) -> Selection:
    """Write the pictures of `request` into `folder`."""
    started = time.monotonic()
    video = open_video(request.video, backend=backend)
    try:
        plan = write_pictures(video, request, folder)
    except MiscountedError:
        video = open_video(request.video, backend=backend, recount=True)
        plan = write_pictures(video, request, folder)
    return Selection(
        video=str(request.video),
        decoder=video.decoder,
        start_s=plan.window.start_s,
        end_s=plan.window.end_s,
        indices=plan.indices,
        times_s=[video.timeline.times_s[index] for index in plan.indices],
        width=plan.width,
        height=plan.height,
        seconds=round(time.monotonic() - started, 3),
    )


def make_plan(video: Video, request: Request) -> Plan:
    """Turn the request into frames of this video; SelectionError where it makes no sense."""
    timeline = video.timeline
    window = Window(request.start_s, timeline.end_s if request.end_s is None else request.end_s)
    if request.clamp:
        window = clamp_window(window, begin_s=timeline.begin_s, end_s=timeline.end_s)
    check_window(window)
    times_s = sample_times(window, request.nframes)
    indices = frame_indices(times_s, begin_s=timeline.begin_s, average_fps=timeline.average_fps, count=timeline.count)
    size = output_size(timeline.width, timeline.height, resize=request.resize, factor=request.factor)
    return Plan(window, indices, *size)


def write_pictures(video: Video, request: Request, folder: Path) -> Plan:
    """Decode, resize and write picture by picture, so that memory does not grow with their number."""
    plan = make_plan(video, request)
    places = {index: [n for n, wanted in enumerate(plan.indices) if wanted == index] for index in set(plan.indices)}
    for index, rgb in video.frames(plan.indices):
        png = encode_png(resized(rgb, width=plan.width, height=plan.height))
        for place in places[index]:
            (folder / picture_name(place)).write_bytes(png)
    return plan


def resized(rgb: NDArray[np.uint8], *, width: int, height: int) -> NDArray[np.uint8]:
    """Bicubic as OpenCV does it, without antialiasing: the published numbers were measured so."""
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """The picture as a PNG file, losslessly."""
    _, png = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return png.tobytes()


def picture_name(place: int) -> str:
    return f"frame_{place:04d}.png"


def success_line(folder: Path, count: int) -> str:
    """The line that the harness reads."""
    first, last = folder / picture_name(0), folder / picture_name(count - 1)
    return f"Frames saved to {folder}, total frames saved: {count}, from {first} to {last}"


def new_folder(save_root: Path, video: Path) -> Path:
    """`{save_root}/{YYYYMMDD}/{video stem}/{HHMMSS}_{8 hex}`, always below `save_root`."""
    now = datetime.now()
    return save_root / f"{now:%Y%m%d}" / folder_name(video.stem) / f"{now:%H%M%S}_{secrets.token_hex(4)}"


def folder_name(stem: str) -> str:
    """`stem` without what would break out of a folder or of a line: separators, control characters, `..`."""
    name = "".join(char if char.isprintable() and char not in "/\\" else "_" for char in stem)
    return name if name.strip(". ") else "_" * max(1, len(name))


@contextmanager
def filled_at_once(folder: Path, *, beside: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block succeeds, and is gone when it does not."""
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=beside) as name:
        partial = Path(name) / "frames"
        partial.mkdir()
        yield partial
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(partial.iterdir()):
            path.replace(folder / path.name)


def one_line(text: str) -> str:
    return " ".join(text.split())


def print_bytes(line: str) -> None:
    """Print a line that holds file names, which need not be valid text."""
    sys.stdout.buffer.write(os.fsencode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
