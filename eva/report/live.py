"""The page of a run that is going on, written anew while the run goes on and served to a browser on this machine.

The server is bound to 127.0.0.1 and refuses a request whose Host header is not a loopback name. So a foreign page whose
name was made to resolve to this machine (DNS rebinding) gets nothing. The path of a frame must pass the checks of
thumbnails.py, whoever names it. The server writes no file.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from eva.errors import EvaError
from eva.records.meta import read_meta
from eva.records.schema import Record, read_record
from eva.report.collect import Collected, Source, collect, file_key, page_data, unique
from eva.report.page import END, render_beginning
from eva.report.thumbnails import FrameRoots, NoFrameError
from eva.scoring.published import Published
from eva.scoring.result_file import dataset_of, named_dataset

HOST = "127.0.0.1"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
# The page is made anew at least so often, and takes at most this share of a processor where that is not too seldom.
EVERY_S, SHARE = 60.0, 0.1
MAX_BYTES = 5_000_000
# The rate of a run is over the last minutes, and needs some seconds.
RATE_OVER_S, RATE_FROM_S = 600.0, 5.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def read_growing(path: Path) -> list[Record]:
    """The records of a cache as far as its lines are whole. As for the run itself, of several lines for one index the
    last counts, and a line that is no record is passed over."""
    found: dict[int, Record] = {}
    with path.open("rb") as file:
        for line in file:
            try:
                record = read_record(line if line.endswith(b"\n") else b"")
            except ValueError:
                continue
            found.pop(record.index, None)
            found[record.index] = record
    return list(found.values())


def write_live_page(runs: Sequence[Collected], progress: Sequence[str], number: int, status: str) -> bytes:
    """The page of all samples, with the newest records, for nobody knows how many there will be."""
    from eva.report.charts import charts  # noqa: PLC0415  takes a second to import, and not every command comes here

    settings = {"live": number, "against": False, "status": status, "progress": progress}
    beginning = render_beginning("EVA, live", charts([run.run for run in runs]), page_data(runs, settings), live=True)
    parts = [beginning]
    for run in runs:
        room = (MAX_BYTES - len(beginning)) // len(runs)
        for block in reversed(run.blocks):
            room -= len(block)
            if room < 0:
                break
            parts.append(block)
    return "".join([*parts, END]).encode()


class LiveServer(ThreadingHTTPServer):
    """Follows the caches of an output folder. The server of the standard library: three addresses need no framework."""

    daemon_threads = True

    def __init__(self, folder: Path, roots: FrameRoots, published: Mapping[str, Published], port: int) -> None:
        self._folder, self._roots, self._published = folder, roots, published
        # The page, how many there were before, and why the last one could not be made.
        self._page, self._made, self._problem = b"", 0, ""
        # When each cache had how many records, of the last minutes.
        self._counts: dict[Path, deque[tuple[float, int]]] = {}
        self._ready, self._stop = threading.Event(), threading.Event()
        super().__init__((HOST, port), Handler)
        self.url = f"http://{HOST}:{self.server_address[1]}/"
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        """Make the page again and again: when a file has changed and the cost of the last page allows it."""
        import eva.report.charts  # noqa: F401, PLC0415  the cost of a page is without that of its imports

        seen: object = None
        made_at = cost_s = 0.0
        while not self._stop.wait(0.3):
            try:
                caches = sorted([*self._folder.glob("cache_*.jsonl"), *self._folder.glob("*/cache_*.jsonl")])
                files = [file.stat() for cache in caches for file in cache.parent.glob("*.json*")]
                now = [(file.st_mtime_ns, file.st_size) for file in files]
                since_s = time.monotonic() - made_at
                if self._ready.is_set() and since_s < (EVERY_S if now == seen else min(EVERY_S, cost_s / SHARE)):
                    continue
                seen, began = now, time.thread_time()
                self._page, self._problem, self._made = self._write(caches), "", self._made + 1
            except (EvaError, OSError) as error:
                self._problem, began = str(error), time.thread_time()
            made_at, cost_s = time.monotonic(), time.thread_time() - began
            self._ready.set()

    def _write(self, caches: Sequence[Path]) -> bytes:
        runs: list[Collected] = []
        for path in caches:
            meta, records = read_meta(path), read_growing(path)
            self._roots = self._roots.with_metas([meta])
            counts = self._counts.setdefault(path, deque())
            if counts and counts[-1][1] > len(records):  # the run began anew, or runs samples again
                counts.clear()
            counts.append((time.monotonic(), len(records)))
            while counts[-1][0] - counts[0][0] > RATE_OVER_S:
                counts.popleft()
            dataset = dataset_of(meta, {record.index for record in records}, self._published)
            name = named_dataset(meta) or file_key(path)
            key = unique(
                name if path.parent == self._folder else f"{path.parent.name}/{name}", [one.run.name for one in runs]
            )
            runs.append(collect(Source(path, meta, key, dataset), len(runs), records, self._published))
        waiting = f"there is no run in {self._folder} yet; this page waits for one"
        status = time.strftime("made at %H:%M:%S") if runs else waiting
        return write_live_page(runs, list(map(self._progress, runs)), self._made + 1, f"Live: {status}")

    def _progress(self, run: Collected) -> str:
        """Such as `44 of 200, 12.0 per minute, about 13 min left`."""
        to_go, counts = run.file.score.to_go, self._counts[run.file.path]
        (since, before), (until, count) = counts[0], counts[-1]
        done = f"{count:,} done" if to_go is None else f"{count:,} of {count + to_go:,}"
        cache = run.file.path
        result = cache.with_name("result_" + cache.name.removeprefix("cache_"))
        if result.exists() and result.stat().st_mtime >= cache.stat().st_mtime:
            return f"{done}; the run has ended"
        if count == before or until - since < RATE_FROM_S:
            return done
        per_second = (count - before) / (until - since)
        left_s = (to_go or 0) / per_second
        left = f"{left_s:.0f} s" if left_s < 120 else f"{left_s / 60:.0f} min"
        return f"{done}, {60 * per_second:.1f} per minute" + (f", about {left} left" if to_go else "")

    def answer(self, path: str, query: Mapping[str, str]) -> tuple[int, str, bytes | str]:
        """Status, content type and body."""
        if path == "/frame":
            try:
                name = query.get("path", "")
                if "whole" in query:
                    return 200, "image/webp", self._roots.whole(name)
                return 200, "image/jpeg", self._roots.thumbnail(name)
            except NoFrameError as reason:
                return 404, "text/plain", str(reason)
        if path not in ("/", "/made"):
            return 404, "text/plain", "there is no such page"
        self._ready.wait()
        if self._problem and (path == "/made" or not self._page):
            return 500, "text/plain", self._problem
        return (200, "text/html", self._page) if path == "/" else (200, "text/plain", str(self._made))

    def server_close(self) -> None:
        self._stop.set()
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors, but not a browser that leaves in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers GET requests to a loopback name. The port does not matter: an SSH tunnel may change it."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: LiveServer

    def do_GET(self) -> None:
        status, kind, body = self._answer()
        content = body if isinstance(body, bytes) else body.encode("utf-8", errors="replace")
        self.send_response(status)
        length = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(content))}
        for name, value in {**_HEADERS, **length}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _answer(self) -> tuple[int, str, bytes | str]:
        if not is_loopback(self.headers.get("Host", "")):
            return 421, "text/plain", "this server answers to 127.0.0.1 and localhost alone"
        address = urlsplit(self.path)
        return self.server.answer(address.path, dict(parse_qsl(address.query)))

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the page sends a request every two seconds."""


def is_loopback(host: str) -> bool:
    """Whether a Host header names this machine."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.lower() in _LOOPBACK
