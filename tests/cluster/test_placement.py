"""Which node plays which sample; no cluster is needed for that."""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.cluster.placement import Placement
from eva.cluster.ray_actors import shorten
from eva.dataset.items import Item


def questions(videos: str) -> list[Item]:
    """One question a letter, on the video of that name."""
    return [Item(index, (video,), (), "B") for index, video in enumerate(videos)]


def placed(placement: Placement, items: list[Item], slots: int) -> dict[int, str]:
    """Where each item goes, when the one that has run longest ends first; `slots` at a time."""
    waiting, running, where = deque(items), deque[Item](), dict[int, str]()
    while waiting or running:
        item = placement.take(waiting) if len(running) < slots else None
        if item is not None:
            where[item.index] = placement.node_of(item)
            running.append(item)
        else:
            placement.end(running.popleft())
    return where


def joined(**nodes: str) -> Placement:
    placement = Placement()
    for node, videos in nodes.items():
        placement.join(node, frozenset(videos))
    return placement


def nodes_of_videos(items: list[Item], where: dict[int, str]) -> dict[str, set[str]]:
    nodes: defaultdict[str, set[str]] = defaultdict(set)
    for item in items:
        nodes[item.videos[0]].add(where[item.index])
    return nodes


def test_the_questions_on_one_video_go_to_one_node_and_the_nodes_are_equally_busy() -> None:
    idle = placed(joined(one="a", two="a"), questions("aaaaaaaa"), slots=4)
    assert Counter(idle.values()) == {"one": 4, "two": 4}, "a node that would be idle takes another one's"
    items = questions("aaaabbbbccccddddeeeeffff")
    where = placed(joined(one="abcdef", two="abcdef", three="abcdef"), items, slots=6)
    assert all(len(nodes) == 1 for nodes in nodes_of_videos(items, where).values())
    assert Counter(where.values()) == {"one": 8, "two": 8, "three": 8}


def test_what_was_only_on_a_node_that_went_waits_for_one_that_has_it() -> None:
    placement = joined(one="ab", two="a")
    (given,) = questions("b")
    assert placement.take(deque([given])) is given
    assert placement.leave("one") == {given.index}
    assert placement.node_of(given) == ""
    waiting = deque(questions("ba"))
    first = placement.take(waiting)
    assert first is not None
    assert (first.videos, placement.node_of(first)) == (("a",), "two")
    assert placement.take(waiting) is None
    (last,) = waiting
    assert placement.node_of(last) == ""
    placement.join("three", frozenset("b"))
    assert placement.take(waiting) is last
    assert placement.node_of(last) == "three"


@given(st.lists(st.sampled_from("abcdefx"), max_size=60), st.integers(1, 9), st.integers(0, 2**32))
def test_every_sample_is_placed_once_and_only_where_its_video_is(videos: list[str], slots: int, seed: int) -> None:
    dice = random.Random(seed)
    holds = {
        f"node {number}": "".join(dice.sample("abcdef", dice.randint(1, 6))) for number in range(dice.randint(1, 4))
    }
    items = questions("".join(videos))
    where = placed(joined(**holds), items, slots)
    assert sorted(where) == list(range(len(items)))
    for item in items:
        holders = {node for node, held in holds.items() if item.videos[0] in held}
        assert where[item.index] in (holders or set(holds))


@pytest.mark.parametrize(
    ("text", "owed"), [("", "RuntimeError"), ("one", "one"), (" first \nsecond\n last\n", "first ... last")]
)
def test_of_the_pages_of_an_error_of_ray_the_first_and_the_last_line_are_told(text: str, owed: str) -> None:
    assert shorten(RuntimeError(text)) == owed
    assert len(shorten(RuntimeError(f"{text}\n{'x' * 10_000}"))) < 400
