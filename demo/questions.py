"""The demo's questions: what they ask, where the answer is, and which of them are held out from training."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from demo.scenes import COLOURS, Clip, plan_clip

LETTERS = "ABCD"
KINDS = ("one-look", "two-looks")
HELD_OUT_SHARE = 8


@dataclass(frozen=True)
class Question:
    """A multiple-choice question on one clip.

    `looks_s` are the seconds to look at, in order; `branches` the (colour, second) pairs of a two-look question:
    the colour seen at looks_s[0] names the second look.
    """

    kind: str
    text: str
    options: tuple[str, ...]
    letter: str
    looks_s: tuple[int, ...]
    branches: tuple[tuple[str, int], ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether the question belongs to the test part: one in HELD_OUT_SHARE, by the text alone."""
        return zlib.crc32(self.text.encode()) % HELD_OUT_SHARE == 0


def clock(time_s: int) -> str:
    """62 -> '1:02'."""
    return f"{time_s // 60}:{time_s % 60:02d}"


def branch_line(i: int, colour: str, time_s: int) -> str:
    """Line i of a two-look question's table, with the newline before it."""
    return f"\n{i + 1}. {clock(time_s)} {colour}"


def draw(rng: random.Random, kind: str, *, held_out: bool) -> tuple[Clip, Question]:
    """A new clip and a question of `kind` on it, held out from training or not."""
    while True:
        clip = plan_clip(rng)
        question = ask(rng, clip, kind)
        if question is not None and question.held_out == held_out:
            return clip, question


def ask(rng: random.Random, clip: Clip, kind: str) -> Question | None:
    """A question of `kind` on `clip`; None where the draw gives two targets of one colour."""
    return _one_look(rng, clip) if kind == "one-look" else _two_looks(rng, clip)


def _one_look(rng: random.Random, clip: Clip) -> Question:
    time_s = rng.choice(clip.safe_times_s())
    when = clock(time_s) if rng.random() < 0.5 else f"{time_s} seconds"
    right = clip.colour_at(time_s)
    options = _options(rng, right, [colour for colour in clip.colours if colour != right])
    return Question(
        "one-look",
        _with_options(f"What colour is the screen at {when}?", options),
        options,
        LETTERS[options.index(right)],
        (time_s,),
    )


def _two_looks(rng: random.Random, clip: Clip) -> Question | None:
    """Three branches lead to three colours, which are all options: without the first look the answer is a guess."""
    times_s = rng.sample(clip.safe_times_s(), 4)
    first_s, targets_s = times_s[0], times_s[1:]
    seen = [clip.colour_at(time_s) for time_s in targets_s]
    if len(set(seen)) < len(seen):
        return None
    first = clip.colour_at(first_s)
    keys = [first, *rng.sample([colour for colour in COLOURS if colour != first], 2)]
    rng.shuffle(keys)
    branches = tuple(zip(keys, targets_s, strict=True))
    second_s = dict(branches)[first]
    right = clip.colour_at(second_s)
    options = _options(rng, right, [colour for colour in seen if colour != right], certain=2)
    listed = "".join(branch_line(i, *branch) for i, branch in enumerate(branches))
    text = (
        f"Time to look at, by the colour of the screen at {clock(first_s)}:{listed}\n"
        "What colour is the screen at that time?"
    )
    return Question(
        "two-looks",
        _with_options(text, options),
        options,
        LETTERS[options.index(right)],
        (first_s, second_s),
        branches,
    )


def _options(rng: random.Random, right: str, likely: list[str], *, certain: int = 0) -> tuple[str, ...]:
    """Four options in random order: the right one, some colours of the same clip, other colours."""
    likely = list(dict.fromkeys(likely))
    rng.shuffle(likely)
    likely = likely[: max(certain, rng.randint(1, 3))]
    others = [colour for colour in COLOURS if colour != right and colour not in likely]
    rng.shuffle(others)
    options = [right, *(likely + others)[:3]]
    rng.shuffle(options)
    return tuple(options)


def _with_options(text: str, options: tuple[str, ...]) -> str:
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True)]
    return "\n".join([text, *lines])
