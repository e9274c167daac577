"""The two frame tools: this project's own one by warm workers and the frame store, and a foreign one by a process per
call.

For both, a video is found, and its header is read, in a worker, never in the harness's own process: a dead network
mount blocks every process that reads from it, and a decoder may take any amount of memory. A video that is missing or
broken at the first look is that sample's failure. A video that was found and is not as it was, and each error of its
disk, is the infrastructure's.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from eva.errors import EXIT_CANNOT_READ, EXIT_CANNOT_WRITE, ReadError, VideoError
from eva.frames.eviction import Evictor
from eva.frames.tool import (
    CallFailedError,
    Cut,
    Extraction,
    FoundVideo,
    FramesDiskFullError,
    FrameTool,
    FrameToolError,
    FrameToolUnusableError,
    VideosLostError,
)
from eva.frames.worker import Request, Workers, kill_process
from eva.json_text import parse_json
from eva.protocol.arguments import FrameRequest
from eva.protocol.messages import VideoInfo
from eva.video import LIKE_DECORD

# How long a folder on a network disk may take to answer, a mount on demand included.
FOLDER_TIMEOUT_S = 60.0
# After so many videos that could not be read, and no frames in between, the disk is at fault.
MAX_UNREADABLE = 3
# A foreign tool that failed on so many videos, and has not worked on any, is not tried further.
MAX_FAILURES = 3
# Shells and env(1) exit with these where there is nothing to execute.
EXITS_CANNOT_START = (126, 127)
# What Python prints when it crashes; a refusal is a sentence.
TRACEBACK = "Traceback (most recent call last)"
# The folder's name may contain any words of this line. It stands there three times, which shows where it ends.
_SAVED = re.compile(
    r"^Frames saved to (?P<folder>.+), total frames saved: (?P<count>\d+), "
    r"from (?P=folder)/frame_0000(?P<suffix>\.\w+) to (?P=folder)/frame_\d+(?P=suffix)$",
    re.MULTILINE,
)


@dataclass
class VideoTool(FrameTool):
    """What both tools share. `workers` of this project's own tool probe each video below `root` once per run."""

    workers: Workers
    root: Path
    _found: dict[Path, FoundVideo] = field(default_factory=dict, kw_only=True)
    _unreadable: set[Path] = field(default_factory=set, kw_only=True)  # since a call last gave frames
    _locks: defaultdict[Path, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock), kw_only=True)

    async def close(self) -> None:
        await self.workers.close()

    async def probe(self, annotated: Path) -> FoundVideo:
        async with self._locks[annotated]:  # many questions are about one video
            if annotated not in self._found:
                try:
                    self._found[annotated] = await self._probe(annotated)
                except ReadError as error:
                    await self._give_up(annotated, str(error))
                except VideoError:
                    await self._check_root()
                    raise
            return self._found[annotated]

    async def count(self, video: Path) -> tuple[float, int]:
        counted = await self.ask(video, {"count": str(video)}, refused=VideoError)
        return counted["fps"], counted["frames"]

    async def ask(
        self, video: Path, request: Request, *, refused: type[Exception] = CallFailedError
    ) -> Mapping[str, Any]:
        """What a worker gives for a request. Raises `refused` where it refuses it, ReadError where it cannot read the
        video, FrameToolUnusableError where it cannot write, and what Workers.ask raises."""
        reply = await self.workers.ask(video, request)
        if "ok" in reply:
            told: Mapping[str, Any] = reply["ok"]
            return told
        if reply["kind"] == "unreadable":
            raise ReadError(reply["error"])
        if reply["kind"] == "refused":
            raise refused(reply["error"])
        unwritten = FramesDiskFullError if reply["kind"] == "disk_full" else FrameToolUnusableError
        raise unwritten(f"the frame tool cannot write to {self.settings.save_root} (--frame-root): {reply['error']}")

    @asynccontextmanager
    async def reading(self, video: Path) -> AsyncIterator[None]:
        """Around a call on a video that was found. A refusal of the call passes only where the video is as it was
        found. Raises FrameToolError where it is not, and for a ReadError; VideosLostError."""
        try:
            yield
        except ReadError as error:
            await self._give_up(video, str(error))
        except CallFailedError:
            found = [found for found in self._found.values() if found.path == video]
            try:
                if found and await self._probe(video) != found[0]:
                    raise VideoError(f"the video {video} is not the one that was found")
            except VideoError as error:
                await self._give_up(video, str(error))
            raise
        self._unreadable.clear()

    async def _probe(self, video: Path) -> FoundVideo:
        found = await self.ask(video, {"probe": str(video)}, refused=VideoError)
        return FoundVideo(Path(found["path"]), found["size"], found["mtime_ns"], VideoInfo(**found["info"]))

    async def _give_up(self, video: Path, reason: str) -> NoReturn:
        await self._check_root()
        self._unreadable.add(video)
        if len(self._unreadable) < MAX_UNREADABLE:
            raise FrameToolError(reason)
        raise VideosLostError(f"{MAX_UNREADABLE} videos in a row cannot be read: is their disk there? {reason}")

    async def _check_root(self) -> None:
        if not await asyncio.to_thread(is_folder, self.root, filled=True):
            raise VideosLostError(f"the video folder {self.root} is gone or empty: is its disk there?")


