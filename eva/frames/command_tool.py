"""The frame tool as a process per call: for a tool that is not this project's own."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva.errors import EXIT_CANNOT_READ, EXIT_CANNOT_WRITE, ReadError
from eva.frames.probing import Prober
from eva.frames.tool import (
    CallFailedError,
    Extraction,
    FrameToolError,
    FrameToolUnusableError,
    NoRoomForFramesError,
    kill_process,
    start_failure,
)
from eva.json_text import parse_json
from eva.protocol.arguments import FrameRequest

# Shells and env(1) exit with these where there is nothing to execute.
EXITS_CANNOT_START = (126, 127)
# What Python prints when it crashes; a refusal is a sentence.
TRACEBACK = "Traceback (most recent call last)"
# A tool that failed on so many videos, and has not worked on any, is not tried further.
MAX_FAILURES = 3
# The folder's name may contain any words of this line. It stands there three times, which shows where it ends.
_SAVED = re.compile(
    r"^Frames saved to (?P<folder>.+), total frames saved: (?P<count>\d+), "
    r"from (?P=folder)/frame_0000(?P<suffix>\.\w+) to (?P=folder)/frame_\d+(?P=suffix)$",
    re.MULTILINE,
)


@dataclass
class CommandTool(Prober):
    """A process for each call; `slots` bounds how many run at a time."""

    slots: asyncio.Semaphore
    _failed_on: set[Path] = field(default_factory=set)

    async def start(self) -> None:
        """See FrameTool."""
        program = self.settings.program()
        if len(program) == 1 and not os.access(program[0], os.X_OK):
            raise FrameToolUnusableError(f"the frame tool {program[0]} may not be executed: chmod +x {program[0]}")
        await super().start()

    async def extract(self, video: Path, call: FrameRequest, *, sample: int) -> Extraction:
        """See FrameTool."""
        command = [*self.settings.program(), *self.settings.arguments(video, call)]
        async with self.slots, self.reading(video):
            started = time.monotonic()
            printed = await self._run(command, video)
            seconds = time.monotonic() - started
        try:
            frames = read_saved(printed)
        except FrameToolError as error:
            self._note_failure(video, str(error))
            raise
        folder = frames[0].parent
        self.counts.asked += len(frames)
        self.counts.decoded += len(frames)
        return Extraction(frames, round(seconds, 3), read_details(folder), folder)

    def release(self, sample: int) -> None:
        """See FrameTool. Its frames are never deleted."""

    async def _run(self, command: list[str], video: Path) -> str:
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
            raise FrameToolUnusableError(start_failure(self.settings.path, error)) from error
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                out, err = await process.communicate()
        except TimeoutError:
            raise FrameToolError(f"the frame tool took over {self.settings.timeout_s:g} s on {video}") from None
        finally:
            await kill_process(process)
        return self._check_exit(process.returncode, os.fsdecode(out), os.fsdecode(err).strip(), video)

    def _check_exit(self, code: int | None, out: str, err: str, video: Path) -> str:
        """`out`, what the tool printed, where it succeeded."""
        reason = err.splitlines()[-1] if err else "it gave no reason"
        if code == 0:
            return out
        if code == EXIT_CANNOT_WRITE:
            raise NoRoomForFramesError(
                f"the frame tool cannot write to {self.settings.save_root} (--frame-root): {reason}"
            )
        if code == EXIT_CANNOT_READ:
            raise ReadError(reason)
        if code in EXITS_CANNOT_START and not self.counts.asked:
            raise FrameToolUnusableError(f"the frame tool {self.settings.path} cannot be started: {reason}")
        if code is None or code < 0:
            self._note_failure(video, reason)
            raise FrameToolError(f"the frame tool was killed on {video} (exit status {code}): {reason}")
        if TRACEBACK in err and not self.counts.asked:
            self._note_failure(video, reason)
            raise FrameToolError(f"the frame tool crashed on {video}, and has worked on no video so far: {reason}")
        raise CallFailedError(reason)

    def _note_failure(self, video: Path, reason: str) -> None:
        """A tool that fails on a video ends that sample. A tool that has only failed ends the run."""
        self._failed_on.add(video)
        if len(self._failed_on) >= MAX_FAILURES and not self.counts.asked:
            tool = self.settings.path
            raise FrameToolUnusableError(
                f"the frame tool {tool} failed on each of the first {MAX_FAILURES} videos: {reason}"
            )


def read_saved(printed: str) -> tuple[Path, ...]:
    saved = _SAVED.search(printed)
    if saved is None:
        raise FrameToolError(f"the frame tool did not say where its frames are, but printed {printed[:200]!r}")
    folder = Path(saved["folder"]).absolute()
    frames = tuple(folder / f"frame_{k:04d}{saved['suffix']}" for k in range(int(saved["count"])))
    missing = [frame for frame in frames if not frame.is_file()]
    if missing or not frames:
        raise FrameToolError(f"the frame tool promised {len(frames)} frames in {folder}, {len(missing)} are not there")
    return frames


def read_details(folder: Path) -> Mapping[str, Any]:
    try:
        details = parse_json((folder / "frames.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FrameToolError(f"{folder / 'frames.json'} cannot be read: {error}") from error
    return details if isinstance(details, dict) else {}
