"""What the demo's videos show: plain coloured scenes, one after the other, as numbers and as pixels."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (215, 25, 25),
    "green": (25, 170, 40),
    "blue": (30, 40, 215),
    "yellow": (235, 225, 30),
    "white": (245, 245, 245),
    "black": (12, 12, 12),
    "orange": (245, 140, 15),
    "purple": (140, 30, 165),
    "cyan": (30, 215, 225),
    "grey": (128, 128, 128),
}
SIZES = ((640, 360), (480, 360), (360, 640), (854, 480), (960, 540), (1280, 720))
MIN_DURATION_S, MAX_DURATION_S = 30, 300
MIN_SCENE_S = 6
# The time in a question is at least this far from a cut: timestamps are rounded, and a frame lasts a while.
MARGIN_S = 2


@dataclass(frozen=True)
class Clip:
    """One video's plan. Scene i shows `colours[i]` from `starts_s[i]` until the next start, or the end."""

    width: int
    height: int
    duration_s: int
    starts_s: tuple[int, ...]
    colours: tuple[str, ...]

    def colour_at(self, time_s: float) -> str:
        """The colour on the screen at `time_s`, 0 <= time_s < duration_s."""
        scene = max(i for i, start_s in enumerate(self.starts_s) if start_s <= time_s)
        return self.colours[scene]

    def safe_times_s(self) -> list[int]:
        """The whole seconds t for which [t, t + 1] is at least MARGIN_S away from every cut and end."""
        ends_s = (*self.starts_s[1:], self.duration_s)
        return [
            time_s
            for start_s, end_s in zip(self.starts_s, ends_s, strict=True)
            for time_s in range(start_s + MARGIN_S, end_s - MARGIN_S)
        ]


def plan_clip(rng: random.Random) -> Clip:
    """Draw a clip of 4 to 12 scenes; neighbours have different colours."""
    width, height = rng.choice(SIZES)
    duration_s = rng.randint(MIN_DURATION_S, MAX_DURATION_S)
    count = rng.randint(4, min(12, duration_s // MIN_SCENE_S))
    spare_s = duration_s - MIN_SCENE_S * count
    slack_s = sorted(rng.randint(0, spare_s) for _ in range(count - 1))
    starts_s = (0, *(slack + MIN_SCENE_S * (i + 1) for i, slack in enumerate(slack_s)))
    return Clip(width, height, duration_s, starts_s, _draw_colours(rng, count))


def _draw_colours(rng: random.Random, count: int) -> tuple[str, ...]:
    colours = rng.sample(list(COLOURS), min(count, len(COLOURS)))
    while len(colours) < count:
        colours.append(rng.choice([colour for colour in COLOURS if colour != colours[-1]]))
    return tuple(colours)


def paint(colour: str, *, width: int, height: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One scene's picture, (height, width, 3) 8-bit RGB: the colour, tinted, with a slight gradient and grain."""
    base = np.array(COLOURS[colour], dtype=np.float32) + rng.uniform(-14, 14, 3).astype(np.float32)
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None] * rng.uniform(-8, 8)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None] * rng.uniform(-8, 8)
    grain = rng.uniform(0, 6) * rng.standard_normal((height, width, 1), dtype=np.float32)
    picture: NDArray[np.uint8] = np.clip(base + down + across + grain, 0, 255).astype(np.uint8)
    return picture
