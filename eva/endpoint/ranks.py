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
                await self._ask()
        if not self._count:
            return None
        rank = min(range(self._count), key=self._samples.__getitem__)
        self._samples[rank] += 1
        return rank

    def leave(self, rank: int | None) -> None:
        """A sample on `rank` has ended, or goes to another rank."""
        if rank is not None:
            self._samples[rank] -= 1

    def forget(self) -> None:
        """The server was down: it may have come back with other ranks."""
        self._count = self._configured

    async def refuse(self, rank: int) -> None:
        """The server refused `rank`: ask it for its ranks again. If it still claims this one, it is to choose."""
        async with self._asking:
            if self._count is None or rank < self._count:
                await self._ask(refused=rank)

    async def _ask(self, refused: int | None = None) -> None:
        count = await read_ranks(self._model) or 0
        if count == 1 or (refused is not None and refused < count):
            count = 0
        if self._reported not in (None, count):
            now = f"{count} now" if count else "none now that a request can name"
            log.warning("%s had %s data-parallel ranks: %s", self._model.address, self._reported, now)
        self._count = self._reported = count
