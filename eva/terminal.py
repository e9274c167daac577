"""What a command says to whoever listens: nobody who stops listening, and no full disk, may change what it does."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable
from typing import TextIO

STDIN, STDOUT, STDERR = 0, 1, 2
# Linux takes so much into a pipe at once or says that it cannot, so that a write never blocks.
_AT_ONCE_BYTES = 4096
# A reader that takes nothing for so long gets no more of what only reports progress.
_PATIENCE_S = 1.0


class Outlet(io.FileIO):
    """A standard stream that drops what cannot be written; `lost` is why, the last time.

    `patience_s`: what a reader does not take for so long is dropped too; None: wait for the reader.
    """

    def __init__(self, number: int, patience_s: float | None) -> None:
        super().__init__(number, "w", closefd=False)
        self.lost: OSError | None = None
        self._patience_s = self._wait_s = patience_s

    def write(self, data: object, /) -> int:
        """How many bytes are done with."""
        part = memoryview(data).cast("B")[:_AT_ONCE_BYTES]  # type: ignore[arg-type]
        try:
            ready = select.select([], [self], [], self._wait_s)[1]
            self._wait_s = self._patience_s if ready else 0
            if ready:
                return super().write(part) or 0
        except OSError as error:
            self.lost = error
        return len(part)


def run_command(main: Callable[[], int]) -> int:
    """`main`'s exit code, which no trouble with what it prints changes; output that a full disk lost is spoken of."""
    _close_gaps()
    output = Outlet(STDOUT, None)
    sys.stdout = _text(output, sys.stdout)
    sys.stderr = _text(Outlet(STDERR, _PATIENCE_S), sys.stderr)
    try:
        return main()
    finally:
        sys.stdout.flush()
        if output.lost and not isinstance(output.lost, BrokenPipeError):
            print(f"standard output could not be written: {output.lost.strerror}", file=sys.stderr)


def _close_gaps() -> None:
    """Put /dev/null where a standard stream was closed: the next file that is opened would take its number, and
    receive what is printed."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdin is None:
        sys.stdin = open(STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process


def _text(outlet: Outlet, before: TextIO | None) -> io.TextIOWrapper:
    """What the terminal's encoding lacks is written as an escape."""
    encoding = before.encoding if before is not None else "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(outlet), encoding, "backslashreplace", line_buffering=True)
