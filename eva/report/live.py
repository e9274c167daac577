"""The report of a run that is going on, served to a browser on this machine. It writes no file.

The server is bound to 127.0.0.1 and refuses a request whose Host header is not a loopback name. So a foreign page whose
name was made to resolve to this machine (DNS rebinding) gets nothing. A client never names a file: it names a run, a
sample and a frame. The path in the sample's record must pass the checks of thumbnails.py.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from eva.errors import EvaError
from eva.records.cache import encode
from eva.records.follow_cache import CacheFollower
from eva.records.meta import Meta, read_meta
from eva.records.outcome import Outcome
from eva.records.schema import Record, record_json
from eva.report.collect import Source, file_key, make_run, timestamps_of
from eva.report.details import Detail, detail, frames_of
from eva.report.head import Head, make_head
from eva.report.rows import columns, make_row
from eva.report.samples import Run, Sample, read_sample
from eva.report.thumbnails import FrameRoots, NoFrameError
from eva.scoring.published import Published
from eva.scoring.result_file import Answered, ResultFile, dataset_of, named_dataset

HOST = "127.0.0.1"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
# The interval of the figures takes half a second to compute for a large run.
HEAD_EVERY_S = 5.0
# Charts take a second or two to draw.
PAGE_EVERY_S = 60.0
# Characters of a sample's replies that a search looks through.
MAX_SAID = 20_000
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


class NotThereError(Exception):
    """The address leads nowhere. The message is for the reader of the page."""


@dataclass
class LiveRun:
    """A cache, and what the page shows of it. Of several lines for one index the last counts, as for the run itself.

    `dataset` is what the meta file and the records tell so far. When it changes, every record is read again.
    """

    key: str
    cache: CacheFollower
    published: Mapping[str, Published]
    dataset: str = ""
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    samples: dict[int, Sample] = field(default_factory=dict)
    # When how many records were known, of the last minutes: their rate.
    _counts: deque[tuple[float, int]] = field(default_factory=deque)
    _head: Head | None = None
    _head_of: tuple[int, int] = (0, 0)
    _head_at: float = 0.0

    def read_meta(self) -> Meta | None:
        """The meta file as it is now: a run that starts over can have other settings. Raises EvaError."""
        return read_meta(self.cache.path)

    def follow(self) -> bool:
        """Read further, and return whether there is more to read."""
        generation = self.cache.generation
        records = self.cache.follow()
        if self.cache.generation != generation:
            self.outcomes, self.samples = {}, {}
            self._counts.clear()
        for record in records:
            self.outcomes[record.index] = record.outcome
            self.samples[record.index] = read_sample(self.dataset, record)
        more = self._update_dataset() or self.cache.more
        if not more:
            self._count()
        return more

    def _count(self) -> None:
        now = time.monotonic()
        self._counts.append((now, len(self.outcomes)))
        while now - self._counts[0][0] > RATE_OVER_S:
            self._counts.popleft()

    def per_second(self) -> float:
        """How many records came per second lately; 0 where that is not known yet."""
        if not self._counts:
            return 0.0
        (since, before), (until, now) = self._counts[0], self._counts[-1]
        return max(0, now - before) / (until - since) if until - since >= RATE_FROM_S else 0.0

    def has_ended(self) -> bool:
        """Whether the run has written its result after its last record."""
        result = self.cache.path.with_name("result_" + self.cache.path.name.removeprefix("cache_"))
        written_at = self.cache.written_at()
        try:
            return written_at is not None and result.stat().st_mtime >= written_at
        except OSError:
            return False

    def progress(self) -> str:
        """Such as `44 of 200, 12.0 per minute, about 13 min left`."""
        head, count = self.head(), len(self.outcomes)
        left = None if head["to_go"] is None else max(0, head["total"] - count)
        done = f"{count:,} done" if left is None else f"{count:,} of {count + left:,}"
        if self.has_ended():
            return f"{done}; the run has ended"
        rate = self.per_second()
        if not rate:
            return done
        time_left = f", about {_duration(left / rate)} left" if left else ""
        return f"{done}, {60 * rate:.1f} per minute{time_left}"

    def _update_dataset(self) -> bool:
        """Return whether the dataset has changed. Then the cache is read again; the known outcomes stay."""
        dataset = dataset_of(self.read_meta(), self.outcomes.keys(), self.published)
        if dataset == self.dataset:
            return False
        self.dataset, self.samples = dataset, {}
        self.cache.restart()
        return True

    def assess(self) -> ResultFile:
        lines = [Answered(outcome) for outcome in self.outcomes.values()]
        return ResultFile.of(self.cache.path, self.read_meta(), lines, self.published)

    def chart_run(self, file: ResultFile) -> Run:
        return make_run(self.key, file, list(self.samples.values()))

    def head(self) -> Head:
        """The figures. They are computed again when the cache has changed, but not within HEAD_EVERY_S."""
        state = self.cache.generation, self.cache.offset
        due = time.monotonic() - self._head_at > HEAD_EVERY_S
        if self._head is None or (state != self._head_of and due):
            file = self.assess()
            self._head = make_head(self.chart_run(file), file)
            self._head_of, self._head_at = state, time.monotonic()
        return self._head

    def update(self, generation: int, offset: int) -> dict[str, Any]:
        """What is new for a page that has read up to `offset` of the file with this `generation`.

        If another file has replaced that one, everything is new.
        """
        new = self.cache.after(offset if generation == self.cache.generation else 0)
        rows = [make_row(record, self.dataset) for record in new.records]
        return {
            "key": self.key,
            "generation": self.cache.generation,
            "offset": new.offset,
            "more": new.offset < self.cache.offset,
            "rows": {**columns(rows), "said": [_said(record) for record in new.records]},
            "head": self.head(),
            "progress": self.progress(),
        }

    def record(self, index: int) -> Record:
        """Raises NotThereError."""
        record = self.cache.record(index)
        if record is None:
            raise NotThereError(f"there is no sample {index} of {self.key}")
        return record

    def sample(self, index: int) -> Detail:
        """Raises NotThereError."""
        record = self.record(index)
        return detail(record, make_row(record, self.dataset), timestamps=timestamps_of(self.read_meta()))


def _said(record: Record) -> str:
    return "\n".join(round_.reply for round_ in record.rounds)[:MAX_SAID]


@dataclass
class Live:
    """The caches of an output folder, followed as they grow. `make_page` makes the page that shows them."""

    folder: Path
    roots: FrameRoots
    published: Mapping[str, Published]
    make_page: Callable[[Sequence[Run]], str]
    _runs: dict[Path, LiveRun] = field(default_factory=dict)
    _page: str = ""
    _page_at: float = 0.0
    _drawing: threading.Lock = field(default_factory=threading.Lock)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, query: Mapping[str, str]) -> tuple[str, bytes]:
        """Content type and body. Raises NotThereError."""
        if path == "/":
            return "text/html; charset=utf-8", self.page().encode()
        if path == "/frame":
            return "image/webp", self.frame(query)
        answers: Mapping[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
            "/updates": self.updates,
            "/sample": self.sample,
            "/record": self.record,
        }
        if path not in answers:
            raise NotThereError("there is no such page")
        with self._lock:
            return "application/json", encode(answers[path](query)).rstrip()

    def page(self) -> str:
        """The page. Its charts are drawn again when they are older than PAGE_EVERY_S."""
        with self._drawing:
            if not self._page or time.monotonic() - self._page_at > PAGE_EVERY_S:
                with self._lock:
                    while self._follow():
                        pass
                    runs = [run.chart_run(run.assess()) for run in self._runs.values()]
                self._page, self._page_at = self.make_page(runs), time.monotonic()
                if not any(run.samples for run in runs):  # a page without charts is made again at once
                    self._page_at -= PAGE_EVERY_S
            return self._page

    def updates(self, query: Mapping[str, str]) -> dict[str, Any]:
        """What is new for a page that has read `since`: `key:generation:offset` of each run, separated by commas."""
        more = self._follow()
        since = _since(query.get("since", ""))
        updates = [run.update(*since.get(run.key, (-1, 0))) for run in self._runs.values()]
        return {
            "runs": updates,
            "more": more or any(update["more"] for update in updates),
            "status": self._status(),
        }

    def sample(self, query: Mapping[str, str]) -> Detail:
        """The details of a sample. Its frames are addresses that `frame` answers."""
        run, index = self._run(query), _number(query, "index")
        found = run.sample(index)
        for at, frame in enumerate(frames_of(found)):
            address = f"frame?run={quote(run.key, safe='')}&index={index}&at={at}"
            frame.update(self._place(frame.pop("name"), address))
        return found

    def record(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The record of a sample as it stands in the cache."""
        return record_json(self._run(query).record(_number(query, "index")))

    def frame(self, query: Mapping[str, str]) -> bytes:
        """The thumbnail of a sample's frame, or all of it with `whole`. It is made when a browser asks for it."""
        with self._lock:
            frames = frames_of(self._run(query).sample(_number(query, "index")))
        at = _number(query, "at")
        if not 0 <= at < len(frames):
            raise NotThereError(f"the sample has no frame {at}")
        try:
            name = frames[at]["name"]
            return self.roots.whole(name) if "whole" in query else self._thumbnail(self.roots, name)
        except NoFrameError as reason:
            raise NotThereError(str(reason)) from None

    @functools.cached_property
    def _thumbnail(self) -> Callable[[FrameRoots, str], bytes]:
        return functools.lru_cache(maxsize=2000)(FrameRoots.thumbnail)

    def _place(self, name: str, address: str) -> dict[str, str]:
        try:
            self.roots.find(name)
        except NoFrameError as reason:
            return {"no": str(reason)}
        return {"url": address}

    def _follow(self) -> bool:
        """Read further in every cache, new ones too, and return whether there is more to read."""
        for path in sorted([*self.folder.glob("cache_*.jsonl"), *self.folder.glob("*/cache_*.jsonl")]):
            if path not in self._runs and path.is_file():
                meta, taken = read_meta(path), [run.key for run in self._runs.values()]
                self.roots = self.roots.with_metas([meta])
                dataset = named_dataset(meta)
                name = "" if path.parent == self.folder else f"{path.parent.name}/{dataset or file_key(path)}"
                key = Source.of(path, meta, dataset, name=name, taken=taken).key
                self._runs[path] = LiveRun(key, CacheFollower(path), self.published)
        # Every run reads further: `any` over the runs themselves would stop at the first that has more.
        more = [run.follow() for run in self._runs.values()]
        return any(more)

    def _status(self) -> str:
        written_at = [at for run in self._runs.values() if (at := run.cache.written_at()) is not None]
        if not written_at:
            return f"Live: there is no run in {self.folder} yet; this page waits for one"
        if all(run.has_ended() for run in self._runs.values()):
            return "The run has ended" if len(self._runs) == 1 else "All runs have ended"
        return f"Live: the last record came {_duration(time.time() - max(written_at))} ago"

    def _run(self, query: Mapping[str, str]) -> LiveRun:
        for run in self._runs.values():
            if run.key == query.get("run"):
                return run
        raise NotThereError("there is no such run")


