"""report.py --live: what it serves while a run goes on, and to whom."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from browser import Watched, chromium, needs_chromium
from harness import called, read_records
from page_runs import INDEX, Ran
from PIL import Image

from eva.commands.report import live_server, parse_arguments
from eva.records.cache import encode, open_cache
from eva.records.schema import read_record
from eva.report.live import is_loopback

LOADED = "() => [...document.querySelectorAll('.frames img')].filter((image) => image.naturalWidth > 0).length"


@dataclass(frozen=True)
class Served:
    """The address of a live page, and the cache that it follows."""

    url: str
    cache: Path

    def get(self, path: str, *, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        try:
            connection.request(method, path, headers={"Host": host} if host is not None else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        status, body = self.get(path)
        assert status == 200, body
        return json.loads(body)


@contextmanager
def serving(folder: Path, frames: Path) -> Iterator[Served]:
    options = parse_arguments([*live(folder, port=0), "--frame-root", str(frames)])
    with live_server(options) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Served(server.url, folder / "cache_own.jsonl")
        finally:
            server.shutdown()
            thread.join()


def live(folder: Path, *, port: int) -> list[str]:
    return ["report.py", "--live", "--output-dir", str(folder), "--port", str(port)]


@pytest.fixture
def served(report_run: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Served]:
    with serving(tmp_path, report_run.frames) as found:
        yield found
    assert capsys.readouterr().err == "", "a traceback"


@pytest.fixture(scope="module")
def records(report_run: Ran) -> list[dict[str, Any]]:
    return read_records(report_run.result)


def append(cache: Path, *records: dict[str, Any]) -> None:
    with cache.open("ab") as file:
        file.writelines(encode(record) for record in records)


@needs_chromium
def test_the_page_grows_with_the_run_and_the_reader_stays_where_they_are(
    served: Served, report_run: Ran, records: list[dict[str, Any]]
) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        watched = Watched(page, (served.url,))
        page.goto(served.url)
        page.wait_for_selector("#nothing:visible")
        append(served.cache, *records[:3])
        served.cache.with_suffix(".meta.json").write_bytes(report_run.result.with_suffix(".meta.json").read_bytes())
        page.wait_for_selector("text=3 samples")
        page.evaluate("() => { window.loadedOnce = true; }")

        page.goto(served.url + f"#own/{INDEX['one look']}")
        page.wait_for_function(f"() => ({LOADED})() === 3")
        page.fill("#search", "shown")
        torn = encode(records[4])
        append(served.cache, records[3])
        with served.cache.open("ab") as file:
            file.write(torn[:50])
        page.wait_for_function("() => document.querySelector('#count').textContent === '4 samples'")
        assert page.locator("#sample").get_attribute("aria-label") == "Sample own/1"
        assert page.input_value("#search") == "shown"
        with served.cache.open("ab") as file:
            file.write(torn[50:])
        page.wait_for_function("() => document.querySelector('#count').textContent === '5 samples'")
        page.wait_for_function("() => document.querySelector('#runs td').textContent.includes(' of 5 answered')")

        with open_cache(served.cache) as cache:  # as --retry-error does
            cache.drop([0, 2])
            cache.append(read_record(records[INDEX["wrong"]]))
        page.wait_for_function("() => document.querySelector('#count').textContent === '4 samples'")
        assert page.locator("#table tbody a").all_inner_texts() == ["own/1", "own/3", "own/4", "own/5"]
        assert page.locator("#sample").get_attribute("aria-label") == "Sample own/1"

        with open_cache(served.cache) as cache:  # the sample that is being read runs again
            cache.drop([1])
        page.wait_for_function("() => document.querySelector('#count').textContent === '3 samples'")
        assert page.locator(".frames img").count() == 3
        append(served.cache, {**records[1], "answer": "C"})
        page.wait_for_function("() => document.querySelector('.facts').textContent.includes('Answer' + 'C, truth B')")
        assert page.evaluate("() => window.loadedOnce")
        watched.calm()


@needs_chromium
def test_the_page_waits_for_a_run_and_says_how_far_it_is_and_that_it_has_ended(
    report_run: Ran, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    with serving(tmp_path / "later", report_run.frames) as served, chromium() as browser:
        page = browser.new_page()
        watched = Watched(page, (served.url,))
        page.goto(served.url)
        page.wait_for_selector("text=this page waits for one")
        meta = json.loads(report_run.result.with_suffix(".meta.json").read_text())
        for name, turns, started in (("old", 3, "2026-01-01T00:00:00+00:00"), ("new", 6, "2026-02-01T00:00:00+00:00")):
            folder = tmp_path / "later" / name
            folder.mkdir(parents=True)
            meta |= {"settings": {**meta["settings"], "max_turns": turns}, "started": [started]}
            (folder / "cache_own.meta.json").write_text(json.dumps(meta))
        append(tmp_path / "later" / "old" / "cache_own.jsonl", *records)
        (tmp_path / "later" / "old" / "result_own.jsonl").write_bytes(report_run.result.read_bytes())
        growing = tmp_path / "later" / "new" / "cache_own.jsonl"
        append(growing, *records[:4])
        page.wait_for_function("() => document.querySelectorAll('#runs .progress').length === 2")
        page.wait_for_function("() => document.querySelector('.progress').textContent.includes('4 of')")
        # The first count may come after the dataset was learnt, so a rate needs two more.
        append(growing, records[4])
        page.wait_for_function("() => document.querySelector('.progress').textContent.startsWith('5 of')")
        append(growing, records[5])
        rate = r"6 of \d+, [\d.]+ per minute, about \d+ \w+ left"
        matches = "(rate) => document.querySelector('.progress').textContent.match(rate)"
        page.wait_for_function(matches, arg=rate, timeout=120_000)
        assert page.locator("#runs .name").all_inner_texts() == ["new/own", "old/own"], "the newest first"
        assert page.locator("#runs .differing").all_inner_texts() == ["max_turns 6", "max_turns 3"]
        assert page.locator(".progress").nth(1).inner_text() == f"{len(records)} of {len(records)}; the run has ended"
        page.reload()
        page.wait_for_selector(f"#charts summary:has-text('Charts of the first {len(records) + 6} samples')")
        watched.calm()


def test_updates_go_on_from_a_byte_offset(served: Served, records: list[dict[str, Any]]) -> None:
    assert served.json("/updates?since=")["runs"] == []
    append(served.cache, *records[:2])
    (first,) = served.json("/updates?since=")["runs"]
    assert first["rows"]["index"] == [0, 1] and first["offset"] == served.cache.stat().st_size
    append(served.cache, records[2])
    (second,) = served.json(f"/updates?since=own:{first['generation']}:{first['offset']}")["runs"]
    assert second["rows"]["index"] == [2]
    (anew,) = served.json(f"/updates?since=own:{first['generation'] + 1}:{first['offset']}")["runs"]
    assert anew["rows"]["index"] == [0, 1, 2]
    for nonsense in ("own", "own:x:y", "own:-1:-5", ":::,,,", "%FF%00", "own:" + "9" * 5000 + ":0"):
        (all_of_it,) = served.json(f"/updates?since={nonsense}")["runs"]
        assert all_of_it["rows"]["index"] == [0, 1, 2]


def test_only_loopback_names_are_answered(served: Served) -> None:
    assert all(map(is_loopback, ("127.0.0.1:80", "localhost:80", "localhost", "LOCALHOST:99", "[::1]:80", "[::1]")))
    others = "evil.example", "evil.example:80", "127.0.0.1.evil.example:80", "", "localhost.evil", "127.0.0.1@evil"
    assert not any(map(is_loopback, others))
    assert served.get("/updates", host="localhost:1")[0] == 200
    assert served.get("/updates", host="evil.example")[0] == 421


def test_only_the_address_127_0_0_1_is_listened_on(served: Served) -> None:
    # Also an address of this machine's own, which a server on all addresses would answer.
    with socket.socket() as client, pytest.raises(OSError):
        client.settimeout(5)
        client.connect(("127.0.0.2", urlsplit(served.url).port))


def test_nothing_but_the_page_and_frames_is_served(
    served: Served, report_run: Ran, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(next(report_run.frames.rglob("*.bmp")).read_bytes())
    names = [str(secret), "/etc/passwd", f"{report_run.frames}/../x.png", f"file://{secret}", "x", "\ud800", "a\0b"]
    hostile = json.loads(json.dumps(records[INDEX["one look"]]))
    hostile["trajectory"][0]["calls"][0]["frames"] += names
    append(served.cache, hostile)
    served.json("/updates?since=")
    index = INDEX["one look"]
    for at in range(3):
        status, body = served.get(f"/frame?run=own&index={index}&at={at}")
        assert status == 200 and body[:4] == b"RIFF"
        whole = Image.open(io.BytesIO(served.get(f"/frame?run=own&index={index}&at={at}&whole=1")[1]))
        assert (whole.format, whole.size) == ("WEBP", (84, 56))
    for at in (*range(3, 3 + len(names)), 99, -1):
        assert served.get(f"/frame?run=own&index={index}&at={at}")[0] == 404
        assert served.get(f"/frame?run=own&index={index}&at={at}&whole=1")[0] == 404
    for path in (
        "/secret.png", f"/{secret}", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
        "/report.py", "/cache_own.jsonl", "/frame", "/frame?run=own", "/frame?run=own&index=1e9&at=0",
        f"/frame?run=own&index={index}&at={quote(str(secret))}",
        f"/frame?run=..&index={index}&at=0", "/sample?run=own&index=77", "/sample?run=own&index=²", "/nothing",
    ):  # fmt: skip
        assert served.get(quote(path, safe="/?=&%"))[0] == 404, path
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert served.get("/", method=method)[0] == 501
    assert served.cache.read_bytes() == encode(hostile)


def raw(served: Served, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", urlsplit(served.url).port or 0), timeout=30) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize(
    "target", ["http://[::1", "http://[", "http://[x]/", "http://[::1]x/", "http://\u2100.example/"]
)
def test_an_address_that_is_none_is_a_400_and_no_traceback(served: Served, target: str) -> None:
    try:
        urlsplit(target.encode().decode("iso-8859-1"))
        owed = b"200"  # some of them are addresses for this Python
    except ValueError:
        owed = b"400"
    answer = raw(served, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] == owed, answer[:200]
    assert served.get("/updates?since=")[0] == 200


def test_garbage_on_the_wire_is_no_traceback(served: Served) -> None:
    """`served` looks at what the server says on stderr."""
    for request in (
        b"\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /updates?since=%ff%00 HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n",
        b"GET /?" + b"&" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"GET http://[::1 HTTP/0.9\r\n\r\n", b"",
    ):  # fmt: skip
        raw(served, request)
    assert served.get("/updates?since=")[0] == 200


def test_a_cache_without_a_meta_file_has_the_dataset_and_the_categories_that_the_other_tools_give_it(
    served: Served,
) -> None:
    basic = {"gt": "B", "answer": "B", "stop_reason": "answer_found", "num_rounds": 1, "total_tokens": 9}
    rows = [{"index": n, "videos": [f"{n}.mp4"], "video_duration_s": 60.0, **basic} for n in range(2700)]
    append(served.cache, *rows[:-1])
    while (answer := served.json("/updates?since="))["more"]:
        pass
    (run,) = answer["runs"]
    assert (run["head"]["dataset"], set(map(tuple, run["rows"]["categories"]))) == ("", {()})
    assert run["head"]["so_far"] == "So far: 2699 of 2699 answered are right; nobody knows how many are to go"
    assert (run["head"]["accuracy"], run["head"]["interval"]) == (None, None)
    append(served.cache, rows[-1])
    while (answer := served.json("/updates?since="))["more"]:
        pass
    (again,) = answer["runs"]
    assert again["generation"] != run["generation"], "a page forgets the rows that it has"
    assert len(again["rows"]["index"]) == 2700
    assert {again["rows"]["names"][number] for (number,) in again["rows"]["categories"]} == {"short"}


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = called(*live(tmp_path, port=other.getsockname()[1]))
    assert done.returncode == 2
    assert "--port" in done.stderr
