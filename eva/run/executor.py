"""Where the samples of a run are played: in its own process, or elsewhere (eva.cluster.driver)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from eva.agent.sample import Sampler
from eva.dataset.items import Item
from eva.endpoint.pool import Seat
from eva.frames.tool import FrameCounts
from eva.records.schema import Record
from eva.run.schedule import first_come


class Executor(Protocol):
    """Plays samples; which one and when is the schedule's to say, and whom they ask the servers'."""

    @property
    def usage(self) -> FrameCounts:
        """The frames of all samples so far."""
        ...

    def take(self, waiting: deque[Item]) -> Item | None:
        """Take the sample out of `waiting` that should be next; `run` of it follows. None while none can be played."""
        ...

    async def run(self, item: Item, seat: Seat) -> Record:
        """The item's record, its own failure included. Raises what is not the sample's failure: as Sampler.run, and
        NodeLostError."""
        ...

    async def close(self) -> None:
        """End what runs for it."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """Plays samples in this process."""

    sampler: Sampler

    @property
    def usage(self) -> FrameCounts:
        """See Executor."""
        return self.sampler.looker.tool.usage

    def take(self, waiting: deque[Item]) -> Item:
        """See Executor."""
        return first_come(waiting)

    async def run(self, item: Item, seat: Seat) -> Record:
        """See Executor."""
        return await self.sampler.run(item, seat.complete)

    async def close(self) -> None:
        """See Executor."""
        await self.sampler.looker.tool.close()
