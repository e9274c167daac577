"""accuracy.py on made-up results: which dataset it is, what is covered, how it stands beside the published figures."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import called, write_rows

from eva.records.meta import Meta, write_meta
from eva.scoring.assessment import assess_file
from eva.scoring.coverage import write_spans
from eva.scoring.interval import Interval, clustered_interval
from eva.scoring.origin import dataset_of
from eva.scoring.published import Figure, load_published, published_lines, published_questions

PUBLISHED = load_published()
ROWS = {
    "videomme": 2700,
    "longvideobench": 1337,
    "mlvu": 2174,
    "lsdbench": 1304,
    "videoholmes": 1837,
    "lvbench": 1549,
}

Record = dict[str, Any]


def results(count: int, *, videos: int, share: float, seed: int = 1) -> list[Record]:
    """Made-up records, about `share` of them right; the questions of one video are mostly right or wrong together."""
    dice = np.random.default_rng(seed)
    luck = np.clip(dice.normal(share, 0.3, videos), 0, 1)
    reasons = ("answer_found", "answer_found", "answer_found", "max_turns_exceeded")
    return [
        {
            "index": number,
            "videos": [f"video {number % videos}.mp4"],
            "gt": "B",
            "answer": "B" if dice.random() < luck[number % videos] else ("", "C")[number % 2],
            "stop_reason": reasons[number % 4],
            "num_rounds": number % 5,
            "total_tokens": 100 + number,
        }
        for number in range(count)
    ]


def is_right(record: Record) -> bool:
    return bool(record["answer"] == record["gt"])


LSDBENCH = results(1304, videos=400, share=0.5)
REPEATED = [*LSDBENCH[:-4], *LSDBENCH[:4]]
ONE_VIDEO = results(30, videos=1, share=0.5)
LSDBENCH_SHA256 = PUBLISHED["lsdbench"].annotations_sha256
AS_PUBLISHED = {"max_turns": 6, "max_visual_tokens": 12000, "annotations_sha256": LSDBENCH_SHA256}
# Name -> the records and the dataset of their meta file, if they have one. All but the unfinished are of runs that were
# to ask just these questions.
FILES: dict[str, tuple[Sequence[Record], str | None]] = {
    "whole": (LSDBENCH, None),
    "whole, shuffled": ([LSDBENCH[n] for n in np.random.default_rng(3).permutation(len(LSDBENCH))], None),
    "whole, with meta": (LSDBENCH, "lsdbench"),
    "part, with meta": (LSDBENCH[:600], "lsdbench"),
    "part, unfinished": (LSDBENCH[:600], "lsdbench"),
    "repeated, with meta": (REPEATED, "lsdbench"),
    "of one's own": (LSDBENCH, "own"),
    "one video": (ONE_VIDEO, "lvbench"),
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The lines that accuracy.py prints of each file: of the first as a process, of the others by its report."""
    folder = tmp_path_factory.mktemp("results")
    paths = {
        name: write_result(folder / f"result_{n}.jsonl", *FILES[name], unfinished="unfinished" in name)
        for n, name in enumerate(FILES)
    }
    done = run(paths["whole"])
    assert (done.returncode, done.stderr) == (0, "")
    reports = {name: said(path) for name, path in paths.items() if name != "whole"}
    return {"whole": done.stdout.splitlines(), **reports}


def said(path: Path) -> list[str]:
    return assess_file(path, PUBLISHED).lines()


def write_result(path: Path, records: Sequence[Record], dataset: str | None, *, unfinished: bool = False) -> Path:
    if dataset is not None:
        chosen = write_spans({record["index"] for record in records})
        items = {"items": ROWS.get(dataset, len(records))}
        coverage = items if unfinished else {**items, "chosen": chosen}
        write_meta(path, Meta({"dataset": dataset, **AS_PUBLISHED}, {}, (), coverage=coverage))
    return write_rows(path, records)


def run(path: Path) -> subprocess.CompletedProcess[str]:
    return called("accuracy.py", path)


def reference_lines(records: Sequence[Record]) -> list[str]:
    count, right = len(records), sum(map(is_right, records))
    reasons = Counter(record["stop_reason"] for record in records)
    return [
        f"Total entries: {count}",
        f"Accuracy: {right}/{count} = {right / count:.4%}",
        f"Empty answers: {sum(not record['answer'] for record in records)}",
        f"Average rounds: {sum(record['num_rounds'] for record in records) / count:.4f}",
        f"Average total tokens: {sum(record['total_tokens'] for record in records) / count:.4f}",
        "Stop reasons:",
        *(f"  {reason}: {times}" for reason, times in reasons.most_common()),
    ]


