"""A progress bar on standard error, and lines of the logger above it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from tqdm import tqdm

from eva.dataset.items import Item
from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.cache import Cache
from eva.records.outcome import Outcome
from eva.run.evaluate import outcomes_of
from eva.run.progress import Progress
from eva.text import printable

_BAR = "{desc} {n_fmt}/{total_fmt}{postfix} |{bar}| {elapsed}<{remaining}"
# A log file gets a line this often, in seconds. On a terminal the clock goes on each second, also in an outage.
_LOG_EVERY_S = 30.0
_TICK_S = 1.0


class LinesAboveBar(logging.Handler):
    """Writes each line of the logger `eva` to standard error, above the bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(f"{self.name}: {printable(record.getMessage(), limit=2000)}", file=sys.stderr)


@contextmanager
def logged_to_terminal(command: str) -> Iterator[None]:
    """In the block, the lines of the package go to standard error, with the command's name."""
    log, handler = logging.getLogger("eva"), LinesAboveBar()
    handler.name = command
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class Bar(Progress):
    """The bar of a run over `items`. It begins at the samples that have a record."""

    def __init__(self, name: str, items: Sequence[Item], cache: Cache) -> None:
        super().__init__()
        self._done = self._right = self._failed = 0
        before, tty = outcomes_of(items, cache.outcomes), sys.stderr.isatty()
        self._bar = tqdm(
            desc=printable(name), total=len(items), initial=len(before), bar_format=_BAR, dynamic_ncols=True,
            mininterval=0.5 if tty else _LOG_EVERY_S, maxinterval=10 if tty else _LOG_EVERY_S,
        )  # fmt: skip
        for outcome in before:
            self._add(outcome)
        self._clock = asyncio.create_task(self._tick()) if tty else None

    async def __aexit__(self, *error: object) -> None:
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.gather(self._clock, return_exceptions=True)
        self._bar.close()

    def count(self, outcome: Outcome) -> None:
        """One more sample has a record."""
        self._add(outcome)
        self._bar.update()

    def note_outage(self, text: str) -> None:
        super().note_outage(text)
        self._say()

    def _add(self, outcome: Outcome) -> None:
        self._done += 1
        self._right += outcome.correct
        self._failed += outcome.failure == INFRASTRUCTURE
        self._say()

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
