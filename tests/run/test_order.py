"""Samples of one video run near one another."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from eva.dataset.items import Item
from eva.run.schedule import by_video


def item(index: int, video: str) -> Item:
    return Item(index, (video,), ({"role": "user", "content": "?"},), "A", {})


def test_items_of_one_video_follow_one_another_in_the_order_they_came_in() -> None:
    items = [item(number, video) for number, video in enumerate("bacbabd")]
    assert [(one.videos[0], one.index) for one in by_video(items)] == [
        ("b", 0), ("b", 3), ("b", 5), ("a", 1), ("a", 4), ("c", 2), ("d", 6),
    ]  # fmt: skip


@given(st.lists(st.sampled_from("abcde")))
def test_every_item_stays_and_no_video_is_left_and_come_back_to(videos: list[str]) -> None:
    ordered = by_video([item(number, video) for number, video in enumerate(videos)])
    assert sorted(one.index for one in ordered) == list(range(len(videos)))
    changes = sum(one.videos != other.videos for one, other in pairwise(ordered))
    assert changes == max(0, len(set(videos)) - 1)