@dataclass
class WorkerTool(VideoTool):
    """This project's own tool; see tool.FrameTool."""

    evictor: Evictor
    picture_format: str

    async def start(self) -> None:
        """See FrameTool. The store is cut to its cap first: on a full disk no call would succeed."""
        with self._store():
            await asyncio.to_thread(self.evictor.start)

    async def extract(self, video: Path, call: FrameRequest, *, sample: int) -> Extraction:
        """See FrameTool. Where the disk is full, though the store is below its cap, old frames make room, once."""
        request, started_at = self._request(video, call), time.monotonic()
        async with self.reading(video):
            try:
                details = dict(await self.ask(video, request))
            except FramesDiskFullError:
                with self._store():
                    await asyncio.to_thread(self.evictor.make_room, started_at)
                details = dict(await self.ask(video, request))
        seconds = round(time.monotonic() - started_at, 3)
        frames = tuple(map(Path, details.pop("frames")))
        self.counts.decoded += details["decoded"]
        with self._store():
            if not self.evictor.hold(sample, frames):
                raise FrameToolError(f"frames of {video} are evicted as soon as they are made: raise --frame-cache-gb")
            self.counts.asked += len(set(frames))
            await asyncio.to_thread(self.evictor.count_written, details["written_bytes"])
        return Extraction(frames, seconds, details)

    def release(self, sample: int) -> None:
        self.evictor.release(sample)

    async def close(self) -> None:
        await super().close()
        self.evictor.close()

    def _request(self, video: Path, call: FrameRequest) -> Request:
        """The call for a worker (see serve.py). Raises CallFailedError."""
        settings = self.settings
        if settings.fallback:
            cut = Cut(
                video_path=str(video),
                start=0.0 + call.start_s,  # a float, and no -0.0
                end=0.0 + call.end_s,
                nframes=int(call.nframes),
                resize=float(call.resize),
                factor=settings.factor,
                backend=settings.backend,
                clamp=True,
                format=self.picture_format,
                save_root=str(settings.save_root),
            )
            return {"cut": asdict(cut)}
        words = [*settings.arguments(video, call), f"--format={self.picture_format}"]
        if settings.backend == "auto":  # decord need not be installed for a model to choose it
            words = [f"--backend={LIKE_DECORD}" if word == "--backend=decord" else word for word in words]
        return {"words": words}

    @contextmanager
    def _store(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            root = self.settings.save_root
            raise FrameToolUnusableError(f"the frame store in {root} (--frame-root) cannot be used: {error}") from error


@dataclass
class CommandTool(VideoTool):
    """A foreign tool, whose frames are never deleted; see tool.FrameTool. `slots` bounds how many calls run at a
    time."""

    slots: asyncio.Semaphore
    _failed_on: set[Path] = field(default_factory=set)

    async def extract(self, video: Path, call: FrameRequest, *, sample: int) -> Extraction:
        """See FrameTool. A tool that fails on a video ends that sample. A tool that has only failed ends the run."""
        tool = self.settings.path
        program = [sys.executable, str(tool)] if tool.suffix == ".py" else [str(tool)]
        command = [*program, *self.settings.arguments(video, call)]
        async with self.slots, self.reading(video):
            started_at = time.monotonic()
            try:
                frames, details = read_saved(await self._run(command, video))
            except FrameToolError as error:
                self._failed_on.add(video)
                if self.counts.asked or len(self._failed_on) < MAX_FAILURES:
                    raise
                told = f"the frame tool {tool} failed on each of the first {MAX_FAILURES} videos: {error}"
                raise FrameToolUnusableError(told) from error
        self.counts.asked += len(frames)
        self.counts.decoded += len(frames)
        return Extraction(frames, round(time.monotonic() - started_at, 3), details, frames[0].parent)

    async def _run(self, command: list[str], video: Path) -> str:
        """What the tool prints."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                # Ctrl-C in the terminal is for the harness. A tool that ended by it would count against the model.
                start_new_session=True,
            )
        except OSError as error:
            tool = self.settings.path
            raise FrameToolUnusableError(f"the frame tool {tool} cannot be started: {error.strerror}") from error
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                out, err = map(os.fsdecode, await process.communicate())
        except TimeoutError:
            raise FrameToolError(f"the frame tool took over {self.settings.timeout_s:g} s on {video}") from None
        finally:
            await kill_process(process)
        code, reason = process.returncode, (err.strip().splitlines() or ["it gave no reason"])[-1]
        if code == 0:
            return out
        if code == EXIT_CANNOT_WRITE:
            root = self.settings.save_root
            raise FrameToolUnusableError(f"the frame tool cannot write to {root} (--frame-root): {reason}")
        if code == EXIT_CANNOT_READ:
            raise ReadError(reason)
        crashed = (TRACEBACK in err or code in EXITS_CANNOT_START) and not self.counts.asked
        if code is None or code < 0 or crashed:
            raise FrameToolError(f"the frame tool ended on {video} (exit status {code}): {reason}")
        raise CallFailedError(reason)


def read_saved(printed: str) -> tuple[tuple[Path, ...], Mapping[str, Any]]:
    """The frames and the details of a foreign tool, by the line that it printed. Raises FrameToolError."""
    saved = _SAVED.search(printed)
    if saved is None:
        raise FrameToolError(f"the frame tool did not say where its frames are, but printed {printed[:200]!r}")
    folder = Path(saved["folder"]).absolute()
    frames = tuple(folder / f"frame_{k:04d}{saved['suffix']}" for k in range(int(saved["count"])))
    missing = [frame for frame in frames if not frame.is_file()]
    if missing or not frames:
        raise FrameToolError(f"the frame tool promised {len(frames)} frames in {folder}, {len(missing)} are not there")
    try:
        details = parse_json((folder / "frames.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        details = {}
    return frames, details if isinstance(details, dict) else {}


def is_folder(path: Path, timeout_s: float = FOLDER_TIMEOUT_S, *, filled: bool = False) -> bool:
    """Whether `path` is a folder, and, where it is to be `filled`, not known to be empty. A process finds it out, which
    is left behind if it blocks. Raises VideosLostError then."""
    # A folder that may not be listed may hold anything.
    inside = "(not os.access(p, os.R_OK) or any(os.scandir(p)))" if filled else "True"
    look = f"import os, sys; p = sys.argv[1]; sys.exit(not (os.path.isdir(p) and {inside}))"
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", look, str(path)], start_new_session=True)
    try:
        return process.wait(timeout_s) == 0
    except subprocess.TimeoutExpired:
        raise VideosLostError(f"{path} did not answer for {timeout_s:g} s: is its network disk there?") from None
    finally:
        process.kill()
