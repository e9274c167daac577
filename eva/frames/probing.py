"""A video is found, and its header is read, in a worker of the frame tool, never in the harness's own process: a dead
network mount blocks every process that reads from it, and a decoder may take any amount of memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from eva.errors import EvaError, VideoError
from eva.frames.tool import FoundVideo, FrameToolError
from eva.frames.worker_process import LimitExceededError, Limits, WorkerLostError, Workers
from eva.protocol.messages import VideoInfo

# How long a folder on a network disk may take to answer, a mount on demand included.
FOLDER_TIMEOUT_S = 60.0


class FolderSilentError(EvaError):
    """A folder whose disk does not answer."""


@dataclass
class Prober:
    """Probes each video once per run, by workers of this project's own frame tool."""

    workers: Workers
    limits: Limits
    _found: dict[Path, FoundVideo] = field(default_factory=dict)
    _lost: dict[Path, str] = field(default_factory=dict)
    _locks: defaultdict[Path, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def __call__(self, annotated: Path) -> FoundVideo:
        """The video, or the file that takes its place. Raises VideoError; FrameToolError where it ends each worker."""
        async with self._locks[annotated]:  # many questions are about one video
            if annotated in self._lost:
                raise FrameToolError(f"{self._lost[annotated]}; it is not tried again in this run")
            if annotated not in self._found:
                self._found[annotated] = await self._probe(annotated)
            return self._found[annotated]

    async def _probe(self, annotated: Path) -> FoundVideo:
        try:
            try:
                return await self._ask(annotated)
            except LimitExceededError:
                raise
            except WorkerLostError:  # killed from outside, perhaps
                return await self._ask(annotated)
        except WorkerLostError as lost:
            self._lost[annotated] = f"the frame tool {lost} when it looked at {annotated}"
            raise FrameToolError(self._lost[annotated]) from lost

    async def _ask(self, annotated: Path) -> FoundVideo:
        async with self.workers.one(annotated) as worker:
            reply = await worker.ask({"probe": str(annotated)}, self.limits)
        if "error" in reply:
            raise VideoError(reply["error"])
        found = reply["ok"]
        return FoundVideo(Path(found["path"]), found["size"], found["mtime_ns"], VideoInfo(**found["info"]))


def is_folder(path: Path, timeout_s: float = FOLDER_TIMEOUT_S) -> bool:
    """`path.is_dir()`, in a process that is left behind if it blocks. Raises FolderSilentError."""
    look = "import os, sys; sys.exit(not os.path.isdir(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", look, str(path)], start_new_session=True)
    try:
        return process.wait(timeout_s) == 0
    except subprocess.TimeoutExpired:
        raise FolderSilentError(f"{path} did not answer for {timeout_s:g} s: is its network disk there?") from None
    finally:
        process.kill()


def read_text(path: Path, timeout_s: float) -> str:
    """The text of a small file, read in a process that is left behind if it blocks.

    Raises FileNotFoundError, or OSError if it cannot be read or did not answer in time.
    """
    read = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
    command = [sys.executable, "-I", "-S", "-c", read, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        content, said = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise OSError(f"it did not answer for {timeout_s:g} s") from None
    finally:
        process.kill()
    if process.returncode:
        reason = said.decode(errors="replace").strip().splitlines()[-1]
        raise FileNotFoundError(reason) if reason.startswith("FileNotFoundError") else OSError(reason)
    return content.decode()
