"""Tool call -> the frame tool -> frames on disk."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from eva.errors import EvaError
from eva.json_text import parse_json
from eva.video.probe import VideoInfo

# Frames are cut to whole visual tokens.
FACTOR = 28
# The exit code by which the tool says that not the call but the place to write to failed (sysexits' EX_IOERR).
EXIT_CANNOT_WRITE = 74
# By which shells and env(1) say that there is nothing to execute.
EXITS_CANNOT_START = (126, 127)
# What Python prints when it crashes; a refusal is a sentence.
TRACEBACK = "Traceback (most recent call last)"
# A tool that crashed, or said nothing usable, on so many videos and has not worked yet will not work.
FAILURES = 3
# For a killed process to be gone.
END_S = 5.0
# Far below the length of one word that Linux accepts on a command line.
MAX_ARGUMENT_BYTES = 16384

# The folder's name may itself hold any of the line's words; that it stands there three times tells where it ends.
_SAVED = re.compile(
    r"^Frames saved to (?P<folder>.+), total frames saved: (?P<count>\d+), "
    r"from (?P=folder)/frame_0000(?P<suffix>\.\w+) to (?P=folder)/frame_\d+(?P=suffix)$",
    re.MULTILINE,
)
# What the tool reads, and where it writes, is the harness's to say, never the model's.
_RESERVED = ("i", "help", "video_path", "save_root", "save_dir", "factor", "format", "backend", "clamp", "worker")
# The backends that the reference's tool has or ours: the model may name one, and it changes no pixel here.
_BACKENDS = frozenset({"auto", "av", "decord", "torchcodec"})
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*")
_OPTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class CallFailed(Exception):
    """A call that gave no frames; the message says why. The model's fault, as the reference judged it."""


class FrameToolError(EvaError):
    """The tool could not be run, was killed, or took too long: nobody's answer may be judged by that."""


class FrameToolUnusable(EvaError):
    """The tool works on no video: it cannot be started, or has no place to write to. It will not for the next sample
    either, so the run ends."""


class NoRoomForFrames(FrameToolUnusable):
    """The tool cannot write its frames; `full`: because the disk, or what this user may have of it, is full."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


@dataclass(frozen=True)
class FrameCall:
    """One extraction in numbers; `extra` holds the model's further arguments, passed on without `--fallback`."""

    start_s: int | float
    end_s: int | float
    nframes: int
    resize: int | float
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class Extraction:
    """Frame files in order, how long the tool took, and its own details of the call (none from a foreign tool).

    `folder` is the call's own; None: the frames are in the store, and belong to nobody.
    """

    frames: tuple[Path, ...]
    seconds: float
    details: Mapping[str, Any]
    folder: Path | None = None


@dataclass(frozen=True)
class FoundVideo:
    """A video on disk: `path` is the annotated one, or what stands in for it; `info` is what its header says."""

    path: Path
    size: int
    mtime_ns: int
    info: VideoInfo


@dataclass
class Usage:
    """How many frames a tool was asked for in a run, and how many of them it had to decode."""

    asked: int = 0
    decoded: int = 0


class FrameTool(Protocol):
    """What gives the frames of a call."""

    @property
    def settings(self) -> ToolSettings:
        """Which command it is and how it is called."""
        ...

    @property
    def usage(self) -> Usage:
        """What it did so far."""
        ...

    async def start(self, report: Callable[[str], None]) -> None:
        """Make ready, before the first call; `report` is told what the user should know. Raises FrameToolUnusable."""
        ...

    async def probe(self, annotated: Path) -> FoundVideo:
        """The video that is annotated with this path, and what its header says. Raises VideoError, FrameToolError."""
        ...

    async def extract(self, video: Path, call: FrameCall, *, sample: int) -> Extraction:
        """The frames of one call. They stay where they are until `release(sample)`.

        Raises CallFailed where the tool refuses it, FrameToolError where it cannot work on this video,
        FrameToolUnusable where it can work on none.
        """
        ...

    def release(self, sample: int) -> None:
        """The sample that this number stands for is over."""
        ...

    async def close(self) -> None:
        """End what runs for it."""
        ...


