"""The cache of a run: which records are dropped before it, and what is kept of each sample.

It says early that the agent does not read what the model writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from eva.agents.readers import describe_unread, was_read
from eva.dataset.items import Item
from eva.endpoint.errors import WeightsChangedError
from eva.errors import EvaError
from eva.protocol.stop_reasons import AGENT, EXCEPTION
from eva.records.cache import Cache
from eva.records.schema import Record
from eva.run.options import Options
from eva.run.schedule import RunEndedError

log = logging.getLogger(__name__)

# So many replies, and none of them can be read: this is not a coincidence.
FIRST_REPLIES = 10
# So many faults of the agent, and no sample in between that it ended: every sample would end so.
MOST_FAULTS = 3


class CalledOffError(EvaError):
    """The user did not confirm. Nothing was changed."""


def find_outdated(cache: Cache, items: Sequence[Item], options: Options) -> frozenset[int]:
    """The indices of the records that --new-cache or --retry-error replaces."""
    if options.new_cache:
        return frozenset(cache.outcomes)
    chosen = {item.index for item in items} if options.retry_error else set()
    return frozenset(index for index, outcome in cache.outcomes.items() if index in chosen and not outcome.settled)


def drop_outdated(cache: Cache, indices: Collection[int], options: Options, confirm: Callable[[str], None]) -> None:
    """Ask by `confirm`, and take the outdated records out of the cache. Raises CalledOffError."""
    if options.new_cache:
        confirm(f"Delete the cache {cache.path} with its {len(indices)} records?")
        cache.clear()
    elif indices:
        confirm(f"Drop {len(indices)} failed records from {cache.path} and run them again?")
        cache.drop(indices)


def end_of_run(error: EvaError, cache: Cache, unproved: Collection[int]) -> RunEndedError:
    """What ended the samples. Where it is that a server has other weights, the records of `unproved` samples, which may
    be of either, are taken out of the cache."""
    if not isinstance(error, WeightsChangedError):
        return RunEndedError(str(error))
    try:
        cache.drop(unproved)
    except EvaError as failure:
        return RunEndedError(f"{error}; records that may be of either are not taken out of the cache: {failure}")
    return RunEndedError(f"{error}; {len(unproved)} records that may be of either are taken out of the cache")


class AgentBrokenError(EvaError):
    """The agent's code fails on one sample after the other."""


class Keeper:
    """The cache of a run. Records bear the name of `agent`."""

    def __init__(self, cache: Cache, agent: str) -> None:
        self.cache, self._agent = cache, agent
        self._unread: int | None = 0
        self._faults = 0

    def append(self, record: Record) -> None:
        """Put one record on disk, with the agent's name. Raises CacheError; AgentBrokenError for the last of
        MOST_FAULTS."""
        self.cache.append(replace(record, agent=self._agent))
        self._faults = self._faults + 1 if record.failure == AGENT else 0
        if self._faults >= MOST_FAULTS:
            raise AgentBrokenError(
                f"{MOST_FAULTS} samples in a row ended by a fault of the agent ({record.error}): mend it, then run "
                "these again with --retry-error"
            )
        if self._unread is not None and record.stop_reason != EXCEPTION:
            self._count(record, self._unread)

    def _count(self, record: Record, unread: int) -> None:
        unread += len(record.rounds)
        if any(was_read(record, number) for number in range(len(record.rounds))):
            self._unread = None
        elif unread < FIRST_REPLIES:
            self._unread = unread
        else:
            self._unread = None
            described = describe_unread(record.rounds[-1], record.question)
            log.warning("none of the first %d replies can be read: %s", unread, described)
