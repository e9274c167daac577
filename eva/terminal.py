"""The flags of a command, and its output. A reader that goes away does not change what the command does."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from typing import Any, NoReturn


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


class _Outlet(io.FileIO):
    """Standard output, or standard error, which drops what nobody can read: a log on a full disk ends no run."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if self.fileno() == 1 and not isinstance(error, BrokenPipeError):
                raise
            return memoryview(data).nbytes


def run_command(main: Callable[[], int]) -> int:
    """The exit code of `main`, also if nobody reads its output. A character that the encoding lacks is escaped."""
    for number, name in enumerate(("stdout", "stderr"), start=1):
        if before := getattr(sys, name):
            outlet = io.BufferedWriter(_Outlet(number, "w", closefd=False))
            setattr(sys, name, io.TextIOWrapper(outlet, before.encoding, "backslashreplace", line_buffering=True))
    return main()