@pytest.mark.process
@pytest.mark.parametrize("name", [name for name in FILES if "unfinished" not in name])
def test_the_references_lines_stay_first_and_as_they_are(printed: Mapping[str, list[str]], name: str) -> None:
    owed = reference_lines(FILES[name][0])
    assert printed[name][: len(owed)] == owed
    assert printed[name][len(owed)].startswith("95 % interval")


# --- which dataset it is


def lines_of_published(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if line.startswith("Published")]


@pytest.mark.process
@pytest.mark.parametrize("name", ["whole", "whole, shuffled", "whole, with meta", "part, with meta"])
def test_a_dataset_is_known_by_its_meta_or_by_all_its_indices(printed: Mapping[str, list[str]], name: str) -> None:
    assert "Dataset: lsdbench" in printed[name]
    assert len(lines_of_published(printed[name])) == 2


@pytest.mark.process
def test_a_set_of_ones_own_has_no_published_figures_even_if_its_indices_would_fit(
    printed: Mapping[str, list[str]],
) -> None:
    assert len(printed["of one's own"]) == len(reference_lines(LSDBENCH)) + 3, "interval, what it can show, chance"


def test_a_meta_file_without_settings_hides_neither_the_dataset_nor_makes_up_settings(tmp_path: Path) -> None:
    """As the harness writes beside the records of another program."""
    bare = write_rows(tmp_path / "bare.jsonl", LSDBENCH)
    empty = write_rows(tmp_path / "empty.jsonl", LSDBENCH)
    write_meta(empty, Meta.unknown())
    assert said(empty) == said(bare)


# A meta file that names no dataset says as little as none.
NAMELESS: dict[str, Meta | None] = {
    "no meta file": None,
    "an empty one": Meta.unknown(),
    "one without the dataset": Meta({"model": "EVA"}, {}, ()),
    "an empty name": Meta({"dataset": ""}, {}, ()),
    "a null": Meta({"dataset": None}, {}, ()),
    "a number": Meta({"dataset": 7}, {}, ()),
}


@pytest.mark.parametrize("dataset", ROWS)
@pytest.mark.parametrize("meta", NAMELESS)
def test_each_dataset_is_known_by_its_indices_alone(dataset: str, meta: str) -> None:
    assert dataset_of(NAMELESS[meta], range(ROWS[dataset])[::-1], PUBLISHED) == dataset
    assert dataset_of(NAMELESS[meta], [0, *range(ROWS[dataset])], PUBLISHED) == dataset, "a line may stand there twice"


UNKNOWN: dict[str, Callable[[list[int]], list[int]]] = {
    "one missing": lambda indices: indices[:-1],
    "one too many": lambda indices: [*indices, len(indices)],
    "counted from 1": lambda indices: [index + 1 for index in indices],
    "one twice, one missing": lambda indices: [0, *indices[:-1]],
}


@pytest.mark.parametrize("change", UNKNOWN)
def test_other_indices_are_those_of_no_dataset(change: str) -> None:
    for rows in ROWS.values():
        indices = UNKNOWN[change](list(range(rows)))
        assert dataset_of(None, indices, PUBLISHED) == ""


# --- what it covers


def coverage_lines(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if "covers only" in line]


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "covered"), [("part, with meta", 600), ("part, unfinished", 600), ("repeated, with meta", 1300)]
)
def test_a_part_of_a_dataset_is_said_to_be_one(printed: Mapping[str, list[str]], name: str, covered: int) -> None:
    """Questions count, not lines: those that stand there twice cover nothing more."""
    (line,) = coverage_lines(printed[name])
    assert f"covers only {covered} of 1304 questions" in line
    assert printed[name].index(line) < printed[name].index(lines_of_published(printed[name])[0])


@pytest.mark.process
def test_an_unfinished_run_has_no_interval_and_no_difference(printed: Mapping[str, list[str]]) -> None:
    right = sum(map(is_right, LSDBENCH[:600]))
    assert printed["part, unfinished"][:3] == [
        "Partial: 600 of 1304 questions have a record",
        f"So far: {right} of 600 answered are right; 704 to go",
        f"Accuracy in the end: from {right / 1304:.2%} if the rest were wrong, "
        f"to {(right + 704) / 1304:.2%} if it were right",
    ]
    assert lines_of_published(printed["part, unfinished"]) == [
        "Published (repository): 49.31%",
        "Published (paper): 51.00%",
    ]
    assert not any("interval" in line or line.startswith("Accuracy:") for line in printed["part, unfinished"])


