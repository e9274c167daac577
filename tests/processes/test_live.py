"""report.py --live: what it serves while a run goes on, and to whom."""

from __future__ import annotations

import http.client
import io
import json
import random
import re
import socket
import threading
import time
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
from eva.report import live as live_module
from eva.report.live import MAX_BYTES, RATE_FROM_S, is_loopback

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

    def page(self, *words: str) -> str:
        """The page, when it has all these words."""
        deadline = time.monotonic() + 60
        while not all(word in (text := self.get("/")[1].decode()) for word in words):
            assert time.monotonic() < deadline, f"no page has {words}"
            time.sleep(0.1)
        return text


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


@pytest.fixture(autouse=True)
def made_anew_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may cost what it costs."""
    monkeypatch.setattr(live_module, "SHARE", 100.0)


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


def block(page: str, name: str) -> Any:
    """A block of JSON of a page."""
    (found,) = re.findall(f'id="data-{name}">([^<]*)<', page)
    return json.loads(found)


@needs_chromium
def test_the_page_is_loaded_again_with_the_run_but_not_under_a_reader(
    served: Served, report_run: Ran, records: list[dict[str, Any]]
) -> None:
    count = "(text) => document.querySelector('#count').textContent === text"
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        watched = Watched(page, (served.url,))
        page.goto(served.url)
        page.wait_for_selector("text=this page waits for one")
        served.cache.with_suffix(".meta.json").write_bytes(report_run.result.with_suffix(".meta.json").read_bytes())
        append(served.cache, *records[:3])
        page.wait_for_function(count, arg="3 samples")

        page.goto(served.url + f"#own/{INDEX['one look']}")
        page.wait_for_function(f"() => ({LOADED})() === 3")
        page.evaluate("() => { window.reading = true; }")
        torn = encode(records[4])
        append(served.cache, records[3])
        with served.cache.open("ab") as file:
            file.write(torn[:50])
        page.wait_for_selector("text=There is news of the run")
        assert page.evaluate("() => window.reading") and page.locator("#count").inner_text() == "3 samples"
        page.keyboard.press("Escape")
        page.wait_for_function(count, arg="4 samples")
        page.fill("#filter", "right")
        page.locator("#scroller").focus()
        with served.cache.open("ab") as file:
            file.write(torn[50:])
        page.wait_for_function("() => document.querySelector('#runs td').textContent.includes(' of 5 answered')")
        assert page.input_value("#filter") == "right", "the view stays"
        page.fill("#filter", "")
        page.locator("#scroller").focus()
        with open_cache(served.cache) as cache:  # as --retry-error does
            cache.drop([0, 2])
            cache.append(read_record(records[INDEX["wrong"]]))
        page.wait_for_function(count, arg="4 samples")
        assert page.locator("#table tbody a").all_inner_texts() == ["own/1", "own/3", "own/4", "own/5"]
        watched.calm()


def test_the_page_lists_all_runs_says_how_far_each_is_and_that_it_has_ended(
    report_run: Ran, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    meta = json.loads(report_run.result.with_suffix(".meta.json").read_text())
    for name, turns in (("old", 3), ("new", 6)):
        (tmp_path / "later" / name).mkdir(parents=True)
        meta["settings"]["max_turns"] = turns
        (tmp_path / "later" / name / "cache_own.meta.json").write_text(json.dumps(meta))
    append(tmp_path / "later" / "old" / "cache_own.jsonl", *records)
    (tmp_path / "later" / "old" / "result_own.jsonl").write_bytes(report_run.result.read_bytes())
    growing = tmp_path / "later" / "new" / "cache_own.jsonl"
    append(growing, *records[:4])
    with serving(tmp_path / "later", report_run.frames) as served:
        page = served.page("new/own")
        assert [head["key"] for head in block(page, "heads")] == ["new/own", "old/own"]
        done = f"{len(records)} of {len(records)}; the run has ended"
        assert block(page, "settings")["progress"] == [f"4 of {len(records)}", done]
        time.sleep(RATE_FROM_S)
        append(growing, records[4])
        progress = block(served.page(f'"5 of {len(records)}, '), "settings")["progress"]
        assert re.fullmatch(r"5 of \d+, [\d.]+ per minute, about \d+ \w+ left", progress[0]), progress
        growing.with_name("result_own.jsonl").write_bytes(growing.read_bytes())
        served.page(f'"5 of {len(records)}; the run has ended')


def test_a_large_run_has_its_newest_records_on_the_page_and_all_its_rows(
    served: Served, records: list[dict[str, Any]]
) -> None:
    noise = random.Random(1)
    for number in range(400):
        reply = noise.randbytes(15_000).hex()
        append(served.cache, {**records[0], "index": number, "trajectory": [{"reply": reply}], "messages": ""})
    page = served.page('"recorded":400')
    assert len(page) < MAX_BYTES
    assert len(block(page, "rows-0")["index"]) == 400
    assert re.findall(r'id="data-records-0-(\d)"', page) == ["3", "2"]


def test_a_broken_meta_file_is_said_and_the_page_stays(served: Served, records: list[dict[str, Any]]) -> None:
    append(served.cache, records[0])
    served.page('"recorded":1')
    served.cache.with_suffix(".meta.json").write_text("{")
    deadline = time.monotonic() + 60
    while (made := served.get("/made"))[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert made[0] == 500 and b"meta.json" in made[1]
    assert served.get("/")[0] == 200


def test_only_loopback_names_are_answered(served: Served) -> None:
    assert all(map(is_loopback, ("127.0.0.1:80", "localhost:80", "localhost", "LOCALHOST:99", "[::1]:80", "[::1]")))
    others = "evil.example", "evil.example:80", "127.0.0.1.evil.example:80", "", "localhost.evil", "127.0.0.1@evil"
    assert not any(map(is_loopback, others))
    assert served.get("/made", host="localhost:1")[0] == 200
    assert served.get("/made", host="evil.example")[0] == 421


def test_only_the_address_127_0_0_1_is_listened_on(served: Served) -> None:
    # Also an address of this machine's own, which a server on all addresses would answer.
    with socket.socket() as client, pytest.raises(OSError):
        client.settimeout(5)
        client.connect(("127.0.0.2", urlsplit(served.url).port))


def test_nothing_but_the_page_and_frames_is_served(
    served: Served, report_run: Ran, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    def frame(name: str) -> str:
        return "/frame?path=" + quote(name, safe="", errors="surrogateescape")

    for path in records[INDEX["one look"]]["trajectory"][0]["calls"][0]["frames"]:
        status, body = served.get(frame(path))
        assert status == 200 and Image.open(io.BytesIO(body)).format == "JPEG"
        whole = Image.open(io.BytesIO(served.get(frame(path) + "&whole=1")[1]))
        assert (whole.format, whole.size) == ("WEBP", (84, 56))
    secret = tmp_path / "secret.png"
    secret.write_bytes(next(report_run.frames.rglob("*.bmp")).read_bytes())
    for name in (
        str(secret),
        "/etc/passwd",
        f"{report_run.frames}/../x.png",
        f"file://{secret}",
        "x",
        "\udc80",
        "a\0b",
        "",
    ):
        assert served.get(frame(name))[0] == served.get(frame(name) + "&whole=1")[0] == 404
    for path in (
        "/secret.png", f"/{secret}", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
        "/report.py", "/cache_own.jsonl", "/frame", "/frame?path", "/nothing",
    ):  # fmt: skip
        assert served.get(path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert served.get("/", method=method)[0] == 501
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.png"]


def test_a_cache_without_a_meta_file_has_the_dataset_and_the_categories_that_the_other_tools_give_it(
    served: Served,
) -> None:
    basic = {"gt": "B", "answer": "B", "stop_reason": "answer_found", "num_rounds": 1, "total_tokens": 9}
    rows = [{"index": n, "videos": [f"{n}.mp4"], "video_duration_s": 60.0, **basic} for n in range(2700)]
    append(served.cache, *rows[:-1])
    page = served.page('"correct":2699')
    (head,) = block(page, "heads")
    assert (head["dataset"], head["accuracy"], head["interval_95"]) == (None, None, None)
    assert "nobody knows" in head["so_far"] and set(map(tuple, block(page, "rows-0")["categories"])) == {()}
    append(served.cache, rows[-1])
    page = served.page('"dataset":"videomme"')
    assert "short" in block(page, "rows-0")["names"]


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = called(*live(tmp_path, port=other.getsockname()[1]))
    assert done.returncode == 2
    assert "--port" in done.stderr
