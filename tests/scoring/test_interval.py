"""Intervals and the smallest difference that can be found: closed forms, and simulations with a known truth."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import stdev
from typing import Any

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from eva.scoring.interval import (
    MIN_VIDEOS,
    Interval,
    mean_interval,
    share_interval,
    smallest_difference,
    standard_error,
)

VIDEOS, QUESTIONS = 120, 5
NAMES = [f"{n // QUESTIONS}.mp4" for n in range(VIDEOS * QUESTIONS)]
TRIES = 300


def names(videos: int, questions: int = 1) -> list[str]:
    return [str(n // questions) for n in range(videos * questions)]


# --- closed forms


@pytest.mark.parametrize("videos", [0, 1, MIN_VIDEOS - 1])
def test_few_videos_have_neither_an_interval_nor_a_smallest_difference(videos: int) -> None:
    values = [n % 2 for n in range(3 * videos)]
    for figure in (mean_interval, share_interval, smallest_difference):
        assert figure(names(videos, 3), values) is None


def test_the_ends_of_an_interval_belong_to_it() -> None:
    interval = Interval(0.25, 0.5)
    assert [value in interval for value in (0.2499, 0.25, 0.3, 0.5, 0.5001)] == [False, True, True, True, False]


def test_with_one_question_per_video_the_interval_of_a_mean_is_that_of_students_t_test() -> None:
    values = list(np.random.default_rng(1).normal(5, 3, 40))
    owed = ttest_1samp(values, 0).confidence_interval()
    assert mean_interval(names(40), values) == pytest.approx((owed.low, owed.high))
    assert standard_error(names(40), values) == pytest.approx(stdev(values) / math.sqrt(40))


def test_the_smallest_difference_follows_from_the_error_and_a_printed_table() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    # Two-sided 5 % and 80 % of Student's t with 9 degrees of freedom.
    owed = stdev(values) / math.sqrt(10) * (2.2622 + 0.8834)
    assert smallest_difference(names(10), values) == pytest.approx(owed, rel=1e-4)
    assert smallest_difference(names(10), [1.0] * 10) is None, "values that do not vary tell nothing"


@pytest.mark.parametrize("right", [9, 31, 39])
def test_the_ends_of_the_interval_of_a_share_are_the_shares_that_a_test_would_just_not_reject(right: int) -> None:
    values = [n < right for n in range(40)]
    interval, share = share_interval(names(40), values), right / 40
    assert interval is not None
    for end in interval:
        # The error of independent questions with this share, n - 1 as in the estimate of a variance.
        assert abs(share - end) == pytest.approx(t.ppf(0.975, 39) * math.sqrt(end * (1 - end) / 39))


def test_where_all_are_alike_there_are_as_many_questions_as_videos() -> None:
    right, wrong = (share_interval(names(20, 3), [value] * 60) for value in (True, 0.0))
    low = 20 / (20 + t.ppf(0.975, 19) ** 2)
    assert right is not None and wrong is not None
    assert (right.low, right.high, wrong.low, wrong.high) == pytest.approx((low, 1, 0, 1 - low))


def test_the_order_of_the_records_does_not_change_one_digit() -> None:
    dice = np.random.default_rng(2)
    videos, values = [f"video {dice.integers(30)}" for _ in range(200)], [bool(dice.integers(2)) for _ in range(200)]
    for figure in (mean_interval, share_interval, smallest_difference):
        assert figure(videos[::-1], values[::-1]) == pytest.approx(figure(videos, values), rel=1e-12)


# --- the bootstrap of whole videos


def bootstrap(videos: Sequence[str], values: Sequence[float]) -> list[float]:
    """Draws as many videos as there are, with replacement, pools their questions, and does so again and again."""
    groups: dict[str, list[float]] = defaultdict(list)
    for video, value in zip(videos, values, strict=True):
        groups[video].append(value)
    pools = [np.array(group) for group in groups.values()]
    dice = np.random.default_rng(99)
    draws = (dice.integers(0, len(pools), len(pools)) for _ in range(3000))
    return [float(np.concatenate([pools[n] for n in draw]).mean()) for draw in draws]


SIZES = {
    "five each": [5] * 100,
    "one to thirty": [1 + n * 7 % 30 for n in range(103)],
    "a large one among small ones": [30] + [3] * 80,
    "one each": [1] * 300,
}


def together(sizes: Sequence[int], *, share: float = 0.45) -> tuple[list[str], list[bool]]:
    """Videos with `sizes` questions each, all of a video's right or all wrong."""
    dice = np.random.default_rng(5)
    verdicts = [(f"video {n}", bool(dice.random() < share), size) for n, size in enumerate(sizes)]
    videos = [video for video, _, size in verdicts for _ in range(size)]
    return videos, [right for _, right, size in verdicts for _ in range(size)]


