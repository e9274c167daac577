"""A video is found, and its header is read, in a worker of the frame tool, never in the harness's own process: a dead
network mount blocks every process that reads from it, and a decoder may take any amount of memory.

A video that is missing or broken at the first look is that sample's failure. A video that was found and is not as it
was, and each error of its disk, is the infrastructure's.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from eva.errors import ReadError, VideoError
from eva.frames.tool import CallFailedError, FoundVideo, FrameCounts, FrameToolError, ToolSettings, VideosLostError
from eva.frames.worker import Workers
from eva.protocol.messages import VideoInfo

# How long a folder on a network disk may take to answer, a mount on demand included.
FOLDER_TIMEOUT_S = 60.0
# A folder that may not be listed may hold anything.
FILLED = "(not os.access(p, os.R_OK) or any(os.scandir(p)))"
# After so many videos that could not be read, and no frames in between, the disk is at fault.
MAX_UNREADABLE = 3


class FolderSilentError(VideosLostError):
    """A folder whose disk does not answer."""


@dataclass
class Prober:
    """What all frame tools share (see tool.FrameTool). Each video below `root` is probed once per run, by workers
    of this project's own one."""

    settings: ToolSettings
    workers: Workers
    root: Path
    counts: FrameCounts = field(default_factory=FrameCounts, kw_only=True)
    _found: dict[Path, FoundVideo] = field(default_factory=dict, kw_only=True)
    _unreadable: set[Path] = field(default_factory=set, kw_only=True)  # since a call last gave frames
    _locks: defaultdict[Path, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock), kw_only=True)

    async def start(self) -> None:
        """See FrameTool."""
        await self.workers.start()

    async def close(self) -> None:
        """See FrameTool."""
        await self.workers.close()

    async def probe(self, annotated: Path) -> FoundVideo:
        """The video, or the file that takes its place.

        Raises VideoError; FrameToolError where its disk fails, or where it ends each worker; VideosLostError.
        """
        async with self._locks[annotated]:  # many questions are about one video
            if annotated not in self._found:
                self._found[annotated] = await self._look_first(annotated)
            return self._found[annotated]

    @asynccontextmanager
    async def reading(self, video: Path) -> AsyncIterator[None]:
        """Around a call on a video that was found. A refusal of the call passes only where the video is as it was
        found. Raises FrameToolError where it is not, and for a ReadError; VideosLostError."""
        try:
            yield
        except ReadError as error:
            await self._give_up(video, str(error))
        except CallFailedError:
            await self._check_is_as_found(video)
            raise
        self._unreadable.clear()

    async def _look_first(self, annotated: Path) -> FoundVideo:
        try:
            return await self._probe(annotated)
        except ReadError as error:
            await self._give_up(annotated, str(error))
        except VideoError:
            await self._check_root()
            raise

    async def _check_is_as_found(self, video: Path) -> None:
        found = next((found for found in self._found.values() if found.path == video), None)
        if found is None:
            return
        try:
            now = await self._probe(video)
        except VideoError as error:
            await self._give_up(video, str(error))
        if now != found:
            await self._give_up(video, f"the video {video} is not the one that was found")

    async def _give_up(self, video: Path, reason: str) -> NoReturn:
        await self._check_root()
        self._unreadable.add(video)
        if len(self._unreadable) < MAX_UNREADABLE:
            raise FrameToolError(reason)
        raise VideosLostError(f"{MAX_UNREADABLE} videos in a row cannot be read: is their disk there? {reason}")

    async def _check_root(self) -> None:
        if not await asyncio.to_thread(is_folder, self.root, filled=True):
            raise VideosLostError(f"the video folder {self.root} is gone or empty: is its disk there?")

    async def count(self, video: Path) -> tuple[float, int]:
        """See FrameTool."""
        counted = await self._ask("count", video)
        return counted["fps"], counted["frames"]

    async def _probe(self, video: Path) -> FoundVideo:
        found = await self._ask("probe", video)
        return FoundVideo(Path(found["path"]), found["size"], found["mtime_ns"], VideoInfo(**found["info"]))

    async def _ask(self, what: str, video: Path) -> Mapping[str, Any]:
        reply = await self.workers.ask(video, {what: str(video)})
        if "error" in reply:
            raise (VideoError if reply["kind"] == "video" else ReadError)(reply["error"])
        told: Mapping[str, Any] = reply["ok"]
        return told


def is_folder(path: Path, timeout_s: float = FOLDER_TIMEOUT_S, *, filled: bool = False) -> bool:
    """Whether `path` is a folder, and, where it is to be `filled`, not known to be empty. A process finds it out, which
    is left behind if it blocks. Raises FolderSilentError."""
    look = f"import os, sys; p = sys.argv[1]; sys.exit(not (os.path.isdir(p) and {FILLED if filled else True}))"
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", look, str(path)], start_new_session=True)
    try:
        return process.wait(timeout_s) == 0
    except subprocess.TimeoutExpired:
        raise FolderSilentError(f"{path} did not answer for {timeout_s:g} s: is its network disk there?") from None
    finally:
        process.kill()
