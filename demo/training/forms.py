"""The forms in which the tiny model meets a question: those of the harness's agents, with the agents' own code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demo.scenes import Clip
from eva.agent.interface import Task, TaskVideo
from eva.agent.tool_call import Outcome
from eva.agents import hermes, uniform
from eva.protocol.messages import Frame, Message, opening_messages, replace_question, tool_response
from eva.protocol.option import ANSWER_FORM
from eva.protocol.reply import CallAttempt
from eva.records.schema import Call

# By resolution, so that every frame becomes 2 x 3, 3 x 2 or 2 x 4 tokens of 28 x 28 pixels.
RESIZE = {360: 0.15, 480: 0.1, 540: 0.1, 720: 0.08}


@dataclass(frozen=True)
class Form:
    """How an agent that lets the model look puts the question and brings frames, and what stands before and after the
    numbers of a call."""

    put: Callable[[Task], Sequence[Message]]
    bring: Callable[[Task, Sequence[Frame]], Message]
    call_start: str
    call_end: str

    def open(self, clip: Clip, text: str) -> list[Message]:
        """The messages that put the question."""
        return list(self.put(_task(clip, text)))

    def call(self, time_s: int, clip: Clip) -> str:
        """The call for one small frame of the half second that begins at `time_s`: both ends copy the number."""
        resize = RESIZE[min(clip.width, clip.height)]
        numbers = f' {time_s}, "end_time": {time_s}.5, "nframes": 1, "resize": {resize}'
        return f"{self.call_start}{numbers}{self.call_end}"

    def respond(self, clip: Clip, text: str, *, look_s: int) -> Message:
        """The message that brings the frame of second `look_s`."""
        return self.bring(_task(clip, text), [Frame(look_s, "")])


EVA = Form(
    lambda task: opening_messages(task.prompt, task.video).messages,
    lambda task, frames: tool_response(frames, task.question),
    '<tool_call>{"tool": "frame_select", "arguments": {"start_time":',
    "}}</tool_call>",
)
# A call of Hermes's form is that of EVA's in other words.
HERMES = Form(
    hermes.open_conversation,
    lambda task, frames: hermes.respond([_outcome(frames)]),
    '<tool_call>\n{"name": "frame_select", "arguments": {"start_time":',
    "}}\n</tool_call>",
)


def ask_with_frames(clip: Clip, text: str, *, labels_s: Sequence[int]) -> list[Message]:
    """The question behind frames that bear these seconds, as `--agent uniform` puts it."""
    return uniform.ask(_task(clip, text), [Frame(label_s, "") for label_s in labels_s])


def ask_alone(clip: Clip, text: str) -> list[Message]:
    """The question without frames, as `--agent blind` puts it."""
    task = _task(clip, text)
    return replace_question(task.prompt, f"{task.question}\n{ANSWER_FORM}")


def _task(clip: Clip, text: str) -> Task:
    video = TaskVideo(float(clip.duration_s), clip.width, clip.height)
    return Task(0, [{"role": "user", "content": text}], [video])


def _outcome(frames: Sequence[Frame]) -> Outcome:
    return Outcome(CallAttempt.of(), Call({}, None, None, (), 0, None, None), tuple(frames))
