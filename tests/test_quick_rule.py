"""The rule of the quick tests: conftest.py fails one that starts a process or uses a socket, whatever it does then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Callable

import pytest


def start_a_process_asynchronously() -> None:
    asyncio.run(asyncio.create_subprocess_exec("true"))


def hide_the_error() -> None:
    with contextlib.suppress(Exception):
        subprocess.run(["true"], check=True)


STARTING: dict[str, Callable[[], object]] = {
    "subprocess": lambda: subprocess.run(["true"], check=True),
    "os.system": lambda: os.system("true"),  # noqa: S605
    "os.posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "asyncio": start_a_process_asynchronously,
    "whoever hides errors": hide_the_error,
}
CONNECTING: dict[str, Callable[[], object]] = {
    "a client": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "a server": lambda: socket.create_server(("127.0.0.1", 0)),
    "a look-up": lambda: socket.getaddrinfo("localhost", 80),
}


@pytest.mark.parametrize("how", STARTING)
def test_a_quick_test_that_starts_a_process_fails_with_what_to_do(how: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"starts a process .*@pytest\.mark\.process"):
        STARTING[how]()


@pytest.mark.parametrize("how", CONNECTING)
def test_a_quick_test_that_uses_a_socket_fails_with_what_to_do(how: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"uses a socket .*@pytest\.mark\.process"):
        CONNECTING[how]()


@pytest.mark.process
def test_a_test_that_is_marked_may_do_both() -> None:
    assert subprocess.run(["true"], check=False).returncode == 0
    socket.create_server(("127.0.0.1", 0)).close()
