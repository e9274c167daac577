"""Visual-token arithmetic: what a call costs, and how it is cut to the budget. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

# Qwen2.5-VL: one token covers 2 x 2 patches of 14 x 14 pixels. Frames are cut to whole tokens.
PIXELS_PER_TOKEN_SIDE = 28


@dataclass(frozen=True)
class Budgeted:
    """A call after the budget: number of frames, resize ratio, and the visual tokens that they cost."""

    nframes: int | float
    resize: float
    tokens: int


def visual_tokens(
    nframes: int | float, resize: float, *, width: int, height: int, side: int = PIXELS_PER_TOKEN_SIDE
) -> int:
    """Tokens of `nframes` frames of a width x height video at ratio `resize` (rounding half to even). A token covers
    `side` x `side` pixels.

    Raises OverflowError or ValueError for numbers without a finite product.
    """
    rows = max(1, round(height * resize / side))
    columns = max(1, round(width * resize / side))
    return int(nframes) * rows * columns


def fit_frame(max_tokens: int, *, width: int, height: int, side: int) -> float:
    """The ratio, at most 1, at which a frame of a width x height video costs at most `max_tokens`, in steps of 1 %."""
    resize = min(1.0, 1.5 * math.sqrt(max_tokens * side**2 / (width * height)))
    while visual_tokens(1, resize, width=width, height=height, side=side) > max_tokens:
        resize *= 0.99
    return resize


def fit_budget(
    nframes: int | float,
    resize: float,
    *,
    width: int,
    height: int,
    max_visual_tokens: float,
    maxp: int,
    side: int = PIXELS_PER_TOKEN_SIDE,
) -> Budgeted:
    """Cut a call that is over `max_visual_tokens`: first to `maxp` lines, then frames and ratio together.

    The second step is taken once. The result can therefore stay a little over the budget, as in the reference. A call
    within the budget is returned unchanged; `nframes` may then still be 4.0. Raises as `visual_tokens`.
    """
    cost = partial(visual_tokens, width=width, height=height, side=side)
    tokens = cost(nframes, resize)
    if tokens > max_visual_tokens:
        resize = min(resize, 1, maxp / min(width, height))
        tokens = cost(nframes, resize)
    if tokens > max_visual_tokens:
        shrink = (max_visual_tokens / tokens) ** (1 / 3)
        nframes, resize = max(1, int(nframes * shrink)), resize * shrink
        tokens = cost(nframes, resize)
    return Budgeted(nframes, resize, tokens)
