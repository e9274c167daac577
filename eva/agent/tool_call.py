"""One tool call from asked to shown: its numbers, the budget, the frame tool, the labelled frames."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eva.agent.images import data_url, file_url
from eva.frames.tool import CallFailedError, Extraction, FrameCall, FrameTool, FrameToolError
from eva.protocol.arguments import FrameRequest, UnusableArgumentError, read_request
from eva.protocol.budget import Budgeted, fit_budget
from eva.protocol.messages import ShownFrame, VideoInfo, requested_times
from eva.protocol.reply import CallAttempt
from eva.protocol.stop_reasons import CALL_FAILED

# The image limit of the published server command: more frames can never be shown, so none is decoded.
MAX_FRAMES = 9999
_NUMERIC = frozenset({"start_time", "end_time", "nframes", "resize"})


@dataclass(frozen=True)
class LookSettings:
    """Budget per call in visual tokens, lines per frame above which it cuts, and how frames are labelled and sent."""

    max_visual_tokens: int = 12000
    maxp: int = 720
    timestamps: str = "requested"
    image_transport: str = "file"


@dataclass(frozen=True)
class Look:
    """One call. `error` is its name in the stop reason, `reason` says more to a person; both None if it worked."""

    call: CallAttempt
    budgeted: Budgeted | None = None
    extraction: Extraction | None = None
    shown: tuple[ShownFrame, ...] = field(default=(), repr=False)
    error: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Looker:
    """Runs the calls of a model on videos."""

    tool: FrameTool
    settings: LookSettings

    async def look(self, call: CallAttempt, path: Path, video: VideoInfo, *, sample: int) -> Look:
        """What became of `call`; a call that fails says so in the Look. Raises FrameToolError.

        The frames are there until `tool.release(sample)`.
        """
        look = Look(call, error=call.error)
        if call.arguments is None or call.error is not None:
            return look
        try:
            request = read_request(call.arguments)
            budgeted = self._budgeted(request, video)
            look = replace(look, budgeted=budgeted)
            frame_call = runnable(request, budgeted, call.arguments)
            extraction = await self.tool.extract(path, frame_call, sample=sample)
            look = replace(look, extraction=extraction)
            return replace(look, shown=await asyncio.to_thread(self._shown, frame_call, extraction))
        except (UnusableArgumentError, CallFailedError) as failure:
            return replace(look, error=CALL_FAILED, reason=str(failure))

    def _budgeted(self, request: FrameRequest, video: VideoInfo) -> Budgeted:
        try:
            return fit_budget(
                request.nframes,
                request.resize,
                width=video.width,
                height=video.height,
                max_visual_tokens=self.settings.max_visual_tokens,
                maxp=self.settings.maxp,
            )
        except (OverflowError, ValueError) as error:
            raise UnusableArgumentError(f"nframes or resize is out of range: {error}") from error

    def _shown(self, call: FrameCall, extraction: Extraction) -> tuple[ShownFrame, ...]:
        times_s = self._label_times(call, extraction)
        address = data_url if self.settings.image_transport == "base64" else file_url
        return tuple(ShownFrame(t, address(frame)) for t, frame in zip(times_s, extraction.frames, strict=True))

    def _label_times(self, call: FrameCall, extraction: Extraction) -> list[int]:
        if self.settings.timestamps == "requested":
            return requested_times(call.start_s, call.end_s, len(extraction.frames))
        times_s = extraction.details.get("times_s", ())
        if len(times_s) != len(extraction.frames):
            tool = self.tool.settings.path
            raise FrameToolError(
                f"the frame tool {tool} does not say the frames' times: run with --timestamps requested"
            )
        return [int(time_s) for time_s in times_s]


def runnable(request: FrameRequest, budgeted: Budgeted, arguments: Mapping[str, Any]) -> FrameCall:
    """The call as the tool runs it, after the budget. Raises UnusableArgumentError for what the reference's tool
    refused: times that are not finite numbers, and an `nframes` that is still a float, as 4.0 is where nothing was
    cut."""
    start_s, end_s = _time("start_time", request.start_s), _time("end_time", request.end_s)
    if isinstance(budgeted.nframes, (bool, float)) or isinstance(budgeted.resize, bool):
        raise UnusableArgumentError("nframes must be an integer and resize a number")
    if budgeted.nframes > MAX_FRAMES:
        raise UnusableArgumentError(f"{budgeted.nframes} frames are more than a prompt may hold ({MAX_FRAMES})")
    try:
        requested_times(start_s, end_s, budgeted.nframes)
    except (OverflowError, ValueError) as error:
        raise UnusableArgumentError(f"start_time or end_time is out of range: {error}") from error
    extra = {name: value for name, value in arguments.items() if name not in _NUMERIC}
    return FrameCall(start_s, end_s, budgeted.nframes, budgeted.resize, extra)


def _time(name: str, value: int | float | None) -> int | float:
    # math.isfinite cannot take an integer beyond the floats; such a time is out of range all the same.
    if value is None or isinstance(value, bool) or not abs(value) < math.inf:
        raise UnusableArgumentError(f"{name} is not a time")
    return value
