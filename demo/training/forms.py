"""The forms in which the tiny model meets a question: those of the harness's agents, with the agents' own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from demo.scenes import Clip
from eva.agent.interface import Agent, Task
from eva.agent.tool_call import ToolCallOutcome
from eva.agents.blind import Blind
from eva.agents.eva import Eva
from eva.agents.hermes import Hermes
from eva.agents.uniform import Uniform
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.protocol.messages import Message, ShownFrame, VideoInfo
from eva.protocol.reply import CallAttempt

# By resolution, so that every frame becomes 2 x 3, 3 x 2 or 2 x 4 tokens of 28 x 28 pixels.
RESIZE = {360: 0.15, 480: 0.1, 540: 0.1, 720: 0.08}


@dataclass(frozen=True)
class Form:
    """An agent that lets the model look, and what stands before and after the numbers of a call."""

    agent: Agent
    call_start: str
    call_end: str

    def open(self, clip: Clip, text: str) -> list[Message]:
        """The messages that put the question."""
        return self.agent.open(_task(clip, text), ())

    def call(self, time_s: int, clip: Clip) -> str:
        """The call for one small frame of the half second that begins at `time_s`: both ends copy the number."""
        resize = RESIZE[min(clip.width, clip.height)]
        numbers = f' {time_s}, "end_time": {time_s}.5, "nframes": 1, "resize": {resize}'
        return f"{self.call_start}{numbers}{self.call_end}"

    def respond(self, clip: Clip, text: str, *, look_s: int) -> Message:
        """The message that brings the frame of second `look_s`."""
        (message,) = cast("list[Message]", self.agent.respond(_task(clip, text), [_outcome([look_s])]))
        return message


# A call of Hermes's form is that of EVA's in other words.
EVA = Form(Eva(), '<tool_call>{"tool": "frame_select", "arguments": {"start_time":', "}}</tool_call>")
HERMES = Form(Hermes(), '<tool_call>\n{"name": "frame_select", "arguments": {"start_time":', "}}\n</tool_call>")


def ask_with_frames(clip: Clip, text: str, *, labels_s: Sequence[int]) -> list[Message]:
    """The question behind frames that bear these seconds, as `--agent uniform` puts it."""
    uniform = Uniform(nframes=len(labels_s), frame_tokens=1, pixels_per_token=PIXELS_PER_TOKEN_SIDE)
    return uniform.open(_task(clip, text), [_outcome(labels_s)])


def ask_alone(clip: Clip, text: str) -> list[Message]:
    """The question without frames, as `--agent blind` puts it."""
    return Blind().open(_task(clip, text), ())


def _task(clip: Clip, text: str) -> Task:
    return Task(0, [{"role": "user", "content": text}], VideoInfo(float(clip.duration_s), clip.width, clip.height))


def _outcome(times_s: Sequence[int]) -> ToolCallOutcome:
    return ToolCallOutcome(CallAttempt.of(), shown=tuple(ShownFrame(time_s, "") for time_s in times_s))
