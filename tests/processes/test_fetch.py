"""Fetching from a real server on loopback: the scripts as processes, single transfers through the module."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
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

from eva.dataset.download import FetchError, check_source, fetch, hash_content, load_manifest

ROOT = Path(__file__).resolve().parents[2]
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
def project(tmp_path):
    """The scripts with manifests of our own, beside the package as in the repository."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "eva").symlink_to(ROOT / "eva")
    sized = {
        key: {"name": n, "size_bytes": len(CONTENT[n]), "sha256": hashlib.sha256(CONTENT[n]).hexdigest()}
        for key, n in NAMES.items()
    }
    blobs = {key: {"name": n, "git_blob": git_blob(CONTENT[n])} for key, n in NAMES.items()}
    for folder, manifest in (("data", {"files": sized}), ("results-12k", {"max_bytes": 80_000, "files": blobs})):
        (root / folder).mkdir()
        shutil.copy(ROOT / folder / "fetch.py", root / folder)
        (root / folder / "manifest.json").write_text(json.dumps({**manifest, "source": "http://127.0.0.1:9/"}))
    return root


def command(project: Path, *args: object, folder: str = "data") -> list[str]:
    return [sys.executable, str(project / folder / "fetch.py"), *map(str, args)]


def run(project: Path, *args: object, folder: str = "data", **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(project, *args, folder=folder),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=project.parent,
        check=False,
        **options,
    )


def fetch_one(project: Path, source: str, *, folder: str = "data", force: bool = False, retries: int = 4) -> Path:
    file = load_manifest(project / folder / "manifest.json").files["one"]
    assert fetch(file, source=source, folder=project / folder, force=force, retries=retries)
    return project / folder / file.name


def leftovers(folder: Path) -> list[str]:
    """What is neither a file of the manifest nor there for fetching."""
    known = {"fetch.py", "manifest.json", ".fetch.lock", *NAMES.values()}
    return sorted({path.name for path in folder.iterdir()} - known)


def test_every_file_is_placed_checked_and_named(project, server):
    done = run(project, "--source", server.url)
    assert (done.returncode, done.stderr) == (0, "")
    for name in NAMES.values():
        path = project / "data" / name
        assert path.read_bytes() == CONTENT[name]
        assert f"{path}: fetched, checked" in done.stdout
    assert leftovers(project / "data") == []


def test_only_the_datasets_asked_for_are_fetched_once_each(project, server, tmp_path):
    done = run(project, "two", "two", "--source", server.url, "--output", tmp_path / "new" / "folder")
    assert done.returncode == 0
    assert (tmp_path / "new" / "folder" / NAMES["two"]).read_bytes() == CONTENT[NAMES["two"]]
    assert server.requests == {NAMES["two"]: 1}


def test_an_unknown_dataset_is_refused_before_anything_is_fetched(project, server):
    done = run(project, "one", "three", "--source", server.url)
    assert done.returncode == 2
    assert "unknown dataset three; there are one, two" in done.stderr
    assert server.requests == {}


def test_a_broken_transfer_is_tried_again_from_the_start(project, server):
    server.plan[NAME] = [break_after(20_000), break_after(5_000)]
    done = run(project, "one", "--source", server.url)
    assert done.returncode == 0
    assert server.requests[NAME] == 3
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]
    assert done.stderr.count("next try in") == 2


def test_a_killed_download_leaves_nothing_and_the_next_call_fetches_the_file(project, server):
    server.plan[NAME] = [stall_after(1_000)]
    with subprocess.Popen(command(project, "one", "--source", server.url)) as first:
        deadline = time.monotonic() + 20
        while not server.requests[NAME] and time.monotonic() < deadline:
            time.sleep(0.02)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert not (project / "data" / NAME).exists()
    assert leftovers(project / "data") == []
    assert run(project, "one", "--source", server.url).returncode == 0
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]


def test_what_a_server_compressed_arrives_as_the_plain_file(project, server):
    server.plan[NAME] = [compress_if_welcome]
    fetch_one(project, server.url)
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]


def test_another_file_of_the_same_size_is_refused_without_a_retry(project, server):
    server.files[NAME] = bytes(len(CONTENT[NAME]))
    done = run(project, "one", "--source", server.url)
    assert done.returncode == 1
    assert f"{NAME} is not the file of the manifest: it has the sha256 " in done.stderr
    assert server.requests[NAME] == 1
    assert not (project / "data" / NAME).exists()
    assert leftovers(project / "data") == []