@dataclass(frozen=True)
class ToolSettings:
    """The frame-selection command and how it is called.

    With `fallback`, windows are clamped to the video and the model's further arguments are dropped; without, they
    are passed on and nothing is clamped.
    """

    path: Path
    save_root: Path
    backend: str = "auto"
    fallback: bool = True
    timeout_s: float = 600.0

    def program(self) -> list[str]:
        return [sys.executable, str(self.path)] if self.path.suffix == ".py" else [str(self.path)]

    def arguments(self, video: Path, call: FrameCall) -> list[str]:
        """The words of the command line for one call. Raises CallFailed for an argument that cannot be passed on."""
        # name=value in one word: a value that begins with a dash cannot become an option.
        options: dict[str, object] = {
            "video_path": video,
            "start_time": call.start_s,
            "end_time": call.end_s,
            "nframes": call.nframes,
            "resize": call.resize,
            "factor": FACTOR,
            "save_root": self.save_root,
        }
        if self.backend != "auto":
            options["backend"] = self.backend
        passed_on = {} if self.fallback else _passed_on(call.extra)
        words = [f"--{name}={value}" for name, value in {**passed_on, **options}.items()]
        return [*words, "--clamp"] if self.fallback else words


class ProbedBy(Protocol):
    """What looks at videos for a tool."""

    async def start(self) -> None:
        """Make ready. Raises FrameToolUnusable."""
        ...

    async def close(self) -> None:
        """End what runs for it."""
        ...

    def __call__(self, annotated: Path) -> Awaitable[FoundVideo]:
        """See FrameTool.probe."""
        ...


@dataclass(frozen=True)
class CommandTool:
    """A process for each call; `slots` bounds how many run at a time."""

    settings: ToolSettings
    slots: asyncio.Semaphore
    prober: ProbedBy
    usage: Usage = field(default_factory=Usage)
    _failed_on: set[Path] = field(default_factory=set)

    async def start(self, report: Callable[[str], None]) -> None:
        """See FrameTool."""
        program = self.settings.program()
        if len(program) == 1 and not os.access(program[0], os.X_OK):
            raise FrameToolUnusable(f"the frame tool {program[0]} may not be executed: chmod +x {program[0]}")
        await self.prober.start()

    async def probe(self, annotated: Path) -> FoundVideo:
        """See FrameTool."""
        return await self.prober(annotated)

    async def extract(self, video: Path, call: FrameCall, *, sample: int) -> Extraction:
        """See FrameTool."""
        command = [*self.settings.program(), *self.settings.arguments(video, call)]
        async with self.slots:
            started = time.monotonic()
            printed = await self._run(command, video)
            seconds = time.monotonic() - started
        try:
            frames = _frames(printed)
        except FrameToolError as error:
            self._failed(video, str(error))
            raise
        folder = frames[0].parent
        self.usage.asked += len(frames)
        self.usage.decoded += len(frames)
        return Extraction(frames, round(seconds, 3), _details(folder), folder)

    def release(self, sample: int) -> None:
        """Its frames are never thrown away."""

    async def close(self) -> None:
        """See FrameTool."""
        await self.prober.close()

    async def _run(self, command: list[str], video: Path) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                # Ctrl-C in the terminal is for the harness: a tool that died of it would count against the model.
                start_new_session=True,
            )
        except OSError as error:
            raise FrameToolUnusable(cannot_start(self.settings.path, error)) from error
        try:
            out, err = await asyncio.wait_for(process.communicate(), self.settings.timeout_s)
        except asyncio.TimeoutError:
            raise FrameToolError(f"the frame tool took over {self.settings.timeout_s:g} s on {video}") from None
        finally:
            await killed(process)
        return self._printed(process.returncode, os.fsdecode(out), os.fsdecode(err).strip(), video)

    def _printed(self, code: int | None, out: str, err: str, video: Path) -> str:
        reason = err.splitlines()[-1] if err else "it gave no reason"
        if code == 0:
            return out
        if code == EXIT_CANNOT_WRITE:
            raise NoRoomForFrames(f"the frame tool cannot write: {reason}")
        if code in EXITS_CANNOT_START and not self.usage.asked:
            raise FrameToolUnusable(f"the frame tool {self.settings.path} cannot be started: {reason}")
        if code is None or code < 0:
            self._failed(video, reason)
            raise FrameToolError(f"the frame tool was killed on {video} (exit status {code}): {reason}")
        if TRACEBACK in err and not self.usage.asked:
            self._failed(video, reason)
            raise FrameToolError(f"the frame tool crashed on {video}, and has worked on nothing so far: {reason}")
        raise CallFailed(reason)

    def _failed(self, video: Path, reason: str) -> None:
        """A tool that fails on a video is that sample's failure; one that has done nothing else, the run's."""
        self._failed_on.add(video)
        if len(self._failed_on) >= FAILURES and not self.usage.asked:
            tool = self.settings.path
            raise FrameToolUnusable(f"the frame tool {tool} failed on each of the first {FAILURES} videos: {reason}")


