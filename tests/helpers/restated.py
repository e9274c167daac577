"""The protocol, restated as plainly as it can be said: what the tests hold the harness to.

Nothing here is imported from the harness. The measured cases prove this page right where they are at hand; in a
clone without them it is what the expectations are made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from scripted_server import prompt_tokens

FACTOR = 28
SYSTEM = "Use Frame Select Tool to Anlysis the video and generate an answer to the question."
MORE = "\nIf more information is needed, call the frame selection tool again.\n\nQuestion: "

Message = Mapping[str, Any]

# --- frame selection, on a full sequential decode


@dataclass(frozen=True)
class Decoded:
    """A video's frames in presentation order: their times here, their pictures by a full decode when asked for.

    `shown_to_s`: the end of the last frame, in a video whose frames are chosen by time.
    """

    path: Path
    times_s: Sequence[float]
    average_fps: float
    shown_to_s: float | None = None

    @property
    def begin_s(self) -> float:
        return self.times_s[0] if self.shown_to_s is not None else float(np.float32(self.times_s[0]))

    @property
    def end_s(self) -> float:
        if self.shown_to_s is not None:
            return self.shown_to_s
        return float(np.float32(self.times_s[-1])) + 1 / self.average_fps

    def index_at(self, time_s: float) -> int:
        if self.shown_to_s is not None:
            return max([k for k, begins_s in enumerate(self.times_s) if begins_s <= time_s], default=0)
        index = round((time_s - self.begin_s) * self.average_fps)
        return min(max(index, 0), len(self.times_s) - 1)

    def pictures(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Frames as RGB arrays (height, width, 3); decoded from the first one on, without seeking."""
        with av.open(str(self.path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            kept = {
                number: np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                for number, frame in enumerate(container.decode(video=0))
                if number in indices
            }
        return [kept[index] for index in indices]


def decode_all(path: Path) -> Decoded:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        by_time = stream.codec_context.codec.canonical_name in {"av1", "vp9"}
        start = 0 if by_time else stream.start_time or 0
        shown = [(frame.pts or 0, frame.duration) for frame in container.decode(stream)]
        assert stream.time_base is not None
        assert stream.average_rate is not None
        times = [float((pts - start) * stream.time_base) for pts, _ in shown]
        shown_to = float(sum(shown[-1]) * stream.time_base) if by_time else None
        return Decoded(path, times, float(stream.average_rate), shown_to)


def owed_indices(decoded: Decoded, start_s: float, end_s: float, nframes: int) -> list[int]:
    first, last = max(start_s, decoded.begin_s), min(end_s, decoded.end_s)
    if last <= first:
        first, last = decoded.begin_s, decoded.end_s
    if nframes == 1:
        times = [(first + last) / 2]
    else:
        end = last - min(0.001, (last - first) / (4 * nframes))
        times = [first + (end - first) * k / (nframes - 1) for k in range(nframes)]
    return [decoded.index_at(at) for at in times]


def owed_images(decoded: Decoded, start_s: float, end_s: float, nframes: int, resize: float) -> list[dict[str, Any]]:
    """The images that a call is owed, as the scripted server describes them."""
    pictures = decoded.pictures(owed_indices(decoded, start_s, end_s, nframes))
    return [describe(resized(picture, resize)) for picture in pictures]


def resized(picture: NDArray[np.uint8], resize: float) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    size = tuple(max(1, round(side * resize / FACTOR) * FACTOR) for side in (width, height))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def describe(rgb: NDArray[np.uint8]) -> dict[str, Any]:
    sha = hashlib.sha256(rgb.tobytes()).hexdigest()[:16]
    return {"type": "image", "w": rgb.shape[1], "h": rgb.shape[0], "sha": sha}


# --- the visual-token budget


def tokens(nframes: float, resize: float, *, width: int, height: int) -> int:
    tall = max(1, round(height * resize / 28))
    wide = max(1, round(width * resize / 28))
    return int(nframes) * tall * wide


def budgeted(
    nframes: float, resize: float, *, width: int, height: int, budget: int = 12000, maxp: int = 720
) -> tuple[float, float, int]:
    """(nframes, resize, tokens) as executed."""
    cost = tokens(nframes, resize, width=width, height=height)
    if cost > budget:
        cap = min(1, maxp / min(width, height))
        resize = min(resize, cap)
        cost = tokens(nframes, resize, width=width, height=height)
        if cost > budget:
            shrink = (budget / cost) ** (1 / 3)
            nframes = max(1, int(nframes * shrink))
            resize = resize * shrink
            cost = tokens(nframes, resize, width=width, height=height)
    return nframes, resize, cost


# --- messages


def stamp(seconds: int) -> str:
    minutes, rest = seconds // 60, seconds % 60
    return str(minutes).zfill(2) + ":" + str(rest).zfill(2)


def stamps(start_s: float, end_s: float, shown: int) -> list[str]:
    step = (end_s - start_s) / max(1, shown - 1)
    return [stamp(int(start_s + k * step)) for k in range(shown)]


def text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def tool_message(frames: Sequence[tuple[str, Message]], question: str) -> Message:
    """`frames`: (time as shown, image) across all calls of the block."""
    parts: list[Message] = [text_part("<tool_response>")]
    for number, (at, image) in enumerate(frames):
        newline = "\n" if number else ""
        parts += [text_part(f"{newline}Frame {number} at [{at}]: "), image]
    parts.append(text_part(MORE + question + "</tool_response>"))
    return {"role": "tool", "content": parts}


def opening(question: str, *, length_s: int, short_side: int, system: str | None = None) -> list[Message]:
    user = f"Video Length: {length_s} seconds. Original video resolution: {short_side}p. {question}"
    return [
        {"role": "system", "content": SYSTEM if system is None else system},
        {"role": "user", "content": user},
    ]


def chatml(messages: Sequence[Message]) -> str:
    """The record's `messages`: the chat template's text, images without their pad token."""
    return "".join(f"<|im_start|>{m['role']}\n{chatml_content(m['content'])}<|im_end|>\n" for m in messages)


def chatml_content(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "<|vision_start|><|vision_end|>") for part in content)


# --- a whole sample


@dataclass(frozen=True)
class Window:
    """One call as it is owed, after the budget."""

    start_s: float
    end_s: float
    nframes: int
    resize: float

    def frames(self, video: Decoded) -> list[tuple[str, Message]]:
        images = owed_images(video, self.start_s, self.end_s, self.nframes, self.resize)
        return list(zip(stamps(self.start_s, self.end_s, len(images)), images, strict=True))


@dataclass
class Conversation:
    """Grows by replies and tool responses, and knows what request, record and usage follow from it."""

    question: str
    messages: list[Message]
    requests: list[list[Message]] = field(default_factory=list)
    total_tokens: int = 0

    def reply(self, text: str) -> Conversation:
        self.requests.append(list(self.messages))
        self.total_tokens = prompt_tokens(self.messages) + len(text) // 4
        self.messages.append({"role": "assistant", "content": text})
        return self

    def show(self, video: Decoded, *windows: Window) -> Conversation:
        frames = [frame for window in windows for frame in window.frames(video)]
        self.messages.append(tool_message(frames, self.question))
        return self

    def record(self) -> dict[str, Any]:
        """The fields that follow from the conversation alone."""
        text = chatml(self.messages)
        return {"messages": text, "num_rounds": len(self.requests), "total_tokens": self.total_tokens}
