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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from eva.errors import EvaError
from eva.records.meta import read_meta
from eva.records.schema import Record, read_record
from eva.report.collect import Collected, Source, collect, file_key, page_data
from eva.report.page import END, render_beginning
from eva.report.thumbnails import FrameRoots, NoFrameError
from eva.scoring.published import Published
from eva.scoring.result_file import dataset_of, named_dataset

HOST = "127.0.0.1"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
# A page is made anew at least so often, and takes at most a tenth of a processor where that is not too seldom.
EVERY_S, SHARE = 60.0, 0.1
MAX_BYTES = 5_000_000
# The rate of a run is over the last minutes, and needs some seconds.
RATE_OVER_S, RATE_FROM_S = 600.0, 5.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
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
                record = read_record(line) if line.endswith(b"\n") else None
            except ValueError:
                continue
            if record is not None:
                found.pop(record.index, None)
                found[record.index] = record
    return list(found.values())


@dataclass
class Live:
    """The caches of an output folder, and the page of them. `made` counts the pages; `problem` says why the last one
    could not be made. There is a page, or a problem, when `ready` is set."""

    folder: Path
    roots: FrameRoots
    published: Mapping[str, Published]
    page: bytes = b""
    made: int = 0
    problem: str = ""
    ready: threading.Event = field(default_factory=threading.Event)
    # When each cache had how many records, of the last minutes.
    _counts: dict[Path, deque[tuple[float, int]]] = field(default_factory=dict)

    def follow(self, stop: threading.Event) -> None:
        """Make the page again and again until `stop` is set."""
        seen, made_at, cost_s = None, -EVERY_S, 0.0
        while True:
            now, since_s = self._state(), time.monotonic() - made_at
            if since_s >= EVERY_S or (now != seen and since_s >= min(EVERY_S, cost_s / SHARE)):
                began = time.monotonic()
                try:
                    self.page, self.problem, self.made = self.make().encode(), "", self.made + 1
                except (EvaError, OSError) as error:
                    self.problem = str(error)
                seen, made_at, cost_s = now, time.monotonic(), time.monotonic() - began
                self.ready.set()
            if stop.wait(0.3):
                return

    def _caches(self) -> list[Path]:
        return sorted([*self.folder.glob("cache_*.jsonl"), *self.folder.glob("*/cache_*.jsonl")])

    def _state(self) -> list[tuple[float, int]]:
        """Another value when a cache, or a meta or result file beside one, is another one."""
        found = []
        for path in (one for cache in self._caches() for one in cache.parent.glob("*.json*")):
            try:
                status = path.stat()
            except OSError:  # a file that was there for a moment only
                continue
            found.append((status.st_mtime, status.st_size))
        return found

    def make(self) -> str:
        """The page of all records that there are. Raises EvaError, OSError."""
        from eva.report.charts import charts  # noqa: PLC0415  takes a second to import, and not every call comes here

        runs: list[Collected] = []
        ages = []
        for path in self._caches():
            written_at = path.stat().st_mtime
            runs.append(self._read(path, len(runs), [run.run.name for run in runs]))
            ages.append((written_at, _has_ended(path, written_at)))
        settings = {"live": self.made + 1, "against": False, "status": self._status(ages), "legend": ""}
        data = page_data(runs, settings)
        progress = [self._progress(run, ended=ended) for run, (_, ended) in zip(runs, ages, strict=True)]
        data["progress"] = progress
        beginning = render_beginning("EVA, live", charts([run.run for run in runs]), data, live=True)
        # The newest records, for nobody knows how many there will be.
        room = (MAX_BYTES - len(beginning)) // max(1, len(runs))
        return beginning + "".join(block for run in runs for block in _newest(run.blocks, room)) + END

    def _read(self, path: Path, number: int, taken: Sequence[str]) -> Collected:
        meta, records = read_meta(path), read_growing(path)
        self.roots = self.roots.with_metas([meta])
        dataset = dataset_of(meta, {record.index for record in records}, self.published)
        name = "" if path.parent == self.folder else f"{path.parent.name}/{named_dataset(meta) or file_key(path)}"
        source = Source.of(path, meta, dataset, name=name, taken=taken)
        counts = self._counts.setdefault(path, deque())
        if counts and counts[-1][1] > len(records):  # the run began anew, or runs samples again
            counts.clear()
        counts.append((time.monotonic(), len(records)))
        while counts[-1][0] - counts[0][0] > RATE_OVER_S:
            counts.popleft()
        return collect(source, number, records, self.published)

    def _progress(self, run: Collected, *, ended: bool) -> str:
        """Such as `44 of 200, 12.0 per minute, about 13 min left`."""
        to_go, counts = run.file.score.to_go, self._counts[run.file.path]
        (since, before), (until, count) = counts[0], counts[-1]
        done = f"{count:,} done" if to_go is None else f"{count:,} of {count + to_go:,}"
        if ended:
            return f"{done}; the run has ended"
        if count == before or until - since < RATE_FROM_S:
            return done
        per_second = (count - before) / (until - since)
        left = f", about {_duration(to_go / per_second)} left" if to_go else ""
        return f"{done}, {60 * per_second:.1f} per minute{left}"

    def _status(self, ages: Sequence[tuple[float, bool]]) -> str:
        if not ages:
            return f"Live: there is no run in {self.folder} yet; this page waits for one"
        if all(ended for _, ended in ages):
            return "The run has ended" if len(ages) == 1 else "All runs have ended"
        made_at, last = (time.strftime("%H:%M:%S", time.localtime(at)) for at in (None, max(at for at, _ in ages)))
        return f"Live: made at {made_at}, the last record came at {last}"

    def answer(self, path: str, query: Mapping[str, str]) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        if path == "/frame":
            try:
                name = query.get("path", "")
                if "whole" in query:
                    return 200, "image/webp", self.roots.whole(name)
                return 200, "image/jpeg", self.roots.thumbnail(name)
            except NoFrameError as reason:
                return _text(404, str(reason))
        if path not in ("/", "/made"):
            return _text(404, "there is no such page")
        self.ready.wait()
        if self.problem and (path == "/made" or not self.page):
            return _text(500, self.problem)
        return (200, "text/html; charset=utf-8", self.page) if path == "/" else _text(200, str(self.made))


