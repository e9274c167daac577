"""Which node of a cluster runs which sample: one that has its video, with the other questions on it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from eva.dataset.items import Item


@dataclass
class Placement:
    """The nodes, by name: which videos each has, and which samples it was given.

    The home of a video is the node that was given its first question, because its index and its frames are there. The
    other questions on it go there too, unless another node would be idle.
    """

    _videos: dict[str, Collection[str]] = field(default_factory=dict)
    _given: dict[str, set[int]] = field(default_factory=dict)
    _homes: dict[str, str] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)

    def join(self, node: str, videos: Collection[str]) -> None:
        """`node` is there, and has these videos (annotated names)."""
        self._videos[node], self._given[node] = videos, set()
        self._gone.difference_update(videos)

    @property
    def busy(self) -> bool:
        """Whether any sample runs."""
        return any(self._given.values())

    def leave(self, node: str) -> set[int]:
        """`node` is no longer there. The indices of the samples that it was given."""
        given, videos = self._given.pop(node), self._videos.pop(node)
        self._homes = {video: home for video, home in self._homes.items() if home != node}
        self._gone |= {video for video in videos if not self._holders(video)}
        return given

    def take(self, waiting: deque[Item]) -> Item | None:
        """Take the next sample that a node can run out of `waiting`, and give it to that node; None if none can."""
        for node in sorted(self._given, key=lambda node: len(self._given[node])):
            # On a video whose home is the node, or that has no home yet; else on any other.
            own = other = None
            for item in waiting:
                if self._may_play(node, item):
                    if self._homes.get(item.videos[0], node) == node:
                        own = item
                        break
                    other = other or item
            if chosen := own or other:
                waiting.remove(chosen)
                self._given[node].add(chosen.index)
                self._homes.setdefault(chosen.videos[0], node)
                return chosen
        return None

    def node_of(self, item: Item) -> str:
        """The node that was given `item`; empty if no node was, or that node is no longer there."""
        return next((node for node, given in self._given.items() if item.index in given), "")

    def end(self, item: Item) -> None:
        """`item` does not run any more."""
        for given in self._given.values():
            given.discard(item.index)

    def _may_play(self, node: str, item: Item) -> bool:
        # If no node ever had the video, any node records that. If a lost node had it, that node may come back.
        holders = self._holders(item.videos[0])
        return node in holders if holders else item.videos[0] not in self._gone

    def _holders(self, video: str) -> set[str]:
        return {node for node, videos in self._videos.items() if video in videos}
