"""A real web server on loopback that serves bytes, and misbehaves for as many requests as it is told to."""

from __future__ import annotations

import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behaviour = Callable[["Handler", bytes], None]


class FileServer:
    """`files` are served under their names; `plan[name]` holds what its next requests meet, first to last."""

    def __init__(self, handler: type[BaseHTTPRequestHandler] | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.plan: dict[str, list[Behaviour]] = defaultdict(list)
        self.requests: Counter[str] = Counter()
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler or Handler)
        self._server.file_server = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}/files/"

    def __enter__(self) -> FileServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection, one request."""

    server_version = "FileServer"

    def do_GET(self) -> None:
        server: FileServer = self.server.file_server  # type: ignore[attr-defined]
        name = self.path.rpartition("/")[2]
        server.requests[name] += 1
        content = server.files.get(name)
        if content is None:
            answer(404)(self, b"")
            return
        behaviour = server.plan[name].pop(0) if server.plan[name] else serve
        behaviour(self, content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at `requests`."""


def part_of(handler: BaseHTTPRequestHandler, content: bytes) -> bytes | None:
    """What a request for a part of a file asks for."""
    part = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
    return content[int(part[1]) : int(part[2]) + 1] if part else None


def serve(handler: Handler, content: bytes) -> None:
    """The whole file, or the part that is asked for."""
    part = part_of(handler, content)
    send_head(handler, content if part is None else part, 200 if part is None else 206)
    handler.wfile.write(content if part is None else part)


def send_head(handler: Handler, content: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()


def break_after(size_bytes: int) -> Behaviour:
    """Promises the whole file, and closes the connection after `size_bytes` of it."""

    def behaviour(handler: Handler, content: bytes) -> None:
        send_head(handler, content)
        handler.wfile.write(content[:size_bytes])

    return behaviour


def stall_after(size_bytes: int) -> Behaviour:
    """Sends `size_bytes` and then nothing, until the server is told to stop."""

    def behaviour(handler: Handler, content: bytes) -> None:
        break_after(size_bytes)(handler, content)
        handler.wfile.flush()
        handler.server.file_server.released.wait(30)  # type: ignore[attr-defined]

    return behaviour


def answer(status: int, headers: dict[str, str] | None = None) -> Behaviour:
    """A reply without a body."""

    def behaviour(handler: Handler, content: bytes) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behaviour
