"""Warm processes of the frame tool, so that a call pays for its frames only; one that misbehaves is replaced.

A worker that hangs, crashes or grows says nothing about the model: the call is tried once more, with the other
decoder where there is one, and a video on which that fails too is quarantined for the rest of the run.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva.frames.eviction import Leases
from eva.frames.tool import (
    CallFailedError,
    Extraction,
    FoundVideo,
    FrameCall,
    FrameCounts,
    FrameToolError,
    NoRoomForFramesError,
    ProbedBy,
    ToolSettings,
)
from eva.frames.worker_process import Limits, WorkerLostError, Workers

# How often a call is made again because others evicted its frames before they could be held.
TRIES = 3


@dataclass
class WorkerTool:
    """The frame tool by warm workers; see tool.FrameTool."""

    settings: ToolSettings
    workers: Workers
    limits: Limits
    leases: Leases
    prober: ProbedBy
    picture_format: str = "bmp"
    usage: FrameCounts = field(default_factory=FrameCounts)
    _quarantine: dict[Path, str] = field(default_factory=dict)

    async def start(self, report: Callable[[str], None]) -> None:
        """See FrameTool. The store is cut to its cap: where the disk is full, no call would come so far."""
        try:
            await asyncio.to_thread(self.leases.start, report)
        except OSError as error:
            raise NoRoomForFramesError(
                f"the frame store in {self.settings.save_root} cannot be used: {error}"
            ) from error
        await self.workers.start()

    async def probe(self, annotated: Path) -> FoundVideo:
        """See FrameTool."""
        return await self.prober(annotated)

    async def extract(self, video: Path, call: FrameCall, *, sample: int) -> Extraction:
        """See FrameTool."""
        words = [*self.settings.arguments(video, call), f"--format={self.picture_format}"]
        for _ in range(TRIES):
            extraction = await self._served_with_room(video, words)
            self.usage.asked += len(set(extraction.frames))
            self.usage.decoded += extraction.details["decoded"]
            if await self._held(sample, extraction):
                return extraction
        raise FrameToolError(f"frames of {video} are evicted as soon as they are made: raise --frame-cache-gb")

    async def _held(self, sample: int, extraction: Extraction) -> bool:
        try:
            if not self.leases.hold(sample, set(extraction.frames)):
                return False
            await asyncio.to_thread(self.leases.grew, extraction.details["written_bytes"])
        except OSError as error:
            raise NoRoomForFramesError(
                f"the frame store in {self.settings.save_root} cannot be used: {error}"
            ) from error
        return True

    async def _served_with_room(self, video: Path, words: Sequence[str]) -> Extraction:
        """Where the disk is full though the store is below its cap, old frames make room, once."""
        asked_at = time.monotonic()
        try:
            return await self._served(video, words)
        except NoRoomForFramesError as error:
            if not error.full:
                raise
        await asyncio.to_thread(self.leases.make_room, asked_at)
        return await self._served(video, words)

    def release(self, sample: int) -> None:
        """See FrameTool."""
        self.leases.release(sample)

    async def close(self) -> None:
        """End the workers, and let go of all frames."""
        await self.workers.close()
        self.leases.close()

    async def _served(self, video: Path, words: Sequence[str]) -> Extraction:
        self._check_quarantine(video)
        try:
            return await self._asked(video, words)
        except WorkerLostError as lost:
            return await self._asked_again(video, words, lost)

    async def _asked(self, video: Path, words: Sequence[str]) -> Extraction:
        async with self.workers.one(video) as worker:
            self._check_quarantine(video)  # while this call waited, another one may have put it there
            started = time.monotonic()
            reply = await worker.ask({"arguments": words}, self.limits)
        return _extraction(reply, round(time.monotonic() - started, 3))

    async def _asked_again(self, video: Path, words: Sequence[str], first: WorkerLostError) -> Extraction:
        other = self._other_decoder()
        try:
            return await self._asked(video, [*words, f"--backend={other}"] if other else words)
        except WorkerLostError as second:
            self._quarantine[video] = f"the frame tool {first} on {video}; tried again, it {second}"
        except CallFailedError as refusal:
            if not other:
                raise
            # Another decoder's refusal says nothing about a call that the first one hung on.
            self._quarantine[video] = f"the frame tool {first} on {video}; {other} says: {refusal}"
        raise FrameToolError(self._quarantine[video]) from first

    def _other_decoder(self) -> str | None:
        installed = importlib.util.find_spec("decord") is not None
        return "decord" if installed and self.settings.backend == "auto" else None

    def _check_quarantine(self, video: Path) -> None:
        reason = self._quarantine.get(video)
        if reason is not None:
            raise FrameToolError(f"{reason}; it is not tried again in this run")


def _extraction(reply: Mapping[str, Any], seconds: float) -> Extraction:
    if "ok" in reply:
        details = dict(reply["ok"])
        frames = tuple(Path(frame) for frame in details.pop("frames"))
        return Extraction(frames, seconds, details)
    if reply["kind"] == "cannot_write":
        raise NoRoomForFramesError(f"the frame tool cannot write: {reply['error']}", full=reply["full"])
    if reply["kind"] == "changed":
        raise FrameToolError(reply["error"])
    raise CallFailedError(reply["error"])
