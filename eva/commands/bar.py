"""A progress bar on standard error, and lines of the logger above it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.outcome import Outcome
from eva.text import printable

_BAR = "{desc} {n_fmt}/{total_fmt}{postfix} |{bar}| {elapsed}<{remaining}"
# A log file gets a line this often, in seconds.
_LOG_EVERY_S = 30.0


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


@contextmanager
def bar(name: str, total: int, before: Sequence[Outcome]) -> Iterator[Callable[[Outcome], None]]:
    """The bar of a run of `total` questions, of which those of `before` have ended; it gives what counts one more."""
    tty, ended, right, failed = sys.stderr.isatty(), 0, 0, 0
    with tqdm(
        desc=printable(name), total=total, initial=len(before), bar_format=_BAR, dynamic_ncols=True,
        mininterval=0 if tty else _LOG_EVERY_S, maxinterval=_LOG_EVERY_S,
    ) as shown:  # fmt: skip

        def note(outcome: Outcome) -> None:
            nonlocal ended, right, failed
            ended, right = ended + 1, right + outcome.correct
            failed += outcome.failure == INFRASTRUCTURE
            words = f"{right / ended:.1%} right".replace("%", " %") + (f", {failed} failed" if failed else "")
            shown.set_postfix_str(words, refresh=False)

        def count(outcome: Outcome) -> None:
            note(outcome)
            shown.update()

        for outcome in before:
            note(outcome)
        yield count
