#!/usr/bin/env python3
"""The frame-selection tool: pictures of a stretch of video, evenly spaced (protocol section 5).

Prints one line that names the folder and exits 0. On failure: one sentence on stderr, exit 1 (2 for unusable
arguments, 74 where there is no room or right to write), and nothing left behind.

`--worker`, as the only argument, serves call after call: each line of standard input is a request {"arguments": [...]}
with the words of a command line, each line of standard output its reply, {"ok": ...} with what frames.json says and
the paths of the frames, or {"error": reason, "kind": "refused", "changed" (the video, meanwhile) or "cannot_write",
"full": whether the disk is}. Asked {"probe": path of a video}, it finds and measures the video; asked {}, it says that
it is ready.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import re
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

# NumPy's linear algebra, of which nothing here makes use, would start its threads on import: 0.15 s of CPU a call.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from eva.dataset.locate import locate_video
from eva.errors import DISK_FULL, ChangedError, EvaError, MiscountedError, VideoError
from eva.frames.index_file import Indexes, stored_as
from eva.frames.store import Shelf, VideoFile, folder_name, video_folder
from eva.frames.worker_loop import serve
from eva.video.decode import BACKENDS, Video, open_video
from eva.video.picture_files import FORMATS
from eva.video.probe import probe
from eva.video.selection import Plan, Request, Selection, make_plan, pictures, selected

# sysexits' EX_IOERR: not the request but the place to write to is at fault.
EXIT_CANNOT_WRITE = 74
NEGATIVE = re.compile(r"-[\d.]")
CLOCK = re.compile(r"(-?)(?:(?:(\d+):)?(\d+):)(\d+(?:\.\d*)?)")


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
    print_bytes(success_line(folder, len(selection.indices), arguments.format))
    return 0


def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A worker's reply to one request, which holds the words of a command line, a video to probe, or nothing."""
    if "probe" in request:
        return probed(Path(request["probe"]))
    if not request:
        return {"ok": {}}
    complaints = io.StringIO()
    try:
        with redirect_stderr(complaints):
            arguments = parse_arguments(request["arguments"])
        return {"ok": shelved(arguments)}
    except SystemExit:
        return {"error": complaints.getvalue().strip().rpartition("\n")[2], "kind": "refused"}
    except EvaError as error:
        kind = "changed" if isinstance(error, ChangedError) else "refused"
        return {"error": one_line(str(error)), "kind": kind}
    except OSError as error:
        return {"error": cannot_write(error), "kind": "cannot_write", "full": error.errno in DISK_FULL}


def probed(annotated: Path) -> Mapping[str, Any]:
    """A worker's reply about a video: the file that is there for it, and what its header says."""
    try:
        path = locate_video(annotated)
        file, info = VideoFile.of(path), probe(path)
    except VideoError as error:
        return {"error": str(error), "kind": "video"}
    except OSError as error:
        return {"error": f"the video {annotated} cannot be read: {error.strerror}", "kind": "video"}
    return {"ok": {"path": str(path), "size": file.size, "mtime_ns": file.mtime_ns, "info": asdict(info)}}


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
    parser.add_argument("--format", choices=FORMATS, default="png", help="of the pictures; all are lossless")
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
        if not math.isfinite(value):
            raise ValueError(text)
        return value
    sign, hours, minutes, rest = clock.groups()
    total = 3600 * int(hours or 0) + 60 * int(minutes) + float(rest)
    return -total if sign else total


def request_of(arguments: argparse.Namespace) -> Request:
    return Request(
        video=arguments.video_path,
        start_s=arguments.start,
        end_s=arguments.end,
        nframes=arguments.nframes,
        resize=arguments.resize,
        factor=arguments.factor,
        clamp=arguments.clamp,
    )


def save_frames(arguments: argparse.Namespace) -> tuple[Path, Selection]:
    """Select, decode and store; gives the folder and what is in it."""
    request = request_of(arguments)
    folder = arguments.save_dir or new_folder(arguments.save_root, request.video)
    with filled_at_once(folder, beside=arguments.save_dir or arguments.save_root) as partial:
        selection = select(request, arguments.backend, partial, arguments.format)
        (partial / "frames.json").write_text(json.dumps(asdict(selection)) + "\n")
    return folder, selection


def select(request: Request, backend: str, folder: Path, picture_format: str) -> Selection:
    """Write the pictures of `request` into `folder`."""
    started = time.monotonic()
    video = open_video(request.video, backend=backend)
    try:
        plan = write_pictures(video, request, folder, picture_format)
    except MiscountedError:
        video = open_video(request.video, backend=backend, recount=True)
        plan = write_pictures(video, request, folder, picture_format)
    return selected(video, request, plan, seconds=time.monotonic() - started)


def write_pictures(video: Video, request: Request, folder: Path, picture_format: str) -> Plan:
    """Decode, resize and write, a repeated picture as often as it was sampled."""
    plan = make_plan(video, request)
    places = {index: [n for n, wanted in enumerate(plan.indices) if wanted == index] for index in set(plan.indices)}
    for index, data in pictures(video, plan.indices, plan, picture_format):
        for place in places[index]:
            (folder / picture_name(place, picture_format)).write_bytes(data)
    return plan


def shelved(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Have the pictures in the store; frames are counted by decoding where the packets mislead."""
    try:
        return shelve(arguments, recount=False)
    except MiscountedError:
        return shelve(arguments, recount=True)


def shelve(arguments: argparse.Namespace, *, recount: bool) -> Mapping[str, Any]:
    """Have the pictures in the store of the save root, decoding those that are not there; what was executed."""
    started = time.monotonic()
    request, root = request_of(arguments), arguments.save_root.absolute()
    video = open_video(request.video, backend=arguments.backend, recount=recount, indexes=Indexes(root))
    plan = make_plan(video, request)
    folder = video_folder(root, stored_as(request.video, video.identity)) / shelf_name(video, plan, recount=recount)
    shelf = Shelf(folder, arguments.format, plan.width, plan.height)
    filled = shelf.fill(plan.indices, lambda missing: pictures(video, missing, plan, arguments.format))
    selection = selected(video, request, plan, seconds=time.monotonic() - started)
    frames = [str(shelf.path(index)) for index in plan.indices]
    return asdict(selection) | asdict(filled) | {"frames": frames}


def shelf_name(video: Video, plan: Plan, *, recount: bool) -> str:
    """What the same frame index may have other pixels by: size, decoder, and how frames are decoded and counted."""
    name = f"{plan.width}x{plan.height}-{video.decoder}{'-gap' if video.gap else ''}"
    if video.decoder == "decord":  # which frames it gives (wrong ones, now and then) depends on the others of the call
        return f"{name}-{hashlib.sha256(repr(plan.indices).encode()).hexdigest()[:20]}"
    return f"{name}-counted" if recount else name


def picture_name(place: int, picture_format: str) -> str:
    return f"frame_{place:04d}.{picture_format}"


def success_line(folder: Path, count: int, picture_format: str) -> str:
    """The line that the harness reads."""
    first, last = (folder / picture_name(place, picture_format) for place in (0, count - 1))
    return f"Frames saved to {folder}, total frames saved: {count}, from {first} to {last}"


def new_folder(save_root: Path, video: Path) -> Path:
    """`{save_root}/{YYYYMMDD}/{video stem}/{HHMMSS}_{8 hex}`, always below `save_root`."""
    now = datetime.now()
    return save_root / f"{now:%Y%m%d}" / folder_name(video.stem) / f"{now:%H%M%S}_{secrets.token_hex(4)}"


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
