"""Says when an agent's code holds up all samples."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import eva

log = logging.getLogger(__name__)

# A call that holds up the event loop for so long is said with its line.
BLOCKED_S = 5.0
_POLL_S = 0.5


@contextmanager
def watched_loop() -> Iterator[None]:
    """While the loop of this thread runs in here, a thread sees whether it goes on."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    answered_at, over, told = [monotonic()], threading.Event(), set[str]()

    def answer() -> None:
        answered_at[0] = monotonic()

    def watch() -> None:
        while not over.wait(_POLL_S):
            blocked_s = monotonic() - answered_at[0]
            if blocked_s < BLOCKED_S:
                loop.call_soon_threadsafe(answer)
            elif (frame := sys._current_frames().get(thread)) and (line := _own_line(frame)) not in told:
                told.add(line)
                log.warning("all samples have stood still for %.0f s: %s blocks them", blocked_s, line)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _own_line(frame: object) -> str:
    """The innermost line that is neither Python's nor this harness's."""
    harness, python = str(Path(eva.__file__).parent), str(Path(asyncio.__file__).parents[1])
    stack = traceback.extract_stack(frame)  # type: ignore[arg-type]
    own = [place for place in stack if not place.filename.startswith((harness, python))]
    place = (own or stack)[-1]
    return f"{place.filename}, line {place.lineno} ({place.line})"
