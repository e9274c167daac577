"""The two forms in which an agent calls the frame tool: EVA's own, and Hermes's, as Qwen2.5's chat template has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demo.scenes import Clip
from eva.protocol.messages import FRAME_LABEL, Message, ShownFrame, VideoInfo, clock, opening_messages, tool_response

ANSWER_FORM = "Give only the letter of the right option, as <answer>letter</answer>."
TOOL = {
    "type": "function",
    "function": {
        "name": "frame_select",
        "description": "Get frames of the video.",
        "parameters": {
            "type": "object",
            "properties": {
                "start_time": {"type": "number", "description": "Start of the window in seconds."},
                "end_time": {"type": "number", "description": "End of the window in seconds."},
                "nframes": {"type": "integer", "description": "Number of frames, evenly spaced over the window."},
                "resize": {"type": "number", "description": "Scale of the frames, 1 for the original size."},
            },
            "required": ["start_time", "end_time", "nframes"],
        },
    },
}
TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
    f"{json.dumps(TOOL)}\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
    'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
# By resolution, so that every frame becomes 2 x 3, 3 x 2 or 2 x 4 tokens of 28 x 28 pixels.
RESIZE = {360: 0.15, 480: 0.1, 540: 0.1, 720: 0.08}
HERMES_CALL = ('<tool_call>\n{"name": "frame_select", "arguments": {"start_time":', "}}\n</tool_call>")
EVA_CALL = ('<tool_call>{"tool": "frame_select", "arguments": {"start_time":', "}}</tool_call>")


@dataclass(frozen=True)
class Form:
    """How a question is put, how the tool is called (start and end of the text), and how a frame comes back.

    `response` takes the frames and the question, which not every form repeats.
    """

    opening: Callable[[Clip, str], list[Message]]
    call_ends: tuple[str, str]
    response: Callable[[Sequence[ShownFrame], str], Message]

    def call(self, time_s: int, clip: Clip) -> str:
        """The call for one small frame of the half second that begins at `time_s`: both ends copy the number."""
        start, end = self.call_ends
        resize = RESIZE[min(clip.width, clip.height)]
        return f'{start} {time_s}, "end_time": {time_s}.5, "nframes": 1, "resize": {resize}{end}'


def eva_opening(clip: Clip, text: str) -> list[Message]:
    video = VideoInfo(float(clip.duration_s), clip.width, clip.height)
    return list(opening_messages([{"role": "user", "content": text}], video).messages)


def hermes_opening(clip: Clip, text: str) -> list[Message]:
    _, user = eva_opening(clip, text)
    return [
        {"role": "system", "content": TOOLS},
        {"role": "user", "content": f"{user['content']}\n{ANSWER_FORM}"},
    ]


def hermes_response(frames: Sequence[ShownFrame], question: str) -> Message:
    del question  # this form does not repeat it
    start, end = ({"type": "text", "text": text} for text in ("<tool_response>\n", "\n</tool_response>"))
    return {"role": "user", "content": [start, *labelled(frames), end]}


def labelled(frames: Sequence[ShownFrame]) -> list[Message]:
    """The parts of a message that show frames, each after its label."""
    parts: list[Message] = []
    for number, frame in enumerate(frames):
        label = FRAME_LABEL.format(number=number, time=clock(frame.time_s))
        parts.append({"type": "text", "text": label if number == 0 else "\n" + label})
        parts.append({"type": "image_url", "image_url": {"url": frame.url}})
    return parts


EVA = Form(eva_opening, EVA_CALL, tool_response)
HERMES = Form(hermes_opening, HERMES_CALL, hermes_response)
FORMS = (EVA, HERMES)