@pytest.mark.parametrize("name", SIZES)
def test_the_intervals_are_those_of_whole_videos_drawn_however_many_questions_they_have(name: str) -> None:
    videos, right = together(SIZES[name])
    means = bootstrap(videos, right)
    low, high = np.percentile(means, [2.5, 97.5])
    for interval in (mean_interval(videos, right), share_interval(videos, right)):
        assert interval == pytest.approx((low, high), abs=0.15 * (high - low))
    assert standard_error(videos, right) == pytest.approx(np.std(means), rel=0.08)


def test_the_interval_is_wider_where_the_questions_of_a_video_stand_or_fall_together() -> None:
    videos, right = together([5] * 100)
    clustered, single = share_interval(videos, right), share_interval(names(500), right)
    assert clustered is not None and single is not None
    ratio = (clustered.high - clustered.low) / (single.high - single.low)
    assert ratio == pytest.approx(5**0.5, rel=0.1), "five questions that agree are worth one"


# --- a known truth


@pytest.mark.parametrize(
    ("videos", "questions", "a", "b"),
    [(10, 4, 2.4, 0.6), (20, 3, 9.5, 0.5), (80, 1, 1.2, 0.8), (80, 4, 1.2, 0.8)],
    ids=["80 % on 10", "95 % on 20", "60 % on 80", "60 % on 80, four each"],
)
def test_the_interval_of_an_accuracy_holds_the_truth_as_often_as_it_says(
    videos: int, questions: int, a: float, b: float
) -> None:
    dice = np.random.default_rng(questions)
    held = 0
    for _ in range(TRIES):
        chances = np.repeat(dice.beta(a, b, videos), questions)
        interval = share_interval(names(videos, questions), list(dice.random(videos * questions) < chances))
        held += interval is not None and a / (a + b) in interval
    assert 0.91 <= held / TRIES <= 0.99


def draw_pairs(dice: np.random.Generator, shift: float) -> Any:
    """B minus A per question. Each video has a chance of its own and a gain of its own, `shift` on average; half of
    the questions have the same answer in both runs unless the gain changes it."""
    chance = np.repeat(dice.uniform(0.3, 0.6, VIDEOS), QUESTIONS)
    gain = np.repeat(dice.uniform(-0.25, 0.25, VIDEOS) + shift, QUESTIONS)
    luck = dice.random(len(NAMES))
    other = np.where(dice.random(len(NAMES)) < 0.5, luck, dice.random(len(NAMES)))
    return (other < chance + gain).astype(float) - (luck < chance)


def share_found(shift: float, seed: int) -> float:
    """How often the interval of a comparison leaves 0 out."""
    dice = np.random.default_rng(seed)
    intervals = [mean_interval(NAMES, draw_pairs(dice, shift)) for _ in range(TRIES)]
    return sum(interval is not None and 0 not in interval for interval in intervals) / TRIES


def test_a_true_difference_of_the_smallest_size_is_found_in_80_of_100_comparisons() -> None:
    dice = np.random.default_rng(1)
    each = names(len(NAMES))
    pairs = [draw_pairs(dice, 0.0) for _ in range(40)]
    told, naive = (sum(smallest_difference(videos, one) or 0 for one in pairs) / 40 for videos in (NAMES, each))
    # The standard error of a share of 300 is 0.023.
    assert 0.74 <= share_found(told, seed=2) <= 0.87
    assert share_found(naive, seed=2) < 0.74, "without the videos the figure would promise too much"
    assert share_found(0.0, seed=3) <= 0.10, "where there is none, it is found in about 5 of 100"
