"""A command in a pseudo-terminal: what a person sees, and the keys that a person presses."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from harness import environment, kill_group

CTRL_C = b"\x03"


class Terminal:
    """`text` is all that the command has written so far; a bar that moves writes `\\r` before each state."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process, self._screen, self.text = process, screen, ""

    def read_until(self, wanted: str, *, timeout_s: float = 60) -> str:
        """The text so far, which holds `wanted`."""
        end_at = time.monotonic() + timeout_s
        while wanted not in self.text:
            assert time.monotonic() < end_at, f"{wanted!r} did not come:\n{self.text}"
            if not self._read() and self.process.poll() is not None and wanted not in self.text:
                raise AssertionError(f"the command ended without {wanted!r}:\n{self.text}")
        return self.text

    def press(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def finish(self, *, timeout_s: float = 60) -> int:
        """The exit code."""
        end_at = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < end_at, f"the command did not end:\n{self.text}"
            self._read()
        while self._read():
            pass
        return self.process.returncode

    def lines(self) -> list[str]:
        """The lines that stay on the screen, and each state of the bar, without blanks at their ends."""
        parts = self.text.replace("\x1b[A", "\r").replace("\n", "\r").split("\r")
        return [part.rstrip() for part in parts if part.strip()]

    def _read(self) -> bool:
        if not select.select([self._screen], [], [], 0.1)[0]:
            return False
        try:
            part = os.read(self._screen, 1 << 16)
        except OSError:  # Linux, when the command has closed its side
            return False
        self.text += part.decode("utf-8", errors="replace")
        return bool(part)


@contextmanager
def terminal(command: Sequence[str], folder: Path, *, columns: int = 80) -> Iterator[Terminal]:
    """`command` in a terminal of so many columns, as the process group that Ctrl-C reaches."""
    screen, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    # The shell of a new session opens the terminal, and so it becomes the one that Ctrl-C comes from.
    opening = ["sh", "-c", 'tty=$1; shift; exec "$@" <"$tty" >"$tty" 2>&1', "sh", os.ttyname(side), *command]
    process = subprocess.Popen(opening, cwd=folder, env=environment(TERM="xterm"), start_new_session=True)
    os.close(side)
    try:
        yield Terminal(process, screen)
    finally:
        with suppress(ProcessLookupError):  # it has ended
            kill_group(process)
        os.close(screen)
