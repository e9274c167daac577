"""Which files and questions a run takes, and in which order."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from harness import row, write_rows
from hypothesis import given
from hypothesis import strategies as st

from eva.dataset.items import Item, load_items
from eva.files import PROJECT
from eva.run.options import Options, SettingsError, addresses, rank_count
from eva.run.schedule import by_video
from eva.run.settings import choose_dataset, choose_items, draw, find_doubts
from eva.scoring.published import load_published

# Three questions for each video, and the videos in groups, as in Video-MME.
ITEMS = [Item(n, (f"{n // 3}.mp4",), ({"role": "user", "content": "?"},), "A") for n in range(2700)]
CONFIGURED = {"mlvu": {"jsonl": "mlvu.jsonl", "video_root": "data/videos/mlvu"}}


def indices(**settings: Any) -> list[int]:
    return [item.index for item in choose_items(ITEMS, Options("own", **settings))]


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({}, f"{PROJECT}/data/videos/mlvu"),
        ({"videos": "/disk"}, "/disk/mlvu"),
        ({"videos": "/disk", "video_root": "/own"}, "/own"),
        ({"videos": "/disk", "dataset": "mine", "jsonl": "mine.jsonl"}, "/disk/mine"),
        ({"videos": "$SCRATCH/videos"}, "$SCRATCH/videos/mlvu"),
    ],
)
def test_one_setting_names_the_folder_of_all_datasets(settings: dict[str, Any], folder: str) -> None:
    assert choose_dataset(Options(**{"dataset": "mlvu", **settings}), CONFIGURED).video_root == Path(folder)


def test_a_set_of_ones_own_needs_a_folder_of_videos() -> None:
    with pytest.raises(SettingsError, match="needs --jsonl and --video-root"):
        choose_dataset(Options("mine", jsonl=Path("mine.jsonl")), CONFIGURED)


# --- --sample with --shuffle: a random choice of questions that can be named, repeated and extended


def test_a_seed_names_the_same_questions_on_every_machine_and_a_larger_sample_holds_the_smaller_one() -> None:
    assert indices(sample=6, shuffle=1) == [613, 952, 1308, 1570, 1647, 2405]
    assert indices(sample=6, shuffle=2) != indices(sample=6, shuffle=1)
    assert set(indices(sample=20, shuffle=7)) < set(indices(sample=90, shuffle=7))
    assert indices(sample=9999, shuffle=7) == list(range(2700))
    assert set(indices(ids="100-140", sample=20, shuffle=0)) < set(range(100, 141))


def test_without_a_seed_the_sample_is_the_first_questions_and_a_seed_without_a_sample_is_refused() -> None:
    assert indices(sample=4) == [0, 1, 2, 3]
    assert len(indices()) == 2700
    with pytest.raises(SettingsError, match="--sample N"):
        indices(shuffle=3)


def test_every_question_is_drawn_equally_often() -> None:
    counts = Counter(item.index for seed in range(4000) for item in draw(ITEMS[:20], 5, seed))
    # Binomial with n = 4000 and p = 1/4: the standard deviation is 27.
    assert all(880 < counts[n] < 1120 for n in range(20))


def test_of_the_chosen_questions_those_are_doubted_whose_truth_no_letter_can_equal(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "own.jsonl", (row("q", truth=truth) for truth in ("B", "@", "b", "C", "(B)")))
    everything = load_items(path)
    (doubt,) = find_doubts(everything[:4], everything, path, None)
    assert doubt[0] == "ground truths" and doubt[1].startswith("2 can never be right, such as 1 ('@'), 3 ('C')")
    (other,) = find_doubts(everything[:1], everything, path, load_published()["mlvu"])
    assert other[0] == "annotations"


@given(st.lists(st.sampled_from("abcde")))
def test_questions_on_one_video_follow_one_another_in_the_order_they_came_in(videos: list[str]) -> None:
    items = [Item(number, (video,), ({"role": "user", "content": "?"},), "A") for number, video in enumerate(videos)]
    ordered = by_video(items)
    assert sorted(one.index for one in ordered) == list(range(len(videos)))
    changes = sum(one.videos != other.videos for one, other in pairwise(ordered))
    assert changes == max(0, len(set(videos)) - 1)
    assert all(one.index < other.index for one, other in pairwise(ordered) if one.videos == other.videos)
    assert list(dict.fromkeys(one.videos[0] for one in ordered)) == list(dict.fromkeys(videos))


# --- what flags say as text


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("http://host:8000/v1", ["http://host:8000/v1"]),
        ("http://host:8000-8002/v1", [f"http://host:800{n}/v1" for n in range(3)]),
        ("http://host:8000-8000", ["http://host:8000"]),
        ("http://a:1-2/v1,,http://b:3/v1", ["http://a:1/v1", "http://a:2/v1", "http://b:3/v1"]),
        ("http://[::1]:8000-8001/v1?key=1-2", ["http://[::1]:8000/v1?key=1-2", "http://[::1]:8001/v1?key=1-2"]),
        ("http://me:12-34@host:80/v1", ["http://me:12-34@host:80/v1"]),
        ("http://me:12-34@host:80-81/v1", ["http://me:12-34@host:80/v1", "http://me:12-34@host:81/v1"]),
        ("http://host/a:1-2/v1", ["http://host/a:1-2/v1"]),
    ],
)
def test_a_range_of_ports_stands_for_a_server_on_each(text: str, meant: list[str]) -> None:
    assert addresses(text) == tuple(meant)


@pytest.mark.parametrize("ports", ["8007-8000", "8000-70000"])
def test_a_range_of_ports_that_cannot_be_is_refused_without_its_password(ports: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"the ports {ports}") as refused:
        addresses(f"http://me:swordfish@host:{ports}/v1")
    assert "swordfish" not in str(refused.value)


def test_ranks_are_a_number_or_left_to_the_server_or_off() -> None:
    assert [rank_count(text) for text in ("auto", "8", "0")] == [None, 8, 0]
    with pytest.raises(Exception, match="from 0 on"):
        rank_count("-1")
