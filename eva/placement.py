"""Which node of a cluster plays which sample: where its video is, and beside the other questions on it. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass, field

from eva.items import Item


@dataclass
class Placement:
    """The nodes, by name: which videos each has, and which samples it was given.

    The questions on one video go to the node that was given the first of them, its home, as long as no other node
    would be idle for that: there its index and its frames are at hand.
    """

    _videos: dict[str, Collection[str]] = field(default_factory=dict)
    _given: dict[str, set[int]] = field(default_factory=dict)
    _homes: dict[str, str] = field(default_factory=dict)
    _gone: dict[str, str] = field(default_factory=dict)
    _failed: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    def join(self, node: str, videos: Collection[str]) -> None:
        """`node` is there, with these videos by their annotated names."""
        self._videos[node], self._given[node] = videos, set()
        for video in videos:
            self._gone.pop(video, None)

    def leave(self, node: str, reason: str) -> set[int]:
        """`node` is no longer there; gives the samples that it was given."""
        given, videos = self._given.pop(node), self._videos.pop(node)
        self._homes = {video: home for video, home in self._homes.items() if home != node}
        for video in videos:
            if not self._holders(video):
                self._gone[video] = reason
        return given

    def take(self, waiting: deque[Item]) -> Item:
        """Take the next sample out of `waiting`, and give it to a node; where there is none for it, to nobody."""
        for node in sorted(self._given, key=lambda node: len(self._given[node])):
            position = self._next(node, waiting)
            if position is not None:
                item = waiting[position]
                del waiting[position]
                self._give(item, node)
                return item
        return waiting.popleft()

    def node_of(self, item: Item) -> str | None:
        """The node that was given `item`, else the least loaded one that can play it; None where there is none."""
        node = next((node for node, given in self._given.items() if item.index in given), None)
        if node is None:
            able = [node for node in self._given if self._may_play(node, item)]
            node = min(able, key=lambda node: len(self._given[node]), default=None)
        if node is not None:
            self._give(item, node)
        return node

    def failed(self, item: Item) -> None:
        """`item` could not go on where it is: next time, another node."""
        node = next((node for node, given in self._given.items() if item.index in given), None)
        if node is not None:
            self._failed[item.index].add(node)

    def over(self, item: Item) -> None:
        """`item` is not played any more."""
        for given in self._given.values():
            given.discard(item.index)

    def gone(self, item: Item) -> str | None:
        """Why no node has the item's video any more; None where one has it, or none ever had."""
        return self._gone.get(item.videos[0])

    def _give(self, item: Item, node: str) -> None:
        self._given[node].add(item.index)
        self._homes.setdefault(item.videos[0], node)

    def _next(self, node: str, waiting: Collection[Item]) -> int | None:
        """The first question on a video that is at home here or nowhere; only without one another's. With the items
        ordered by video, the former come first."""
        others = None
        for position, item in enumerate(waiting):
            if self._may_play(node, item):
                if self._homes.get(item.videos[0], node) == node:
                    return position
                others = position if others is None else others
        return others

    def _may_play(self, node: str, item: Item) -> bool:
        holders = self._holders(item.videos[0])
        if not holders:
            # Nobody has it: any node will find that out, unless one had it that may come back.
            return item.videos[0] not in self._gone
        fit = holders - self._failed.get(item.index, set())
        return node in (fit or holders)

    def _holders(self, video: str) -> set[str]:
        return {node for node, videos in self._videos.items() if video in videos}
