"""Window, sample times, frame indices and sizes against the protocol's sentences, restated in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from eva.protocol.arguments import FrameRequest
from eva.video.sampling import (
    SelectionError,
    Timeline,
    Window,
    clamp_window,
    make_plan,
    output_size,
    sample_times,
)

times = st.floats(-1e5, 1e5)
lengths = st.floats(1e-3, 1e5)
TIMELINE = Timeline(64, 48, 25.0, [k / 25 for k in range(1000)])
rates = st.sampled_from([1.0, 10.0, 18.515037593984964, 23.976, 25.0, 29.97, 60000 / 1001, 120.0])


@pytest.mark.parametrize(
    ("asked", "clamped"),
    [
        *((window, (0, 42)) for window in ((20, 10), (10, 10), (50, 60), (-9, -1), (-9, 0))),  # nothing is left
        ((3, 4), (3, 4)), ((-5, 10), (0, 10)), ((30, 500), (30, 42)), ((-5, 500), (0, 42)),
        ((0, math.inf), (0, 42)), ((-math.inf, 3), (0, 3)), ((math.inf, 3), (0, 42)), ((5, -math.inf), (0, 42)),
    ],
)  # fmt: skip
def test_a_window_is_cut_at_the_bounds_of_the_stream_or_is_the_whole_stream(
    asked: tuple[float, float], clamped: tuple[float, float]
) -> None:
    assert clamp_window(Window(*asked), begin_s=0, end_s=42) == Window(*clamped)


@pytest.mark.parametrize("window", [Window(5, 5), Window(5, 4), Window(math.inf, 4), Window(0, -math.inf)])
def test_unclamped_a_window_that_does_not_go_forward_is_an_error(window: Window) -> None:
    with pytest.raises(SelectionError):
        make_plan(TIMELINE, FrameRequest(window.start_s, window.end_s, 2, 1.0), factor=28, clamp=False)


@pytest.mark.parametrize("start", [3, 50])
def test_an_end_that_is_nan_takes_every_frame_at_the_start(start: float) -> None:
    """As in the reference, whose arithmetic makes this of it."""
    window = clamp_window(Window(start, math.nan), begin_s=0, end_s=42)
    assert sample_times(window, 3) == [start] * 3


@pytest.mark.parametrize("window", [(math.nan, 4), (0, math.inf), (-math.inf, 4), (0, 1e308)])
@pytest.mark.parametrize("nframes", [1, 3])
@pytest.mark.parametrize("shown_to_s", [None, 4.0])
def test_no_frame_is_shown_at_a_time_that_is_not_finite(
    window: tuple[float, float], nframes: int, shown_to_s: float | None
) -> None:
    timeline = Timeline(64, 48, 25.0, [0.0, 1.0, 2.0], shown_to_s=shown_to_s)
    with pytest.raises(SelectionError):
        timeline.indices_at(sample_times(Window(*window), nframes))


@given(start=st.floats(0, 1e4), length=lengths, nframes=st.integers(2, 500))
def test_times_are_evenly_spaced_from_the_start_to_a_margin_before_the_end(
    start: float, length: float, nframes: int
) -> None:
    window = Window(start, start + length)
    first, end = Fraction(window.start_s), Fraction(window.end_s)
    assume(end > first)
    last = end - min(Fraction("0.001"), (end - first) / (4 * nframes))
    owed = [first + (last - first) * k / (nframes - 1) for k in range(nframes)]
    assert sample_times(window, nframes) == pytest.approx([float(t) for t in owed], rel=1e-12, abs=1e-9)


def test_the_margin_before_the_end_is_a_millisecond_or_a_quarter_of_the_spacing() -> None:
    assert sample_times(Window(0, 10), 2) == [0, 10 - 0.001]
    assert sample_times(Window(0, 0.004), 2) == pytest.approx([0, 0.004 - 0.0005])


@pytest.mark.parametrize("nframes", [0, -1, -1000])
def test_no_frames_or_fewer_are_an_error(nframes: int) -> None:
    with pytest.raises(SelectionError, match=str(nframes)):
        sample_times(Window(0, 1), nframes)


@given(asked=st.lists(st.floats(-100, 1e4), min_size=1), begin=st.floats(0, 10), fps=rates, count=st.integers(1, 10**3))
@example(asked=[0.02, 0.06, 0.1], begin=0.0, fps=25.0, count=100)
def test_an_index_is_the_rounded_product_with_the_average_rate_inside_the_stream(
    asked: list[float], begin: float, fps: float, count: int
) -> None:
    timeline = Timeline(64, 48, fps, [begin] * count)
    for time_s, index in zip(asked, timeline.indices_at(asked), strict=True):
        nearest = round(Fraction(time_s - timeline.begin_s) * Fraction(fps), 9)
        assert 0 <= index < count
        if 0 <= nearest <= count - 1:
            assert abs(nearest - index) <= Fraction(1, 2) + Fraction(1, 10**6)


def test_halves_are_rounded_to_even_and_times_outside_give_the_first_and_the_last_frame() -> None:
    timeline = Timeline(64, 48, 1.0, list(range(10)))
    assert timeline.indices_at([0.5, 1.5, 2.5, -3, 99, 100]) == [0, 2, 2, 0, 9, 9]


sides = st.integers(1, 4320)


@given(width=sides, height=sides, resize=st.floats(0.01, 2), factor=st.sampled_from([1, 2, 14, 28]))
def test_a_side_is_scaled_and_rounded_to_whole_factors_or_to_one_pixel(
    width: int, height: int, resize: float, factor: int
) -> None:
    assume(width * height * resize * resize < 2**25)
    size = output_size(width, height, resize=resize, factor=factor)
    for side, scaled in zip((width, height), size, strict=True):
        assert scaled == 1 or scaled % factor == 0
        assert abs(scaled - side * resize) <= max(1, factor / 2) + 1e-6


@pytest.mark.parametrize(
    ("width", "height", "resize", "factor", "size"),
    [
        (640, 360, 0.012, 28, (1, 1)),
        (640, 360, 0.03, 28, (28, 1)),  # 19.2 and 10.8 pixels
        (640, 360, 0.0001, 1, (1, 1)),
        (42, 70, 1, 28, (56, 56)),
        (14, 15, 1, 28, (1, 28)),  # half a factor is rounded to even, which is none
    ],
)
def test_half_a_factor_is_rounded_to_even_and_a_side_of_none_is_one_pixel(
    width: int, height: int, resize: float, factor: int, size: tuple[int, int]
) -> None:
    assert output_size(width, height, resize=resize, factor=factor) == size


@given(width=sides, height=sides)
def test_at_full_size_in_single_pixels_the_size_is_untouched(width: int, height: int) -> None:
    assert output_size(width, height, resize=1.0, factor=1) == (width, height)


@pytest.mark.parametrize(("resize", "factor"), [(0, 28), (-1, 28), (math.nan, 28), (math.inf, 28), (1, 0), (1, -28)])
def test_a_ratio_or_factor_that_is_not_positive_is_an_error(resize: float, factor: int) -> None:
    with pytest.raises(SelectionError):
        output_size(640, 360, resize=resize, factor=factor)


@pytest.mark.parametrize(("resize", "factor"), [(1000, 1), (100, 50_000), (1e300, 28)])
def test_a_size_that_would_fill_the_memory_is_an_error(resize: float, factor: int) -> None:
    with pytest.raises(SelectionError, match="pixels"):
        output_size(640, 360, resize=resize, factor=factor)


def test_the_bounds_are_as_decord_gives_them_in_32_bits_where_the_rate_decides() -> None:
    times = tuple(k / 25 for k in range(125))
    by_rate, by_time = Timeline(640, 360, 25.0, times), Timeline(640, 360, 25.0, times, shown_to_s=5.0)
    assert (by_rate.end_s, by_time.end_s) == (4.960000038146973 + 1 / 25, 5.0)
    assert Timeline(640, 360, 25.0, (0.1, 0.14)).begin_s == 0.10000000149011612
    # The middle, 2.5 s, is half a frame after frame 62: a little later, it is rounded up.
    middles = [timeline.indices_at(sample_times(Window(0, timeline.end_s), 1)) for timeline in (by_rate, by_time)]
    assert middles == [[63], [62]]
