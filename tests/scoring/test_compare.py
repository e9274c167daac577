"""Two results compared: eva/scoring/compare.py on made-up samples, and accuracy.py A B on files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import called, only_sentence, write_rows

from eva.commands.score import comparison, comparison_content
from eva.records.meta import Meta, write_meta
from eva.records.schema import read_record
from eva.scoring.assessment import assess_file
from eva.scoring.compare import MAX_CATEGORIES, Answered, DifferentQuestionsError, compare, mcnemar_p
from eva.scoring.compare_files import read_compared
from eva.scoring.published import load_published

Record = dict[str, Any]
PUBLISHED = load_published()
SETTINGS = {"dataset": "own", "model": "EVA", "max_turns": 6, "weights": "/models/step200"}


def record(index: int, answer: str = "B", **more: Any) -> Record:
    basic = {"gt": "B", "stop_reason": "answer_found", "num_rounds": 2, "total_tokens": 100}
    return {"index": index, "videos": [f"{index % 7}.mp4"], "answer": answer, **basic, **more}


def samples(records: Iterable[Record]) -> dict[int, Answered]:
    return {
        one["index"]: Answered(read_record(one).outcome, tuple(one.get("videos", ())), tuple(one.get("categories", ())))
        for one in records
    }


def answers(a: str, b: str) -> tuple[dict[int, Answered], dict[int, Answered]]:
    """One letter a sample: its answer."""
    return samples(record(n, letter) for n, letter in enumerate(a)), samples(
        record(n, letter) for n, letter in enumerate(b)
    )


# --- the figures


def test_accuracies_flips_and_their_indices() -> None:
    compared = compare(*answers("BBBCC" + "B" * 5, "BCBBC" + "B" * 5))
    assert (compared.flips.accuracy.a, compared.flips.accuracy.b) == (0.8, 0.8)
    assert (compared.flips.only_a, compared.flips.only_b) == ((1,), (3,))
    assert compared.flips.accuracy.difference == 0


def test_an_answer_that_changes_from_wrong_to_wrong_is_no_flip() -> None:
    compared = compare(*answers("CCB", "CDb"))
    assert (compared.answers_changed, compared.flips.total) == (1, 0)


@pytest.mark.parametrize(
    ("only_a", "only_b", "owed"),
    [
        (0, 0, 1.0),
        (0, 5, 2 * 1 / 32),
        (1, 5, 2 * (1 + 6) / 64),
        (5, 1, 2 * (1 + 6) / 64),
        (2, 2, 1.0),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
    ],
)
def test_mcnemars_exact_p_is_the_two_sided_binomial(only_a: int, only_b: int, owed: float) -> None:
    assert mcnemar_p(only_a, only_b) == pytest.approx(owed, rel=1e-12)


def test_a_result_beside_itself_differs_by_nothing() -> None:
    a, _ = answers("BCBCBBBCCB", "")
    compared = compare(a, a)
    for change in (compared.flips.accuracy, compared.rounds, compared.tokens):
        assert change is not None
        assert change.interval is not None
        assert (change.difference, change.interval.low, change.interval.high) == (0, 0, 0)
    assert (compared.flips.p_value, compared.flips.total, compared.answers_changed) == (1.0, 0, 0)


def test_only_common_questions_count_and_the_others_are_named() -> None:
    a = samples([record(0), record(1), record(2, "C")])
    b = samples([record(1), record(2), record(9)])
    compared = compare(a, b)
    assert (compared.missing_in_a, compared.missing_in_b) == ((9,), (0,))
    assert (compared.flips.count, compared.flips.accuracy.a, compared.flips.accuracy.b) == (2, 0.5, 1.0)


def test_rounds_and_tokens_are_compared_by_their_means() -> None:
    a = samples(record(n, num_rounds=2, total_tokens=100) for n in range(20))
    b = samples(record(n, num_rounds=3, total_tokens=100 + n % 7) for n in range(20))
    compared = compare(a, b)
    rounds, tokens = compared.rounds, compared.tokens
    assert rounds is not None
    assert tokens is not None
    assert (rounds.difference, tokens.a) == (1, 100)
    assert rounds.interval is not None
    assert (rounds.interval.low, rounds.interval.high) == (1, 1)
    assert tokens.interval is not None
    assert tokens.interval.low < tokens.difference < tokens.interval.high


def test_a_pair_of_which_a_count_is_not_known_is_left_out_of_its_mean_alone() -> None:
    a = samples([record(0, total_tokens=2**60), record(1, total_tokens=50), record(2)])
    b = samples([record(0, num_rounds=-1), record(1, total_tokens=70), record(2)])
    compared = compare(a, b)
    assert compared.flips.count == 3
    assert compared.tokens is not None and (compared.tokens.a, compared.tokens.b) == (75, 85)
    assert compared.rounds is not None and (compared.rounds.a, compared.rounds.b) == (2, 2)
    assert compare(samples([record(0, num_rounds="2")]), samples([record(0)])).rounds is None


def made_up(seed: int, *, videos: int = 60, shift: float = 0.1) -> tuple[list[Record], list[Record]]:
    """Four questions a video that stand or fall together; B is right `shift` more often."""
    dice = np.random.default_rng(seed)
    luck = np.clip(dice.normal(0.5, 0.2, videos), 0.1, 0.8)
    rows: tuple[list[Record], list[Record]] = ([], [])
    for number in range(4 * videos):
        for share, records in zip((luck[number // 4], luck[number // 4] + shift), rows, strict=True):
            answer = "B" if dice.random() < share else "C"
            records.append(record(number, answer, videos=[f"{number // 4}.mp4"]))
    return rows


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(24):
        a, b = made_up(seed, videos=40)
        interval = compare(samples(a), samples(b)).flips.accuracy.interval
        assert interval is not None
        covered += 0.1 in interval
    assert 20 <= covered <= 24, "95 % of 24 are 23"


def test_the_interval_is_that_of_a_bootstrap_of_whole_videos() -> None:
    a, b = made_up(3)
    differences = np.array([(y["answer"] == "B") - float(x["answer"] == "B") for x, y in zip(a, b, strict=True)])
    dice = np.random.default_rng(8)
    means = [differences.reshape(-1, 4)[dice.integers(0, 60, 60)].mean() for _ in range(4000)]
    interval = compare(samples(a), samples(b)).flips.accuracy.interval
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.012)


def test_one_video_alone_has_no_interval() -> None:
    a = samples(record(n, videos=["a.mp4"]) for n in range(5))
    assert compare(a, a).flips.accuracy.interval is None


def test_categories_come_largest_first_and_a_question_counts_in_each_of_its_own() -> None:
    names = [("x",), ("x", "y"), ("y",), ("x",)]
    a = samples(record(n, "BBCC"[n], categories=names[n]) for n in range(4))
    b = samples(record(n, "BCBC"[n]) for n in range(4))
    (first, x), (second, y) = compare(a, b).categories
    assert (first, second) == ("x", "y")
    assert (x.count, x.accuracy.a, x.accuracy.b, x.only_a, x.only_b) == (3, 2 / 3, 1 / 3, (1,), ())
    assert (y.count, y.accuracy.difference, y.only_a, y.only_b, y.p_value) == (2, 0, (1,), (2,), 1.0)


def test_a_category_for_every_question_does_not_keep_it_busy() -> None:
    a = samples(record(n, categories=(f"{n // 2} <script>",)) for n in range(3000))
    compared = compare(a, a)
    assert (len(compared.categories), compared.categories_left_out) == (MAX_CATEGORIES, 1500 - MAX_CATEGORIES)


# --- questions that are not the same


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"gt": "C"}, "'B' in one and 'C' in the other"),
        ({"videos": ["other.mp4"]}, "'3.mp4' in one and 'other.mp4' in the other"),
        ({"videos": ["3.mp4", "4.mp4"]}, "video"),
    ],
)
def test_another_question_under_the_same_index_is_an_error_that_names_the_first(
    change: Mapping[str, Any], named: str
) -> None:
    a = [record(n) for n in range(6)]
    b = [{**record(n), **(change if n in (3, 5) else {})} for n in range(6)]
    with pytest.raises(DifferentQuestionsError, match="index 3") as raised:
        compare(samples(a), samples(reversed(b)))
    assert named in str(raised.value)


def test_the_case_of_a_ground_truth_and_a_record_without_videos_are_no_other_question() -> None:
    bare = record(0, gt=" b ")
    del bare["videos"]
    assert compare(samples([record(0)]), samples([bare])).flips.count == 1


def test_results_without_a_common_index_cannot_be_compared() -> None:
    with pytest.raises(DifferentQuestionsError, match="no index"):
        compare(samples([record(0)]), samples([record(1)]))


# --- accuracy.py A B


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return called("accuracy.py", *arguments)


def write(path: Path, records: Iterable[Record], **settings: Any) -> Path:
    if settings:
        write_meta(path, Meta(settings, {}, ()))
    return write_rows(path, records)


def said(a: Path, b: Path) -> list[str]:
    return comparison(read_compared(a, PUBLISHED), read_compared(b, PUBLISHED))


def told(a: Path, b: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        json.dumps(comparison_content(read_compared(a, PUBLISHED), read_compared(b, PUBLISHED)))
    )
    return content


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    a, b = made_up(1, videos=12)
    hostile = "<script>alert(1)</script>\x1b[31m\ud800 café"
    a = [{**one, "category": ("cats", hostile)[one["index"] % 2]} for one in a]
    return write(tmp_path / "a.jsonl", a, **SETTINGS), write(tmp_path / "b.jsonl", b, **SETTINGS, seed=2)


@pytest.mark.process
def test_the_comparison_is_printed_and_ends_with_0(files: tuple[Path, Path]) -> None:
    done = run(*files)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    starts = [
        "A: ", "B: ", "Questions in both: 48 (only in A: 0, only in B: 0)", "Accuracy of A: ", "Accuracy of B: ",
        "Difference: ", "McNemar's exact test: p = ", "Smallest", "Right only in A: ", "Right only in B: ",
        "Rounds: 2.0000 in A, ", "Total tokens: 100.0000 in A, ", "Visual tokens: not known", "By category", "  ", "  ",
        "Settings: seed is None in A, 2 in B",
    ]  # fmt: skip
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * len(starts), lines
    assert "\x1b" not in done.stdout


@pytest.mark.process
def test_json_is_all_that_is_printed_and_says_the_same(files: tuple[Path, Path]) -> None:
    done = run(*files, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(done.stdout)
    lines = said(*files)
    assert f"Accuracy of B: {content['accuracy']['b']:.4%}" in lines
    assert any(line.startswith(f"Right only in A: {len(content['right_only_in_a'])}") for line in lines)
    assert content["common"] == 48
    assert content["accuracy"]["difference"] == pytest.approx(content["accuracy"]["b"] - content["accuracy"]["a"])
    low, high = content["accuracy"]["interval_95"]
    assert low <= content["accuracy"]["difference"] <= high
    assert set(content["categories"]) == {"cats", "<script>alert(1)</script>\x1b[31m\ud800 café"}
    assert content["noise_floor"] is None
    assert content["notes"] == ["Settings: seed is None in A, 2 in B"]


@pytest.mark.process
def test_one_file_can_be_told_as_json_too(tmp_path: Path) -> None:
    records = [record(n, "BC"[n % 2], stop_reason="\ud800") for n in range(1304)]
    done = run(write(tmp_path / "a.jsonl", records), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(done.stdout)
    assert (content["total"], content["correct"], content["accuracy"]) == (1304, 652, 0.5)
    assert (content["dataset"], content["questions"], content["covered"]) == ("lsdbench", 1304, 1304)
    assert content["published"][0]["accuracy"] == pytest.approx(0.4931)
    assert content["published"][0]["difference"] == pytest.approx(0.0069)
    assert content["stop_reasons"] == {"\ud800": 1304}
    low, high = content["interval_95"]
    assert low <= 0.5 <= high


@pytest.mark.process
def test_different_questions_end_with_2_and_one_sentence(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [record(0), record(1)])
    b = write(tmp_path / "b.jsonl", [record(0), record(1, gt="A\n\x1b[2J")])
    done = run(a, b, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "index 1" in only_sentence(done.stderr)


def test_files_of_the_reference_are_compared_by_what_they_hold(tmp_path: Path) -> None:
    texts = ["Video Length: 59 seconds. Original video resolution: 360p. Who?", []]
    a = write(tmp_path / "a.jsonl", [record(n, messages=texts[n % 2]) for n in range(2700)])
    content = told(a, a)
    assert content["categories"]["short"]["common"] == 1350, "VideoMME is known by its indices, the length by the text"


def test_of_several_lines_for_one_index_the_last_counts(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [record(0, "C"), record(1), record(0, "B")])
    b = write(tmp_path / "b.jsonl", [record(0), record(1)])
    content = told(a, b)
    assert (content["common"], content["accuracy"]["a"]) == (2, 1.0)
    assert "A has 1 lines for an index" in content["notes"][0]


def test_a_file_that_mixes_two_question_sets_is_said_to_do_so(tmp_path: Path) -> None:
    b = write(tmp_path / "b.jsonl", [record(0, gt="C"), record(1, gt="C"), record(0), record(1)])
    a = write(tmp_path / "a.jsonl", [record(0), record(1)])
    assert any("B mixes question sets: 2 indices" in line for line in said(a, b))


def test_two_datasets_whose_questions_look_alike_are_said_to_be_two(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [record(0)], dataset="lvbench")
    b = write(tmp_path / "b.jsonl", [record(0)], dataset="mlvu")
    assert "The two are of different datasets: lvbench and mlvu" in said(a, b)


def test_exceptions_are_counted_apart(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [record(0), record(1)])
    b = write(tmp_path / "b.jsonl", [record(0, "", stop_reason="exception"), record(1)])
    assert any(line.endswith("0 in A, 1 in B") and line.startswith("Exceptions") for line in said(a, b))
    assert not any(line.startswith("Exceptions") for line in said(a, a))


def test_a_strangers_stop_reason_cannot_write_lines_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [record(0, stop_reason="x\nAccuracy: 1/1\x1b[2J")])
    assert "  x Accuracy: 1/1\ufffd[2J: 1" in assess_file(path, PUBLISHED).lines()


# --- an agent and a baseline


def test_an_agent_and_a_baseline_are_named_with_the_tokens_that_each_spent(tmp_path: Path) -> None:
    settings = {**SETTINGS, "agent": "uniform", "nframes": 8, "frame_tokens": 256}
    spent = {"estimated_visual_tokens": 600, "agent": "uniform", "schema": 1}
    a = write(tmp_path / "a.jsonl", [record(n, "BC"[n % 2], **spent) for n in range(8)], **settings)
    b = write(tmp_path / "b.jsonl", [record(n, estimated_visual_tokens=500 + n) for n in range(8)], **SETTINGS)
    lines = said(a, b)
    assert lines[:2] == [f"A: {a}, agent uniform, 8 frames", f"B: {b}, agent eva"]
    assert "Accuracy of A (uniform, 8 frames): 50.0000%" in lines and "Accuracy of B (eva): 100.0000%" in lines
    visual = "Visual tokens: 600.0000 in A, 503.5000 in B, difference -96.5000, 95 %"
    assert any(line.startswith(visual) for line in lines)
    assert "Settings: agent is 'uniform' in A, None in B" in lines
    content = told(a, b)
    assert content["agents"] == {"a": "uniform, 8 frames", "b": "eva"}
    assert (content["average_visual_tokens"]["a"], content["average_visual_tokens"]["b"]) == (600, 503.5)
    assert "Accuracy of A: 50.0000%" in said(a, a), "where the agents are the same, the files tell them apart"


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
    path = write(tmp_path / "a.jsonl", [record(0, agent="uniform", schema=1)], dataset="own", **settings)
    assert read_compared(path, PUBLISHED).agent == owed


def test_a_file_of_two_agents_names_both_and_a_hostile_name_is_one_short_line(tmp_path: Path) -> None:
    rows = [record(0), record(1, agent="x\n\x1b[2J" + "y" * 500, schema=1), record(2, agent="before", schema=None)]
    path = write(tmp_path / "a.jsonl", rows, **SETTINGS, agent="uniform", nframes=8)
    (line,) = [line for line in said(path, path) if line.startswith("A: ")]
    agent = line.removeprefix(f"A: {path}, agent ")
    assert agent.startswith("eva and x \ufffd[2Jyyy") and len(agent) == 60


# --- the noise floor


@pytest.fixture
def twice(tmp_path: Path) -> tuple[Path, Path]:
    a, b = ([record(n, letter) for n, letter in enumerate(answers)] for answers in ("BBBBBBBBCC", "BBBBBBBCBD"))
    return write(tmp_path / "a.jsonl", a, **SETTINGS), write(tmp_path / "b.jsonl", b, **SETTINGS)


def test_the_same_settings_twice_give_the_noise_floor(twice: tuple[Path, Path]) -> None:
    assert told(*twice)["noise_floor"] == {"answer_changed": 0.3, "correctness_changed": 0.2}
    assert said(*twice)[-2:] == [
        "  Answer changed: 3/10 = 30.0000%",
        "  Right or wrong changed: 2/10 = 20.0000%",
    ]


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
    a, b = twice
    if meta is None:
        b.with_suffix(".meta.json").unlink()
    else:
        write_meta(b, meta)
    assert told(a, b)["noise_floor"] is None
    assert not any("noise floor" in line for line in said(a, b))


@pytest.mark.parametrize(
    ("weights", "notes"),
    [
        (["/models/step200", "/copy/step200"], []),
        (None, ["The weights of B are unknown, and not compared"]),
        (8, ["The weights of B are unknown, and not compared"]),
    ],
)
def test_weights_of_another_name_are_the_same_ones_and_unknown_ones_are_said(
    twice: tuple[Path, Path], weights: object, notes: list[str]
) -> None:
    write_meta(twice[1], Meta({**SETTINGS, "weights": weights}, {}, ()))
    content = told(*twice)
    assert content["noise_floor"] is not None
    assert content["notes"] == notes


# --- hostile files


@pytest.mark.parametrize("content", [b"", b"\n\n", b"{\n", b'{"index": 0, "num_rounds": 1}\n'])
def test_a_file_that_cannot_be_scored_cannot_be_compared(twice: tuple[Path, Path], content: bytes) -> None:
    a, b = twice
    b.write_bytes(content)
    with pytest.raises(Exception, match=r"b\.jsonl"):
        said(a, b)


def test_unusable_counts_are_named_and_are_no_error(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [record(0, total_tokens=2**60), record(1)])
    b = write(tmp_path / "b.jsonl", [record(0, num_rounds="2"), record(1, num_rounds=None)])
    lines = said(a, b)
    assert "A: 1 record has no usable total_tokens: 0, left out where A is compared" in lines
    assert "B: 2 records have no usable num_rounds: 0, 1, left out where B is compared" in lines
    assert "Rounds: not known of any question in both" in lines
    content = told(a, b)
    assert (content["average_rounds"], content["average_total_tokens"]["a"]) == (None, 100)


def test_counts_at_their_limits_stay_numbers(tmp_path: Path) -> None:
    huge: Sequence[int] = [2**53, 0]
    a = write(tmp_path / "a.jsonl", [record(n, total_tokens=huge[n % 2]) for n in range(30)])
    b = write(tmp_path / "b.jsonl", [record(n, total_tokens=huge[1 - n % 2]) for n in range(30)])
    assert "NaN" not in json.dumps(told(a, b))
