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
from demo.training.forms import EVA, RESIZE, Form, ask_alone, ask_with_frames
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.protocol.messages import RESPONSE_END, Message, assistant_message, requested_times
from eva.video.sampling import Window, output_size, sample_times

# How a reply to a frame begins.
FIRST_LOOK, LAST_LOOK = "First look:", "The screen is"
# What a model says that is shown nothing: chance is as good as any letter.
GUESS = "<answer>A</answer>"
# Rows and columns of the frames that are given without a call: as large as those of a call, or smaller.
GIVEN_GRIDS = ((1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (2, 4))
MOST_GIVEN = 4


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


def play(rng: random.Random, kind: str, *, held_out: bool, form: Form = EVA) -> Episode:
    """A drawn question and the whole dialogue of an agent that makes no mistake."""
    return dialogue(*draw(rng, kind, held_out=held_out), form)


def dialogue(clip: Clip, question: Question, form: Form = EVA) -> Episode:
    """The agent looks where the question leads, states what it sees, and answers."""
    messages, frames = _opening(clip, question, form), []
    for look_s in question.looks_s:
        frames.append(_shown(clip, clip.colour_at(look_s)))
        messages += [
            form.respond(clip, question.text, look_s=look_s),
            _after(question, look_s, frames[-1].colour, clip, form),
        ]
    return Episode(messages, frames)


def given(rng: random.Random, kind: str, *, held_out: bool, count: int) -> Episode:
    """`count` frames spread over the video, the question after them, and an answer from the one that comes closest.

    That is the last frame whose label is not after the time in question (of two-look questions, of the first look).
    """
    clip, question = draw(rng, kind, held_out=held_out)
    times_s = sample_times(Window(0, clip.duration_s), count)
    labels_s = requested_times(0, clip.duration_s, count)
    grid = rng.choice(GIVEN_GRIDS)
    frames = [Shown(clip.colour_at(time_s), *grid) for time_s in times_s]
    closest = max(i for i, label_s in enumerate(labels_s) if label_s <= question.looks_s[0])
    asked = ask_with_frames(clip, question.text, labels_s=labels_s)
    return Episode([*asked, _last(question, frames[closest].colour)], frames)


def blind(rng: random.Random, kind: str, *, held_out: bool) -> Episode:
    """The question alone, and a guess."""
    clip, question = draw(rng, kind, held_out=held_out)
    return Episode([*ask_alone(clip, question.text), assistant_message(GUESS)], [])


def drill_frames(rng: random.Random, kind: str, form: Form = EVA) -> Episode:
    """One question, four frames in answer, of whatever colours: each is to be read, nothing to be remembered."""
    clip, question = draw(rng, kind, held_out=False)
    messages, frames = _opening(clip, question, form), []
    for look_s, colour in _drill_looks(rng, question):
        frames.append(_shown(clip, colour))
        messages += [_short_response(clip, look_s, form), _after(question, look_s, colour, clip, form)]
    return Episode(messages, frames)


def _drill_looks(rng: random.Random, question: Question) -> list[tuple[int, str]]:
    """Times and colours of a drill's frames: the first look, where there are two, then any of the options."""
    last = [(question.looks_s[-1], option) for option in rng.sample(question.options, 4)]
    if not question.branches:
        return last
    colour, _ = rng.choice(question.branches)
    return [(question.looks_s[0], colour), *last[:3]]


def drill_times(rng: random.Random, form: Form = EVA) -> Episode:
    """Short questions, each with its first call: a clock time or a number of seconds becomes a window."""
    clip, _ = draw(rng, "one-look", held_out=False)
    messages: list[Message] = []
    for _ in range(6):
        time_s = rng.randrange(clip.duration_s)
        when = clock(time_s) if rng.random() < 0.75 else f"{time_s} seconds"
        asked = form.open(clip, f"What colour is the screen at {when}?")
        # The system turn opens the conversation; it does not come back with each question.
        messages += [*asked[min(1, len(messages)) :], assistant_message(form.call(time_s, clip))]
    return Episode(messages, [])


def _after(question: Question, look_s: int, colour: str, clip: Clip, form: Form) -> Message:
    """The reply to a frame: the second look where the first one's colour names it, else the verdict."""
    if question.branches and look_s == question.looks_s[0]:
        seen = [branch_colour for branch_colour, _ in question.branches].index(colour)
        copied = "".join(branch_line(i, *branch) for i, branch in enumerate(question.branches[: seen + 1]))
        return assistant_message(f"{FIRST_LOOK} {colour}{copied}\n{form.call(question.branches[seen][1], clip)}")
    return _last(question, colour)


def _last(question: Question, colour: str) -> Message:
    """The verdict: the options in order up to the one that matches, or all of them, then the letter of the last."""
    right = question.options.index(colour) if colour in question.options else len(LETTERS) - 1
    copied = "".join(f"\n{LETTERS[i]}. {question.options[i]}" for i in range(right + 1))
    return assistant_message(f"{LAST_LOOK} {colour}{copied}. <answer>{LETTERS[right]}</answer>")


def _opening(clip: Clip, question: Question, form: Form) -> list[Message]:
    return [*form.open(clip, question.text), assistant_message(form.call(question.looks_s[0], clip))]


def _short_response(clip: Clip, look_s: int, form: Form) -> Message:
    """A tool response without the repeated question: more frames to read in as many tokens."""
    response = form.respond(clip, "", look_s=look_s)
    *parts, last = response["content"]
    closing = last["text"].replace(RESPONSE_END.format(question=""), "</tool_response>")
    return {**response, "content": [*parts, {"type": "text", "text": closing}]}


def _shown(clip: Clip, colour: str) -> Shown:
    return Shown(colour, *token_grid(width=clip.width, height=clip.height))


def token_grid(*, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of tokens that a frame of a width x height video has at the resize the agent asks for."""
    resize = RESIZE[min(width, height)]
    columns, rows = output_size(width, height, resize=resize, factor=PIXELS_PER_TOKEN_SIDE)
    return rows // PIXELS_PER_TOKEN_SIDE, columns // PIXELS_PER_TOKEN_SIDE
