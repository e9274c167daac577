"""The frame tool of this project: warm workers, so that a call costs its frames only, and the frame store."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva.errors import ReadError
from eva.frames.eviction import Evictor
from eva.frames.probing import Prober
from eva.frames.tool import CallFailedError, Extraction, FrameToolError, NoRoomForFramesError
from eva.protocol.arguments import FrameRequest
from eva.video import LIKE_DECORD

# How often a call is made because its frames were evicted before they could be held.
TRIES = 3


@dataclass
class WorkerTool(Prober):
    """The frame tool by warm workers; see tool.FrameTool."""

    evictor: Evictor
    picture_format: str

    async def start(self) -> None:
        """See FrameTool. The store is cut to its cap first: on a full disk no call would succeed."""
        with self._store_errors():
            await asyncio.to_thread(self.evictor.start)
        await super().start()

    async def extract(self, video: Path, call: FrameRequest, *, sample: int) -> Extraction:
        """See FrameTool. Where the disk is full, though the store is below its cap, old frames make room, once."""
        asked, again = self._requests(video, call)
        for _ in range(TRIES):
            asked_at = time.monotonic()
            async with self.reading(video):
                try:
                    extraction = await self._cut(video, asked, again)
                except NoRoomForFramesError as error:
                    if not error.full:
                        raise
                    await asyncio.to_thread(self.evictor.make_room, asked_at)
                    extraction = await self._cut(video, asked, again)
            frames = set(extraction.frames)
            self.counts.decoded += extraction.details["decoded"]
            with self._store_errors():
                if self.evictor.hold(sample, frames):
                    self.counts.asked += len(frames)
                    await asyncio.to_thread(self.evictor.count_written, extraction.details["written_bytes"])
                    return extraction
        raise FrameToolError(f"frames of {video} are evicted as soon as they are made: raise --frame-cache-gb")

    def release(self, sample: int) -> None:
        """See FrameTool."""
        self.evictor.release(sample)

    async def close(self) -> None:
        """End the workers, and release all frames."""
        await super().close()
        self.evictor.close()

    def _requests(self, video: Path, call: FrameRequest) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The call for a worker, and for another one where that is lost: by decord, unless a decoder was chosen. Raises
        CallFailedError."""
        settings, backend = self.settings, self.settings.backend
        other = "decord" if backend == "auto" and importlib.util.find_spec("decord") else backend
        if settings.fallback:
            cut = {
                "video_path": str(video),
                "start": 0.0 + call.start_s,  # a float, and no -0.0
                "end": 0.0 + call.end_s,
                "nframes": call.nframes,
                "resize": float(call.resize),
                "factor": settings.factor,
                "backend": backend,
                "clamp": True,
                "picture_format": self.picture_format,
                "save_root": str(settings.save_root),
            }
            return {"cut": cut}, {"cut": {**cut, "backend": other}}
        words = [*settings.arguments(video, call), f"--format={self.picture_format}"]
        if backend == "auto":  # the model's counts; decord need not be installed for a model to choose it
            words = [f"--backend={LIKE_DECORD}" if word == "--backend=decord" else word for word in words]
        chosen = any(word.startswith("--backend=") and word != "--backend=auto" for word in words)
        return {"words": words}, {"words": words if chosen else [*words, f"--backend={other}"]}

    async def _cut(self, video: Path, asked: Mapping[str, Any], again: Mapping[str, Any]) -> Extraction:
        started_at = time.monotonic()
        reply = await self.workers.ask(video, asked, again)
        if "ok" in reply:
            details = dict(reply["ok"])
            frames = tuple(map(Path, details.pop("frames")))
            return Extraction(frames, round(time.monotonic() - started_at, 3), details)
        if reply["kind"] == "cannot_write":
            reason = f"the frame tool cannot write to {self.settings.save_root} (--frame-root): {reply['error']}"
            raise NoRoomForFramesError(reason, full=reply["full"])
        raise (ReadError if reply["kind"] == "unreadable" else CallFailedError)(reply["error"])

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            root = self.settings.save_root
            raise NoRoomForFramesError(f"the frame store in {root} (--frame-root) cannot be used: {error}") from error
