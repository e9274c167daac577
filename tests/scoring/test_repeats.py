"""Results of one setting: how much the figures move, against closed forms and simulations with a known truth."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results import Row, outcomes, result, row, rows
from scipy.stats import binom

from eva.scoring.compare import DifferentQuestionsError
from eva.scoring.figures import repeats_lines, repeats_notes
from eva.scoring.interval import share_interval
from eva.scoring.repeats import NotRepeatsError, majority_right, measure_repeats, pass_at_k, predict, spread
from eva.scoring.result_file import ResultFile


def results(folder: Path, *answers: str, **settings: Any) -> list[ResultFile]:
    """One letter a sample; each run has a seed of its own."""
    all_settings = [{"dataset": "own", **settings, "seed": k} for k in range(len(answers))]
    return [
        result(folder / f"{k}.jsonl", rows(text), own)
        for k, (text, own) in enumerate(zip(answers, all_settings, strict=True))
    ]


def one(folder: Path, name: str, answers: Sequence[str], settings: Row | None, **more: Any) -> ResultFile:
    own = None if settings is None else {"dataset": "own", **settings}
    return result(folder / f"{name}.jsonl", rows(answers, **more), own)


def said(found: list[ResultFile]) -> str:
    return "\n".join([*repeats_lines(measure_repeats(found)), *repeats_notes(found)])


# --- pass@k and the vote


@pytest.mark.parametrize("runs", [1, 2, 5, 9])
def test_pass_at_k_is_the_share_of_choices_of_k_runs_with_a_right_one(runs: int) -> None:
    for right in range(runs + 1):
        for k in range(1, runs + 1):
            choices = list(combinations([n < right for n in range(runs)], k))
            assert pass_at_k(runs, right, k) == pytest.approx(sum(map(any, choices)) / len(choices))


@pytest.mark.parametrize("p", [0.0, 0.07, 0.5, 0.93, 1.0])
def test_pass_at_k_is_unbiased_for_every_chance_of_a_right_run(p: float) -> None:
    for runs, k in ((3, 2), (8, 4), (20, 16)):
        expected = sum(binom.pmf(right, runs, p) * pass_at_k(runs, right, k) for right in range(runs + 1))
        assert expected == pytest.approx(1 - (1 - p) ** k)


@pytest.mark.parametrize(
    ("answers", "owed"),
    [("BBC", 1), ("BCC", 0), (" b|B|C", 1), ("B| |", 1), (" ||", 0), ("BC", 1 / 2), ("BCD", 1 / 3), ("CCDDB", 0)],
)
def test_a_vote_is_won_by_the_most_frequent_answer_and_a_tie_by_chance(answers: str, owed: float) -> None:
    row_ = answers.split("|") if "|" in answers else answers
    assert majority_right(outcomes(row(0, answer) for answer in row_)) == pytest.approx(owed)


# --- the spread of runs


def test_the_figures_of_three_runs_are_those_of_their_questions(tmp_path: Path) -> None:
    measured = measure_repeats(results(tmp_path, "BBBC", "BBCC", "BCBC"))
    assert measured.accuracy.runs == (0.75, 0.5, 0.5)
    assert (measured.accuracy.mean, measured.accuracy.standard_deviation) == pytest.approx((7 / 12, math.sqrt(1 / 48)))
    assert measured.accuracy.range == (0.5, 0.75)
    assert (measured.always_right, measured.sometimes_right, measured.never_right) == ((0,), (1, 2), (3,))
    assert measured.majority_vote == 0.75
    assert measured.pass_at == pytest.approx({1: 7 / 12, 2: 3 / 4, 3: 3 / 4})


def test_rounds_and_tokens_have_a_spread_of_their_own_where_all_runs_tell_them(tmp_path: Path) -> None:
    counts = [(2, 20), (4, None), (6, 60)]
    found = [
        one(tmp_path, str(n), "BC", {}, num_rounds=rounds, total_tokens=tokens)
        for n, (rounds, tokens) in enumerate(counts)
    ]
    measured = measure_repeats(found)
    assert measured.average_rounds is not None
    assert (measured.average_rounds.mean, measured.average_rounds.standard_deviation) == (4, 2)
    assert measured.average_total_tokens is None
    assert "Total tokens: not known of all runs" in said(found)
    assert json.loads(json.dumps(asdict(measured)))["average_rounds"]["runs"] == [2, 4, 6]


def test_one_more_run_falls_into_the_interval_as_often_as_it_says() -> None:
    """1,500 questions, of which each is right with a chance of its own; 3 runs, and then the one that is predicted."""
    dice = np.random.default_rng(5)
    chances = dice.beta(0.6, 0.4, 1500)
    covered = 0
    for _ in range(1200):
        *runs, new = (dice.random((4, 1500)) < chances).mean(axis=1)
        covered += float(new) in predict(spread(list(map(float, runs))))
    assert 0.93 <= covered / 1200 <= 0.97, "the standard error is 0.6 points"


def test_the_interval_of_the_mean_draws_whole_videos(tmp_path: Path) -> None:
    measured = measure_repeats(results(tmp_path, "BBCC" * 9, "BBCB" * 9))
    assert measured.interval_95 == share_interval([str(n // 2) for n in range(36)], [1, 1, 0, 0.5] * 9)
    assert measured.interval_95 is not None
    assert measured.interval_95.low < 0.625 - 0.1, "18 videos, of which half are right in every run"


# --- what is said


def test_the_cause_of_the_differences_is_named(tmp_path: Path) -> None:
    assert "Temperature 0: these runs differ by the noise of the server alone" in said(results(tmp_path, "B", "B"))
    assert "Temperature 0.7: these runs differ by the draws" in said(results(tmp_path, "B", "C", temperature=0.7))
    unknown = [one(tmp_path, "a", "BC", {}), one(tmp_path, "b", "BB", None)]
    assert "Not known whether these are of one setting" in said(unknown)


@pytest.mark.parametrize(("shift", "inside"), [(0, True), (3, True), (200, False)])
def test_where_the_published_figure_lies(tmp_path: Path, shift: int, inside: bool) -> None:
    """642 or 643 of 1304 questions of LSDBench are 49.31 %, as published."""
    counts = [642 + shift, 643 + shift, 645 + shift]
    found = [
        one(tmp_path, str(n), "B" * count + "C" * (1304 - count), {"dataset": "lsdbench"})
        for n, count in enumerate(counts)
    ]
    published = measure_repeats(found).published[0]
    assert published.accuracy == pytest.approx(0.4931)
    assert published.difference == pytest.approx(sum(counts) / 3 / 1304 - 0.4931)
    assert (published.inside_range, published.inside_prediction) == (shift == 0, inside)
    assert f"{'inside' if inside else 'outside'} the 95 % interval of one more run" in said(found)


def test_beside_a_part_of_a_dataset_no_published_figure_is_said_to_lie_anywhere(tmp_path: Path) -> None:
    found = [one(tmp_path, str(n), "BC" * 5, {"dataset": "lsdbench"}) for n in range(2)]
    assert measure_repeats(found).published == ()
    assert "covers only 10 of the 1304 published questions" in said(found)


def test_two_checkpoints_are_no_repeats_also_beside_a_run_of_unknown_weights(tmp_path: Path) -> None:
    weights: list[Row] = [{}, {"weights": "/step200"}, {"weights": "/copy"}]
    found = [one(tmp_path, str(n), "BB", settings) for n, settings in enumerate(weights)]
    assert f"The weights of {found[0].path} are unknown" in said(found[:2])
    with pytest.raises(NotRepeatsError, match=r"weights is '/step200' in .*1\.jsonl, '/copy' in .*2\.jsonl"):
        measure_repeats(found)


def test_another_setting_and_other_questions_are_no_repeat(tmp_path: Path) -> None:
    found = [*results(tmp_path, "BB", "BC", max_turns=6), one(tmp_path, "b", "BB", {"max_turns": 8})]
    with pytest.raises(NotRepeatsError, match=r"max_turns is 6 in .*0\.jsonl, 8 in .*b\.jsonl"):
        measure_repeats(found)
    with pytest.raises(DifferentQuestionsError, match="index 0"):
        measure_repeats([one(tmp_path, "a", "BB", {}), one(tmp_path, "c", "BB", {}, gt="C")])


def test_only_the_questions_of_all_runs_count_and_the_others_are_counted(tmp_path: Path) -> None:
    measured = measure_repeats(results(tmp_path, "BBBC", "CB", "BBC"))
    assert (measured.common, measured.left_out) == (2, 2)
    assert (measured.always_right, measured.sometimes_right) == ((1,), (0,))


def test_a_failure_of_the_infrastructure_counts_as_wrong_and_is_said(tmp_path: Path) -> None:
    found = [*results(tmp_path, "BB", "BB"), one(tmp_path, "c", "  ", {"seed": 9}, stop_reason="exception")]
    assert "Ended by a failure of the infrastructure, and wrong until they run again: 2" in said(found)