def test_an_absent_file_is_asked_for_once_and_the_others_are_still_fetched(project, server):
    del server.files[NAME]
    done = run(project, "--source", server.url)
    assert done.returncode == 1
    assert f"{server.url}{NAME} cannot be fetched: the server answered 404 Not Found" in done.stderr
    assert "1 of 2 files are not in place" in done.stderr
    assert server.requests[NAME] == 1
    assert (project / "data" / NAMES["two"]).exists()


def test_an_overloaded_server_is_asked_again(project, server):
    server.plan[NAME] = [answer(503), answer(429)]
    done = run(project, "one", "--source", server.url)
    assert done.returncode == 0
    assert "the server answered 503 Service Unavailable; next try in" in done.stderr
    assert server.requests[NAME] == 3


def test_the_number_of_retries_is_kept_to(project, server):
    server.plan[NAME] = [answer(500)] * 5
    with pytest.raises(FetchError, match="the server answered 500"):
        fetch_one(project, server.url, retries=1)
    assert server.requests[NAME] == 2


@pytest.mark.parametrize(("folder", "limit_bytes"), [("data", 50_000), ("results-12k", 80_000)])
def test_an_endless_body_is_cut_off(project, server, folder, limit_bytes):
    server.plan[NAME] = [send_endlessly]
    done = run(project, "one", "--source", server.url, folder=folder)
    assert done.returncode == 1
    assert f"is longer than {limit_bytes} bytes" in done.stderr
    assert server.endless_bytes < MAX_ENDLESS_BYTES
    assert leftovers(project / folder) == []


def test_a_redirect_on_the_web_is_followed(project, server):
    server.plan[NAME] = [answer(302, {"Location": f"/elsewhere/{NAME}"})]
    assert fetch_one(project, server.url).read_bytes() == CONTENT[NAME]


def test_a_redirect_to_something_other_than_http_is_refused(project, server, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT[NAME])
    for location in ((tmp_path / NAME).as_uri(), "ftp://127.0.0.1/file"):
        server.plan[NAME] = [answer(302, {"Location": location})]
        with pytest.raises(FetchError, match="unsupported protocol"):
            fetch_one(project, server.url)
    assert server.requests[NAME] == 2


def test_redirects_in_a_circle_end(project, server):
    server.plan[NAME] = [answer(302, {"Location": NAME})] * 50
    with pytest.raises(FetchError, match="redirects"):
        fetch_one(project, server.url)
    assert server.requests[NAME] < 10


def test_a_folder_can_be_the_mirror(project, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / NAME).write_bytes(CONTENT[NAME])
    (mirror / NAMES["two"]).write_bytes(b"another")
    done = run(project, "--source", mirror)
    assert done.returncode == 1
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]
    assert f"{mirror / NAMES['two']} is not the file of the manifest: it has the sha256 " in done.stderr
    assert leftovers(project / "data") == []
    (mirror / NAMES["two"]).unlink()
    assert f"{mirror / NAMES['two']} cannot be copied: No such file" in run(project, "--source", mirror).stderr


@pytest.mark.parametrize("source", ["no/such/folder", "ftp://127.0.0.1/", "http://", "http:///x", "file:///etc/"])
def test_a_source_is_a_folder_or_on_the_web(source):
    with pytest.raises(FetchError, match=re.escape(source)):
        check_source(source)


def test_an_unusable_source_is_an_unusable_argument(project):
    done = run(project, "--source", "ftp://127.0.0.1/")
    assert done.returncode == 2
    assert done.stderr == "--source ftp://127.0.0.1/ is neither a folder nor an http(s) URL\n"


def test_an_address_that_no_request_can_be_made_to_is_named(project):
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:port/one_raw\.jsonl cannot be fetched: Invalid port"):
        fetch_one(project, "http://127.0.0.1:port/")


def test_a_right_file_is_left_alone(project, server):
    path = project / "data" / NAME
    path.write_bytes(CONTENT[NAME])
    before = path.stat()
    done = run(project, "one", "--source", server.url, "--force")
    assert done.returncode == 0
    assert "already there" in done.stdout
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert server.requests == {}


