"""The flags of a command, and its output. A reader that goes away, and a full disk, do not change what the command
does."""

from __future__ import annotations

import argparse
import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

STDIN, STDOUT, STDERR = 0, 1, 2
# When a pipe is ready, Linux takes this much at once, so that a write never blocks.
_BYTES_PER_WRITE = 4096
# If a reader of standard error takes nothing for this long, what it does not take is dropped.
_PATIENCE_S = 1.0


class Outlet(io.FileIO):
    """A standard stream that drops what cannot be written. `lost` is the last error.

    What the reader does not take within `patience_s` is dropped too; None waits without end.
    """

    def __init__(self, number: int, patience_s: float | None) -> None:
        super().__init__(number, "w", closefd=False)
        self.lost: OSError | None = None
        self._patience_s = self._wait_s = patience_s

    def write(self, data: object, /) -> int:
        """The number of bytes that are written or dropped."""
        part = memoryview(data).cast("B")[:_BYTES_PER_WRITE]  # type: ignore[arg-type]
        try:
            ready = select.select([], [self], [], self._wait_s)[1]
            self._wait_s = self._patience_s if ready else 0
            if ready:
                return super().write(part) or 0
        except OSError as error:
            self.lost = error
        return len(part)


class CommandParser(argparse.ArgumentParser):
    """Help names the default of a flag, unless it is nothing, and keeps the lines of description and epilog. An
    unusable flag gets one line, not the list of all flags."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=_HelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (all flags: {self.prog} --help)\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if not action.default or isinstance(action.default, bool):
            return action.help
        return super()._get_help_string(action)


def run_command(main: Callable[[], int]) -> int:
    """The exit code of `main`, also if its output cannot be written. A line says if a full disk lost output."""
    _close_gaps()
    output = Outlet(STDOUT, None)
    sys.stdout = _as_text(output, sys.stdout)
    sys.stderr = _as_text(Outlet(STDERR, _PATIENCE_S), sys.stderr)
    try:
        return main()
    finally:
        sys.stdout.flush()
        if output.lost and not isinstance(output.lost, BrokenPipeError):
            print(f"standard output could not be written: {output.lost.strerror}", file=sys.stderr)


def _close_gaps() -> None:
    """Open /dev/null in place of each closed standard stream. Otherwise the next opened file gets the number of the
    stream, and receives what is printed."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdin is None:
        sys.stdin = open(STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open as long as the process


def _as_text(outlet: Outlet, before: TextIO | None) -> io.TextIOWrapper:
    """The outlet as a text stream. A character that its encoding lacks is written as an escape."""
    encoding = before.encoding if before is not None else "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(outlet), encoding, "backslashreplace", line_buffering=True)
