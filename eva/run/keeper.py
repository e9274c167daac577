"""Puts the records of a run into its cache, and says early that the agent does not read what the model writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from eva.agents.choice import AgentChoice
from eva.agents.readers import can_read, describe_unread
from eva.protocol.stop_reasons import EXCEPTION
from eva.records.cache import Cache
from eva.records.schema import Record

# So many replies, and none of them can be read: this is not a coincidence.
FIRST_REPLIES = 10


class Keeper:
    """The cache of a run with `choice`. `warn` gets a line when none of the first replies can be read."""

    def __init__(self, cache: Cache, choice: AgentChoice, warn: Callable[[str], None]) -> None:
        self._cache, self._choice, self._warn = cache, choice, warn
        self._agent = choice.make()
        self._unread: int | None = 0

    def append(self, record: Record) -> None:
        """Put one record on disk, with the agent's name. Raises CacheError."""
        self._cache.append(replace(record, agent=self._choice.record_name))
        if self._unread is not None and record.stop_reason != EXCEPTION:
            self._count(record, self._unread)

    def _count(self, record: Record, unread: int) -> None:
        unread += len(record.rounds)
        if any(can_read(self._agent, round_) for round_ in record.rounds):
            self._unread = None
        elif unread < FIRST_REPLIES:
            self._unread = unread
        else:
            self._unread = None
            self._warn(f"none of the first {unread} replies can be read: {describe_unread(record.rounds[-1])}")
