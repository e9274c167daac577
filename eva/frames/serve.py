"""A worker of the frame tool: a process that answers one request after another, each a line of JSON.

A request is {"probe": video}, {"count": video}, {"cut": the fields of a Cut}, {"words": those of a command line}, or
{}, to see that the worker is ready. The reply is {"ok": see _answer} or {"error": reason, "kind": ...}: "refused" (also
where the video is missing or broken), "unreadable" (it is gone or changed, or its disk fails), "cannot_write",
"disk_full".
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eva.dataset.items import locate_video
from eva.errors import DISK_FULL, EvaError, MiscountedError, ReadError
from eva.frames.store import Indexes, fill, video_folder
from eva.frames.tool import Cut
from eva.protocol.arguments import FrameRequest
from eva.video import LIKE_TORCHCODEC
from eva.video.container import VideoFile
from eva.video.decode import Video, describe, open_video, pictures
from eva.video.index import probe
from eva.video.sampling import Plan, make_plan

# How often a worker looks whether the process that asked is still there.
WATCH_S = 1.0

# The words of a command line -> the call. Raises SystemExit after a sentence on standard error.
Parse = Callable[[Sequence[str]], Cut]


def serve(answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Write `answer` of each request until standard input ends. The process ends with the one that started it, also in
    the middle of an answer."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # Standard output for replies alone: what a library prints goes to standard error.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin.buffer:
            replies.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
            replies.flush()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(0)  # sys.exit would end this thread only


def answer_one(request: Mapping[str, Any], parse: Parse) -> Mapping[str, Any]:
    """The reply to one request."""
    complaints = io.StringIO()
    try:
        with redirect_stderr(complaints):
            return {"ok": _answer(request, parse)}
    except SystemExit:
        return {"error": complaints.getvalue().strip().rpartition("\n")[2], "kind": "refused"}
    except EvaError as error:
        kind = "unreadable" if isinstance(error, ReadError) else "refused"
        return {"error": " ".join(str(error).split()), "kind": kind}
    except OSError as error:
        reason = f"the frames cannot be written: {' '.join(str(error).split())}"
        return {"error": reason, "kind": "disk_full" if error.errno in DISK_FULL else "cannot_write"}


def _answer(request: Mapping[str, Any], parse: Parse) -> Mapping[str, Any]:
    if "probe" in request:
        path = locate_video(Path(request["probe"]))
        file, info = VideoFile.of(path), probe(path)
        return {"path": str(path), "size": file.size, "mtime_ns": file.mtime_ns, "info": asdict(info)}
    if "count" in request:
        timeline = open_video(Path(request["count"]), backend="auto", recount=False, indexes=None).timeline
        return {"fps": timeline.average_fps, "frames": len(timeline.times_s)}
    return store_frames(Cut(**request["cut"]) if "cut" in request else parse(request["words"])) if request else {}


def store_frames(cut: Cut, *, recount: bool = False) -> Mapping[str, Any]:
    """Have the frames in the store of the save root, and decode those that are missing; gives what was executed. Where
    the packets of the file mislead, its frames are counted by decoding (`recount`)."""
    root = Path(cut.save_root).absolute()
    try:
        video = open_video(Path(cut.video_path), backend=cut.backend, recount=recount, indexes=Indexes(root))
        plan = plan_cut(video, cut)
        # All on which the pixels of a frame depend besides its index; those that are chosen by time are not turned.
        kind = f"{plan.width}x{plan.height}-{video.decoder}{'-by-time' if cut.backend == LIKE_TORCHCODEC else ''}"
        if video.decoder == "decord":  # its frames, sometimes wrong ones, depend on the others of the call
            kind += f"-{hashlib.sha256(repr(plan.indices).encode()).hexdigest()[:20]}"
        elif recount:
            kind += "-counted"
        folder = video_folder(root, video.file) / kind
        frames = {index: folder / f"{index:07d}.{cut.format}" for index in plan.indices}
        size = (plan.width, plan.height)
        decoded, written_bytes = fill(frames, size, lambda missing: pictures(video, missing, plan, cut.format))
    except MiscountedError:
        if recount:
            raise
        return store_frames(cut, recount=True)
    cost = {"decoded": decoded, "written_bytes": written_bytes}
    return {**describe(video, plan), **cost, "frames": [str(frames[index]) for index in plan.indices]}


def plan_cut(video: Video, cut: Cut) -> Plan:
    """The frames that a call means."""
    end, resize = video.timeline.end_s if cut.end is None else cut.end, 1.0 if cut.resize is None else cut.resize
    request = FrameRequest(cut.start, end, cut.nframes, resize)
    return make_plan(video.timeline, request, factor=1 if cut.resize is None else cut.factor, clamp=cut.clamp)
