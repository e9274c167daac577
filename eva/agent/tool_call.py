"""One tool call: its arguments, the budget, the frame tool, the labelled frames."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eva.agent.images import data_url, file_url
from eva.frames.tool import MAX_FRAMES, CallFailedError, Extraction, FrameCall, FrameTool, FrameToolError
from eva.protocol.arguments import FrameRequest, UnusableArgumentError, read_request
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE, Budgeted, fit_budget
from eva.protocol.messages import ShownFrame, VideoInfo, requested_times
from eva.protocol.reply import CallAttempt
from eva.protocol.stop_reasons import CALL_FAILED


@dataclass(frozen=True)
class CallSettings:
    """Budget of a call in visual tokens, lines per frame to which it cuts first, and how frames are labelled and sent.

    `timestamps` is "requested" or "actual"; `image_transport` is "file" or "base64". A visual token covers
    `pixels_per_token` x `pixels_per_token` pixels.
    """

    max_visual_tokens: int
    maxp: int
    timestamps: str
    image_transport: str
    pixels_per_token: int = PIXELS_PER_TOKEN_SIDE


@dataclass(frozen=True)
class ToolCallOutcome:
    """What became of one call. A call that fails lacks the values of the later stages.

    `error` is the call's part of the stop reason, and `reason` explains it to a person. Both are None if it worked.
    """

    call: CallAttempt
    budgeted: Budgeted | None = None
    extraction: Extraction | None = None
    shown: tuple[ShownFrame, ...] = field(default=(), repr=False)
    error: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class CallRunner:
    """Runs the calls of a model on videos."""

    tool: FrameTool
    settings: CallSettings

    async def run(
        self, call: CallAttempt, path: Path, video: VideoInfo, *, sample: int, budget: bool = True
    ) -> ToolCallOutcome:
        """The outcome of `call`, also where it fails by the model's fault. Raises FrameToolError.

        The frames exist until `tool.release(sample)`. Without `budget` the call is not cut.
        """
        outcome = ToolCallOutcome(call, error=call.error, reason=call.reason)
        if call.arguments is None or call.error is not None:
            return outcome
        try:
            request = read_request(call.arguments)
            budgeted = self._fit_budget(request, video, self.settings.max_visual_tokens if budget else math.inf)
            outcome = replace(outcome, budgeted=budgeted)
            frame_call = to_frame_call(request, budgeted, call.arguments)
            extraction = await self.tool.extract(path, frame_call, sample=sample)
            outcome = replace(outcome, extraction=extraction)
            return replace(outcome, shown=await asyncio.to_thread(self._label_frames, frame_call, extraction))
        except (UnusableArgumentError, CallFailedError) as failure:
            return replace(outcome, error=CALL_FAILED, reason=str(failure))

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

    def _label_frames(self, call: FrameCall, extraction: Extraction) -> tuple[ShownFrame, ...]:
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


def to_frame_call(request: FrameRequest, budgeted: Budgeted, arguments: Mapping[str, Any]) -> FrameCall:
    """The call as the tool runs it, after the budget. Raises UnusableArgumentError for what the reference's tool
    refuses: a time that is not a finite number, and an `nframes` that is still a float because the budget cut nothing.
    """
    start_s, end_s = _require_time("start_time", request.start_s), _require_time("end_time", request.end_s)
    if isinstance(budgeted.nframes, (bool, float)) or isinstance(budgeted.resize, bool):
        raise UnusableArgumentError("nframes must be an integer and resize a number")
    if budgeted.nframes > MAX_FRAMES:
        raise UnusableArgumentError(f"{budgeted.nframes} frames are more than a prompt may hold ({MAX_FRAMES})")
    try:
        requested_times(start_s, end_s, budgeted.nframes)
    except (OverflowError, ValueError) as error:
        raise UnusableArgumentError(f"start_time or end_time is out of range: {error}") from error
    return FrameCall(start_s, end_s, budgeted.nframes, budgeted.resize, arguments)


def _require_time(name: str, value: int | float | None) -> int | float:
    # math.isfinite raises for an integer that no float can hold; `requested_times` refuses such a time later.
    if value is None or isinstance(value, bool) or not abs(value) < math.inf:
        raise UnusableArgumentError(f"{name} is not a time that the frame tool takes")
    return value
