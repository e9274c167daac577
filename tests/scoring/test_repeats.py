"""Results of one setting: how much the figures move, against closed forms and simulations with a known truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import write_rows
from scipy.stats import binom

from eva.records.meta import Meta, write_meta
from eva.records.schema import read_record
from eva.scoring.compare import DifferentQuestionsError
from eva.scoring.compare_files import ComparedResult, read_compared
from eva.scoring.published import load_published
from eva.scoring.repeats import NotRepeatsError, Spread, majority_right, measure_repeats, pass_at_k
from eva.scoring.repeats_summary import repeats_json, repeats_lines

PUBLISHED = load_published()


def record(index: int, answer: str, **more: Any) -> dict[str, Any]:
    basic = {"gt": "B", "stop_reason": "answer_found", "num_rounds": 2, "total_tokens": 100}
    return {"index": index, "videos": [f"{index // 2}.mp4"], "answer": answer, **basic, **more}


def result(path: Path, answers: str | Sequence[str], settings: dict[str, Any] | None, **more: Any) -> ComparedResult:
    """A file with one answer per question."""
    write_rows(path, [record(index, answer, **more) for index, answer in enumerate(answers)])
    if settings is not None:
        write_meta(path, Meta({"dataset": "own", **settings}, {}, ()))
    return read_compared(path, PUBLISHED)


def results(folder: Path, *answers: str, **settings: Any) -> list[ComparedResult]:
    return [result(folder / f"result.{k}.jsonl", text, {**settings, "seed": k}) for k, text in enumerate(answers)]


def lines_of(found: list[ComparedResult]) -> str:
    return "\n".join(repeats_lines(measure_repeats(found), found))


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
    row = answers.split("|") if "|" in answers else answers
    assert majority_right([read_record(record(0, answer)).outcome for answer in row]) == pytest.approx(owed)


# --- the spread of runs


def test_the_figures_of_three_runs_are_those_of_their_questions(tmp_path: Path) -> None:
    measured = measure_repeats(results(tmp_path, "BBBC", "BBCC", "BCBC"))
    assert measured.accuracy.values == (0.75, 0.5, 0.5)
    assert (measured.accuracy.mean, measured.accuracy.deviation) == pytest.approx((7 / 12, math.sqrt(1 / 48)))
    assert (measured.accuracy.range.low, measured.accuracy.range.high) == (0.5, 0.75)
    assert (measured.always, measured.sometimes, measured.never) == ((0,), (1, 2), (3,))
    assert measured.majority == 0.75
    assert measured.pass_at == pytest.approx({1: 7 / 12, 2: 3 / 4, 3: 3 / 4})


def test_rounds_and_tokens_have_a_spread_of_their_own(tmp_path: Path) -> None:
    found = [result(tmp_path / f"{n}.jsonl", "BC", {}, num_rounds=n, total_tokens=10 * n) for n in (2, 4, 6)]
    measured = measure_repeats(found)
    assert measured.rounds is not None
    assert (measured.rounds.mean, measured.rounds.deviation) == (4, 2)
    assert measured.tokens is not None
    assert (measured.tokens.mean, measured.tokens.deviation) == (40, 20)


def test_tokens_that_one_run_does_not_tell_have_no_spread(tmp_path: Path) -> None:
    found = [result(tmp_path / f"{n}.jsonl", "BC", {}, total_tokens=n) for n in (2, None)]
    measured = measure_repeats(found)
    assert measured.tokens is None
    assert "Total tokens: not known of all runs" in repeats_lines(measured, found)
    assert repeats_json(measured, found)["average_total_tokens"] is None


def test_one_more_run_falls_into_the_interval_as_often_as_it_says() -> None:
    """1,500 questions, of which each is right with a chance of its own; 3 runs, and then the one that is predicted."""
    dice = np.random.default_rng(5)
    chances = dice.beta(0.6, 0.4, 1500)
    covered = 0
    for _ in range(1200):
        *runs, new = (dice.random((4, 1500)) < chances).mean(axis=1)
        covered += float(new) in Spread(tuple(map(float, runs))).predict()
    assert 0.93 <= covered / 1200 <= 0.97, "the standard error is 0.6 points"


def test_the_interval_of_the_mean_draws_whole_videos(tmp_path: Path) -> None:
    measured = measure_repeats(results(tmp_path, "BBCC" * 9, "BBCB" * 9))
    assert measured.interval is not None
    assert measured.interval.low < measured.accuracy.mean < measured.interval.high
    assert measured.interval.low < 0.625 - 0.1, "18 videos, of which half are right in every run"


# --- what is said


def test_at_temperature_0_the_difference_is_said_to_be_the_noise_of_the_server(tmp_path: Path) -> None:
    assert "Temperature 0: these runs differ by the noise of the server alone" in lines_of(results(tmp_path, "B", "B"))


def test_above_0_the_draws_are_named_and_a_seed_that_comes_twice(tmp_path: Path) -> None:
    found = results(tmp_path, "B", "C", temperature=0.7)
    assert "Temperature 0.7: these runs differ by the draws" in lines_of(found)
    assert "same seed" not in lines_of(found)
    twice = [result(tmp_path / f"{n}.jsonl", "B", {"temperature": 0.7, "seed": 4}) for n in range(2)]
    assert "Two of these runs have the same seed" in lines_of(twice)


def test_without_a_meta_file_nobody_knows_whether_it_is_one_setting(tmp_path: Path) -> None:
    found = [result(tmp_path / "a.jsonl", "BC", {}), result(tmp_path / "b.jsonl", "BB", None)]
    assert "Not known whether these are of one setting" in lines_of(found)


@pytest.mark.parametrize(("shift", "lies"), [(0, "inside"), (3, "inside"), (200, "outside")])
def test_where_the_published_figure_lies(tmp_path: Path, shift: int, lies: str) -> None:
    """642 or 643 of 1304 questions of LSDBench are 49.31 %, as published."""
    counts = [642 + shift, 643 + shift, 645 + shift]
    found = [
        result(tmp_path / f"{n}.jsonl", "B" * count + "C" * (1304 - count), {"dataset": "lsdbench"})
        for n, count in enumerate(counts)
    ]
    measured = measure_repeats(found)
    published = repeats_json(measured, found)["published"][0]
    assert published["accuracy"] == pytest.approx(0.4931)
    assert published["difference"] == pytest.approx(sum(counts) / 3 / 1304 - 0.4931)
    assert published["inside_range"] is (shift == 0)
    assert published["inside_prediction"] is (lies == "inside")
    assert f"{lies} the 95 % interval of one more run" in lines_of(found)
    assert "covers only" not in lines_of(found)
    part = [result(tmp_path / f"{n}.jsonl", "BC", {"dataset": "lsdbench"}) for n in range(2)]
    for one in part:
        write_meta(one.origin.path, Meta({"dataset": "lsdbench"}, {}, (), coverage={"items": 1304, "chosen": [[0, 1]]}))
    assert "covers only 2 of 1304 questions" in lines_of([read_compared(one.origin.path, PUBLISHED) for one in part])


def test_two_checkpoints_are_no_repeats_also_beside_a_run_of_unknown_weights(tmp_path: Path) -> None:
    weights: list[dict[str, Any]] = [
        {},
        {"weights": "/step200"},
        {"weights": ["/step200", "/copy"]},
        {"weights": "/copy"},
    ]
    found = [result(tmp_path / f"{n}.jsonl", "BB", settings) for n, settings in enumerate(weights)]
    assert "The weights of 1 of these runs are unknown" in lines_of(found[:3])
    with pytest.raises(NotRepeatsError, match=r"weights is '/step200' in .*1\.jsonl, '/copy' in .*3\.jsonl"):
        measure_repeats([found[0], found[1], found[3]])


def test_another_setting_is_no_repeat_and_is_named(tmp_path: Path) -> None:
    found = [*results(tmp_path, "BB", "BC", max_turns=6), result(tmp_path / "b.jsonl", "BB", {"max_turns": 8})]
    with pytest.raises(NotRepeatsError, match=r"max_turns is 6 in .*0\.jsonl, 8 in .*b\.jsonl"):
        measure_repeats(found)


def test_other_questions_are_no_repeat(tmp_path: Path) -> None:
    with pytest.raises(DifferentQuestionsError, match="index 0"):
        measure_repeats([result(tmp_path / "a.jsonl", "BB", {}), result(tmp_path / "b.jsonl", "BB", {}, gt="C")])


def test_only_the_questions_of_all_runs_count_and_the_others_are_counted(tmp_path: Path) -> None:
    measured = measure_repeats(results(tmp_path, "BBBC", "CB", "BBC"))
    assert (measured.questions, measured.left_out) == (2, 2)
    assert (measured.always, measured.sometimes) == ((1,), (0,))


def test_a_failure_of_the_infrastructure_counts_as_wrong_and_is_said(tmp_path: Path) -> None:
    found = [*results(tmp_path, "BB", "BB"), result(tmp_path / "c.jsonl", "  ", {"seed": 9}, stop_reason="exception")]
    assert "2 samples ended by a failure of the infrastructure, and count as wrong" in lines_of(found)
