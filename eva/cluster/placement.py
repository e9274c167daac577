"""Which node of a cluster runs which sample: one that has its video, with the other questions on it. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass, field

from eva.dataset.items import Item

# A sample under which this many nodes were lost may be the cause, by its memory for instance. It runs alone on a node,
# so that it is told apart from the samples that were with it.
LOSSES_BEFORE_ALONE = 2


@dataclass(frozen=True)
class Loss:
    """Why a node is no longer there, and when it was lost (monotonic clock)."""

    reason: str
    lost_at: float


@dataclass
class Placement:
    """The nodes, by name: which videos each has, and which samples it was given.

    The home of a video is the node that was given its first question, because its index and its frames are there. The
    other questions on it go there too, unless another node would be idle.
    """

    _videos: dict[str, Collection[str]] = field(default_factory=dict)
    _given: dict[str, set[int]] = field(default_factory=dict)
    _homes: dict[str, str] = field(default_factory=dict)
    _gone: dict[str, Loss] = field(default_factory=dict)
    _losses: Counter[int] = field(default_factory=Counter)
    _failed: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    def join(self, node: str, videos: Collection[str]) -> None:
        """`node` is there, and has these videos (annotated names)."""
        self._videos[node], self._given[node] = videos, set()
        for video in videos:
            self._gone.pop(video, None)

    def leave(self, node: str, loss: Loss) -> set[int]:
        """`node` is no longer there. The indices of the samples that it was given."""
        given, videos = self._given.pop(node), self._videos.pop(node)
        self._homes = {video: home for video, home in self._homes.items() if home != node}
        for video in videos:
            if not self._holders(video):
                self._gone[video] = loss
        return given

    def take(self, waiting: deque[Item]) -> Item | None:
        """Take the next sample that a node can run out of `waiting`, and give it to that node; None if none can."""
        for node in sorted(self._given, key=lambda node: len(self._given[node])):
            position = self._next(node, waiting)
            if position is not None:
                item = waiting[position]
                del waiting[position]
                self._give(item, node)
                return item
        return None

    def node_of(self, item: Item) -> str | None:
        """The node that was given `item`; None if no node was, or that node is no longer there."""
        return next((node for node, given in self._given.items() if item.index in given), None)

    def count_loss(self, item: Item) -> int:
        """A node was lost while it ran `item`. The number of such nodes so far."""
        self._losses[item.index] += 1
        return self._losses[item.index]

    def avoid_node(self, item: Item) -> None:
        """`item` failed on its node: next time another node runs it, if there is one."""
        node = self.node_of(item)
        if node is not None:
            self._failed[item.index].add(node)

    def end(self, item: Item) -> None:
        """`item` does not run any more."""
        for given in self._given.values():
            given.discard(item.index)

    def loss_of(self, item: Item) -> Loss | None:
        """The loss of the last node with the item's video; None if a node has it, or if no node ever had it."""
        return self._gone.get(item.videos[0])

    def _give(self, item: Item, node: str) -> None:
        self._given[node].add(item.index)
        self._homes.setdefault(item.videos[0], node)

    def _next(self, node: str, waiting: Collection[Item]) -> int | None:
        """The position of the next sample for `node`. First: a question on a video whose home is `node`, or that has no
        home yet. Then: a question on a video with another home. Last, if `node` runs nothing: a sample that must run
        alone."""
        if any(map(self._alone, self._given[node])):
            return None
        others = alone = None
        for position, item in enumerate(waiting):
            if self._may_play(node, item):
                if self._alone(item.index):
                    alone = position if alone is None else alone
                elif self._homes.get(item.videos[0], node) == node:
                    return position
                else:
                    others = position if others is None else others
        return alone if others is None and not self._given[node] else others

    def _alone(self, index: int) -> bool:
        return self._losses[index] >= LOSSES_BEFORE_ALONE

    def _may_play(self, node: str, item: Item) -> bool:
        holders = self._holders(item.videos[0])
        if not holders:
            # If no node ever had the video, any node will record that. If a lost node had it, that node may come back.
            return item.videos[0] not in self._gone
        fit = holders - self._failed.get(item.index, set())
        return node in (fit or holders)

    def _holders(self, video: str) -> set[str]:
        return {node for node, videos in self._videos.items() if video in videos}
