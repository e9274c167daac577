"""accuracy.py on made-up results: which dataset it is, what is covered, how it stands beside the published figures."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness import called
from results import PUBLISHED, Row, correlated, outcomes, result, write_result

from eva.records.meta import Meta
from eva.scoring.figures import file_json, file_lines
from eva.scoring.interval import Interval, share_interval
from eva.scoring.published import Figure, put_beside, settings_caveats
from eva.scoring.result_file import dataset_of
from eva.scoring.score import make_score

ROWS = {
    "videomme": 2700,
    "longvideobench": 1337,
    "mlvu": 2174,
    "lsdbench": 1304,
    "videoholmes": 1837,
    "lvbench": 1549,
}
LSDBENCH = correlated(1304, videos=400, share=0.5)
SHA256 = PUBLISHED["lsdbench"].annotations_sha256
SETTINGS = {"dataset": "lsdbench", "max_turns": 6, "max_visual_tokens": 12000, "annotations_sha256": SHA256}
SHUFFLED = [LSDBENCH[n] for n in np.random.default_rng(3).permutation(len(LSDBENCH))]


def is_right(record: Row) -> bool:
    return bool(record["answer"] == record["gt"])


def lines_of(
    folder: Path, records: Sequence[Row], settings: Row | None = None, *, items: int | None = None
) -> list[str]:
    return file_lines(result(folder / "result_x.jsonl", records, settings, items=items))


def beginning(lines: Sequence[str], start: str) -> list[str]:
    return [line for line in lines if line.startswith(start)]


# --- the reference's lines


@pytest.mark.process
@pytest.mark.parametrize("records", [LSDBENCH, SHUFFLED, LSDBENCH[:600], correlated(30, videos=1, share=0.5)])
def test_the_references_lines_stay_first_and_as_they_are(tmp_path: Path, records: Sequence[Row]) -> None:
    done = called("accuracy.py", write_result(tmp_path / "result_x.jsonl", records))
    assert (done.returncode, done.stderr) == (0, "")
    count, right = len(records), sum(map(is_right, records))
    reasons = Counter(record["stop_reason"] for record in records)
    owed = [
        f"Total entries: {count}",
        f"Accuracy: {right}/{count} = {right / count:.4%}",
        f"Empty answers: {sum(not record['answer'] for record in records)}",
        f"Average rounds: {sum(record['num_rounds'] for record in records) / count:.4f}",
        f"Average total tokens: {sum(record['total_tokens'] for record in records) / count:.4f}",
        "Stop reasons:",
        *(f"  {reason}: {times}" for reason, times in reasons.most_common()),
    ]
    lines = done.stdout.splitlines()
    assert lines[: len(owed)] == owed
    assert lines[len(owed)].startswith("95 % interval")


def test_the_interval_printed_is_that_of_whole_videos_and_does_not_depend_on_the_order(tmp_path: Path) -> None:
    lines, shuffled = lines_of(tmp_path, LSDBENCH), lines_of(tmp_path, SHUFFLED)
    interval = share_interval([record["videos"][0] for record in LSDBENCH], [is_right(one) for one in LSDBENCH])
    assert interval is not None
    assert f"95 % interval: {interval.low:.2%} to {interval.high:.2%}, clustered by video" in lines
    assert sorted(shuffled) == sorted(lines)


def test_replies_that_ended_at_their_limit_are_counted_and_the_flag_is_named(tmp_path: Path) -> None:
    cut = [{"finish_reason": reason} for reason in ("length", "stop", "length", None)]
    file = result(tmp_path / "x.jsonl", [{**LSDBENCH[0], "trajectory": cut}, *LSDBENCH[1:3]])
    assert file_json(file)["replies_cut"] == 2
    assert "Replies cut at --max-tokens: 2" in file_lines(file)
    assert not beginning(lines_of(tmp_path, LSDBENCH), "Replies cut")


# --- which dataset it is

# A meta file that names no dataset says as little as none.
NAMELESS: dict[str, Meta | None] = {
    "no meta file": None,
    "an empty one": Meta.unknown(),
    "one without the dataset": Meta({"model": "EVA"}, {}, ()),
    "an empty name": Meta({"dataset": ""}, {}, ()),
    "a null": Meta({"dataset": None}, {}, ()),
    "a number": Meta({"dataset": 7}, {}, ()),
}
UNKNOWN: dict[str, Callable[[list[int]], list[int]]] = {
    "one missing": lambda indices: indices[:-1],
    "one too many": lambda indices: [*indices, len(indices)],
    "counted from 1": lambda indices: [index + 1 for index in indices],
    "one twice, one missing": lambda indices: [0, *indices[:-1]],
}


@pytest.mark.parametrize("meta", NAMELESS)
def test_each_dataset_is_known_by_its_indices_alone_and_no_other_ones(meta: str) -> None:
    for dataset, rows in ROWS.items():
        assert dataset_of(NAMELESS[meta], range(rows)[::-1], PUBLISHED) == dataset
        assert dataset_of(NAMELESS[meta], [0, *range(rows)], PUBLISHED) == dataset, "a line may stand there twice"
        for change in UNKNOWN.values():
            assert dataset_of(NAMELESS[meta], change(list(range(rows))), PUBLISHED) == ""


def test_a_set_of_ones_own_has_no_published_figures_even_if_its_indices_would_fit(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, LSDBENCH, {"dataset": "own"})
    assert "Dataset: own" in lines and not beginning(lines, "Published")


# --- beside the published figures


def test_both_figures_of_lsdbench_stand_there_with_difference_and_whether_inside(tmp_path: Path) -> None:
    percent = 100 * sum(map(is_right, LSDBENCH)) / len(LSDBENCH)
    file = result(tmp_path / "result_x.jsonl", LSDBENCH)
    assert [(one.source, one.questions, one.inside_interval) for one in file.beside] == [
        ("repository", 1304, True), ("paper", 1304, False)
    ]  # fmt: skip
    repository, paper = beginning(file_lines(file), "Published")
    assert f"49.31% (repository, of 1304 questions), difference {percent - 49.31:+.2f} points, inside" in repository
    assert f"51.00% (paper, of 1304 questions), difference {percent - 51.0:+.2f} points, outside" in paper
    assert not any("covers only" in line for line in file_lines(file))


@pytest.mark.parametrize(
    ("low", "high", "inside"), [(0.40, 0.60, True), (0.50, 0.60, True), (0.51, 0.60, False), (0.40, 0.49, False)]
)
def test_a_figure_is_inside_or_outside_the_interval(low: float, high: float, inside: bool) -> None:
    entry = replace(PUBLISHED["lvbench"], rows=1, figures=(Figure(0.5, "repository"),))
    score = replace(make_score(outcomes(LSDBENCH[:1]), 0), accuracy=0.55, interval_95=Interval(low, high))
    (one,) = put_beside(entry, [0], score)
    assert (one.difference, one.inside_interval) == (pytest.approx(0.05), inside)
    without = put_beside(entry, [0], replace(score, interval_95=None))
    assert without == [replace(one, inside_interval=None)]


@pytest.mark.parametrize(
    ("records", "covered"), [(LSDBENCH[:600], 600), ([*LSDBENCH[:-4], *LSDBENCH[:4]], 1300), (LSDBENCH[:10], 10)]
)
def test_beside_a_part_of_a_dataset_a_figure_over_all_of_it_is_not_said_to_lie_anywhere(
    tmp_path: Path, records: list[Row], covered: int
) -> None:
    """Questions count, not lines: those that stand there twice cover nothing more."""
    file = result(tmp_path / "result_x.jsonl", records, SETTINGS)
    assert {(one.difference, one.inside_interval) for one in file.beside} == {(None, None)}
    lines = file_lines(file)
    assert f"This result covers only {covered} of the 1304 published questions" in lines
    assert beginning(lines, "Published")[0] == "Published: 49.31% (repository, of 1304 questions)"
    assert file_json(file)["covered"] == covered


def test_indices_that_the_dataset_does_not_have_cover_nothing(tmp_path: Path) -> None:
    file = result(tmp_path / "x.jsonl", [{**LSDBENCH[0], "index": n} for n in (0, 1, 1549, -1)], {"dataset": "lvbench"})
    assert file.covered == 2


def test_a_dataset_of_which_no_figure_is_published_has_none_beside_it() -> None:
    score = make_score(outcomes(LSDBENCH), 0)
    assert put_beside(replace(PUBLISHED["lsdbench"], figures=()), range(1304), score) == []
    assert put_beside(None, range(1304), score) == []


# --- what keeps a result from being comparable


@pytest.mark.parametrize(
    ("changed", "mixed", "owed"),
    [
        ({"max_visual_tokens": 6000}, (), "max_visual_tokens is 6000, published with 12000"),
        ({"max_turns": 3}, (), "max_turns is 3, published with 6"),
        ({"temperature": 0.7}, (), "temperature is 0.7, published with 0"),
        ({"agent": "uniform"}, (), "Not the published settings: agent is uniform"),
        ({"annotations_sha256": "0" * 64}, (), "Not the published questions"),
        ({}, ({"max_turns": 3},), "Mixed"),
    ],
)
def test_a_run_unlike_the_published_one_says_so(
    changed: Row, mixed: tuple[Mapping[str, object], ...], owed: str
) -> None:
    (line,) = settings_caveats(Meta({**SETTINGS, **changed}, {}, (), mixed=mixed), PUBLISHED["lsdbench"])
    assert owed in line
    assert settings_caveats(Meta(SETTINGS, {}, ()), PUBLISHED["lsdbench"]) == []


def test_another_annotation_file_is_told_by_its_hash_and_its_number_of_questions() -> None:
    other = {**SETTINGS, "annotations_sha256": "0" * 64}
    changed, shorter = (
        "".join(settings_caveats(Meta(other, {}, (), coverage={"items": count}), PUBLISHED["lsdbench"]))
        for count in (1304, 12)
    )
    assert "another SHA-256" in changed and "1304" not in changed
    assert "12 questions instead of 1304" in shorter


def test_settings_that_nothing_names_are_said_to_be_unknown(tmp_path: Path) -> None:
    assert beginning(lines_of(tmp_path, LSDBENCH, {"dataset": "lsdbench"}), "Not ") == [
        "Not the published settings: max_turns is not known, published with 6",
        "Not the published settings: max_visual_tokens is not known, published with 12000",
        "Not known whether these are the published questions: the meta file names no annotation file",
    ]
    assert beginning(lines_of(tmp_path / "none", LSDBENCH), "The settings are unknown")
    assert beginning(lines_of(tmp_path / "empty", LSDBENCH, {}), "The settings are unknown")


# --- strangers' files


@pytest.mark.process
def test_a_meta_file_that_cannot_be_read_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    path = write_result(tmp_path / "result_x.jsonl", LSDBENCH[:30])
    (tmp_path / "result_x.meta.json").write_text(json.dumps({"settings": 1}), encoding="utf-8")
    done = called("accuracy.py", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "result_x.meta.json" in done.stderr and "Traceback" not in done.stderr


def test_a_strangers_file_cannot_write_to_the_terminal_or_lines_of_its_own(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for number, path in enumerate(paths):
        settings = {"dataset": "lvbench", "max_turns": "6\n\x1b[2J", "agent": "x\x1b[31m", "seed": f"{number}\x1b[2J"}
        write_result(path, [{**one, "stop_reason": "x\nAccuracy: 1/1\x1b[2J"} for one in LSDBENCH[:30]], settings)
    for count in (1, 2, 3):
        done = called("accuracy.py", *paths[:count])
        assert "\x1b" not in done.stdout
        assert len(re.findall("^Accuracy", done.stdout, re.MULTILINE)) == 1
    assert "max_turns is 6 \ufffd[2J, published with 6" in called("accuracy.py", paths[0]).stdout