def test_a_wrong_file_is_replaced_only_by_force(project, server):
    path = project / "data" / NAME
    path.write_bytes(b"mine")
    done = run(project, "one", "--source", server.url)
    assert done.returncode == 1
    assert f"{path} is there but has the sha256 " in done.stderr
    assert "; move it away, or give --force to replace it" in done.stderr
    assert path.read_bytes() == b"mine"
    assert server.requests == {}
    assert run(project, "one", "--source", server.url, "--force").returncode == 0
    assert path.read_bytes() == CONTENT[NAME]


def test_a_failed_forced_fetch_leaves_the_old_file(project, server):
    path = project / "data" / NAME
    path.write_bytes(b"mine")
    server.files[NAME] = bytes(len(CONTENT[NAME]))
    with pytest.raises(FetchError, match="is not the file of the manifest"):
        fetch_one(project, server.url, force=True)
    assert path.read_bytes() == b"mine"


def test_two_fetches_into_one_folder_do_not_mix(project, server):
    with filelock.FileLock(project / "data" / ".fetch.lock"):
        done = run(project, "one", "--source", server.url)
    assert done.returncode == 1
    assert "another process is fetching into" in done.stderr
    assert server.requests == {}


def test_an_output_that_cannot_be_written_is_named(project, server, tmp_path):
    (tmp_path / "file").write_text("")
    done = run(project, "one", "--source", server.url, "--output", tmp_path / "file" / "below")
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


def test_results_are_checked_by_their_git_blob_id(project, server):
    server.files[NAMES["two"]] += b"x"
    done = run(project, "--source", server.url, folder="results-12k")
    assert done.returncode == 1
    assert (project / "results-12k" / NAME).read_bytes() == CONTENT[NAME]
    assert f"it has the git_blob {git_blob(server.files[NAMES['two']])} instead of" in done.stderr


def test_the_git_blob_id_is_gits():
    assert hash_content(b"hello\n", "git_blob") == "ce013625030ba8dba906f756967f9e9ca394464a"


def annotation_line(index: int, video: str) -> str:
    prompt = [{"role": "user", "content": "Which?\nA. this\nB. that"}]
    return json.dumps({"videos": [video], "prompt": prompt, "reward_model": {"ground_truth": "A"}, "index": index})


def test_check_lists_the_videos_that_are_there_found_by_stem_or_missing(project, tmp_path):
    videos = ["plain.mp4", "/old/machine/MVLU/MLVU/video/1_plotQA/deep.mp4", "gone.mp4", "plain.mp4", "../out.mp4"]
    (project / "data" / NAME).write_text("\n".join(annotation_line(i, v) for i, v in enumerate(videos)))
    root = tmp_path / "videos"
    (root / "video" / "1_plotQA").mkdir(parents=True)
    (root / "plain.mp4").touch()
    (root / "video" / "1_plotQA" / "deep.webm").touch()
    done = run(project, "one", "--check", root)
    assert done.returncode == 1
    assert "one: 4 videos: 1 under their own name, 1 in another container, 2 missing" in done.stdout
    assert f"one: other container: {root / 'video/1_plotQA/deep.webm'}" in done.stdout
    assert f"one: missing: the video {root / 'gone.mp4'} is missing" in done.stdout
    assert "'../out.mp4' leaves the video root" in done.stdout


def test_check_succeeds_when_every_video_is_there(project, tmp_path):
    (project / "data" / NAME).write_text(annotation_line(0, "a.mp4"))
    (tmp_path / "a.mkv").touch()
    assert run(project, "one", "--check", tmp_path).returncode == 0


def test_check_without_annotations_or_folder_names_what_to_do(project, tmp_path):
    done = run(project, "one", "--check", tmp_path)
    assert done.returncode == 2
    assert "python data/fetch.py one fetches it" in done.stderr
    assert run(project, "one", "--check", tmp_path / "no").returncode == 2


def test_the_progress_bar_goes_to_stderr_of_a_terminal(project, server):
    parent, child = os.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # as wide as a window
    with os.fdopen(parent, "rb", buffering=0) as terminal:
        done = subprocess.run(
            command(project, "one", "--source", server.url),
            stdout=subprocess.PIPE,
            stderr=child,
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
