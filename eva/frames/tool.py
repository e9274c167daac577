"""What the harness knows of a frame tool: how it is called, what it gives, and how it fails."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eva.errors import EvaError
from eva.option_words import full_names, is_option
from eva.protocol.arguments import FrameRequest
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.protocol.messages import VideoInfo
from eva.video import REFERENCE_BACKENDS, REFERENCE_OPTIONS

# How long a killed process may take to end.
END_S = 5.0
# The image limit of the published server command. A call for more frames fails before one is decoded.
MAX_FRAMES = 9999
# Far below the length of one word that Linux accepts on a command line.
MAX_ARGUMENT_BYTES = 16384

# The harness decides what the tool reads and where it writes, never the model. The last two take no value.
_REFUSED = frozenset({"--video-path", "--video_path", "--save-dir", "--clamp", "--help"})
# What only this project's tool knows: the reference's fails for it.
_OWN = frozenset({"--format", "--worker"})
_OPTION = re.compile(r"--[A-Za-z][A-Za-z0-9_-]*")


class CallFailedError(Exception):
    """A call that gave no frames; the message says why. The reference judges it as the model's fault."""


class FrameToolError(EvaError):
    """The tool could not be run, was killed, or took too long. No answer may be judged by that."""


class FrameToolUnusableError(EvaError):
    """The tool works on no video: it cannot be started, or it has no place to write to. The next sample would fail in
    the same way, so the run ends."""


class VideosLostError(FrameToolUnusableError):
    """The videos are gone, or their disk fails: no question could be shown its video."""


class NoRoomForFramesError(FrameToolUnusableError):
    """The tool cannot write its frames; `full`: because the disk, or what this user may have of it, is full."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


@dataclass(frozen=True)
class Extraction:
    """Frame files in order, how long the tool took, and its own details of the call (none from a foreign tool).

    `folder` belongs to this call alone; None: the frames are in the store, which all calls share.
    """

    frames: tuple[Path, ...]
    seconds: float
    details: Mapping[str, Any]
    folder: Path | None = None


@dataclass(frozen=True)
class FoundVideo:
    """A video on disk. `path` is the annotated one, or the file that takes its place; `info` is from its header."""

    path: Path
    size: int
    mtime_ns: int
    info: VideoInfo


@dataclass
class FrameCounts:
    """What a tool did in a run.

    `asked`: the frame files that its calls gave; a file that one call names twice counts once. `decoded`: how many
    frames it decoded for them. A command that is started per call decodes each of its files.
    """

    asked: int = 0
    decoded: int = 0


class FrameTool(Protocol):
    """What gives the frames of a call."""

    @property
    def settings(self) -> ToolSettings:
        """Which command it is, and how it is called."""
        ...

    @property
    def counts(self) -> FrameCounts:
        """What it did so far."""
        ...

    async def start(self) -> None:
        """Prepare, before the first call. Raises FrameToolUnusableError."""
        ...

    async def probe(self, annotated: Path) -> FoundVideo:
        """The video that is annotated with this path, and what its header says. Raises VideoError, FrameToolError."""
        ...

    async def count(self, video: Path) -> tuple[float, int]:
        """The average rate and the number of frames of a video, by its index. Raises VideoError, FrameToolError."""
        ...

    async def extract(self, video: Path, call: FrameRequest, *, sample: int) -> Extraction:
        """The frames of one call. They stay where they are until `release(sample)`.

        Raises CallFailedError where the tool refuses it, FrameToolError where it cannot work on this video,
        FrameToolUnusableError where it can work on none.
        """
        ...

    def release(self, sample: int) -> None:
        """The sample with this number is over."""
        ...

    async def close(self) -> None:
        """End its processes."""
        ...


@dataclass(frozen=True)
class ToolSettings:
    """The frame-selection command and how it is called.

    With `fallback`, windows are clamped to the video and the model's further arguments are dropped; without, they
    are passed on and nothing is clamped. The sides of frames are multiples of `factor` pixels.
    """

    path: Path
    save_root: Path
    backend: str
    fallback: bool
    timeout_s: float
    factor: int = PIXELS_PER_TOKEN_SIDE

    def program(self) -> list[str]:
        return [sys.executable, str(self.path)] if self.path.suffix == ".py" else [str(self.path)]

    def arguments(self, video: Path, call: FrameRequest) -> list[str]:
        """The words of the command line for one call. Raises CallFailedError for an argument that cannot be passed
        on."""
        # name=value in one word: a value that begins with a dash cannot become an option.
        numbers = {
            "start_time": call.start_s,
            "end_time": call.end_s,
            "nframes": call.nframes,
            "resize": call.resize,
        }
        words = [f"--video_path={video}"]
        if self.fallback:
            words += [f"--{name}={value}" for name, value in numbers.items()]
        else:
            # A number stands where the model has it. Of two names for one thing, the tool takes the later one.
            words += _pass_on({**call.asked, **numbers})
        words += [f"--factor={self.factor}", f"--save-root={self.save_root}"]
        if self.backend != "auto":
            words.append(f"--backend={self.backend}")
        return [*words, "--clamp"] if self.fallback else words


def _pass_on(arguments: Mapping[str, Any]) -> list[str]:
    """The model's arguments as words of a command line, each option with its full name. Raises CallFailedError."""
    words = []
    for name, value in arguments.items():
        option, text = _full_name(name), _check_value(name, str(value))
        if option == "--backend" and text not in REFERENCE_BACKENDS:
            raise CallFailedError(f"argument {name!r}: there is no backend {text[:80]!r}")
        if option == "--nframes" and _integer(text) > MAX_FRAMES:
            raise CallFailedError(
                f"argument {name!r}: {text[:80]} frames are more than a prompt may hold ({MAX_FRAMES})"
            )
        if option == "--save-root":
            continue
        words.append(f"{option}={text}")
    return words


def _full_name(name: str) -> str:
    """The option that the model means by the name of an argument. An unknown one may be an option of a foreign tool."""
    options = full_names(f"--{name}", REFERENCE_OPTIONS) or [f"--{name}"]
    if len(options) > 1 or options[0] in _REFUSED | _OWN or not _OPTION.fullmatch(options[0]):
        raise CallFailedError(f"the frame tool takes no argument {name[:80]!r} from the model")
    return options[0]


def _integer(text: str) -> int:
    """0 for what is no integer: the tool refuses it."""
    try:
        return int(text)
    except ValueError:
        return 0


def _check_value(name: str, text: str) -> str:
    try:
        fits = len(text.encode()) <= MAX_ARGUMENT_BYTES and "\0" not in text
    except UnicodeEncodeError:
        fits = False
    if not fits or is_option(text):
        raise CallFailedError(f"argument {name!r} has a value that a command cannot take: {text[:80]!r}")
    return text


def start_failure(tool: str | Path, error: OSError) -> str:
    return f"the frame tool {tool} cannot be started: {error.strerror}"


async def kill_process(process: asyncio.subprocess.Process) -> None:
    """End a process. A process that waits for a dead disk cannot end: it is left behind, and ends when the disk
    answers."""
    if process.returncode is None:
        process.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            await process.wait()
