"""Visual-token arithmetic: what a call costs, and how it is cut to the budget. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# Qwen2.5-VL: one token covers 2 x 2 patches of 14 x 14 pixels. Frames are cut to whole tokens.
PIXELS_PER_TOKEN_SIDE = 28


@dataclass(frozen=True)
class Budgeted:
    """A call after the budget: number of frames, resize ratio, and the visual tokens that they cost."""

    nframes: int | float
    resize: float
    tokens: int


def visual_tokens(nframes: int | float, resize: float, *, width: int, height: int) -> int:
    """Tokens of `nframes` frames of a width x height video at ratio `resize` (rounding half to even).

    Raises OverflowError or ValueError for numbers without a finite product.
    """
    rows = max(1, round(height * resize / PIXELS_PER_TOKEN_SIDE))
    columns = max(1, round(width * resize / PIXELS_PER_TOKEN_SIDE))
    return int(nframes) * rows * columns


def fit_budget(
    nframes: int | float,
    resize: float,
    *,
    width: int,
    height: int,
    max_visual_tokens: float,
    maxp: int,
) -> Budgeted:
    """Cut a call that is over `max_visual_tokens`: first to `maxp` lines, then frames and ratio together.

    The second step is taken once. The result can therefore stay a little over the budget, as in the reference. A call
    within the budget is returned unchanged; `nframes` may then still be 4.0. Raises as `visual_tokens`.
    """
    tokens = visual_tokens(nframes, resize, width=width, height=height)
    if tokens > max_visual_tokens:
        resize = min(resize, 1, maxp / min(width, height))
        tokens = visual_tokens(nframes, resize, width=width, height=height)
    if tokens > max_visual_tokens:
        shrink = (max_visual_tokens / tokens) ** (1 / 3)
        nframes, resize = max(1, int(nframes * shrink)), resize * shrink
        tokens = visual_tokens(nframes, resize, width=width, height=height)
    return Budgeted(nframes, resize, tokens)
