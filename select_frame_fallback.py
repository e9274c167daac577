#!/usr/bin/env python3
"""The frame-selection tool: evenly spaced frames of a window of a video (docs/protocol.md, section 5).

"Fallback" in its name comes from the reference: its tool tries decord, and falls back to torchcodec where decord fails.
This tool decodes with PyAV, and falls back to decord. It chooses frames by the rules of both decoders of the reference.

It prints one line that names the folder of the frames, and exits with 0. On failure it prints one sentence on stderr,
exits with 1 (2: unusable arguments; 66: the video is not there, or its disk fails; 74: no room or no right to write),
and leaves no files.

`--worker`, as the only argument, serves call after call (eva/frames/serve.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

# NumPy's linear algebra, which is not used here, would start its threads on import: 0.15 s of CPU per call.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from eva.errors import EXIT_CANNOT_READ, EXIT_CANNOT_WRITE, EvaError, MiscountedError, ReadError
from eva.frames.serve import answer_one, plan_cut, serve
from eva.frames.store import folder_name
from eva.frames.tool import Cut
from eva.option_words import in_full, is_option
from eva.protocol.arguments import parse_clock
from eva.video import BACKENDS, REFERENCE_OPTIONS
from eva.video.decode import describe, open_video, pictures
from eva.video.picture import FORMATS

NEGATIVE = re.compile(r"-[\d.]")


def main() -> int:
    """Run the command; gives its exit status."""
    if sys.argv[1:] == ["--worker"]:
        serve(answer)
        return 0
    arguments = parse_arguments(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that clean-up runs
    try:
        folder, selection = save_frames(arguments)
    except EvaError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return EXIT_CANNOT_READ if isinstance(error, ReadError) else 1
    except OSError as error:
        print(f"error: the frames cannot be written: {one_line(str(error))}", file=sys.stderr)
        return EXIT_CANNOT_WRITE
    print_bytes(success_line(folder, len(selection["indices"]), arguments.format))
    return 0


def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A worker's reply to one request; see eva/frames/serve.py."""
    return answer_one(request, parse_arguments)


def parse_arguments(argv: Sequence[str]) -> Cut:
    """The command line as a call. Exits with status 2 where it is unusable."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("-i", "--video-path", "--video_path", type=Path, required=True)
    parser.add_argument("--start", "--start-time", "--start_time", default="0")
    parser.add_argument("--end", "--end-time", "--end_time", help="default: the stream's end")
    parser.add_argument("--nframes", type=int, default=32)
    parser.add_argument("--resize", type=float, help="ratio; default: full size, untouched")
    parser.add_argument("--factor", type=int, default=1, help="width and height become multiples of this")
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="auto: PyAV, then decord where PyAV fails. torchcodec: PyAV, with the frames of any file chosen by time, "
        "which gives the frames of torchcodec; it need not be installed. like-decord: auto, but a file that decord "
        "cannot use fails",
    )
    parser.add_argument("--format", choices=FORMATS, default="png", help="of the frames; all are lossless")
    parser.add_argument("--clamp", action="store_true", help="cut the window to the stream instead of refusing it")
    parser.add_argument("--save-root", type=Path, default=Path("/tmp"))  # noqa: S108 - documented
    parser.add_argument("--save-dir", type=Path, help="the folder itself")
    for word in argv:
        if NEGATIVE.match(word) and is_option(word):  # argparse of later versions of Python takes -1e-05 for a value
            parser.error(f"{word} reads as an option: write it behind the name of one, with =")
    arguments = parser.parse_args(in_full(argv, REFERENCE_OPTIONS))
    # Of several times, only the last one has to be one.
    for name in ("start", "end"):
        try:
            setattr(arguments, name, seconds(getattr(arguments, name) or ""))
        except (ValueError, OverflowError):
            parser.error(f"argument --{name}: {getattr(arguments, name)!r} is not a time")
    if arguments.start is None:
        parser.error("argument --start: there is no time")
    return Cut(**vars(arguments))


def seconds(text: str) -> float | None:
    """Seconds from `12.5` or `[[HH:]MM:]SS[.mmm]`; None for nothing. Raises ValueError, OverflowError for anything
    else."""
    return parse_clock(text) if text.strip() else None


def save_frames(cut: Cut) -> tuple[Path, dict[str, Any]]:
    """Select, decode and write; gives the folder and what is in it."""
    folder = cut.save_dir or new_folder(Path(cut.save_root), Path(cut.video_path))
    with appear_at_once(folder, beside=cut.save_dir or Path(cut.save_root)) as partial:
        try:
            selection = write_frames(cut, partial, recount=False)
        except MiscountedError:  # the packets of the file mislead
            selection = write_frames(cut, partial, recount=True)
        (partial / "frames.json").write_text(json.dumps(selection) + "\n")
    return folder, selection


def write_frames(cut: Cut, folder: Path, *, recount: bool) -> dict[str, Any]:
    """Decode, resize and write, a repeated frame as often as it was sampled."""
    video = open_video(Path(cut.video_path), backend=cut.backend, recount=recount, indexes=None)
    plan = plan_cut(video, cut)
    places = {index: [n for n, wanted in enumerate(plan.indices) if wanted == index] for index in set(plan.indices)}
    for index, data in pictures(video, plan.indices, plan, cut.format):
        for place in places[index]:
            (folder / picture_name(place, cut.format)).write_bytes(data)
    return describe(video, plan)


def picture_name(place: int, picture_format: str) -> str:
    return f"frame_{place:04d}.{picture_format}"


def success_line(folder: Path, count: int, picture_format: str) -> str:
    """The line that the harness reads."""
    first, last = (folder / picture_name(place, picture_format) for place in (0, count - 1))
    return f"Frames saved to {folder}, total frames saved: {count}, from {first} to {last}"


def new_folder(save_root: Path, video: Path) -> Path:
    """`{save_root}/{YYYYMMDD}/{video stem}/{HHMMSS}_{8 hex}`, always below `save_root`."""
    now = datetime.now()
    return save_root / f"{now:%Y%m%d}" / folder_name(video.stem) / f"{now:%H%M%S}_{os.urandom(4).hex()}"


@contextmanager
def appear_at_once(folder: Path, *, beside: Path) -> Iterator[Path]:
    """A temporary folder, whose files move to `folder` when the block succeeds. It is deleted in any case."""
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
    """Print a line with file names, which need not be valid text."""
    sys.stdout.buffer.write(os.fsencode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
