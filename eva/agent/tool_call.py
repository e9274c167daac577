"""One tool call: its arguments, the budget, the frame tool, the labelled frames."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from eva.frames.tool import MAX_FRAMES, CallFailedError, Extraction, FrameTool, FrameToolError
from eva.json_text import MOST_LEVELS, is_deeper
from eva.protocol.arguments import FrameRequest, UnusableArgumentError, read_request
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE, Budgeted, fit_budget
from eva.protocol.messages import Frame, VideoInfo, requested_times
from eva.protocol.reply import CallAttempt
from eva.protocol.stop_reasons import CALL_FAILED
from eva.records.schema import Call, Executed

# A record holds what was asked some levels down, and must be readable itself.
MOST_ASKED_LEVELS = MOST_LEVELS // 2


@dataclass(frozen=True)
class CallSettings:
    """Budget of a call in visual tokens, lines per frame to which it cuts first, and how frames are labelled and sent.

    `timestamps` is "requested" or "actual"; `image_transport` is "base64" or "file". A visual token covers
    `pixels_per_token` x `pixels_per_token` pixels.
    """

    max_visual_tokens: int
    maxp: int
    timestamps: str
    image_transport: str | None
    pixels_per_token: int = PIXELS_PER_TOKEN_SIDE


@dataclass(frozen=True)
class Outcome:
    """What became of one call: `attempt` as the model wrote it, `call` as the record has it, and its frames.

    A call that failed has no frames. `error` is then its part of the stop reason, and `reason` is for people.
    """

    attempt: CallAttempt
    call: Call
    frames: tuple[Frame, ...] = ()

    @property
    def error(self) -> str | None:
        return self.call.error

    @property
    def reason(self) -> str | None:
        return self.call.reason


@dataclass(frozen=True)
class CallRunner:
    """Runs the calls of a model, or of an agent, on videos."""

    tool: FrameTool
    settings: CallSettings

    async def run(
        self, attempt: CallAttempt, path: Path, video: VideoInfo, *, sample: int, budget: bool = True
    ) -> Outcome:
        """The outcome of a call, also where it fails by the fault of who asked. Raises FrameToolError.

        The frames exist until `tool.release(sample)`. Without `budget` the call is not cut.
        """
        call = Call(_asked(attempt), None, None, (), 0, attempt.error, attempt.reason, labels_s=())
        if attempt.arguments is None or attempt.error is not None:
            return Outcome(attempt, call)
        try:
            request = read_request(attempt.arguments)
            budgeted = self._fit_budget(request, video, self.settings.max_visual_tokens if budget else math.inf)
            call = replace(call, budgeted=budgeted, tokens=budgeted.tokens)
            request = apply_budget(request, budgeted)
            extraction = await self.tool.extract(path, request, sample=sample)
            shown = await asyncio.to_thread(self._label_frames, request, extraction)
        except (UnusableArgumentError, CallFailedError) as failure:
            return Outcome(attempt, replace(call, error=CALL_FAILED, reason=str(failure)))
        stated = {one.name: extraction.details[one.name] for one in fields(Executed) if one.name in extraction.details}
        call = replace(
            call,
            executed=Executed(**{**stated, "seconds": extraction.seconds}),
            frames=tuple(map(str, extraction.frames)),
            labels_s=tuple(frame.label_s for frame in shown),
        )
        return Outcome(attempt, call, shown)

    def _fit_budget(self, request: FrameRequest, video: VideoInfo, max_visual_tokens: float) -> Budgeted:
        try:
            return fit_budget(
                request.nframes,
                request.resize,
                width=video.width,
                height=video.height,
                max_visual_tokens=max_visual_tokens,
                maxp=self.settings.maxp,
                side=self.settings.pixels_per_token,
            )
        except (OverflowError, ValueError) as error:
            raise UnusableArgumentError(f"nframes or resize is out of range: {error}") from error

    def _label_frames(self, call: FrameRequest, extraction: Extraction) -> tuple[Frame, ...]:
        count, details = len(extraction.frames), extraction.details
        indices, times_s = (_for_each(details.get(name), count) for name in ("indices", "times_s"))
        size = (details["width"], details["height"]) if {"width", "height"} <= details.keys() else None
        if self.settings.timestamps == "requested":
            labels_s = requested_times(call.start_s, call.end_s, count)
        elif None in times_s:
            tool = self.tool.settings.path
            raise FrameToolError(
                f"the frame tool {tool} does not say the frames' times: run with --timestamps requested"
            )
        else:
            labels_s = list(map(int, times_s))
        address = data_url if self.settings.image_transport == "base64" else file_url
        each = zip(labels_s, extraction.frames, indices, times_s, strict=True)
        return tuple(Frame(label_s, address(file), index, time_s, size) for label_s, file, index, time_s in each)


def _for_each(stated: Any, count: int) -> list[Any]:
    """What a tool says of each frame; None for all where it does not say it."""
    return stated if isinstance(stated, list) and len(stated) == count else [None] * count


def _asked(attempt: CallAttempt) -> Mapping[str, Any] | str:
    """The arguments, or the model's own text where they are not JSON that every reader takes (NaN, bottomless)."""
    if attempt.arguments is None or is_deeper(attempt.arguments, MOST_ASKED_LEVELS):
        return attempt.raw
    try:
        json.dumps(attempt.arguments, allow_nan=False)
    except ValueError:
        return attempt.raw
    return attempt.arguments


def apply_budget(request: FrameRequest, budgeted: Budgeted) -> FrameRequest:
    """The call as the tool runs it. Raises UnusableArgumentError for what the reference's tool refuses: a time that is
    not a finite number, and an `nframes` that is still a float because the budget cut nothing."""
    for name, value in (("start_time", request.start_s), ("end_time", request.end_s)):
        # math.isfinite raises for an integer that no float can hold; `requested_times` refuses such a time below.
        if isinstance(value, bool) or not abs(value) < math.inf:
            raise UnusableArgumentError(f"{name} is not a time that the frame tool takes")
    if isinstance(budgeted.nframes, (bool, float)) or isinstance(budgeted.resize, bool):
        raise UnusableArgumentError("nframes must be an integer and resize a number")
    if budgeted.nframes > MAX_FRAMES:
        raise UnusableArgumentError(f"{budgeted.nframes} frames are more than a prompt may hold ({MAX_FRAMES})")
    try:
        requested_times(request.start_s, request.end_s, budgeted.nframes)
    except (OverflowError, ValueError) as error:
        raise UnusableArgumentError(f"start_time or end_time is out of range: {error}") from error
    return replace(request, nframes=budgeted.nframes, resize=budgeted.resize)


# --- the address from which a server gets a frame


def file_url(frame: Path) -> str:
    """An absolute, quoted file:// address. The server would look for a relative path in its own folder."""
    return frame.absolute().as_uri()


def data_url(frame: Path) -> str:
    """The content of the file as a data: address, for a server that does not share the file system."""
    kind = mimetypes.guess_type(frame.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(frame.read_bytes()).decode('ascii')}"
