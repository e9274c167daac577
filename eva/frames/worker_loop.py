"""A process that answers one request after another: JSON lines in on standard input, JSON lines out."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NoReturn

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def serve(answer: Answer) -> NoReturn:
    """Write `answer` of each request, one line each, until standard input ends; then the process ends at once.

    It also ends in the middle of an answer: the process that asked has ended, and nobody reads the answer.
    """
    replies = _take_stdout()
    try:
        for line in _read_lines(sys.stdin.buffer):
            replies.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
            replies.flush()
    finally:  # an error that nothing above handles: Python would wait for the thread that reads, and abort
        traceback.print_exc()
        os._exit(1)


def _take_stdout() -> BinaryIO:
    """Standard output for replies alone: what a library prints goes to standard error."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def _read_lines(stream: BinaryIO) -> Iterator[bytes]:
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        os._exit(0)  # sys.exit would end this thread only

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()
