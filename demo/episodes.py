"""A question as the dialogue in which the agent answers it: the texts the tiny model learns from.

The harness's messages come from the harness's own code. The replies are the agent's, and their form is what makes
them learnable for a model of this size: state the fact first, then copy the options in order and stop at the match.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from demo.questions import LETTERS, Question, clock, draw
from demo.scenes import Clip

Message = dict[str, Any]
SYSTEM = "Use Frame Select Tool to Anlysis the video and generate an answer to the question."
# By resolution, so that every frame becomes 2 x 3, 3 x 2 or 2 x 4 tokens of 28 x 28 pixels.
RESIZE = {360: 0.15, 480: 0.1, 540: 0.1, 720: 0.08}


@dataclass(frozen=True)
class Shown:
    """A frame the agent is shown: what it shows, and its size in tokens of 28 x 28 pixels."""

    colour: str
    rows: int
    columns: int


@dataclass(frozen=True)
class Episode:
    """A conversation, and the frames behind its images in order."""

    messages: list[Message]
    frames: list[Shown]


def play(rng: random.Random, kind: str, *, held_out: bool) -> Episode:
    """A drawn question and the whole dialogue of an agent that makes no mistake."""
    clip, question = draw(rng, kind, held_out=held_out)
    messages, frames = _opening(clip, question), []
    for look_s in question.looks_s:
        frames.append(_shown(clip, clip.colour_at(look_s)))
        messages += [_response(look_s, question.text), _after(question, look_s, frames[-1].colour, clip)]
    return Episode(messages, frames)


def drill_frames(rng: random.Random, kind: str) -> Episode:
    """One question, many frames in answer: each is to be read, and the reply chosen by its stamp and colour."""
    clip, question = draw(rng, kind, held_out=False)
    messages, frames = _opening(clip, question), []
    for look_s, colour in _drill_looks(rng, question):
        frames.append(_shown(clip, colour))
        messages += [_short_response(look_s), _after(question, look_s, colour, clip)]
    return Episode(messages, frames)


def _drill_looks(rng: random.Random, question: Question) -> list[tuple[int, str]]:
    """The frames of a drill: every option at a time of the second look, every branch at that of the first."""
    times_s = [time_s for _, time_s in question.branches] or list(question.looks_s)
    looks = [(rng.choice(times_s), option) for option in question.options]
    looks += [(question.looks_s[0], colour) for colour, _ in question.branches]
    rng.shuffle(looks)
    return looks


def drill_times(rng: random.Random) -> Episode:
    """Short questions, each with its first call: a clock time or a number of seconds becomes a window."""
    clip, _ = draw(rng, "one-look", held_out=False)
    messages: list[Message] = [{"role": "system", "content": SYSTEM}]
    for _ in range(6):
        time_s = rng.randrange(clip.duration_s)
        when = clock(time_s) if rng.random() < 0.75 else f"{time_s} seconds"
        messages += [_user(clip, f"What colour is the screen at {when}?"), _assistant(call(time_s, clip))]
    return Episode(messages, [])


def call(time_s: int, clip: Clip) -> str:
    """The tool call for one small frame of the second that begins at `time_s`."""
    resize = RESIZE[min(clip.width, clip.height)]
    return (
        f'<tool_call>{{"tool": "frame_select", "arguments": {{"start_time": {time_s}, "end_time": {time_s + 1}, '
        f'"nframes": 1, "resize": {resize}}}}}</tool_call>'
    )


def _after(question: Question, look_s: int, colour: str, clip: Clip) -> Message:
    """The reply to a frame: the second look where the first one's colour names it, else the verdict."""
    fact = f"Frame 0 at [{_stamp(look_s)}]: {colour}"
    if question.branches and look_s == question.looks_s[0]:
        target_s = dict(question.branches)[colour]
        return _assistant(f"{fact} {clock(target_s)}\n{call(target_s, clip)}")
    return _assistant(fact + _verdict(question, colour))


def _verdict(question: Question, colour: str) -> str:
    """The options in order up to the one that matches, then its letter."""
    right = question.options.index(colour)
    copied = "".join(f"\n{LETTERS[i]}. {question.options[i]}" for i in range(right + 1))
    return f"{copied}. <answer>{LETTERS[right]}</answer>"


def _opening(clip: Clip, question: Question) -> list[Message]:
    return [
        {"role": "system", "content": SYSTEM},
        _user(clip, question.text),
        _assistant(call(question.looks_s[0], clip)),
    ]


def _user(clip: Clip, text: str) -> Message:
    resolution = min(clip.width, clip.height)
    length_s = int(max(clip.duration_s - 0.5, 1))
    content = f"Video Length: {length_s} seconds. Original video resolution: {resolution}p. {text}"
    return {"role": "user", "content": content}


def _response(look_s: int, question_text: str) -> Message:
    closing = "\nIf more information is needed, call the frame selection tool again.\n\nQuestion: "
    parts = [
        {"type": "text", "text": "<tool_response>"},
        {"type": "text", "text": f"Frame 0 at [{_stamp(look_s)}]: "},
        {"type": "image"},
        {"type": "text", "text": f"{closing}{question_text}</tool_response>"},
    ]
    return {"role": "tool", "content": parts}


def _short_response(look_s: int) -> Message:
    """A tool response without the repeated question: more frames to read in as many tokens."""
    parts = [
        {"type": "text", "text": f"<tool_response>Frame 0 at [{_stamp(look_s)}]: "},
        {"type": "image"},
        {"type": "text", "text": "</tool_response>"},
    ]
    return {"role": "tool", "content": parts}


def _shown(clip: Clip, colour: str) -> Shown:
    resize = RESIZE[min(clip.width, clip.height)]
    return Shown(colour, max(1, round(clip.height * resize / 28)), max(1, round(clip.width * resize / 28)))


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _stamp(time_s: int) -> str:
    return f"{time_s // 60:02d}:{time_s % 60:02d}"
