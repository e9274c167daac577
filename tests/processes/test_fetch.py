"""Fetching from a real server on loopback, by the commands and by the module."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import filelock
import pytest
from file_server import (
    MAX_ENDLESS_BYTES,
    FileServer,
    answer,
    break_after,
    compress_if_welcome,
    send_endlessly,
    stall_after,
)
from harness import ROOT, called

from eva.dataset.download import FetchError, check_source, fetch, hash_content, load_manifest

NAMES = {"one": "one_raw.jsonl", "two": "two_raw.jsonl"}
NAME = NAMES["one"]
CONTENT = {name: random.Random(name).randbytes(50_000) for name in NAMES.values()}


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server():
    with FileServer() as server:
        server.files.update(CONTENT)
        yield server


@pytest.fixture
def data(tmp_path):
    """A folder with a manifest of sizes and hashes."""
    files = {
        key: {"name": n, "size_bytes": len(CONTENT[n]), "sha256": hashlib.sha256(CONTENT[n]).hexdigest()}
        for key, n in NAMES.items()
    }
    return with_manifest(tmp_path / "data", files=files)


@pytest.fixture
def results(tmp_path):
    """A folder with a manifest of the ids that Git gives files."""
    blobs = {key: {"name": n, "git_blob": git_blob(CONTENT[n])} for key, n in NAMES.items()}
    return with_manifest(tmp_path / "results", max_bytes=80_000, files=blobs)


def with_manifest(folder: Path, **manifest: object) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({**manifest, "source": "http://127.0.0.1:9/"}))
    return folder


# The command with a data folder of our own.
FETCH = "import sys, pathlib, eva.commands.fetch as fetch; fetch.main(sys.argv, pathlib.Path(sys.argv.pop(1)))"


def command(data: Path, *args: object) -> list[str]:
    return [sys.executable, "-c", FETCH, str(data), *map(str, args)]


def run(data: Path, *args: object) -> subprocess.CompletedProcess[str]:
    return called("data/fetch.py", *args, data=data)


def fetch_one(data: Path, source: str, *, force: bool = False, retries: int = 4) -> Path:
    file = load_manifest(data / "manifest.json").files["one"]
    assert fetch(file, source=source, folder=data, force=force, retries=retries)
    return data / file.name


def leftovers(folder: Path) -> list[str]:
    """What is neither a file of the manifest nor there for fetching."""
    known = {"manifest.json", ".fetch.lock", *NAMES.values()}
    return sorted({path.name for path in folder.iterdir()} - known)


def test_every_file_is_placed_checked_and_named(data, server):
    done = run(data, "--source", server.url)
    assert (done.returncode, done.stderr) == (0, "")
    for name in NAMES.values():
        path = data / name
        assert path.read_bytes() == CONTENT[name]
        assert f"{path}: fetched, checked" in done.stdout
    assert leftovers(data) == []


def test_only_the_datasets_asked_for_are_fetched_once_each(data, server, tmp_path):
    done = run(data, "two", "two", "--source", server.url, "--output", tmp_path / "new" / "folder")
    assert done.returncode == 0
    assert (tmp_path / "new" / "folder" / NAMES["two"]).read_bytes() == CONTENT[NAMES["two"]]
    assert server.requests == {NAMES["two"]: 1}


def test_an_unknown_dataset_is_refused_before_anything_is_fetched(data, server):
    done = run(data, "one", "three", "--source", server.url)
    assert done.returncode == 2
    assert "three" in done.stderr
    assert server.requests == {}


def test_a_broken_transfer_is_tried_again_from_the_start(data, server, caplog):
    server.plan[NAME] = [break_after(20_000), break_after(5_000)]
    assert fetch_one(data, server.url).read_bytes() == CONTENT[NAME]
    assert server.requests[NAME] == 3
    assert len(caplog.messages) == 2


def test_a_killed_download_leaves_nothing_and_the_next_call_fetches_the_file(data, server):
    server.plan[NAME] = [stall_after(1_000)]
    with subprocess.Popen(command(data, "one", "--source", server.url), cwd=ROOT) as first:
        deadline = time.monotonic() + 20
        while not server.requests[NAME] and time.monotonic() < deadline:
            time.sleep(0.02)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert not (data / NAME).exists()
    assert leftovers(data) == []
    assert run(data, "one", "--source", server.url).returncode == 0
    assert (data / NAME).read_bytes() == CONTENT[NAME]


def test_what_a_server_compressed_arrives_as_the_plain_file(data, server):
    server.plan[NAME] = [compress_if_welcome]
    fetch_one(data, server.url)
    assert (data / NAME).read_bytes() == CONTENT[NAME]


def test_another_file_of_the_same_size_is_refused_without_a_retry(data, server):
    server.files[NAME] = bytes(len(CONTENT[NAME]))
    with pytest.raises(FetchError, match="sha256"):
        fetch_one(data, server.url)
    assert server.requests[NAME] == 1
    assert not (data / NAME).exists()
    assert leftovers(data) == []


def test_an_absent_file_is_asked_for_once_and_the_others_are_still_fetched(data, server):
    del server.files[NAME]
    done = run(data, "--source", server.url)
    assert done.returncode == 1
    assert f"{server.url}{NAME} cannot be fetched" in done.stderr
    assert server.requests[NAME] == 1
    assert (data / NAMES["two"]).exists()


def test_an_overloaded_server_is_asked_again(data, server):
    server.plan[NAME] = [answer(503), answer(429)]
    fetch_one(data, server.url)
    assert server.requests[NAME] == 3


def test_the_number_of_retries_is_kept_to(data, server):
    server.plan[NAME] = [answer(500)] * 5
    with pytest.raises(FetchError, match="the server answered 500"):
        fetch_one(data, server.url, retries=1)
    assert server.requests[NAME] == 2


@pytest.mark.parametrize("by_blob", [False, True])
def test_an_endless_body_is_cut_off(data, results, server, by_blob):
    server.plan[NAME] = [send_endlessly]
    with pytest.raises(FetchError, match=f"longer than {80_000 if by_blob else 50_000} bytes"):
        fetch_one(results if by_blob else data, server.url)
    assert server.endless_bytes < MAX_ENDLESS_BYTES
    assert leftovers(results if by_blob else data) == []


def test_a_redirect_on_the_web_is_followed(data, server):
    server.plan[NAME] = [answer(302, {"Location": f"/elsewhere/{NAME}"})]
    assert fetch_one(data, server.url).read_bytes() == CONTENT[NAME]


def test_a_redirect_to_something_other_than_http_is_refused(data, server, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT[NAME])
    for location in ((tmp_path / NAME).as_uri(), "ftp://127.0.0.1/file"):
        server.plan[NAME] = [answer(302, {"Location": location})]
        with pytest.raises(FetchError, match="unsupported protocol"):
            fetch_one(data, server.url)
    assert server.requests[NAME] == 2


def test_redirects_in_a_circle_end(data, server):
    server.plan[NAME] = [answer(302, {"Location": NAME})] * 50
    with pytest.raises(FetchError, match="redirects"):
        fetch_one(data, server.url)
    assert server.requests[NAME] < 10


def test_a_folder_can_be_the_mirror(data, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / NAME).write_bytes(CONTENT[NAME])
    (mirror / NAMES["two"]).write_bytes(b"another")
    done = run(data, "--source", mirror)
    assert done.returncode == 1
    assert (data / NAME).read_bytes() == CONTENT[NAME]
    assert str(mirror / NAMES["two"]) in done.stderr
    assert leftovers(data) == []
    (mirror / NAMES["two"]).unlink()
    assert "No such file" in run(data, "--source", mirror).stderr


@pytest.mark.parametrize("source", ["no/such/folder", "ftp://127.0.0.1/", "http://", "http:///x", "file:///etc/"])
def test_a_source_is_a_folder_or_on_the_web(source):
    with pytest.raises(FetchError, match=re.escape(source)):
        check_source(source)


def test_an_unusable_source_is_an_unusable_argument(data):
    done = run(data, "--source", "ftp://127.0.0.1/")
    assert done.returncode == 2
    assert "ftp://127.0.0.1/" in done.stderr


def test_an_address_that_no_request_can_be_made_to_is_named(data):
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:port/one_raw\.jsonl cannot be fetched: Invalid port"):
        fetch_one(data, "http://127.0.0.1:port/")


def test_a_right_file_is_left_alone(data, server):
    path = data / NAME
    path.write_bytes(CONTENT[NAME])
    before = path.stat()
    done = run(data, "one", "--source", server.url, "--force")
    assert done.returncode == 0
    assert "already there" in done.stdout
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert server.requests == {}


def test_a_wrong_file_is_replaced_only_by_force(data, server):
    path = data / NAME
    path.write_bytes(b"mine")
    done = run(data, "one", "--source", server.url)
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert path.read_bytes() == b"mine"
    assert server.requests == {}
    assert run(data, "one", "--source", server.url, "--force").returncode == 0
    assert path.read_bytes() == CONTENT[NAME]


def test_a_failed_forced_fetch_leaves_the_old_file(data, server):
    path = data / NAME
    path.write_bytes(b"mine")
    server.files[NAME] = bytes(len(CONTENT[NAME]))
    with pytest.raises(FetchError, match="is not the file of the manifest"):
        fetch_one(data, server.url, force=True)
    assert path.read_bytes() == b"mine"


def test_two_fetches_into_one_folder_do_not_mix(data, server):
    with filelock.FileLock(data / ".fetch.lock"):
        assert run(data, "one", "--source", server.url).returncode == 1
    assert server.requests == {}


def test_an_output_that_cannot_be_written_is_named(data, server, tmp_path):
    (tmp_path / "file").write_text("")
    done = run(data, "one", "--source", server.url, "--output", tmp_path / "file" / "below")
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr


def test_results_are_checked_by_their_git_blob_id(results, server):
    assert fetch_one(results, server.url).read_bytes() == CONTENT[NAME]
    (results / NAME).unlink()
    server.files[NAME] += b"x"
    with pytest.raises(FetchError, match=git_blob(server.files[NAME])):
        fetch_one(results, server.url)


def test_the_git_blob_id_is_gits():
    assert hash_content(b"hello\n", "git_blob") == "ce013625030ba8dba906f756967f9e9ca394464a"


def annotation_line(index: int, video: str) -> str:
    prompt = [{"role": "user", "content": "Which?\nA. this\nB. that"}]
    return json.dumps({"videos": [video], "prompt": prompt, "reward_model": {"ground_truth": "A"}, "index": index})


def test_check_lists_the_videos_that_are_there_found_by_stem_or_missing(data, tmp_path):
    videos = ["plain.mp4", "/old/machine/MVLU/MLVU/video/1_plotQA/deep.mp4", "gone.mp4", "plain.mp4", "../out.mp4"]
    (data / NAME).write_text("\n".join(annotation_line(i, v) for i, v in enumerate(videos)))
    root = tmp_path / "videos"
    (root / "video" / "1_plotQA").mkdir(parents=True)
    (root / "plain.mp4").touch()
    (root / "video" / "1_plotQA" / "deep.webm").touch()
    done = run(data, "one", "--check", root)
    assert done.returncode == 1
    assert "one: 4 videos: 1 under their own name, 1 in another container, 2 missing" in done.stdout
    assert f"one: other container: {root / 'video/1_plotQA/deep.webm'}" in done.stdout
    assert f"one: missing: the video {root / 'gone.mp4'} is missing" in done.stdout
    assert "'../out.mp4' leaves the video root" in done.stdout


def test_check_writes_the_names_of_videos_on_one_line_each(data, tmp_path):
    lines = [annotation_line(0, "there\x1b[2J.mp4"), annotation_line(1, "gone\n\x1b[2J.mp4")]
    (data / NAME).write_text("\n".join(lines))
    (tmp_path / "there\x1b[2J.mkv").touch()
    done = run(data, "one", "--check", tmp_path)
    assert "\x1b" not in done.stdout
    assert [line.partition("/")[0] for line in done.stdout.splitlines()[:2]] == [
        "one: other container: ", "one: missing: the video ",
    ]  # fmt: skip
    assert len(done.stdout.splitlines()) == 3


def test_check_succeeds_when_every_video_is_there(data, tmp_path):
    (data / NAME).write_text(annotation_line(0, "a.mp4"))
    (tmp_path / "a.mkv").touch()
    assert run(data, "one", "--check", tmp_path).returncode == 0


def test_check_without_annotations_or_folder_names_what_to_do(data, tmp_path):
    done = run(data, "one", "--check", tmp_path)
    assert done.returncode == 2
    assert "python data/fetch.py one fetches it" in done.stderr
    assert run(data, "one", "--check", tmp_path / "no").returncode == 2


def test_the_progress_bar_goes_to_stderr_of_a_terminal(data, server):
    parent, child = os.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # as wide as a window
    with os.fdopen(parent, "rb", buffering=0) as terminal:
        done = subprocess.run(
            command(data, "one", "--source", server.url),
            stdout=subprocess.PIPE,
            stderr=child,
            cwd=ROOT,
            timeout=60,
            check=False,
        )
        os.close(child)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux tells the end of a terminal
            while chunk := terminal.read(4096):
                shown += chunk
    assert done.returncode == 0
    assert NAME.encode() in shown
    assert b"50.0kB" in shown
    assert b"kB" not in done.stdout
