"""How many requests may be under way at one server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eva.endpoint.errors import UnavailableError


class AdaptiveLimit:
    """How many requests may be under way. An overload halves the number, and a round of successes raises it by one."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._limit = float(ceiling)
        self._active = 0
        self._halvings = 0
        self._changed = asyncio.Condition()

    @property
    def limit(self) -> int:
        return int(self._limit)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Wait for room for one request; gives the moment when there was room (monotonic clock). An overload that is
        raised inside halves the limit, a success raises it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._active < self.limit)
            self._active += 1
        halvings = self._halvings
        try:
            yield time.monotonic()
            self._limit = min(self._ceiling, self._limit + 1 / self._limit)
        except UnavailableError as failure:
            # Requests that were under way at the same time fail together: they halve the limit once.
            if failure.overload and halvings == self._halvings:
                self._limit = max(1.0, self._limit / 2)
                self._halvings += 1
            raise
        finally:
            async with self._changed:
                self._active -= 1
                self._changed.notify_all()
