"""What the harness knows of a frame tool: how it is called, what it gives, and how it fails."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eva.errors import EvaError
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.protocol.messages import VideoInfo
from eva.video.choices import BACKENDS

# How long a killed process may take to end.
END_S = 5.0
# Far below the length of one word that Linux accepts on a command line.
MAX_ARGUMENT_BYTES = 16384

# The harness decides what the tool reads and where it writes, never the model.
_RESERVED = ("i", "help", "video_path", "save_root", "save_dir", "factor", "format", "backend", "clamp", "worker")
# The model may name a backend of the reference's tool or of ours; it changes no pixel here.
_NAMED_BACKENDS = frozenset({*BACKENDS, "torchcodec"})
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*")
_OPTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class CallFailedError(Exception):
    """A call that gave no frames; the message says why. The reference judges it as the model's fault."""


class FrameToolError(EvaError):
    """The tool could not be run, was killed, or took too long. No answer may be judged by that."""


class FrameToolUnusableError(EvaError):
    """The tool works on no video: it cannot be started, or it has no place to write to. The next sample would fail in
    the same way, so the run ends."""


class NoRoomForFramesError(FrameToolUnusableError):
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

    async def extract(self, video: Path, call: FrameCall, *, sample: int) -> Extraction:
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

    def arguments(self, video: Path, call: FrameCall) -> list[str]:
        """The words of the command line for one call. Raises CallFailedError for an argument that cannot be passed
        on."""
        # name=value in one word: a value that begins with a dash cannot become an option.
        options: dict[str, object] = {
            "video_path": video,
            "start_time": call.start_s,
            "end_time": call.end_s,
            "nframes": call.nframes,
            "resize": call.resize,
            "factor": self.factor,
            "save_root": self.save_root,
        }
        if self.backend != "auto":
            options["backend"] = self.backend
        passed_on = {} if self.fallback else _check_extra(call.extra)
        words = [f"--{name}={value}" for name, value in {**passed_on, **options}.items()]
        return [*words, "--clamp"] if self.fallback else words


def _check_extra(extra: Mapping[str, Any]) -> dict[str, str]:
    """The model's further arguments as words of a command line. Raises CallFailedError."""
    words = {}
    for name, value in extra.items():
        word = _check_word(name, value if isinstance(value, str) else json.dumps(value))
        if _has_no_effect(name.replace("-", "_"), word):
            continue
        plain = name.replace("-", "_").lower()
        # Argument parsers take abbreviations, so the beginning of a reserved name is reserved too.
        if not _OPTION_NAME.fullmatch(name) or any(option.startswith(plain) for option in _RESERVED):
            raise CallFailedError(f"the frame tool takes no argument {name[:80]!r} from the model")
        words[name] = word
    return words


def _has_no_effect(name: str, word: str) -> bool:
    """Whether the reference's tool accepts this argument of the model, and the frames are the same without it: the
    harness's own `factor` and `save_root` come after the model's."""
    if name == "backend":
        return word in _NAMED_BACKENDS
    return name == "save_root" or (name == "factor" and _INTEGER.fullmatch(word) is not None)


def _check_word(name: str, text: str) -> str:
    try:
        fits = len(text.encode()) <= MAX_ARGUMENT_BYTES and "\0" not in text
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise CallFailedError(f"argument {name!r} is not a text that a command can take")
    return text


def start_failure(tool: str | Path, error: OSError) -> str:
    return f"the frame tool {tool} cannot be started: {error.strerror}"


async def kill_process(process: asyncio.subprocess.Process) -> None:
    """End a process. A process that waits for a dead disk cannot end: it is left behind, and ends when the disk
    answers."""
    if process.returncode is None:
        process.kill()
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(process.wait(), END_S)
