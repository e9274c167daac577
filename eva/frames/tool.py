"""What the harness knows of a frame tool: how it is called, what it gives, and how it fails."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva.errors import EvaError
from eva.option_words import full_names, is_option
from eva.protocol.arguments import FrameRequest
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.protocol.messages import VideoInfo
from eva.video import REFERENCE_BACKENDS, REFERENCE_OPTIONS

# The image limit of the published server command. A call for more frames fails before one is decoded.
MAX_FRAMES = 9999
# Far below the length of one word that Linux accepts on a command line.
MAX_ARGUMENT_BYTES = 16384

# The harness decides what the tool reads and where it writes, never the model; then options without a value, and those
# that the tool of the reference does not have.
_REFUSED = {"--video-path", "--video_path", "--save-dir", "--clamp", "--help", "--format", "--worker"}
_OPTION = re.compile(r"--[A-Za-z][A-Za-z0-9_-]*")


class CallFailedError(Exception):
    """A call that gave no frames; the message says why. The reference judges it as the model's fault."""


class FrameToolError(EvaError):
    """The tool could not be run, was killed, or took too long. No answer may be judged by that."""


class FrameToolUnusableError(EvaError):
    """The tool works on no video: it cannot be started, or cannot write its frames. The run ends."""


class VideosLostError(FrameToolUnusableError):
    """The videos are gone, or their disk fails or does not answer: no question could be shown its video."""


class FramesDiskFullError(FrameToolUnusableError):
    """The disk of the frames, or what this user may have of it, is full."""


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
    """The frame files that calls gave, of which one call counts each once, and how many frames were decoded for
    them."""

    asked: int = 0
    decoded: int = 0


@dataclass(frozen=True)
class Cut:
    """A call as this project's tool executes it, by its command line or by a worker.

    No `end`: up to the stream's end; no `resize`: full size, whatever `factor` is. `save_dir` is for the command alone.
    """

    video_path: str | Path
    start: float
    end: float | None
    nframes: int
    resize: float | None
    factor: int
    backend: str
    clamp: bool
    format: str
    save_root: str | Path
    save_dir: Path | None = None


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

    def arguments(self, video: Path, call: FrameRequest) -> list[str]:
        """The words of the command line for one call. Raises CallFailedError for an argument that cannot be passed
        on."""
        numbers = {"start_time": call.start_s, "end_time": call.end_s, "nframes": call.nframes, "resize": call.resize}
        # name=value in one word: a value that begins with a dash cannot become an option.
        words = [f"--video_path={video}"]
        if self.fallback:
            words += [f"--{name}={value}" for name, value in numbers.items()]
        else:
            # A number stands where the model has it. Of two names for one thing, the tool takes the later one.
            words += [_pass_on(name, str(value)) for name, value in {**call.asked, **numbers}.items()]
        words += [f"--factor={self.factor}", f"--save-root={self.save_root}"]
        if self.backend != "auto":
            words.append(f"--backend={self.backend}")
        return [*words, "--clamp"] if self.fallback else words


@dataclass
class FrameTool:
    """What gives the frames of a call."""

    settings: ToolSettings
    counts: FrameCounts = field(default_factory=FrameCounts, kw_only=True)

    async def start(self) -> None:
        """Prepare, before the first call. Raises FrameToolUnusableError."""

    async def probe(self, annotated: Path) -> FoundVideo:
        """The video that is annotated with this path, and what its header says. Raises VideoError, FrameToolError,
        VideosLostError."""
        raise NotImplementedError

    async def count(self, video: Path) -> tuple[float, int]:
        """The average rate and the number of frames of a video, by its index. Raises VideoError, FrameToolError."""
        raise NotImplementedError

    async def extract(self, video: Path, call: FrameRequest, *, sample: int) -> Extraction:
        """The frames of one call. They stay where they are until `release(sample)`.

        Raises CallFailedError where the tool refuses it, FrameToolError where it cannot work on this video,
        FrameToolUnusableError where it can work on none.
        """
        raise NotImplementedError

    def release(self, sample: int) -> None:
        """The sample with this number is over."""

    async def close(self) -> None:
        """End its processes."""


def _pass_on(name: str, text: str) -> str:
    """An argument of the model as a word of a command line, with its full name. An unknown one may be an option of a
    foreign tool. Raises CallFailedError."""
    options = full_names(f"--{name}", REFERENCE_OPTIONS) or [f"--{name}"]
    if len(options) > 1 or options[0] in _REFUSED or not _OPTION.fullmatch(options[0]):
        raise CallFailedError(f"the frame tool takes no argument {name[:80]!r} from the model")
    data = text.encode(errors="ignore")
    if len(data) > MAX_ARGUMENT_BYTES or data.decode() != text or "\0" in text or is_option(text):
        raise CallFailedError(f"argument {name!r} has a value that a command cannot take: {text[:80]!r}")
    if options[0] == "--backend" and text not in REFERENCE_BACKENDS:
        raise CallFailedError(f"argument {name!r}: there is no backend {text[:80]!r}")
    return f"{options[0]}={text}"
