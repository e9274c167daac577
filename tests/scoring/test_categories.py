"""eva/scoring/categories.py: the group of a question."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from harness import SHARED
from own_rows import own_rows

from eva.records.schema import Record, read_record
from eva.scoring.categories import categories

ANNOTATIONS = SHARED / "annotations"
FILES = {
    "lvbench": "LVBench_raw_full_root.jsonl",
    "videoholmes": "videoholmes_raw_full.jsonl",
    "mlvu": "MLVU_MCQ_raw_full.jsonl",
}


def holding(**fields: object) -> Record:
    return read_record({"index": 0, **fields})


# --- categories


@pytest.mark.parametrize(
    ("dataset", "owed"),
    [
        ("lvbench", {("reasoning", "entity recognition")}),
        ("videoholmes", {("SR",)}),
        ("mlvu", {("1_plotQA",), ("2_needle",), ("4_count",), ("7_topic_reasoning",)}),
        ("videomme", {()}),
        ("longvideobench", {()}),
        ("lsdbench", {()}),
    ],
)
def test_each_dataset_has_its_own_place_for_the_category(dataset: str, owed: set[tuple[str, ...]]) -> None:
    assert {categories(dataset, read_record(row)) for row in own_rows(dataset)} == owed


@pytest.mark.parametrize(
    ("text", "owed"),
    [
        ("['reasoning']", ("reasoning",)),
        ("['event understanding', 'temporal grounding']", ("event understanding", "temporal grounding")),
        ("[\"the artist's\", 'b']", ("the artist's", "b")),
        ("['a', 'a']", ("a",)),
        ("[]", ()),
        ("['']", ()),
        ("[__import__('os').system('false')]", ("os", "false")),
        ("[" * 100_000, ()),
        (["a", 1, "b"], ("a", "b")),
        ("reasoning", ("reasoning",)),
        (None, ()),
        (3, ()),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_text_of_a_list_is_read_as_texts_and_nothing_of_it_runs(text: object, owed: tuple[str, ...]) -> None:
    assert categories("lvbench", holding(question_type=text)) == owed


@pytest.mark.parametrize(
    ("seconds", "owed"),
    [(11, "short"), (121, "short"), (240, "medium"), (905, "medium"), (1800, "long"), (1e5, "long")],
)
def test_videommes_groups_reach_to_where_the_next_one_begins(seconds: float, owed: str) -> None:
    assert categories("videomme", holding(video_duration_s=seconds)) == (owed,)


@pytest.mark.parametrize("path", ["clip.mp4", "/videos/clip.mp4", "", "a\0b", 3])
def test_a_path_without_a_task_folder_has_no_category(path: object) -> None:
    assert categories("mlvu", holding(videos=[path])) == ()


@pytest.mark.parametrize("dataset", ["", "own", "longvideobench"])
def test_any_other_dataset_may_name_a_category(dataset: str) -> None:
    for named in (" cats ", ["cats", "cats"]):
        assert categories(dataset, holding(category=named)) == ("cats",)
    for value in ("", " ", None, 3, [3], {"a": 1}):
        assert categories(dataset, holding(category=value)) == ()


def real_rows(dataset: str) -> list[dict[str, Any]]:
    path = ANNOTATIONS / FILES[dataset]
    if not path.is_file():
        pytest.skip("the annotation files are not here")
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize(("dataset", "kinds"), [("lvbench", 6), ("videoholmes", 7), ("mlvu", 7)])
def test_every_real_row_has_a_category(dataset: str, kinds: int) -> None:
    found = [categories(dataset, read_record(row)) for row in real_rows(dataset)]
    assert all(found)
    assert len(Counter(name for names in found for name in names)) == kinds
