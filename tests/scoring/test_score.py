"""eva/scoring: the figures over outcomes, their interval, what a file covers, and where it comes from. Pure."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from eva.records.meta import Meta
from eva.records.outcome import Outcome
from eva.records.schema import read_record
from eva.scoring import coverage
from eva.scoring.compare import Answered, Pair, compare, flips, question_difference
from eva.scoring.coverage import Coverage, measure, read_spans
from eva.scoring.interval import FEWER_RESAMPLES, RESAMPLES, Interval, clustered_interval, share_interval
from eva.scoring.origin import Origin, find_origin, named_dataset
from eva.scoring.published import Published
from eva.scoring.score import Score
from eva.scoring.summary import head_lines, interval_line


def outcome(index: int, answer: str = "B", **more: Any) -> Outcome:
    basic = {"gt": "B", "stop_reason": "answer_found", "num_rounds": 2, "total_tokens": 100, "videos": [f"{index}.mp4"]}
    return read_record({"index": index, "answer": answer, **basic, **more}).outcome


MIXED = [
    outcome(4, num_rounds=3, seconds=2.0),
    outcome(3, "C", total_tokens=103, seconds=4.0),
    outcome(2, " ", num_rounds=None, stop_reason="max_turns_exceeded"),
    outcome(9, "", total_tokens=None, stop_reason="exception", error="RuntimeError"),
    outcome(1, num_rounds="two", error="late"),
]


# --- the figures of a score


def test_what_is_counted_of_a_finished_run() -> None:
    score = Score(MIXED, 0)
    assert (score.total, score.recorded, score.missing, score.correct) == (5, 5, 0, 2)
    assert (score.empty, score.answered) == (2, 3)
    assert (score.partial, score.accuracy) == (False, 0.4)
    assert score.pending == 1, "the exception"
    assert score.bounds == pytest.approx((0.4, 0.6))


def test_questions_without_a_record_count_in_the_denominator_and_as_pending() -> None:
    score = Score(MIXED, 3)
    assert (score.total, score.recorded, score.missing, score.pending) == (8, 5, 3, 4)
    assert score.answered == 3, "of the recorded"
    assert (score.partial, score.accuracy, score.interval) == (True, None, None)
    assert score.bounds == pytest.approx((2 / 8, 6 / 8))


def test_where_nobody_knows_how_many_are_to_go_the_run_may_be_unfinished() -> None:
    score = Score(MIXED, None)
    assert (score.total, score.missing, score.pending) == (5, 0, 1)
    assert (score.partial, score.accuracy, score.interval) == (True, None, None)


def test_no_questions_have_the_accuracy_0_and_no_interval() -> None:
    score = Score([], 0)
    assert (score.accuracy, score.bounds, score.interval) == (0.0, (0.0, 0.0), None)
    assert (score.average_rounds, score.average_tokens, score.average_seconds) == (None, None, None)


def test_a_run_that_has_asked_nothing_yet_may_end_anywhere() -> None:
    assert Score([], 4).bounds == (0.0, 1.0)


def test_an_average_is_over_the_usable_values_alone() -> None:
    score = Score(MIXED, 7)
    assert (score.average_rounds, score.average_tokens, score.average_seconds) == (7 / 3, 403 / 4, 3.0)
    assert score.unusable == {"num_rounds": [1, 2], "total_tokens": [9]}


def test_errors_stop_reasons_and_failures_are_counted() -> None:
    score = Score(MIXED, 0)
    assert score.error_indices == [1, 9]
    assert list(score.stop_reasons.items()) == [("answer_found", 3), ("max_turns_exceeded", 1), ("exception", 1)]
    assert score.failures == {"model": 1, "sample": 0, "infrastructure": 1, "agent": 0}


ODD: dict[str, tuple[dict[str, Any], bool, int, str]] = {
    "both null": ({"gt": None, "answer": None}, True, 0, "answer_found"),
    "a null is a text": ({"gt": "none", "answer": None}, True, 0, "answer_found"),
    "a null and a missing answer": ({"gt": None, "answer": ""}, False, 1, "answer_found"),
    "both empty": ({"gt": "", "answer": " "}, False, 1, "answer_found"),
    "a number": ({"gt": 1, "answer": "1"}, True, 0, "answer_found"),
    "true": ({"gt": True, "answer": "true"}, True, 0, "answer_found"),
    "lists": ({"gt": ["A"], "answer": "['a']"}, True, 0, "answer_found"),
    "an object": ({"stop_reason": {"a": 1}}, True, 0, "{'a': 1}"),
    "a null reason": ({"stop_reason": None}, True, 0, "None"),
    "an empty reason": ({"stop_reason": ""}, True, 0, ""),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_values_are_judged_as_the_score_script_of_the_reference_judges_them(case: str) -> None:
    values, right, empty, reason = ODD[case]
    score = Score([outcome(0, **{"answer": "B", **values})], 0)
    assert (bool(score.correct), score.empty, list(score.stop_reasons)) == (right, empty, [reason])


def test_missing_values_are_judged_as_the_score_script_of_the_reference_judges_them() -> None:
    score = Score([read_record({"index": 0}).outcome], 0)
    assert (score.correct, score.empty, list(score.stop_reasons)) == (0, 1, ["missing_stop_reason"])


def test_the_interval_of_a_finished_run_is_that_of_its_accuracy_over_videos() -> None:
    outcomes = [outcome(n, "BCBBC"[n % 5], videos=[f"{n % 7}.mp4"]) for n in range(40)]
    owed = clustered_interval([f"{n % 7}.mp4" for n in range(40)], ["BCBBC"[n % 5] == "B" for n in range(40)])
    assert owed is not None
    assert Score(outcomes, 0).interval == owed


# --- the interval


def test_the_ends_of_an_interval_belong_to_it() -> None:
    interval = Interval(0.25, 0.5)
    assert [value in interval for value in (0.2499, 0.25, 0.3, 0.5, 0.5001)] == [False, True, True, True, False]


def test_two_videos_have_an_interval_from_the_worse_to_the_better() -> None:
    assert clustered_interval(["a", "a", "b", "b"], [1, 0, 1, 1]) == Interval(0.5, 1.0)
    assert clustered_interval(["a", "b", "b", "b"], [6, 1, 1, 1]) == Interval(1.0, 6.0), "any value, not shares alone"


def test_where_all_are_alike_the_interval_is_the_exact_bound_of_as_many_draws_as_videos() -> None:
    videos = [f"{number % 20}.mp4" for number in range(60)]
    right, wrong = share_interval(videos, [True] * 60), share_interval(videos, [0.0] * 60)
    assert right is not None and wrong is not None
    assert (right.high, right.bound_videos, wrong.low, wrong.bound_videos) == (1.0, 20, 0.0, 20)
    # Of 20 draws none goes wrong with a chance of 5 %, if one goes wrong in 13.91 % of all cases.
    assert (right.low, wrong.high) == pytest.approx((0.8609, 0.1391), abs=1e-4)
    assert binomtest(20, 20).proportion_ci(0.90, method="exact").low == pytest.approx(right.low), "both ends: 90 %"
    assert share_interval(["a", "a"], [1, 1]) is None, "one video says nothing of others"
    assert share_interval(videos, [1] * 60, n_resamples=0) is None
    mixed = [number % 3 > 0 for number in range(60)]
    assert share_interval(videos, mixed) == clustered_interval(videos, mixed)


def test_the_bound_of_a_run_is_said_as_what_it_is() -> None:
    right, wrong = (Score([outcome(n, answer) for n in range(20)], 0) for answer in "BC")
    assert head_lines(right, [])[1] == (
        "95 % bound:    at least 86.09% (all are right, on 20 videos; one-sided, exact)"
    )
    assert head_lines(wrong, [])[1].startswith("95 % bound:    at most 13.91% (all are wrong, on 20 videos")
    assert interval_line(right.interval).startswith("95 % bound: at least 86.09%")


def test_the_summary_of_a_run_begins_with_what_counts_and_no_line_of_that_is_too_long() -> None:
    lines = head_lines(Score(MIXED, 0), ["43.32% (repository)", "Not the published settings: " + "x is y, " * 9])
    assert [line[:15].strip() for line in lines] == [
        "Accuracy:", "95 % interval:", "Published:", "", "", "Chance:", "Failures:",
    ]  # fmt: skip
    assert lines[0].endswith("2/5 = 40.00%")
    assert lines[-1].endswith("1 model, 1 infrastructure")
    assert max(map(len, lines)) <= 80


def test_the_order_of_the_records_does_not_change_one_digit() -> None:
    dice = random.Random(2)
    rows = [(f"video {dice.randrange(30)}", dice.random()) for _ in range(200)]
    owed = clustered_interval(*zip(*rows, strict=True))
    for seed in range(3):
        # The sums of a video's values must not depend on the order either, so the videos alone are shuffled.
        shuffled = sorted(rows, key=lambda row: random.Random(f"{seed} {row[0]}").random())
        assert shuffled != rows
        assert clustered_interval(*zip(*shuffled, strict=True)) == owed


def test_how_often_is_drawn_is_said_by_the_caller_and_0_draws_are_no_interval() -> None:
    videos, values = [str(n) for n in range(50)], [n * n % 17 / 17 for n in range(50)]
    intervals = [clustered_interval(videos, values, n_resamples=count) for count in (RESAMPLES, FEWER_RESAMPLES, 0)]
    assert clustered_interval(videos, values) == intervals[0]
    assert intervals[0] != intervals[1]
    assert intervals[2] is None


# --- what a file covers


@pytest.mark.parametrize(
    ("stated", "indices", "rows", "owed"),
    [
        ({"items": 3}, range(9), None, Coverage(9, 0, 3)),
        ({"items": 0}, [], None, Coverage(0, 0, 0)),
        ({"items": -1}, range(2), None, Coverage(2, 0)),
        ({"items": True}, range(2), None, Coverage(2, 0)),
        ({"items": 10_000_000}, range(2), None, Coverage(2, 9_999_998, 10_000_000)),
        ({"items": 10_000_001}, range(2), None, Coverage(2, 0)),
        ({"chosen": [[0, 4]]}, range(2), 9, Coverage(2, 3, 9)),
        ({"chosen": []}, range(2), 9, Coverage(2, 0, 9)),
        ({}, [0, 1, 9, -1, 1], 9, Coverage(2, 7, 9)),
        ({}, [0, 1, 1], None, Coverage(2, 0)),
    ],
)
def test_what_a_file_covers(stated: dict[str, Any], indices: Any, rows: int | None, owed: Coverage) -> None:
    assert measure(Path("result_x.jsonl"), stated, indices, rows=rows) == owed


def test_a_finished_part_is_of_a_choice_and_a_whole_or_unfinished_one_is_not() -> None:
    assert [Coverage(*one).of_a_choice for one in ((2, 0, 3), (3, 0, 3), (2, 1, 3), (2, None, 3), (2, 0, None))] == [
        True, False, False, False, False,
    ]  # fmt: skip
    assert [Coverage(2, to_go).partial for to_go in (0, 1, None)] == [False, True, True]


def test_a_span_holds_both_its_ends_and_all_of_them_at_most_the_largest_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "_MAX_QUESTIONS", 5)
    assert read_spans([[3, 3], [5, 6]]) == {3, 5, 6}
    assert read_spans([[0, 4]]) == {0, 1, 2, 3, 4}
    assert read_spans([[0, 5]]) is None
    assert read_spans([[0, 2], [4, 6]]) is None
    assert read_spans([]) == frozenset()


# --- where a file comes from

KNOWN = {"cats": Published("cats", 4, (), {}, ""), "dogs": Published("dogs", 3, (), {}, "")}
PATH = Path("result_x.jsonl")


def test_a_file_without_a_meta_file_is_known_by_its_indices() -> None:
    assert find_origin(PATH, None, [2, 0, 1], KNOWN) == Origin(PATH, None, "dogs", KNOWN["dogs"], Coverage(3, 0, 3))
    assert find_origin(PATH, None, [2, 0], KNOWN) == Origin(PATH, None, "", None, Coverage(2, 0))


def test_a_meta_file_says_the_dataset_and_what_was_chosen() -> None:
    meta = Meta({"dataset": "cats"}, {}, (), coverage={"chosen": [[0, 2]]})
    assert find_origin(PATH, meta, [0, 1], KNOWN) == Origin(PATH, meta, "cats", KNOWN["cats"], Coverage(2, 1, 4))
    own = replace(meta, settings={"dataset": "own"})
    assert find_origin(PATH, own, [0, 1], KNOWN) == Origin(PATH, own, "own", None, Coverage(2, 1))
    assert [named_dataset(one) for one in (meta, own, None, Meta.unknown())] == ["cats", "own", "", ""]


# --- two results


def answered(index: int, answer: str = "B", *, categories: tuple[str, ...] = (), **more: Any) -> Answered:
    one = outcome(index, answer, **more)
    return Answered(one, (one.video,) if one.video else (), categories)


def test_a_pair_takes_its_video_and_its_categories_from_the_result_that_has_them() -> None:
    bare, full = answered(0, videos=[]), answered(0, categories=("x",))
    for pair in (Pair(bare, full), Pair(full, bare)):
        assert (pair.index, pair.video, pair.categories) == (0, "0.mp4", ("x",))
        assert not pair.answer_changed
        assert not question_difference(pair.a, pair.b)


def test_without_resamples_flips_are_counted_and_nothing_is_tested() -> None:
    pairs = [
        Pair(answered(n, a), answered(n, b)) for n, (a, b) in enumerate(map(tuple, ("BC", "CB", "CB", "BB", "CC")))
    ]
    found = flips(pairs, n_resamples=0)
    assert (found.count, found.only_a, found.only_b, found.total) == (5, (0,), (1, 2), 3)
    assert (found.accuracy.interval, found.p_value) == (None, None)
    assert flips(pairs, n_resamples=99).p_value == 1.0


def test_a_comparison_with_an_unfinished_run_tests_nothing() -> None:
    a = {n: answered(n, categories=("x",)) for n in range(6)}
    whole, part = compare(a, a), compare(a, a, partial=True)
    assert (whole.partial, part.partial) == (False, True)
    for change in (part.flips.accuracy, part.rounds, part.tokens, part.categories[0][1].accuracy):
        assert change is not None and change.interval is None
    for change in (whole.flips.accuracy, whole.rounds, whole.tokens, whole.categories[0][1].accuracy):
        assert change is not None and change.interval is not None
    assert (whole.flips.p_value, part.flips.p_value, part.categories[0][1].p_value) == (1.0, None, None)


def test_exceptions_are_counted_for_each_result() -> None:
    a = {n: answered(n, stop_reason="exception" if n < 3 else "answer_found") for n in range(5)}
    b = {n: answered(n, stop_reason="exception" if n < 1 else "max_turns_exceeded") for n in range(5)}
    assert compare(a, b).failed == (3, 1)
    assert compare(b, a).failed == (1, 3)


def test_categories_of_one_size_come_by_their_names_and_the_smallest_are_left_out() -> None:
    a = {n: answered(n, categories=(f"{n // 2:03}",) if n < 206 else ("zz",) * (n < 209)) for n in range(210)}
    compared = compare(a, a, partial=True)
    names = [name for name, _ in compared.categories]
    assert (names[:3], names[-1], len(names)) == (["zz", "000", "001"], "098", 100)
    assert compared.categories_left_out == 4
    few = compare(dict(list(a.items())[:6]), dict(list(a.items())[:6]), partial=True)
    assert ([name for name, _ in few.categories], few.categories_left_out) == (["000", "001", "002"], 0)


def test_indices_are_in_their_order_in_whatever_order_the_records_came() -> None:
    assert coverage.write_spans([5, 0, 4]) == [[0, 0], [4, 5]]
    a = {n: answered(n) for n in (900, 33, -5, 7000, 12)}
    b = {n: answered(n, "C") for n in (900, 33, -5, 4096, 8)}
    compared = compare(a, b, partial=True)
    assert compared.flips.only_a == (-5, 33, 900)
    assert (compared.missing_in_a, compared.missing_in_b) == ((8, 4096), (12, 7000))
    first, second = ({n: answered(n) for n in chosen} for chosen in ((33, -5, 900), (33, -5, 900, 33000, 64, -9)))
    assert compare(first, second, partial=True).missing_in_a == (-9, 64, 33000)
    assert compare(second, first, partial=True).missing_in_b == (-9, 64, 33000)


def test_a_count_of_0_is_a_count() -> None:
    compared = compare({0: answered(0, num_rounds=0)}, {0: answered(0, num_rounds=2)}, partial=True)
    assert compared.rounds is not None
    assert (compared.rounds.a, compared.rounds.b) == (0, 2)
