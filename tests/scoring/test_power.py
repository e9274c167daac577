"""Intervals and the smallest difference that can be found: simulations with a known truth, and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import stdev
from typing import Any

import numpy as np
import pytest

from eva.records.schema import read_record
from eva.scoring.compare import Answered, Comparison, compare
from eva.scoring.compare_summary import comparison_json, comparison_lines
from eva.scoring.interval import clustered_interval, smallest_difference, standard_error
from eva.scoring.score import Score
from eva.scoring.summary import file_lines

VIDEOS, QUESTIONS = 120, 5
NAMES = [f"{n // QUESTIONS}.mp4" for n in range(VIDEOS * QUESTIONS)]
TRIES = 300


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
    intervals = [clustered_interval(NAMES, draw_pairs(dice, shift), n_resamples=999) for _ in range(TRIES)]
    return sum(interval is not None and 0 not in interval for interval in intervals) / TRIES


def test_a_true_difference_of_the_smallest_size_is_found_in_80_of_100_comparisons() -> None:
    dice = np.random.default_rng(1)
    told = [smallest_difference(NAMES, draw_pairs(dice, 0.0)) or 0 for _ in range(40)]
    # The standard error of a share of 300 is 0.023.
    assert 0.74 <= share_found(sum(told) / len(told), seed=2) <= 0.87
    assert share_found(0.0, seed=3) <= 0.10, "where there is none, it is found in about 5 of 100"


def test_without_the_videos_the_figure_would_promise_too_much() -> None:
    dice = np.random.default_rng(1)
    each = [str(n) for n in range(len(NAMES))]
    naive = [smallest_difference(each, draw_pairs(dice, 0.0)) or 0 for _ in range(40)]
    assert share_found(sum(naive) / len(naive), seed=2) < 0.74


@pytest.mark.parametrize("questions", [1, 4])
def test_the_interval_covers_the_truth_in_95_of_100_results(questions: int) -> None:
    dice = np.random.default_rng(questions)
    names = [str(n // questions) for n in range(80 * questions)]
    covered = 0
    for _ in range(TRIES):
        chances = np.repeat(dice.beta(1.2, 0.8, 80), questions)  # 0.6 on average
        right = (dice.random(80 * questions) < chances).astype(float).tolist()
        interval = clustered_interval(names, right, n_resamples=999)
        covered += interval is not None and 0.6 in interval
    assert 0.91 <= covered / TRIES <= 0.98


def test_with_one_question_per_video_the_error_is_that_of_a_mean() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    assert standard_error("abcdefg", values) == pytest.approx(stdev(values) / math.sqrt(7))
    # Two-sided 5 % and 80 % of Student's t with 6 degrees of freedom, from a printed table.
    assert smallest_difference("abcdefg", values) == pytest.approx(
        stdev(values) / math.sqrt(7) * (2.4469 + 0.9057), rel=1e-4
    )


def test_the_error_is_that_of_a_bootstrap_of_whole_videos() -> None:
    dice = np.random.default_rng(4)
    values = draw_pairs(dice, 0.1)
    means = [values.reshape(-1, QUESTIONS)[dice.integers(0, VIDEOS, VIDEOS)].mean() for _ in range(4000)]
    assert standard_error(NAMES, values) == pytest.approx(np.std(means), rel=0.05)


@pytest.mark.parametrize(("videos", "values"), [("aaaa", [0, 1, 1, 0]), ("abcd", [1, 1, 1, 1]), ("", [])])
def test_one_video_and_values_that_do_not_vary_tell_nothing(videos: str, values: list[float]) -> None:
    assert smallest_difference(videos, values) is None


# --- what is said


def answered(index: int, right: bool, videos: int) -> Answered:
    value = {"gt": "B", "answer": "B" if right else "C", "stop_reason": "answer_found", "num_rounds": 2}
    return Answered(read_record({"index": index, "total_tokens": 9, "videos": [f"{index % videos}"], **value}).outcome)


def compared(b: Callable[[int], bool], *, partial: bool = False) -> Comparison:
    sides = ({n: answered(n, right(n), 50) for n in range(100)} for right in (lambda n: n % 2 == 0, b))
    return compare(*sides, partial=partial)


def test_a_comparison_says_what_it_could_have_shown() -> None:
    found = compared(lambda n: n % 3 == 0)
    smallest = found.flips.smallest_difference
    assert smallest is not None
    assert comparison_json(found, agents=("eva", "eva"), same_settings=False)["smallest_difference"] == smallest
    assert any(line.endswith(f"clustered by video): {100 * smallest:.2f} points") for line in power_lines(found))


def test_two_results_without_a_flip_and_an_unfinished_one_promise_nothing() -> None:
    (line,) = power_lines(compared(lambda n: n % 2 == 0))
    assert "not known" in line
    assert power_lines(compared(lambda n: n % 3 == 0, partial=True)) == []


def power_lines(found: Comparison) -> list[str]:
    lines = comparison_lines(found, agents=("eva", "eva"), same_settings=False)
    return [line for line in lines if line.startswith("Smallest difference")]


@pytest.mark.parametrize("count", [100, 20_000])
def test_a_run_says_how_far_it_is_from_one_point(count: int) -> None:
    score = Score([answered(n, n // 7 % 2 == 0, count).outcome for n in range(count)], 0)
    (line,) = [line for line in file_lines(score) if line.startswith("Smallest difference from a fixed figure")]
    smallest = score.smallest_difference
    assert smallest == pytest.approx(2.80 * 0.5 / math.sqrt(count), rel=0.03)
    assert smallest is not None
    more = f"; one point needs {(100 * smallest) ** 2:.1f} times as many videos" if count == 100 else ""
    assert line.endswith(f": {100 * smallest:.2f} points{more}")
