"""Which node plays which sample; no cluster is needed for that."""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque

from hypothesis import given
from hypothesis import strategies as st

from eva.items import Item
from eva.placement import Placement


def questions(videos: str) -> list[Item]:
    """One question a letter, on the video of that name."""
    return [Item(index, (video,), (), "B") for index, video in enumerate(videos)]


def placed(placement: Placement, items: list[Item], slots: int) -> dict[int, str]:
    """Where each item goes, when the one that has run longest ends first; `slots` at a time."""
    waiting, running, where = deque(items), deque[Item](), dict[int, str]()
    while waiting or running:
        if waiting and len(running) < slots:
            item = placement.take(waiting)
            where[item.index] = placement.node_of(item) or "nowhere"
            running.append(item)
        else:
            placement.over(running.popleft())
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
    items = questions("aaaabbbbccccddddeeeeffff")
    where = placed(joined(one="abcdef", two="abcdef", three="abcdef"), items, slots=6)
    assert all(len(nodes) == 1 for nodes in nodes_of_videos(items, where).values())
    assert Counter(where.values()) == {"one": 8, "two": 8, "three": 8}


def test_a_node_that_would_be_idle_takes_questions_on_anothers_video() -> None:
    where = placed(joined(one="a", two="a"), questions("aaaaaaaa"), slots=4)
    assert Counter(where.values()) == {"one": 4, "two": 4}


def test_a_sample_goes_where_its_video_is() -> None:
    items = questions("abcabcabcabc")
    where = placed(joined(one="a", two="ab", three="c"), items, slots=5)
    assert nodes_of_videos(items, where)["b"] == {"two"}
    assert nodes_of_videos(items, where)["c"] == {"three"}
    assert nodes_of_videos(items, where)["a"] <= {"one", "two"}


def test_a_video_that_no_node_has_is_for_any_node_to_say_so() -> None:
    where = placed(joined(one="a", two="a"), questions("axa"), slots=3)
    assert set(where.values()) == {"one", "two"}


def test_what_was_only_on_a_node_that_went_comes_last_and_runs_nowhere_else() -> None:
    placement = joined(one="ab", two="a")
    assert placement.leave("one", "it burnt down") == set()
    waiting = deque(questions("ba"))
    first, last = placement.take(waiting), placement.take(waiting)
    assert (first.videos, placement.node_of(first)) == (("a",), "two")
    assert (last.videos, placement.node_of(last)) == (("b",), None)
    assert placement.gone(last) == "it burnt down"
    assert placement.gone(first) is None
    placement.join("three", frozenset("b"))
    assert (placement.node_of(last), placement.gone(last)) == ("three", None)


def test_the_samples_of_a_node_that_went_are_named_and_its_videos_find_another_home() -> None:
    placement = joined(one="a", two="a")
    waiting = deque(questions("aaa"))
    items = [placement.take(waiting) for _ in range(3)]
    on_one = {item.index for item in items if placement.node_of(item) == "one"}
    assert placement.leave("one", "gone") == on_one
    assert {placement.node_of(item) for item in items} == {"two"}


def test_a_sample_that_could_not_go_on_somewhere_tries_another_node_where_there_is_one() -> None:
    placement = joined(one="a", two="a")
    waiting = deque(questions("a"))
    item = placement.take(waiting)
    nodes = []
    for _ in range(2):
        node = placement.node_of(item)
        nodes.append(node)
        placement.failed(item)
        placement.over(item)
    assert set(nodes) == {"one", "two"}
    assert placement.node_of(item) is not None, "where it failed everywhere, it may go anywhere"


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
