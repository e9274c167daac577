"""A question as the dialogue in which the agent answers it: the texts the tiny model learns from.

The harness's messages come from the harness's own code. The replies are the agent's, and their form is what makes
them learnable for a model of this size: state the fact first, then copy the options (or the lines of the table that
names the second look) in order and stop at the match.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from demo.questions import LETTERS, Question, branch_line, clock, draw
from demo.scenes import Clip
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.protocol.messages import Message, ShownFrame, VideoInfo, assistant_message, opening_messages, tool_response
from eva.video.sampling import output_size

# How a reply to a frame begins.
FIRST_LOOK, LAST_LOOK = "First look:", "The screen is"
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
    return dialogue(*draw(rng, kind, held_out=held_out))


def dialogue(clip: Clip, question: Question) -> Episode:
    """The agent looks where the question leads, states what it sees, and answers."""
    messages, frames = _opening(clip, question), []
    for look_s in question.looks_s:
        frames.append(_shown(clip, clip.colour_at(look_s)))
        messages += [_response(look_s, question.text), _after(question, look_s, frames[-1].colour, clip)]
    return Episode(messages, frames)


def drill_frames(rng: random.Random, kind: str) -> Episode:
    """One question, four frames in answer, of whatever colours: each is to be read, nothing to be remembered."""
    clip, question = draw(rng, kind, held_out=False)
    messages, frames = _opening(clip, question), []
    for look_s, colour in _drill_looks(rng, question):
        frames.append(_shown(clip, colour))
        messages += [_short_response(look_s), _after(question, look_s, colour, clip)]
    return Episode(messages, frames)


def _drill_looks(rng: random.Random, question: Question) -> list[tuple[int, str]]:
    """Times and colours of a drill's frames: the first look, where there are two, then any of the options."""
    last = [(question.looks_s[-1], option) for option in rng.sample(question.options, 4)]
    if not question.branches:
        return last
    colour, _ = rng.choice(question.branches)
    return [(question.looks_s[0], colour), *last[:3]]


def drill_times(rng: random.Random) -> Episode:
    """Short questions, each with its first call: a clock time or a number of seconds becomes a window."""
    clip, _ = draw(rng, "one-look", held_out=False)
    messages: list[Message] = []
    for _ in range(6):
        time_s = rng.randrange(clip.duration_s)
        when = clock(time_s) if rng.random() < 0.75 else f"{time_s} seconds"
        asked = _asked(clip, f"What colour is the screen at {when}?")
        # The system turn opens the conversation; it does not come back with each question.
        messages += [*asked[min(1, len(messages)) :], assistant_message(call(time_s, clip))]
    return Episode(messages, [])


def call(time_s: int, clip: Clip) -> str:
    """The tool call for one small frame of the half second that begins at `time_s`: both ends copy the number."""
    resize = RESIZE[min(clip.width, clip.height)]
    return (
        f'<tool_call>{{"tool": "frame_select", "arguments": {{"start_time": {time_s}, "end_time": {time_s}.5, '
        f'"nframes": 1, "resize": {resize}}}}}</tool_call>'
    )


def _after(question: Question, look_s: int, colour: str, clip: Clip) -> Message:
    """The reply to a frame: the second look where the first one's colour names it, else the verdict."""
    if question.branches and look_s == question.looks_s[0]:
        seen = [branch_colour for branch_colour, _ in question.branches].index(colour)
        copied = "".join(branch_line(i, *branch) for i, branch in enumerate(question.branches[: seen + 1]))
        return assistant_message(f"{FIRST_LOOK} {colour}{copied}\n{call(question.branches[seen][1], clip)}")
    return assistant_message(f"{LAST_LOOK} {colour}{_verdict(question, colour)}")


def _verdict(question: Question, colour: str) -> str:
    """The options in order up to the one that matches, then its letter."""
    right = question.options.index(colour)
    copied = "".join(f"\n{LETTERS[i]}. {question.options[i]}" for i in range(right + 1))
    return f"{copied}. <answer>{LETTERS[right]}</answer>"


def _opening(clip: Clip, question: Question) -> list[Message]:
    return [*_asked(clip, question.text), assistant_message(call(question.looks_s[0], clip))]


def _asked(clip: Clip, text: str) -> list[Message]:
    video = VideoInfo(float(clip.duration_s), clip.width, clip.height)
    return list(opening_messages([{"role": "user", "content": text}], video).messages)


def _response(look_s: int, question_text: str) -> Message:
    return tool_response([ShownFrame(look_s, "")], question_text)


def _short_response(look_s: int) -> Message:
    """A tool response without the repeated question: more frames to read in as many tokens."""
    parts = tool_response([ShownFrame(look_s, "")], "")["content"]
    return {"role": "tool", "content": [*parts[:-1], {"type": "text", "text": "</tool_response>"}]}


def _shown(clip: Clip, colour: str) -> Shown:
    return Shown(colour, *token_grid(width=clip.width, height=clip.height))


def token_grid(*, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of tokens that a frame of a width x height video has at the resize the agent asks for."""
    resize = RESIZE[min(width, height)]
    columns, rows = output_size(width, height, resize=resize, factor=PIXELS_PER_TOKEN_SIDE)
    return rows // PIXELS_PER_TOKEN_SIDE, columns // PIXELS_PER_TOKEN_SIDE