def _passed_on(extra: Mapping[str, Any]) -> dict[str, str]:
    words = {}
    for name, value in extra.items():
        word = _word(name, value if isinstance(value, str) else json.dumps(value))
        if _has_no_effect(name.replace("-", "_"), word):
            continue
        plain = name.replace("-", "_").lower()
        # Argument parsers take abbreviations, so the beginning of a reserved name is reserved too.
        if not _OPTION_NAME.fullmatch(name) or any(option.startswith(plain) for option in _RESERVED):
            raise CallFailed(f"the frame tool takes no argument {name[:80]!r} from the model")
        words[name] = word
    return words


def _has_no_effect(name: str, word: str) -> bool:
    """Whether the reference's tool accepts this of the model, and the frames are the same without it: the harness's own
    `factor` and `save_root` come after the model's."""
    if name == "backend":
        return word in _BACKENDS
    return name == "save_root" or (name == "factor" and _INTEGER.fullmatch(word) is not None)


def _word(name: str, text: str) -> str:
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise CallFailed(f"argument {name!r} is no text that a command can take") from None
    if length > MAX_ARGUMENT_BYTES or "\0" in text:
        raise CallFailed(f"argument {name!r} is no text that a command can take")
    return text


def cannot_start(tool: str | Path, error: OSError) -> str:
    return f"the frame tool {tool} cannot be started: {error.strerror}"


async def killed(process: asyncio.subprocess.Process) -> None:
    """End a process. One that a dead disk holds cannot end: it is left behind, and ends when the disk answers."""
    if process.returncode is None:
        process.kill()
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(process.wait(), END_S)


def _frames(printed: str) -> tuple[Path, ...]:
    saved = _SAVED.search(printed)
    if saved is None:
        raise FrameToolError(f"the frame tool did not say where its frames are, but printed {printed[:200]!r}")
    folder = Path(saved["folder"]).absolute()
    frames = tuple(folder / f"frame_{k:04d}{saved['suffix']}" for k in range(int(saved["count"])))
    missing = [frame for frame in frames if not frame.is_file()]
    if missing or not frames:
        raise FrameToolError(f"the frame tool promised {len(frames)} frames in {folder}, {len(missing)} are not there")
    return frames


def _details(folder: Path) -> Mapping[str, Any]:
    try:
        details = parse_json((folder / "frames.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FrameToolError(f"{folder / 'frames.json'} cannot be read: {error}") from error
    return details if isinstance(details, dict) else {}