@pytest.mark.process
def test_a_part_that_was_chosen_is_complete(printed: Mapping[str, list[str]]) -> None:
    assert "Complete for 600 of 1304 questions: the others were not chosen" in printed["part, with meta"]


@pytest.mark.process
@pytest.mark.parametrize("name", ["whole", "whole, with meta"])
def test_a_whole_dataset_is_not_said_to_be_a_part(printed: Mapping[str, list[str]], name: str) -> None:
    assert coverage_lines(printed[name]) == []


def test_indices_that_the_dataset_does_not_have_cover_nothing() -> None:
    (line,) = coverage_lines(published_lines(PUBLISHED["lvbench"], [0, 1, 1549, -1], 1.0, None))
    assert "covers only 2 of 1549 questions" in line


# --- beside the published figures


@pytest.mark.process
def test_both_figures_of_lsdbench_stand_there_with_difference_and_whether_inside(
    printed: Mapping[str, list[str]],
) -> None:
    percent = 100 * sum(map(is_right, LSDBENCH)) / len(LSDBENCH)
    low, high = interval_percent(printed["whole"])
    assert low < 49.31 < high < 51.0, "the made-up result must stand between the two"
    assert lines_of_published(printed["whole"]) == [
        f"Published (repository): 49.31%, difference {percent - 49.31:+.2f} points, inside the 95 % interval",
        f"Published (paper): 51.00%, difference {percent - 51.0:+.2f} points, outside the 95 % interval",
    ]


@pytest.mark.parametrize(
    ("low", "high", "where"),
    [(0.40, 0.60, "inside"), (0.50, 0.60, "inside"), (0.51, 0.60, "outside"), (0.40, 0.49, "outside")],
)
def test_a_figure_is_inside_or_outside_the_interval(low: float, high: float, where: str) -> None:
    entry = replace(PUBLISHED["lvbench"], rows=1, figures=(Figure(0.5, "repository"),))
    _, line = published_lines(entry, [0], 0.55, Interval(low, high))
    assert line == f"Published (repository): 50.00%, difference +5.00 points, {where} the 95 % interval"


@pytest.mark.process
def test_without_an_interval_nothing_is_said_to_be_inside_it(printed: Mapping[str, list[str]]) -> None:
    (line,) = lines_of_published(printed["one video"])
    percent = 100 * sum(map(is_right, ONE_VIDEO)) / len(ONE_VIDEO)
    assert line == f"Published (repository): 43.32%, difference {percent - 43.32:+.2f} points"


# --- how sure it is


def interval_percent(lines: Sequence[str]) -> tuple[float, float]:
    (line,) = [line for line in lines if line.startswith("95 % interval")]
    found = re.fullmatch(r"95 % interval, clustered by video: (\d+\.\d\d)% to (\d+\.\d\d)%", line)
    assert found, line
    return float(found[1]), float(found[2])


def bootstrap_by_hand(videos: Sequence[str], correct: Sequence[bool], *, seed: int = 99) -> tuple[float, float]:
    """Draws as many videos as there are, with replacement, pools their questions, and does so again and again."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for video, right in zip(videos, correct, strict=True):
        groups[video].append(right)
    pools = [np.array(group) for group in groups.values()]
    dice = np.random.default_rng(seed)
    shares = [np.concatenate([pools[n] for n in dice.integers(0, len(pools), len(pools))]).mean() for _ in range(3000)]
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.process
def test_the_interval_printed_is_that_of_a_bootstrap_over_videos(printed: Mapping[str, list[str]]) -> None:
    low, high = bootstrap_by_hand([r["videos"][0] for r in LSDBENCH], [is_right(r) for r in LSDBENCH])
    assert interval_percent(printed["whole"]) == pytest.approx((100 * low, 100 * high), abs=0.4)


def together(sizes: Sequence[int], *, share: float = 0.45) -> tuple[list[str], list[bool]]:
    """Videos with `sizes` questions each, all of a video's right or all wrong."""
    dice = np.random.default_rng(5)
    verdicts = [(f"video {n}", bool(dice.random() < share), size) for n, size in enumerate(sizes)]
    videos = [video for video, _, size in verdicts for _ in range(size)]
    return videos, [right for _, right, size in verdicts for _ in range(size)]


SIZES = {
    "five each": [5] * 100,
    "one to thirty": [1 + n * 7 % 30 for n in range(103)],
    "one huge among small ones": [120] + [3] * 80,
    "one each": [1] * 300,
}