def _since(text: str) -> dict[str, tuple[int, int]]:
    """What a page has already, by the key of the run. A part that cannot be read is left out."""
    known = {}
    for part in text.split(","):
        key, _, numbers = part.partition(":")
        generation, _, offset = numbers.partition(":")
        if generation.isdecimal() and offset.isdecimal() and len(numbers) < 40:
            known[unquote(key)] = int(generation), int(offset)
    return known


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if not text.removeprefix("-").isdecimal() or len(text) > 18:
        raise NotThereError(f"{name} must be a number")
    return int(text)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Handler(BaseHTTPRequestHandler):
    """Answers GET requests to a loopback name."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: LiveServer

    def do_GET(self) -> None:
        if not is_loopback(self.headers.get("Host", "")):
            return self._send(421, "text/plain; charset=utf-8", b"this server answers to 127.0.0.1 and localhost alone")
        try:
            address = urlsplit(self.path)
        except ValueError:  # such as http://[::1
            return self._send(400, "text/plain; charset=utf-8", b"that is not an address")
        try:
            kind, body = self.server.live.answer(address.path, dict(parse_qsl(address.query)))
        except NotThereError as error:
            return self._send(404, "text/plain; charset=utf-8", str(error).encode("utf-8", errors="replace"))
        except (EvaError, OSError) as error:
            return self._send(500, "text/plain; charset=utf-8", str(error).encode("utf-8", errors="replace"))
        return self._send(200, kind, body)

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
    """The server of the standard library. Four addresses need no framework, and so no further dependency."""

    daemon_threads = True

    def __init__(self, live: Live, port: int) -> None:
        self.live = live
        super().__init__((HOST, port), Handler)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors, but not a browser that leaves in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
