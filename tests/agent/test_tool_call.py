"""One tool call, with a scripted frame tool: what it is asked for, what is shown, and why a call fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from eva.agent.tool_call import CallRunner, CallSettings, Outcome
from eva.frames.tool import MAX_FRAMES, CallFailedError, Extraction, FrameTool, FrameToolError, ToolSettings
from eva.protocol.arguments import FrameRequest
from eva.protocol.messages import Frame, VideoInfo
from eva.protocol.reply import CallAttempt
from eva.records.schema import Call

VIDEO = Path("/videos/clip.mp4")
INFO = VideoInfo(duration_s=60.0, width=640, height=360)
REQUESTED = CallSettings(12000, 720, "requested", "file")
CALL = {"start_time": 0, "end_time": 20, "nframes": 3}


@dataclass
class Scripted:
    """A frame tool that returns files of its folder, at most `most` of them, or fails."""

    folder: Path = Path("/frames")
    details: Mapping[str, Any] = field(default_factory=dict)
    most: int = MAX_FRAMES
    failure: Exception | None = None
    settings: ToolSettings = field(default=ToolSettings(Path("/tools/frames.py"), Path("/frames"), "auto", True, 600))
    asked: list[tuple[Path, FrameRequest, int]] = field(default_factory=list)

    async def extract(self, video: Path, call: FrameRequest, *, sample: int) -> Extraction:
        self.asked.append((video, call, sample))
        if self.failure is not None:
            raise self.failure
        frames = tuple(self.folder / f"{number}.png" for number in range(min(int(call.nframes), self.most)))
        return Extraction(frames, 0.1, self.details)


def run(tool: Scripted, call: CallAttempt, settings: CallSettings = REQUESTED) -> Outcome:
    runner = CallRunner(cast(FrameTool, tool), settings)
    return asyncio.run(runner.run(call, VIDEO, INFO, sample=7))


def attempt(**arguments: Any) -> CallAttempt:
    return CallAttempt("{}", CALL | arguments, None)


def test_a_call_is_run_after_the_budget_and_its_frames_are_labelled_with_the_requested_times() -> None:
    tool = Scripted()
    outcome = run(tool, attempt(resize="0.5", why="look"))
    assert tool.asked == [(VIDEO, FrameRequest(0, 20, 3, 0.5, CALL | {"resize": "0.5", "why": "look"}), 7)]
    assert outcome.frames == tuple(Frame(t, f"file:///frames/{n}.png") for n, t in enumerate((0, 10, 20)))
    assert outcome.call.budgeted is not None
    assert (outcome.call.budgeted.tokens, outcome.error, outcome.reason) == (3 * 6 * 11, None, None)


def test_a_call_over_the_budget_asks_for_fewer_and_smaller_frames() -> None:
    tool = Scripted()
    run(tool, attempt(nframes=60, resize=1.0))
    ((_, call, _),) = tool.asked
    assert call.nframes == 52
    assert call.resize < 1


def test_fewer_frames_than_asked_for_are_labelled_over_the_whole_window() -> None:
    outcome = run(Scripted(most=2), attempt())
    assert [frame.label_s for frame in outcome.frames] == [0, 20]


def test_frames_are_labelled_with_their_own_times_where_that_is_asked_for() -> None:
    actual = CallSettings(12000, 720, "actual", "file")
    outcome = run(Scripted(details={"times_s": [0.1, 9.9, 19.9]}), attempt(), actual)
    assert [frame.label_s for frame in outcome.frames] == [0, 9, 19]
    with pytest.raises(FrameToolError, match=r"/tools/frames\.py .* run with --timestamps requested"):
        run(Scripted(details={"times_s": [0.1]}), attempt(), actual)


def test_frames_are_sent_as_data_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"PNG")
    outcome = run(Scripted(tmp_path), attempt(nframes=1), CallSettings(12000, 720, "requested", "base64"))
    assert outcome.frames == (Frame(0, "data:image/png;base64,UE5H"),)


@pytest.mark.parametrize(
    "call",
    [CallAttempt("{", None, "arguments_not_json"), CallAttempt("{}", {"end_time": 4, "nframes": 2}, "no_start")],
)
def test_a_call_that_failed_when_it_was_read_never_reaches_the_frame_tool(call: CallAttempt) -> None:
    tool = Scripted()
    assert run(tool, call) == Outcome(
        call, Call(call.raw if call.arguments is None else call.arguments, None, None, (), 0, call.error, None, ())
    )
    assert tool.asked == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"nframes": "many"}, "nframes is not a number"),
        ({"nframes": 4.0}, "nframes must be an integer"),
        ({"nframes": True}, "nframes must be an integer"),
        ({"resize": True}, "resize a number"),
        ({"nframes": float("inf")}, "nframes or resize is out of range"),
        ({"resize": float("nan")}, "nframes or resize is out of range"),
        ({"nframes": MAX_FRAMES + 1, "resize": 0}, "10000 frames are more than a prompt may hold"),
        ({"start_time": None}, "start_time is not a time"),
        ({"end_time": "soon"}, "end_time is not a time"),
        ({"end_time": False}, "end_time is not a time"),
        ({"start_time": float("nan")}, "start_time is not a time"),
        ({"end_time": float("-inf")}, "end_time is not a time"),
        ({"start_time": -1e-5}, "start_time is not a time"),
        ({"end_time": 10**400}, "start_time or end_time is out of range"),
        ({"start_time": -(10**308), "end_time": 1e308}, "start_time or end_time is out of range"),
    ],
)
def test_a_call_that_no_tool_can_run_fails_with_a_reason_and_never_reaches_it(
    arguments: dict[str, Any], reason: str
) -> None:
    tool = Scripted()
    outcome = run(tool, attempt(**arguments), CallSettings(10**6, 720, "requested", "file"))
    assert outcome.error == "call_frame_select_failed"
    assert outcome.reason is not None
    assert reason in outcome.reason
    assert (tool.asked, outcome.frames, outcome.call.executed) == ([], (), None)


def test_the_most_frames_that_a_prompt_may_hold_can_be_asked_for() -> None:
    settings = CallSettings(10**9, 720, "requested", "file")
    assert len(run(Scripted(), attempt(nframes=MAX_FRAMES, resize=0), settings).frames) == MAX_FRAMES


def test_what_the_frame_tool_refuses_is_the_models_failure_and_keeps_the_budget() -> None:
    outcome = run(Scripted(failure=CallFailedError("an empty window")), attempt())
    assert (outcome.error, outcome.reason) == ("call_frame_select_failed", "an empty window")
    assert outcome.call.budgeted is not None


def test_what_the_frame_tool_cannot_do_is_raised() -> None:
    with pytest.raises(FrameToolError, match="killed"):
        run(Scripted(failure=FrameToolError("killed")), attempt())
