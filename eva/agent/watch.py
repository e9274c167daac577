"""What keeps an agent's code from ending or holding up all samples unseen."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import eva
from eva.agent.play import AgentFaultError, in_agent

log = logging.getLogger(__name__)

# A call that holds up the event loop for so long is said with its line.
BLOCKED_S = 5.0
_POLL_S = 0.5


class _NoExit(Coroutine[Any, Any, Any]):
    """A coroutine of an agent's task. Its sys.exit is a fault of the agent: asyncio would end the whole run."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work

    def _step(self, step: Callable[..., Any], *given: Any) -> Any:
        try:
            return step(*given)
        except SystemExit as error:
            raise AgentFaultError(f"the agent called sys.exit({error.code!r:.40})") from error

    def send(self, value: Any) -> Any:
        return self._step(self._work.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._work.throw, *error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Any:
        return self._work.__await__()


def without_exits(loop: asyncio.AbstractEventLoop) -> None:
    """From now on, tasks that an agent makes in this loop raise AgentFaultError in the place of SystemExit."""
    before: Callable[..., Any] | None = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> Any:
        work = _NoExit(work) if in_agent.get() and isinstance(work, Coroutine) else work
        return before(loop, work, **more) if before else asyncio.Task(work, loop=loop, **more)

    loop.set_task_factory(make)


@contextmanager
def watched_loop() -> Iterator[None]:
    """While the loop of this thread runs in here, a thread sees whether it goes on, and no sys.exit of an agent ends
    it."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    factory = loop.get_task_factory()
    without_exits(loop)
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
        loop.set_task_factory(factory)
        over.set()
        watcher.join()


def _own_line(frame: object) -> str:
    """The innermost line that is neither Python's nor this harness's."""
    harness, python = str(Path(eva.__file__).parent), str(Path(asyncio.__file__).parents[1])
    stack = traceback.extract_stack(frame)  # type: ignore[arg-type]
    own = [place for place in stack if not place.filename.startswith((harness, python))]
    place = (own or stack)[-1]
    return f"{place.filename}, line {place.lineno} ({place.line})"