def _newest(blocks: Sequence[str], room: int) -> Iterator[str]:
    for block in reversed(blocks):
        room -= len(block)
        if room < 0:
            return
        yield block


def _has_ended(cache: Path, written_at: float) -> bool:
    """Whether the run has written its result after its last record."""
    try:
        return cache.with_name("result_" + cache.name.removeprefix("cache_")).stat().st_mtime >= written_at
    except OSError:
        return False


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _text(status: int, text: str) -> tuple[int, str, bytes]:
    return status, "text/plain; charset=utf-8", text.encode("utf-8", errors="replace")


class Handler(BaseHTTPRequestHandler):
    """Answers GET requests to a loopback name."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: LiveServer

    def do_GET(self) -> None:
        if not is_loopback(self.headers.get("Host", "")):
            return self._send(*_text(421, "this server answers to 127.0.0.1 and localhost alone"))
        try:
            address = urlsplit(self.path)
            query = dict(parse_qsl(address.query))
        except ValueError:  # such as http://[::1
            return self._send(*_text(400, "that is not an address"))
        return self._send(*self.server.live.answer(address.path, query))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the page sends a request every two seconds."""


def is_loopback(host: str) -> bool:
    """Whether a Host header names this machine. The port does not matter: an SSH tunnel may change it."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.lower() in _LOOPBACK


class LiveServer(ThreadingHTTPServer):
    """The server of the standard library: three addresses need no framework, and so no further dependency."""

    daemon_threads = True

    def __init__(self, live: Live, port: int) -> None:
        self.live, self._stop = live, threading.Event()
        super().__init__((HOST, port), Handler)
        threading.Thread(target=live.follow, args=(self._stop,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"

    def server_close(self) -> None:
        self._stop.set()
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors, but not a browser that leaves in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
