"""The frame tool by warm workers, so that a call costs its frames only. A worker that fails is replaced.

A worker that hangs, crashes or takes too much memory is not the model's fault. The call is made once more, with the
other decoder where there is one. If that fails too, the video is quarantined: it is not tried again in this run.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva.errors import ReadError
from eva.frames.eviction import Evictor
from eva.frames.probing import Prober
from eva.frames.tool import (
    CallFailedError,
    Extraction,
    FoundVideo,
    FrameCall,
    FrameCounts,
    FrameToolError,
    NoRoomForFramesError,
    ToolSettings,
)
from eva.frames.worker_process import Limits, WorkerLostError, Workers
from eva.video import LIKE_DECORD

# How often a call is made because its frames were evicted before they could be held.
TRIES = 3


@dataclass
class WorkerTool:
    """The frame tool by warm workers; see tool.FrameTool."""

    settings: ToolSettings
    workers: Workers
    limits: Limits
    evictor: Evictor
    prober: Prober
    picture_format: str
    counts: FrameCounts = field(default_factory=FrameCounts)
    _quarantine: dict[Path, str] = field(default_factory=dict)

    async def start(self) -> None:
        """See FrameTool. The store is cut to its cap first: on a full disk no call would succeed."""
        with self._store_errors():
            await asyncio.to_thread(self.evictor.start)
        await self.workers.start()

    async def probe(self, annotated: Path) -> FoundVideo:
        """See FrameTool."""
        return await self.prober(annotated)

    async def count(self, video: Path) -> tuple[float, int]:
        return await self.prober.count(video)

    async def extract(self, video: Path, call: FrameCall, *, sample: int) -> Extraction:
        """See FrameTool."""
        words = [*self._own_words(video, call), f"--format={self.picture_format}"]
        for _ in range(TRIES):
            async with self.prober.reading(video):
                extraction = await self._serve_with_room(video, words)
            frames = set(extraction.frames)
            self.counts.decoded += extraction.details["decoded"]
            with self._store_errors():
                if self.evictor.hold(sample, frames):
                    self.counts.asked += len(frames)
                    await asyncio.to_thread(self.evictor.count_written, extraction.details["written_bytes"])
                    return extraction
        raise FrameToolError(f"frames of {video} are evicted as soon as they are made: raise --frame-cache-gb")

    def _own_words(self, video: Path, call: FrameCall) -> list[str]:
        """decord need not be installed for a model to choose it."""
        words = self.settings.arguments(video, call)
        if self.settings.backend != "auto":  # which stands behind that of the model
            return words
        return [f"--backend={LIKE_DECORD}" if word == "--backend=decord" else word for word in words]

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NoRoomForFramesError(
                f"the frame store in {self.settings.save_root} (--frame-root) cannot be used: {error}"
            ) from error

    async def _serve_with_room(self, video: Path, words: Sequence[str]) -> Extraction:
        """Serve a call. Where the disk is full, though the store is below its cap, old frames make room, once."""
        asked_at = time.monotonic()
        try:
            return await self._serve(video, words)
        except NoRoomForFramesError as error:
            if not error.full:
                raise
        await asyncio.to_thread(self.evictor.make_room, asked_at)
        return await self._serve(video, words)

    def release(self, sample: int) -> None:
        """See FrameTool."""
        self.evictor.release(sample)

    async def close(self) -> None:
        """End the workers, and release all frames."""
        await self.workers.close()
        self.evictor.close()

    async def _serve(self, video: Path, words: Sequence[str]) -> Extraction:
        self._check_quarantine(video)
        try:
            return await self._ask(video, words)
        except WorkerLostError as lost:
            return await self._ask_again(video, words, lost)

    async def _ask(self, video: Path, words: Sequence[str]) -> Extraction:
        async with self.workers.one(video) as worker:
            self._check_quarantine(video)  # while this call waited, another one may have put it there
            started_at = time.monotonic()
            reply = await worker.ask({"arguments": words}, self.limits)
        if reply.get("kind") == "cannot_write":
            reason = f"the frame tool cannot write to {self.settings.save_root} (--frame-root): {reply['error']}"
            raise NoRoomForFramesError(reason, full=reply["full"])
        return read_reply(reply, round(time.monotonic() - started_at, 3))

    async def _ask_again(self, video: Path, words: Sequence[str], first: WorkerLostError) -> Extraction:
        other = self._other_decoder(words)
        try:
            return await self._ask(video, [*words, f"--backend={other}"] if other else words)
        except WorkerLostError as second:
            self._quarantine[video] = f"the frame tool {first} on {video}; tried again, it {second}"
        except CallFailedError as refusal:
            if not other:
                raise
            # The refusal of another decoder does not explain why the first one was lost.
            self._quarantine[video] = f"the frame tool {first} on {video}; {other} says: {refusal}"
        raise FrameToolError(self._quarantine[video]) from first

    def _other_decoder(self, words: Sequence[str]) -> str | None:
        installed = importlib.util.find_spec("decord") is not None
        chosen = {word for word in words if word.startswith("--backend=")} - {"--backend=auto"}
        return "decord" if installed and not chosen else None

    def _check_quarantine(self, video: Path) -> None:
        reason = self._quarantine.get(video)
        if reason is not None:
            raise FrameToolError(f"{reason}; it is not tried again in this run")


def read_reply(reply: Mapping[str, Any], seconds: float) -> Extraction:
    if "ok" in reply:
        details = dict(reply["ok"])
        frames = tuple(Path(frame) for frame in details.pop("frames"))
        return Extraction(frames, seconds, details)
    if reply["kind"] == "unreadable":
        raise ReadError(reply["error"])
    raise CallFailedError(reply["error"])
