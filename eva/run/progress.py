"""What a run shows while it works: what it is, a bar, and a line where an outage begins and where it ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from types import TracebackType

from tqdm import tqdm

from eva.dataset.items import Item
from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.cache import Cache
from eva.records.outcome import Outcome
from eva.run.final_summary import outcomes_of
from eva.text import printable

_BAR = "{desc} {n_fmt}/{total_fmt}{postfix} |{bar}| {elapsed}<{remaining}"
# A log file gets a line this often, in seconds. On a terminal the clock goes on each second, also in an outage.
_LOG_EVERY_S = 30.0
_TICK_S = 1.0


class Progress:
    """The bar of a run over `items`. It begins at the samples that have a record. `report` gets the lines above it."""

    def __init__(self, name: str, items: Sequence[Item], cache: Cache, report: Callable[[str], None]) -> None:
        self._report = report
        self._done = self._right = self._failed = 0
        self._waits_since: float | None = None
        before = outcomes_of(items, cache)
        for outcome in before:
            self._count(outcome)
        tty = sys.stderr.isatty()
        self._bar = tqdm(
            desc=printable(name), total=len(items), initial=len(before), bar_format=_BAR, dynamic_ncols=True,
            mininterval=0.5 if tty else _LOG_EVERY_S, maxinterval=10 if tty else _LOG_EVERY_S,
        )  # fmt: skip
        self._say()
        self._clock = asyncio.create_task(self._tick()) if tty else None

    async def __aenter__(self) -> Progress:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._clock is not None:
            self._clock.cancel()
            with suppress(asyncio.CancelledError):
                await self._clock
        self._bar.close()

    def count(self, outcome: Outcome) -> None:
        """One more sample has a record."""
        self._count(outcome)
        self._say()
        self._bar.update()

    def note_outage(self, text: str) -> None:
        """`text` says which servers are down, and what then happens; it is empty as soon as all are up."""
        if text:
            self._waits_since = self._waits_since or monotonic()
            self._report(text)
        elif self._waits_since is not None:
            self._report(f"all servers answer again, after {monotonic() - self._waits_since:.0f} s")
            self._waits_since = None
        self._say()

    def _count(self, outcome: Outcome) -> None:
        self._done += 1
        self._right += outcome.correct
        self._failed += outcome.failure == INFRASTRUCTURE

    def _say(self) -> None:
        parts = [f"{self._right / self._done:.1%} right".replace("%", " %")] if self._done else []
        parts += [f"{self._failed} failed"] if self._failed else []
        if self._waits_since is not None:
            parts.append(f"a server is down for {monotonic() - self._waits_since:.0f} s")
        self._bar.set_postfix_str(", ".join(parts), refresh=False)

    async def _tick(self) -> None:
        while True:
            self._say()
            self._bar.refresh()
            await asyncio.sleep(_TICK_S)


def first_line(name: str, items: Sequence[Item], pending: Sequence[Item], model: str, addresses: Sequence[str]) -> str:
    """What the run is, and how much of it is to do."""
    done = len(items) - len(pending)
    return f"{name}: {done} of {len(items)} done, {len(pending)} to go; model {model} at {', '.join(addresses)}"
