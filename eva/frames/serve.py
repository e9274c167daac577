"""A worker of the frame tool: a process that answers one request after another, each a line of JSON.

The requests, and what {"ok": ...} of the reply holds:

- {}: nothing. The worker is ready.
- {"probe": video}: the file that was found, and what its header says.
- {"count": video}: the rate and the number of frames by the video's index.
- {"cut": what store_frames takes}, {"words": [...]} with the words of a command line instead: what was executed, the
  paths of the frames in the store, and what they cost.

Otherwise the reply is {"error": reason, "kind": ...}: "refused" (the call makes no sense for this video), "video" (none
there, or broken), "unreadable" (the video is gone or changed, or its disk fails), "cannot_write" ("full": the disk is).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

from eva.dataset.items import locate_video
from eva.errors import DISK_FULL, EvaError, MiscountedError, ReadError, VideoError
from eva.frames.index_file import Indexes
from eva.frames.store import FrameFolder, video_folder
from eva.protocol.arguments import FrameRequest
from eva.video import LIKE_TORCHCODEC
from eva.video.container import VideoFile
from eva.video.decode import Video, describe, open_video, pictures
from eva.video.index import probe
from eva.video.sampling import Plan, make_plan

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]
# The words of a command line -> what store_frames takes. Raises SystemExit after a sentence on standard error.
Parse = Callable[[Sequence[str]], Mapping[str, Any]]
Result = TypeVar("Result")


def serve(answer: Answer) -> NoReturn:
    """Write `answer` of each request until standard input ends; then the process ends at once.

    It also ends in the middle of an answer: the process that asked has ended, and nobody reads the answer.
    """
    # Standard output for replies alone: what a library prints goes to standard error.
    replies: BinaryIO = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        for line in _read_lines(sys.stdin.buffer):
            replies.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
            replies.flush()
    finally:  # an error that nothing above handles: Python would wait for the thread that reads, and abort
        traceback.print_exc()
        os._exit(1)


def _read_lines(stream: BinaryIO) -> Iterator[bytes]:
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        os._exit(0)  # sys.exit would end this thread only

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def answer_one(request: Mapping[str, Any], parse: Parse) -> Mapping[str, Any]:
    """The reply to one request."""
    complaints = io.StringIO()
    try:
        with redirect_stderr(complaints):
            return {"ok": _answer(request, parse)}
    except SystemExit:
        return {"error": complaints.getvalue().strip().rpartition("\n")[2], "kind": "refused"}
    except EvaError as error:
        broken = isinstance(error, VideoError) and request.keys() & {"probe", "count"}
        kind = "unreadable" if isinstance(error, ReadError) else "video" if broken else "refused"
        return {"error": " ".join(str(error).split()), "kind": kind}
    except OSError as error:
        reason = f"the frames cannot be written: {' '.join(str(error).split())}"
        return {"error": reason, "kind": "cannot_write", "full": error.errno in DISK_FULL}


def _answer(request: Mapping[str, Any], parse: Parse) -> Mapping[str, Any]:
    if "probe" in request:
        path = locate_video(Path(request["probe"]))
        file, info = VideoFile.of(path), probe(path)
        return {"path": str(path), "size": file.size, "mtime_ns": file.mtime_ns, "info": asdict(info)}
    if "count" in request:
        timeline = open_video(Path(request["count"]), backend="auto", recount=False, indexes=None).timeline
        return {"fps": timeline.average_fps, "frames": len(timeline.times_s)}
    if not request:
        return {}
    return store_frames(**(parse(request["words"]) if "words" in request else request["cut"]))


def store_frames(
    *,
    video_path: str | Path,
    start: float,
    end: float | None,
    nframes: int,
    resize: float | None,
    factor: int,
    backend: str,
    clamp: bool,
    picture_format: str,
    save_root: str | Path,
) -> Mapping[str, Any]:
    """Have the frames in the store of the save root, and decode those that are missing; gives what was executed."""
    root = Path(save_root).absolute()

    def work(recount: bool) -> Mapping[str, Any]:
        video = open_video(Path(video_path), backend=backend, recount=recount, indexes=Indexes(root))
        plan = plan_call(video, start=start, end=end, nframes=nframes, resize=resize, factor=factor, clamp=clamp)
        kind = _kind(video, plan, recount=recount, by_time=backend == LIKE_TORCHCODEC)
        stored = FrameFolder(video_folder(root, video.file) / kind, picture_format, plan.width, plan.height)
        cost = stored.fill(plan.indices, lambda missing: pictures(video, missing, plan, picture_format))
        return {**describe(video, plan), **asdict(cost), "frames": [str(stored.path(index)) for index in plan.indices]}

    return with_sure_count(work)


def plan_call(
    video: Video, *, start: float, end: float | None, nframes: int, resize: float | None, factor: int, clamp: bool
) -> Plan:
    """The frames that a call means. No `end`: up to the stream's end; no `resize`: full size, whatever `factor` is."""
    request = FrameRequest(
        start, video.timeline.end_s if end is None else end, nframes, 1.0 if resize is None else resize
    )
    return make_plan(video.timeline, request, factor=1 if resize is None else factor, clamp=clamp)


def with_sure_count(work: Callable[[bool], Result]) -> Result:
    """The result of `work(recount)`: with frames counted by their packets, or by decoding where the packets mislead."""
    try:
        return work(False)
    except MiscountedError:
        return work(True)


def _kind(video: Video, plan: Plan, *, recount: bool, by_time: bool) -> str:
    """A name for all on which the pixels of a frame depend besides its index: size, decoder, how frames are decoded and
    counted, and whether they are turned, which those that are chosen by time are not."""
    name = f"{plan.width}x{plan.height}-{video.decoder}{'-by-time' if by_time else ''}"
    if video.decoder == "decord":  # the frames that it gives, sometimes wrong ones, depend on the others of the call
        return f"{name}-{hashlib.sha256(repr(plan.indices).encode()).hexdigest()[:20]}"
    return f"{name}-counted" if recount else name
