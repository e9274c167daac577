"""eva/scoring: the figures over outcomes, what a file covers, and where it comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from results import correlated, outcomes, row

from eva.records.meta import Meta
from eva.records.schema import read_record
from eva.scoring import result_file
from eva.scoring.interval import share_interval, smallest_difference
from eva.scoring.published import Published
from eva.scoring.result_file import Answered, Coverage, ResultFile, measure, named_dataset, read_spans, write_spans
from eva.scoring.score import make_score

MIXED = outcomes(
    [
        row(4, num_rounds=3, seconds=2.0),
        row(3, "C", total_tokens=103, seconds=4.0),
        row(2, " ", num_rounds=None, stop_reason="max_turns_exceeded"),
        row(9, "", total_tokens=None, stop_reason="exception", error="RuntimeError"),
        row(1, num_rounds="two", error="late"),
    ]
)


# --- the figures of a score


def test_what_is_counted_of_a_finished_run() -> None:
    score = make_score(MIXED, 0)
    assert (score.total, score.recorded, score.missing, score.correct) == (5, 5, 0, 2)
    assert (score.empty, score.answered) == (2, 3)
    assert (score.partial, score.accuracy) == (False, 0.4)
    assert score.pending == 1, "the exception"
    assert score.accuracy_bounds == pytest.approx((0.4, 0.6))


def test_questions_without_a_record_count_in_the_denominator_and_as_pending() -> None:
    score = make_score(MIXED, 3)
    assert (score.total, score.recorded, score.missing, score.pending) == (8, 5, 3, 4)
    assert score.answered == 3, "of the recorded"
    assert (score.partial, score.accuracy, score.interval_95, score.smallest_difference) == (True, None, None, None)
    assert score.accuracy_bounds == pytest.approx((2 / 8, 6 / 8))


def test_where_nobody_knows_how_many_are_to_go_the_run_may_be_unfinished() -> None:
    score = make_score(MIXED, None)
    assert (score.total, score.missing, score.pending, score.accuracy_bounds) == (None, 0, 1, None)
    assert (score.partial, score.accuracy, score.interval_95) == (True, None, None)


def test_no_questions_have_the_accuracy_0_and_a_run_that_has_asked_nothing_may_end_anywhere() -> None:
    score = make_score([], 0)
    assert (score.accuracy, score.accuracy_bounds, score.interval_95) == (0.0, (0.0, 0.0), None)
    assert (score.average_rounds, score.average_total_tokens, score.average_seconds) == (None, None, None)
    assert make_score([], 4).accuracy_bounds == (0.0, 1.0)


def test_an_average_is_over_the_usable_values_alone() -> None:
    score = make_score(MIXED, 7)
    assert (score.average_rounds, score.average_total_tokens, score.average_seconds) == (7 / 3, 403 / 4, 3.0)
    assert score.unusable_counts == {"num_rounds": [1, 2], "total_tokens": [9]}


def test_errors_stop_reasons_and_failures_are_counted() -> None:
    score = make_score(MIXED, 0)
    assert score.error_indices == [1, 9]
    assert list(score.stop_reasons.items()) == [("answer_found", 3), ("max_turns_exceeded", 1), ("exception", 1)]
    assert score.failures == {"model": 1, "sample": 0, "infrastructure": 1, "agent": 0}


def test_the_interval_of_a_finished_run_is_that_of_its_accuracy_over_videos() -> None:
    found = outcomes(correlated(90, videos=30, share=0.6))
    videos, right = [one.video for one in found], [one.correct for one in found]
    assert make_score(found, 0).interval_95 == share_interval(videos, right) is not None
    assert make_score(found, 0).smallest_difference == smallest_difference(videos, right) is not None


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
    score = make_score(outcomes([row(0, **{"answer": "B", **values})]), 0)
    assert (bool(score.correct), score.empty, list(score.stop_reasons)) == (right, empty, [reason])


def test_missing_values_are_judged_as_the_score_script_of_the_reference_judges_them() -> None:
    score = make_score([read_record({"index": 0}).outcome], 0)
    assert (score.correct, score.empty, list(score.stop_reasons)) == (0, 1, ["missing_stop_reason"])


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
    monkeypatch.setattr(result_file, "_MAX_QUESTIONS", 5)
    assert read_spans([[3, 3], [5, 6]]) == {3, 5, 6}
    assert read_spans([[0, 4]]) == {0, 1, 2, 3, 4}
    assert read_spans([[0, 5]]) is None
    assert read_spans([[0, 2], [4, 6]]) is None
    assert read_spans([]) == frozenset()
    assert write_spans([5, 0, 4]) == [[0, 0], [4, 5]]


# --- where a file comes from

KNOWN = {"cats": Published("cats", 4, (), {}, ""), "dogs": Published("dogs", 3, (), {}, "")}


def origin(meta: Meta | None, *indices: int) -> tuple[str, Published | None, Coverage]:
    lines = [Answered(outcomes([row(index)])[0]) for index in indices]
    file = ResultFile.of(Path("result_x.jsonl"), meta, lines, KNOWN)
    return file.dataset, file.published, file.coverage


def test_a_file_without_a_meta_file_is_known_by_its_indices() -> None:
    assert origin(None, 2, 0, 1) == ("dogs", KNOWN["dogs"], Coverage(3, 0, 3))
    assert origin(None, 2, 0) == ("", None, Coverage(2, 0))


def test_a_meta_file_says_the_dataset_and_what_was_chosen() -> None:
    meta = Meta({"dataset": "cats"}, {}, (), coverage={"chosen": [[0, 2]]})
    assert origin(meta, 0, 1) == ("cats", KNOWN["cats"], Coverage(2, 1, 4))
    own = replace(meta, settings={"dataset": "own"})
    assert origin(own, 0, 1) == ("own", None, Coverage(2, 1))
    assert [named_dataset(one) for one in (meta, own, None, Meta.unknown())] == ["cats", "own", "", ""]
