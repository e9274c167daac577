"""The visual-token budget against the protocol's arithmetic, restated in restated.py and by hand."""

from __future__ import annotations

import pytest
import restated
from hypothesis import example, given
from hypothesis import strategies as st

from eva.protocol.budget import fit_budget, fit_frame, visual_tokens

sides = st.integers(16, 4320)
ratios = st.floats(0.01, 4, allow_nan=False)
counts = st.one_of(st.integers(-3, 20000), st.floats(0, 20000))


def fitted(
    nframes: float, resize: float, *, width: int, height: int, max_visual_tokens: int = 12000, maxp: int = 720
) -> tuple[float, float, int]:
    fit = fit_budget(nframes, resize, width=width, height=height, max_visual_tokens=max_visual_tokens, maxp=maxp)
    return fit.nframes, fit.resize, fit.tokens


@given(counts, ratios, sides, sides)
def test_tokens_are_frames_times_rounded_patches_of_28(nframes: float, resize: float, width: int, height: int) -> None:
    owed = restated.tokens(nframes, resize, width=width, height=height)
    assert visual_tokens(nframes, resize, width=width, height=height) == owed


@pytest.mark.parametrize(
    ("side", "patches"),
    [(14, 1), (13, 1), (42, 2), (70, 2), (98, 4), (43, 2), (71, 3)],
    ids=str,
)
def test_patches_are_rounded_half_to_even_and_never_zero(side: int, patches: int) -> None:
    assert visual_tokens(1, 1.0, width=side, height=28) == patches
    assert visual_tokens(1, 1.0, width=28, height=side) == patches


def test_a_resize_of_zero_still_costs_one_patch_a_frame() -> None:
    assert visual_tokens(4, 0, width=640, height=360) == 4


@given(st.tuples(counts, ratios), st.tuples(sides, sides), st.integers(1, 40000), st.integers(28, 2160))
@example((60, 1.0), (640, 360), 12000, 720)
@example((30, 1.0), (1280, 720), 12000, 720)
@example((4.0, 1.0), (1920, 1080), 12000, 720)
@example((10**6, 4.0), (4096, 2160), 12000, 720)
def test_a_call_over_the_budget_is_shrunk_as_the_protocol_says(
    asked: tuple[float, float], size: tuple[int, int], budget: int, maxp: int
) -> None:
    width, height = size
    owed = restated.budgeted(*asked, width=width, height=height, budget=budget, maxp=maxp)
    assert fitted(*asked, width=width, height=height, max_visual_tokens=budget, maxp=maxp) == owed


@given(counts, ratios, sides, sides)
def test_a_call_within_the_budget_is_untouched(nframes: float, resize: float, width: int, height: int) -> None:
    cost = restated.tokens(nframes, resize, width=width, height=height)
    kept = fitted(nframes, resize, width=width, height=height, max_visual_tokens=max(cost, 1))
    assert kept == (nframes, resize, cost)
    assert type(kept[0]) is type(nframes)


def test_measured_640x360_60_frames_become_52_of_560x308() -> None:
    nframes, resize, cost = fitted(60.0, 1.0, width=640, height=360)
    assert (nframes, type(nframes), cost) == (52, int, 11440)
    assert round(640 * resize / 28) * 28 == 560


def test_measured_1280x720_30_frames_become_20_of_896x504() -> None:
    nframes, resize, cost = fitted(30, 1.0, width=1280, height=720)
    assert (nframes, cost) == (20, 11520)
    assert round(1280 * resize / 28) * 28 == 896


def test_the_shorter_side_alone_can_bring_a_call_under_the_budget_and_keeps_its_frames() -> None:
    nframes, resize, cost = fitted(4.0, 1.0, width=3840, height=2160)
    assert (nframes, resize) == (4.0, 720 / 2160)
    assert isinstance(nframes, float)
    assert cost == 4 * 26 * 46


@given(st.integers(1, 5000), sides, sides, st.sampled_from([28, 32]))
@example(1, 4320, 16, 28)
def test_a_frame_is_scaled_down_to_its_tokens_and_not_much_further(
    most: int, width: int, height: int, side: int
) -> None:
    resize = fit_frame(most, width=width, height=height, side=side)
    assert 0 < resize <= 1
    assert visual_tokens(1, resize, width=width, height=height, side=side) <= most
    if resize < 1:
        larger = resize / 0.99
        assert visual_tokens(1, larger, width=width, height=height, side=side) > most


def test_a_token_may_cover_32_pixels() -> None:
    assert visual_tokens(1, 1.0, width=320, height=64, side=32) == 20