@pytest.mark.parametrize("name", SIZES)
def test_the_interval_is_that_of_whole_videos_drawn_however_many_questions_they_have(name: str) -> None:
    videos, correct = together(SIZES[name])
    interval = clustered_interval(videos, correct)
    assert interval is not None
    low, high = bootstrap_by_hand(videos, correct)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_the_interval_is_wider_where_the_questions_of_a_video_stand_or_fall_together() -> None:
    videos, correct = together([5] * 100)
    clustered = clustered_interval(videos, correct)
    single = clustered_interval([str(n) for n in range(len(correct))], correct)
    assert clustered is not None
    assert single is not None
    ratio = (clustered.high - clustered.low) / (single.high - single.low)
    assert ratio == pytest.approx(5**0.5, rel=0.1), "five questions that agree are worth one"


@pytest.mark.process
def test_the_same_records_give_the_same_lines_whatever_their_order(printed: Mapping[str, list[str]]) -> None:
    length = len(reference_lines(LSDBENCH))
    assert printed["whole"] == printed["whole, with meta"], "a second process draws alike"
    assert printed["whole, shuffled"][length:] == printed["whole"][length:]


@pytest.mark.parametrize("right", [False, True])
def test_an_interval_of_all_or_nothing_is_a_point(right: bool) -> None:
    assert clustered_interval(["a", "a", "b", "c"], [right] * 4) == Interval(float(right), float(right))


@pytest.mark.parametrize("videos", [[], ["a"], ["a", "a"]])
def test_fewer_than_two_videos_have_no_interval(videos: list[str]) -> None:
    assert clustered_interval(videos, [True] * len(videos)) is None


@pytest.mark.parametrize(
    ("changed", "mixed", "owed"),
    [
        ({"max_visual_tokens": 6000}, (), "max_visual_tokens is 6000, published with 12000"),
        ({"max_turns": 3}, (), "max_turns is 3, published with 6"),
        ({"agent": "uniform"}, (), "Not the published settings: agent is uniform"),
        ({"annotations_sha256": "0" * 64}, (), "Not the published questions"),
        ({}, ({"max_turns": 3},), "Mixed"),
    ],
)
def test_a_run_unlike_the_published_one_says_so(
    tmp_path: Path, changed: dict[str, object], mixed: tuple[dict[str, object], ...], owed: str
) -> None:
    path = write_rows(tmp_path / "result_x.jsonl", LSDBENCH)
    write_meta(path, Meta({"dataset": "lsdbench", **AS_PUBLISHED, **changed}, {}, (), mixed=mixed))
    assert owed in said(path)[-1]


def test_another_annotation_file_is_told_by_its_hash_and_its_number_of_questions() -> None:
    lsdbench = PUBLISHED["lsdbench"]
    assert published_questions(lsdbench, LSDBENCH_SHA256, 1304) == []
    (changed,) = published_questions(lsdbench, "0" * 64, 1304)
    assert "another SHA-256" in changed and "1304" not in changed
    (shorter,) = published_questions(lsdbench, "0" * 64, 12)
    assert "12 questions instead of 1304" in shorter


def test_settings_that_the_meta_file_does_not_name_are_said_to_be_unknown(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "result_x.jsonl", LSDBENCH)
    write_meta(path, Meta({"dataset": "lsdbench"}, {}, ()))
    assert [line for line in said(path) if line.startswith("Not ")] == [
        "Not the published settings: max_turns is not known, published with 6",
        "Not the published settings: max_visual_tokens is not known, published with 12000",
        "Not known whether these are the published questions: the meta file names no annotation file",
    ]


@pytest.mark.process
def test_a_meta_file_that_cannot_be_read_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "result_x.jsonl", ONE_VIDEO)
    (tmp_path / "result_x.meta.json").write_text(json.dumps({"settings": 1}), encoding="utf-8")
    done = run(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "result_x.meta.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_strangers_meta_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for number, path in enumerate(paths):
        settings = {"dataset": "lvbench", "max_turns": "6\n\x1b[2J", "agent": "x\x1b[31m", "seed": f"{number}\x1b[2J"}
        write_meta(path, Meta(settings, {}, (), coverage={"items": 1549, "chosen": write_spans(set(range(30)))}))
        write_rows(path, ONE_VIDEO)
    for count in (1, 2, 3):
        done = called("accuracy.py", *paths[:count])
        assert "\x1b" not in done.stdout
        assert ("max_turns is 6 \ufffd[2J, published with 6" in done.stdout) == (count != 2)
