"""--sample with --shuffle: a random choice of questions that can be named, repeated and extended."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness import row, write_rows

from eva.dataset.items import Item, load_items
from eva.run.options import Options, SettingsError
from eva.run.settings import choose_items, draw, find_doubts
from eva.scoring.published import load_published

# Three questions for each video, and the videos in groups, as in Video-MME.
ITEMS = [Item(n, (f"{n // 3}.mp4",), ({"role": "user", "content": "?"},), "A") for n in range(2700)]


def options(**settings: Any) -> Options:
    return Options("own", **settings)


def indices(**settings: Any) -> list[int]:
    return [item.index for item in choose_items(ITEMS, options(**settings))]


def test_a_seed_names_the_same_questions_on_every_machine() -> None:
    assert indices(sample=6, shuffle=1) == [613, 952, 1308, 1570, 1647, 2405]
    assert indices(sample=6, shuffle=2) != indices(sample=6, shuffle=1)


def test_without_the_flag_the_sample_is_the_first_questions() -> None:
    assert indices(sample=4) == [0, 1, 2, 3]
    assert len(indices()) == 2700


def test_a_larger_sample_of_a_seed_holds_the_smaller_one() -> None:
    assert set(indices(sample=20, shuffle=7)) < set(indices(sample=90, shuffle=7))
    assert indices(sample=9999, shuffle=7) == list(range(2700))


def test_it_draws_from_the_questions_of_ids_alone() -> None:
    assert set(indices(ids="100-140", sample=20, shuffle=0)) < set(range(100, 141))


def test_twenty_of_videomme_are_of_many_videos_and_of_each_third() -> None:
    for seed in range(20):
        drawn = draw(ITEMS, 20, seed)
        assert len({item.videos for item in drawn}) > 15
        assert {item.index // 900 for item in drawn} == {0, 1, 2}


def test_every_question_is_drawn_equally_often() -> None:
    counts = Counter(item.index for seed in range(4000) for item in draw(ITEMS[:20], 5, seed))
    # Binomial with n = 4000 and p = 1/4: the standard deviation is 27.
    assert all(880 < counts[n] < 1120 for n in range(20))


def test_a_seed_without_a_sample_is_refused_with_the_missing_flag_named() -> None:
    with pytest.raises(SettingsError, match="--sample N"):
        indices(shuffle=3)


def test_of_the_chosen_questions_those_are_doubted_whose_truth_no_letter_can_equal(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "own.jsonl", (row("q", truth=truth) for truth in ("B", "@", "b", "C", "(B)")))
    everything = load_items(path)
    (doubt,) = find_doubts(everything[:4], everything, path, None)
    assert doubt[0] == "ground truths" and doubt[1].startswith("2 can never be right, such as 1 ('@'), 3 ('C')")
    (other,) = find_doubts(everything[:1], everything, path, load_published()["mlvu"])
    assert other[0] == "annotations"
