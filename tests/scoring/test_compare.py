"""Two results compared: eva/scoring/compare.py, and accuracy.py A B."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import called, only_sentence
from results import PUBLISHED, Row, outcomes, result, row, rows, write_result
from scipy.stats import binomtest, ttest_1samp

from eva.records.meta import Meta, write_meta
from eva.scoring.compare import Comparison, DifferentQuestionsError, compare, mcnemar_p
from eva.scoring.figures import comparison_lines, comparison_notes
from eva.scoring.result_file import Answered, Coverage, ResultFile, read_result

SETTINGS = {"dataset": "own", "model": "EVA", "max_turns": 6, "weights": "/models/step200"}
HOSTILE = "<script>alert(1)</script>\x1b[31m\ud800 café"


def held(records: Iterable[Row], *, to_go: int = 0) -> ResultFile:
    """A result in memory. `categories` of a row are those of its question."""
    found = list(records)
    lines = [
        Answered(outcome, tuple(one.get("videos", ())), tuple(one.get("categories", ())))
        for one, outcome in zip(found, outcomes(found), strict=True)
    ]
    return ResultFile(Path("x.jsonl"), None, "", None, Coverage(len(lines), to_go), lines)


def compared(a: str, b: str) -> Comparison:
    """One letter a sample: its answer."""
    return compare(held(rows(a)), held(rows(b)))


# --- the figures


def test_accuracies_flips_and_their_indices() -> None:
    found = compared("BBBCC" + "B" * 5, "BCBBC" + "B" * 5)
    assert (found.accuracy.a, found.accuracy.b, found.accuracy.difference) == (0.8, 0.8, 0)
    assert (found.right_only_in_a, found.right_only_in_b, found.common) == ((1,), (3,), 10)


def test_an_answer_that_changes_from_wrong_to_wrong_is_no_flip() -> None:
    found = compared("CCB", "CDb")
    assert (found.answers_changed, found.right_only_in_a, found.right_only_in_b) == (1, (), ())


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (1, 5), (5, 1), (2, 2), (10, 2), (300, 250)])
def test_mcnemars_exact_p_is_the_two_sided_binomial(only_a: int, only_b: int) -> None:
    owed = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar_p(only_a, only_b) == pytest.approx(owed, rel=1e-9)


def test_a_result_beside_itself_differs_by_nothing() -> None:
    found = compared("BCBCBBBCCB" * 2, "BCBCBBBCCB" * 2)
    for change in (found.accuracy, found.average_rounds, found.average_total_tokens):
        assert change is not None and change.interval_95 == (0, 0) and change.difference == 0
    assert (found.mcnemar_p, found.answers_changed, found.smallest_difference) == (1.0, 0, None)


def test_only_common_questions_count_and_the_others_are_named_in_their_order() -> None:
    a = held(row(n) for n in (900, 33, -5, 7000, 12))
    b = held(row(n, "C") for n in (900, 33, -5, 4096, 8))
    found = compare(a, b)
    assert (found.common, found.right_only_in_a) == (3, (-5, 33, 900))
    assert (found.only_in_a, found.only_in_b) == ((12, 7000), (8, 4096))


def test_means_are_over_the_pairs_that_tell_both_counts_and_a_count_of_0_is_one() -> None:
    a = held([row(0, total_tokens=2**60), row(1, total_tokens=50), row(2, num_rounds=0)])
    b = held([row(0, num_rounds=-1), row(1, total_tokens=70), row(2)])
    found = compare(a, b)
    assert found.common == 3
    assert found.average_total_tokens is not None and found.average_rounds is not None
    assert (found.average_total_tokens.a, found.average_total_tokens.b) == (75, 85)
    assert (found.average_rounds.a, found.average_rounds.b) == (1, 2)
    assert compare(held([row(0, num_rounds="2")]), held([row(0)])).average_rounds is None


def test_the_interval_is_that_of_the_paired_differences_of_whole_videos() -> None:
    dice = np.random.default_rng(3)
    answers = np.where(dice.random((2, 60)) < [[0.5], [0.7]], "B", "C")
    a, b = (held(row(n, str(letter), videos=[f"{n}.mp4"]) for n, letter in enumerate(one)) for one in answers)
    owed = ttest_1samp((answers[1] == "B") - (answers[0] == "B").astype(float), 0).confidence_interval()
    assert compare(a, b).accuracy.interval_95 == pytest.approx((owed.low, owed.high))


def test_nothing_is_tested_on_few_videos_or_of_an_unfinished_run() -> None:
    few = compared("BC" * 9, "BB" * 9)
    assert (few.accuracy.interval_95, few.smallest_difference, few.mcnemar_p) == (None, None, pytest.approx(2**-8))
    whole = held({**one, "categories": ("x",)} for one in rows("BC" * 20))
    found = compare(whole, replace(whole, coverage=Coverage(40, 3)))
    assert (found.partial, found.to_go) == ({"a": False, "b": True}, {"a": 0, "b": 3})
    for part in (found, found.categories["x"]):
        assert (part.accuracy.interval_95, part.mcnemar_p, part.smallest_difference) == (None, None, None)
    assert found.average_rounds is not None and found.average_rounds.interval_95 is None
    assert not any("95 %" in line or "p =" in line for line in comparison_lines(found))


def test_categories_come_largest_first_and_a_question_counts_in_each_of_its_own() -> None:
    names = [("x",), ("x", "y"), ("y",), ("x",)]
    a = held({**one, "categories": names[n]} for n, one in enumerate(rows("BBCC")))
    found = compare(a, held(rows("BCBC"))).categories
    assert list(found) == ["x", "y"]
    x, y = found.values()
    assert (x.common, x.accuracy.a, x.accuracy.b, x.right_only_in_a) == (3, 2 / 3, 1 / 3, (1,))
    assert (y.common, y.accuracy.difference, y.right_only_in_a, y.right_only_in_b) == (2, 0, (1,), (2,))


def test_questions_without_a_category_are_a_category_where_others_have_one() -> None:
    names: list[tuple[str, ...]] = [("short",), (), ("short",), ()]
    a = held({**one, "categories": names[n]} for n, one in enumerate(rows("BBCC")))
    found = compare(a, a)
    assert {name: part.common for name, part in found.categories.items()} == {"short": 2, "unknown": 2}
    assert compared("BC", "BC").categories == {}


def test_exceptions_are_counted_for_each_result() -> None:
    a, b = ([row(n, stop_reason="exception" if n < failed else "answer_found") for n in range(5)] for failed in (3, 1))
    found = compare(held(a), held(b))
    assert found.exceptions == {"a": 3, "b": 1}
    assert any("3 in A, 1 in B" in line for line in comparison_lines(found) if line.startswith("Exceptions"))
    assert not any(line.startswith("Exceptions") for line in comparison_lines(compared("B", "B")))


# --- questions that are not the same


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"gt": "C"}, "'B' in one and 'C' in the other"),
        ({"videos": ["other.mp4"]}, "'1.mp4' in one and 'other.mp4' in the other"),
        ({"videos": ["1.mp4", "4.mp4"]}, "video"),
    ],
)
def test_another_question_under_the_same_index_is_an_error_that_names_the_first(
    change: Mapping[str, Any], named: str
) -> None:
    b = [{**row(n), **(change if n in (3, 5) else {})} for n in range(6)]
    with pytest.raises(DifferentQuestionsError, match="index 3") as raised:
        compare(held(rows("B" * 6)), held(reversed(b)))
    assert named in str(raised.value)


def test_the_case_of_a_ground_truth_and_a_record_without_videos_are_no_other_question() -> None:
    bare = row(0, gt=" b ")
    del bare["videos"]
    assert compare(held([row(0)]), held([bare])).common == 1


def test_results_without_a_common_index_cannot_be_compared() -> None:
    with pytest.raises(DifferentQuestionsError, match="no index"):
        compare(held([row(0)]), held([row(1)]))


# --- what is said of two files


def said(a: ResultFile, b: ResultFile) -> list[str]:
    return [*comparison_notes(a, b), *comparison_lines(compare(a, b))]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return called("accuracy.py", *arguments)


@pytest.mark.process
def test_the_comparison_is_printed_and_told_as_json(tmp_path: Path) -> None:
    a = [{**one, "category": ("cats", HOSTILE)[n % 2]} for n, one in enumerate(rows("BBCB" * 12))]
    paths = write_result(tmp_path / "a.jsonl", a, SETTINGS), tmp_path / "b.jsonl"
    write_result(paths[1], rows("BBBC" * 12), {**SETTINGS, "seed": 2})
    done, told = run(*paths), run(*paths, "--json")
    assert (done.returncode, done.stderr, told.returncode, told.stderr) == (0, "", 0, "")
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()[:10]] == [
        "A", "B", "Settings", "Questions in both", "Accuracy", "McNemar's exact test", "Could have shown",
        "Right only in A", "Right only in B", "Rounds",
    ]  # fmt: skip
    assert "\x1b" not in done.stdout
    content = json.loads(told.stdout)
    found = compare(*(read_result(path, PUBLISHED) for path in paths))
    assert content == {**json.loads(json.dumps(asdict(found))), "notes": ["Settings: seed is None in A, 2 in B"]}
    assert (content["common"], content["accuracy"]["difference"], content["noise_floor"]) == (48, 0, None)
    assert set(content["categories"]) == {"cats", HOSTILE}


@pytest.mark.process
def test_different_questions_end_with_2_and_one_sentence(tmp_path: Path) -> None:
    a = write_result(tmp_path / "a.jsonl", rows("BB"))
    done = run(a, write_result(tmp_path / "b.jsonl", [row(0), row(1, gt="A\n\x1b[2J")]), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "index 1" in only_sentence(done.stderr)


def test_of_several_lines_for_one_index_the_last_counts_and_unusable_counts_are_named(tmp_path: Path) -> None:
    a = result(tmp_path / "a.jsonl", [row(0, "C"), row(1, total_tokens=2**60), row(0, "B")])
    b = result(tmp_path / "b.jsonl", [row(0, num_rounds="2"), row(1, num_rounds=None)])
    assert compare(a, b).accuracy.a == 1.0
    lines = said(a, b)
    assert any("A has 1 lines for an index" in line for line in lines)
    assert "Records without a usable total_tokens: 1 (index 1) (A)" in lines
    assert "Records without a usable num_rounds: 2 (index 0, 1) (B)" in lines
    assert "Rounds: not known of any question in both" in lines


def test_two_datasets_whose_questions_look_alike_are_said_to_be_two(tmp_path: Path) -> None:
    a, b = (result(tmp_path / f"{name}.jsonl", rows("B"), {"dataset": name}) for name in ("lvbench", "mlvu"))
    assert "The two are of different datasets: lvbench and mlvu" in said(a, b)


def test_an_agent_and_a_baseline_are_named_with_the_tokens_that_each_spent(tmp_path: Path) -> None:
    settings = {**SETTINGS, "agent": "uniform", "nframes": 8}
    spent = {"estimated_visual_tokens": 600, "agent": "uniform", "schema": 1}
    a = result(tmp_path / "a.jsonl", rows("BC" * 4, **spent), settings)
    b = result(tmp_path / "b.jsonl", [row(n, estimated_visual_tokens=500 + n) for n in range(8)], SETTINGS)
    found = compare(a, b)
    assert found.agents == {"a": "uniform, 8 frames", "b": "eva"}
    assert found.average_visual_tokens is not None
    assert (found.average_visual_tokens.a, found.average_visual_tokens.b) == (600, 503.5)
    assert "Settings: agent is 'uniform' in A, None in B" in said(a, b)


@pytest.mark.parametrize(
    ("settings", "owed"),
    [
        ({"agent": "uniform", "nframes": 1}, "uniform, 1 frame"),
        ({"agent": "uniform", "match_sha256": "x"}, "uniform, matched tokens"),
        ({"agent": ["uniform"], "nframes": 8}, "uniform"),
        ({"nframes": 8}, "uniform"),
        ({"agent": "uniform", "nframes": "8"}, "uniform"),
    ],
)
def test_the_frames_of_a_baseline_are_said_where_the_meta_file_is_of_that_agent(
    tmp_path: Path, settings: dict[str, Any], owed: str
) -> None:
    file = result(tmp_path / "a.jsonl", [row(0, agent="uniform", schema=1)], {"dataset": "own", **settings})
    assert file.agent == owed
    hostile = [row(0), row(1, agent="x\n\x1b[2J" + "y" * 500, schema=1), row(2, agent="before", schema=None)]
    agent = result(tmp_path / "b.jsonl", hostile, {"dataset": "own", **settings}).agent
    assert agent.startswith("eva and x \ufffd[2Jyyy") and len(agent) == 60


# --- the noise floor


@pytest.fixture
def twice(tmp_path: Path) -> tuple[Path, Path]:
    a, b = (
        write_result(tmp_path / f"{name}.jsonl", rows(answers), SETTINGS)
        for name, answers in (("a", "BBBBBBBBCC"), ("b", "BBBBBBBCBD"))
    )
    return a, b


def noise(paths: tuple[Path, Path]) -> tuple[Mapping[str, float] | None, list[str]]:
    a, b = (read_result(path, PUBLISHED) for path in paths)
    return compare(a, b).noise_floor, [line for line in said(a, b) if "oise floor" in line or "weights" in line]


def test_the_same_settings_twice_give_the_noise_floor(twice: tuple[Path, Path]) -> None:
    shares, (line,) = noise(twice)
    assert shares == {"answer_changed": 0.3, "correctness_changed": 0.2}
    assert "answer changed 30.00%, correctness changed 20.00%" in line


@pytest.mark.parametrize(
    "meta",
    [
        None,
        Meta.unknown(),
        Meta({**SETTINGS, "model": "EVA-2"}, {}, ()),
        Meta({**SETTINGS, "weights": "/models/step400"}, {}, ()),
        Meta({**SETTINGS, "weights": "/models/step200 and /models/step400"}, {}, ()),
        Meta(SETTINGS, {}, (), adopted=True),
        Meta(SETTINGS, {}, (), mixed=({"max_turns": 3},)),
    ],
    ids=["no meta", "unknown", "another model", "other weights", "two weights", "adopted", "mixed"],
)
def test_other_unknown_or_mixed_settings_are_no_noise_floor(twice: tuple[Path, Path], meta: Meta | None) -> None:
    if meta is None:
        twice[1].with_suffix(".meta.json").unlink()
    else:
        write_meta(twice[1], meta)
    shares, lines = noise(twice)
    assert shares is None and not any("floor" in line for line in lines)


def test_weights_that_are_unknown_are_said(twice: tuple[Path, Path]) -> None:
    write_meta(twice[1], Meta({**SETTINGS, "weights": None}, {}, ()))
    shares, lines = noise(twice)
    assert shares is not None
    assert "The weights of B are unknown, and not compared" in lines
