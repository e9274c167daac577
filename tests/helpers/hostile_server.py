"""Servers that list their model and then answer completions as no server should, over real sockets."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MODEL = "hostile"
Play = Callable[[socket.socket, "Hostile"], None]


@dataclass
class Hostile:
    """A server's address, and what it did: completions asked for, bytes of replies that it could send."""

    base_url: str
    asked: int = 0
    sent: int = 0
    stopping: bool = False

    def send(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        self.sent += len(data)


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Content-Type: application/json", *lines, "", ""]).encode()


def whole(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    return head(*lines, f"Content-Length: {len(body)}", status=status) + body


def a_byte_now_and_then(connection: socket.socket, server: Hostile) -> None:
    server.send(connection, head())
    while not server.stopping:
        server.send(connection, b" ")
        time.sleep(0.1)


def headers_without_end(connection: socket.socket, server: Hostile) -> None:
    server.send(connection, b"HTTP/1.1 200 OK\r\n")
    while not server.stopping:
        server.send(connection, b"X-More: and more\r\n")
        time.sleep(0.1)


def a_body_without_end(connection: socket.socket, server: Hostile) -> None:
    server.send(connection, head())
    while not server.stopping:
        server.send(connection, b" " * 65536)


def answers(*parts: bytes) -> Play:
    def play(connection: socket.socket, server: Hostile) -> None:
        for part in parts:
            server.send(connection, part)

    return play


def bomb() -> bytes:
    """A reply of half a megabyte that unpacks to 512 MiB."""
    return whole(gzip.compress(bytes(2**29), 1), "Content-Encoding: gzip")


def nested(depth: int) -> bytes:
    return whole(b'{"usage": 1, "choices": ' + b"[" * depth + b"]" * depth + b"}")


@contextmanager
def hostile_server(play: Play) -> Iterator[Hostile]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Hostile(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    threading.Thread(target=_serve, args=(listener, server, play), daemon=True).start()
    try:
        yield server
    finally:
        server.stopping = True
        listener.close()


def _serve(listener: socket.socket, server: Hostile, play: Play) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(connection, server, play), daemon=True).start()


def _answer(connection: socket.socket, server: Hostile, play: Play) -> None:
    with connection, contextlib.suppress(OSError), connection.makefile("rb") as request:
        first, length = request.readline(), 0
        while (line := request.readline()).strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        # To the end: a connection that is closed before is reset, and the client loses the reply.
        request.read(length)
        if first.startswith(b"GET"):
            models = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
            connection.sendall(whole(json.dumps(models).encode(), "Connection: close"))
        else:
            server.asked += 1
            play(connection, server)
