"""Prompt and video -> opening messages; frames -> tool response (docs/protocol.md, sections 2 and 3). Pure.

Every text that the harness adds to a conversation is here, verbatim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eva.errors import EvaError

Message = dict[str, Any]

# The model was trained on the spelling "Anlysis".
SYSTEM_PROMPT = "Use Frame Select Tool to Anlysis the video and generate an answer to the question."
USER_PROMPT = "Video Length: {length} seconds. Original video resolution: {resolution}p. {question}"
RESPONSE_START = "<tool_response>"
FRAME_LABEL = "Frame {number} at [{time}]: "
RESPONSE_END = (
    "\nIf more information is needed, call the frame selection tool again.\n\nQuestion: {question}</tool_response>"
)

# ChatML, the format in which the chat template of EVA's tokenizer writes a conversation as text.
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"


class PromptError(EvaError):
    """A prompt that cannot open a conversation."""


@dataclass(frozen=True)
class VideoInfo:
    """Duration in seconds; width and height in pixels as coded, before a rotation that a player would apply."""

    duration_s: float
    width: int
    height: int


@dataclass(frozen=True)
class Opening:
    """The messages that start a sample, and the question as the tool responses repeat it."""

    messages: tuple[Message, ...]
    question: str


@dataclass(frozen=True)
class Frame:
    """A frame as an agent gets it: the second that a label of EVA's protocol names, and the address of the image (file:
    or data:). Where the frame tool says them: its place in the video, its own time in seconds, width and height."""

    label_s: int
    url: str
    index: int | None = None
    time_s: float | None = None
    size: tuple[int, int] | None = None


def opening_messages(prompt: Sequence[Mapping[str, str]], video: VideoInfo) -> Opening:
    """The turns of the prompt. Length and size of the video are put before the question, which is the first user turn.

    A system message comes first, the prompt's own or SYSTEM_PROMPT. Raises PromptError if there is no user turn.
    """
    question = first_question(prompt)
    messages = replace_question(prompt, user_prompt(question, video))
    if messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": SYSTEM_PROMPT})
    return Opening(tuple(messages), question)


def replace_question(prompt: Sequence[Mapping[str, str]], content: str | list[Message]) -> list[Message]:
    """The turns of the prompt, with this content in the first user turn. Raises PromptError if there is none."""
    messages: list[Message] = [dict(turn) for turn in prompt]
    user = next((message for message in messages if message["role"] == "user"), None)
    if user is None:
        raise PromptError("the prompt has no user turn, so there is no question to ask")
    user["content"] = content
    return messages


def user_prompt(question: str, video: VideoInfo) -> str:
    """The question behind the length and the size of the video."""
    return USER_PROMPT.format(
        length=int(max(video.duration_s - 0.5, 1)),
        resolution=min(video.width, video.height),
        question=question,
    )


def first_question(prompt: Sequence[Mapping[str, str]]) -> str:
    """The text of the first user turn, stripped; empty where there is no user turn."""
    return next((turn["content"].strip() for turn in prompt if turn["role"] == "user"), "")


def assistant_message(text: str) -> Message:
    return {"role": "assistant", "content": text}


def tool_response(frames: Sequence[Frame], question: str) -> Message:
    """The frames of all calls of one block, each after its label, then the question again."""
    end = text_part(RESPONSE_END.format(question=question))
    return {"role": "tool", "content": [text_part(RESPONSE_START), *frame_parts(frames), end]}


def frame_parts(frames: Sequence[Frame]) -> list[Message]:
    """Each frame after its label."""
    parts = []
    for number, frame in enumerate(frames):
        label = FRAME_LABEL.format(number=number, time=clock(frame.label_s))
        parts.append(text_part(label if number == 0 else "\n" + label))
        parts.append({"type": "image_url", "image_url": {"url": frame.url}})
    return parts


def text_part(text: str) -> Message:
    return {"type": "text", "text": text}


def clock(time_s: int) -> str:
    """`mm:ss`; minutes do not roll over into hours, and negative times follow Python's floor division."""
    return f"{time_s // 60:02d}:{time_s % 60:02d}"


def requested_times(start_s: float, end_s: float, count: int) -> list[int]:
    """The seconds that label `count` frames. The window is the one that the model asked for, also where it was clamped.

    Raises OverflowError or ValueError where the window is too wide for floating point.
    """
    step = (end_s - start_s) / max(1, count - 1)
    return [int(start_s + k * step) for k in range(count)]
