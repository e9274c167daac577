"""The data-parallel ranks of a server. All rounds of a sample go to one rank, because each rank has a cache of its own.

vLLM gives each request to the least loaded rank, unless the request names one.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter

from eva.endpoint.client import ChatModel

log = logging.getLogger(__name__)

# vLLM calls a data-parallel rank an engine. Each has a line of its own on the page of its metrics.
_ENGINE = re.compile(r'^vllm:prefix_cache_queries_total[^\n]*?[{,]engine="([0-9]{1,5})"', re.MULTILINE)


async def read_ranks(model: ChatModel) -> int | None:
    """How many ranks the server of `model` has; None if it is not vLLM, or does not answer now."""
    return len(set(_ENGINE.findall(await model.fetch_page("../metrics")))) or None


class Ranks:
    """The ranks of the server of `model`, and how many samples are on each.

    `configured` is their number: None asks the server, 0 leaves the choice to the server.
    """

    def __init__(self, model: ChatModel, configured: int | None) -> None:
        self._model, self._configured = model, configured
        self._count = self._reported = configured
        self._samples: Counter[int] = Counter()
        self._asking = asyncio.Lock()

    async def take(self) -> int | None:
        """The rank with the fewest samples, for one more; None if the server is to choose. `leave` follows."""
        async with self._asking:
            if self._count is None:
                self._count = await read_ranks(self._model) or 0
                if self._reported not in (None, self._count):
                    was = (self._model.address, self._reported, self._count)
                    log.warning("%s had %s data-parallel ranks: %s now", *was)
                self._reported = self._count
        if self._count < 2 and not self._configured:
            return None
        rank = min(range(self._count), key=self._samples.__getitem__)
        self._samples[rank] += 1
        return rank

    def leave(self, rank: int | None) -> None:
        """A sample on `rank` has ended, or goes to another rank."""
        if rank is not None:
            self._samples[rank] -= 1

    def forget(self) -> None:
        """The server was down, or refused a rank: it may have come back with other ranks."""
        self._count = self._configured
