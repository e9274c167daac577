"""Fetching from a real server on loopback: the scripts as processes, single transfers through the module."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import re
import resource
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
    FileServer,
    answer,
    break_after,
    compress_if_welcome,
    continue_elsewhere,
    cut_silently_after,
    send_endlessly,
    serve_whole,
    stall_after,
)

from eva.dataset.download import FetchError, fetch, file_digest, load_manifest, parse_source

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


def fetch_one(project: Path, source: str, *, folder: str = "data", force: bool = False, attempts: int = 5) -> Path:
    file = load_manifest(project / folder / "manifest.json").files["one"]
    return fetch(file, source=parse_source(source, attempts=attempts), folder=project / folder, force=force).path


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix == ".part"]


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
    assert server.ranges == {NAMES["two"]: [None]}


def test_an_unknown_dataset_is_refused_before_anything_is_fetched(project, server):
    done = run(project, "one", "three", "--source", server.url)
    assert done.returncode == 2
    assert "unknown dataset three; there are one, two" in done.stderr
    assert server.ranges == {}


def test_a_broken_transfer_goes_on_where_it_broke(project, server):
    server.plan[NAME] = [break_after(20_000), break_after(5_000)]
    done = run(project, "one", "--source", server.url)
    assert done.returncode == 0
    assert server.ranges[NAME] == [None, "bytes=20000-", "bytes=25000-"]
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]
    assert done.stderr.count("next try in") == 2


def test_a_server_that_knows_no_range_sends_the_whole_file_again(project, server):
    server.plan[NAME] = [break_after(20_000), serve_whole]
    fetch_one(project, server.url)
    assert server.ranges[NAME] == [None, "bytes=20000-"]
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]


def test_a_server_that_likes_to_compress_is_asked_for_the_plain_file(project, server):
    server.plan[NAME] = [compress_if_welcome]
    fetch_one(project, server.url)
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]


def test_an_early_end_that_http_cannot_see_is_noticed_by_the_size(project, server):
    server.plan[NAME] = [cut_silently_after(20_000)]
    fetch_one(project, server.url)
    assert server.ranges[NAME] == [None, "bytes=20000-"]
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]


def test_a_partial_of_another_file_is_found_out_and_fetched_whole(project, server):
    (project / "data" / f"{NAME}.part").write_bytes(b"x" * 30_000)
    fetch_one(project, server.url)
    assert server.ranges[NAME] == ["bytes=30000-", None]
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]


def test_a_reply_that_continues_elsewhere_is_not_glued_on(project, server):
    (project / "data" / f"{NAME}.part").write_bytes(CONTENT[NAME][:30_000])
    server.plan[NAME] = [continue_elsewhere]
    fetch_one(project, server.url)
    assert server.ranges[NAME] == ["bytes=30000-", None]
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]


@pytest.mark.parametrize(("partial", "ranges"), [(CONTENT[NAME], []), (CONTENT[NAME] + b"x", [None])])
def test_a_complete_partial_is_placed_and_a_longer_one_dropped(project, server, partial, ranges):
    (project / "data" / f"{NAME}.part").write_bytes(partial)
    fetch_one(project, server.url)
    assert server.ranges[NAME] == ranges
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]


def test_a_killed_download_is_continued_by_the_next_call(project, server):
    server.plan[NAME] = [stall_after(1_000)]  # less than what a file object holds back
    part = project / "data" / f"{NAME}.part"
    with subprocess.Popen(command(project, "one", "--source", server.url)) as first:
        deadline = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size == 1_000) and time.monotonic() < deadline:
            time.sleep(0.02)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert not (project / "data" / NAME).exists()
    assert run(project, "one", "--source", server.url).returncode == 0
    assert server.ranges[NAME] == [None, "bytes=1000-"]
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]


def test_another_file_of_the_same_size_is_refused_without_a_retry(project, server):
    server.files[NAME] = bytes(len(CONTENT[NAME]))
    done = run(project, "one", "--source", server.url)
    assert done.returncode == 1
    assert f"{NAME} is not the file of the manifest: it has the sha256 " in done.stderr
    assert server.ranges[NAME] == [None]
    assert not (project / "data" / NAME).exists()
    assert leftovers(project / "data") == []


def test_a_shorter_file_is_refused_without_a_retry(project, server):
    server.files[NAME] = CONTENT[NAME][:-1]
    with pytest.raises(FetchError, match="has 49999 bytes instead of 50000"):
        fetch_one(project, server.url)
    assert server.ranges[NAME] == [None]


def test_an_absent_file_is_asked_for_once_and_the_others_are_still_fetched(project, server):
    del server.files[NAME]
    done = run(project, "--source", server.url)
    assert done.returncode == 1
    assert f"{server.url}{NAME} cannot be fetched: the server answered 404 Not Found" in done.stderr
    assert "1 of 2 files are not in place" in done.stderr
    assert server.ranges[NAME] == [None]
    assert (project / "data" / NAMES["two"]).exists()


def test_an_overloaded_server_is_asked_again(project, server):
    server.plan[NAME] = [answer(503), answer(429)]
    done = run(project, "one", "--source", server.url)
    assert done.returncode == 0
    assert "the server answered 503 Service Unavailable; next try in" in done.stderr
    assert len(server.ranges[NAME]) == 3


def test_the_number_of_retries_is_kept_to(project, server):
    server.plan[NAME] = [answer(500)] * 5
    with pytest.raises(FetchError, match="the server answered 500"):
        fetch_one(project, server.url, attempts=2)
    assert len(server.ranges[NAME]) == 2


def limit_files_to_one_mebibyte() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


@pytest.mark.parametrize(("folder", "limit_bytes"), [("data", 50_000), ("results-12k", 80_000)])
def test_an_endless_body_is_cut_off(project, server, folder, limit_bytes):
    server.plan[NAME] = [send_endlessly]
    done = run(project, "one", "--source", server.url, folder=folder, preexec_fn=limit_files_to_one_mebibyte)
    assert done.returncode == 1
    assert f"is longer than {limit_bytes} bytes" in done.stderr
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
    assert server.ranges[NAME] == [None, None]


def test_redirects_in_a_circle_end(project, server):
    server.plan[NAME] = [answer(302, {"Location": NAME})] * 50
    with pytest.raises(FetchError, match="redirects"):
        fetch_one(project, server.url)
    assert len(server.ranges[NAME]) < 10


def test_a_folder_can_be_the_mirror(project, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / NAME).write_bytes(CONTENT[NAME])
    (mirror / NAMES["two"]).write_bytes(b"another")
    done = run(project, "--source", mirror)
    assert done.returncode == 1
    assert (project / "data" / NAME).read_bytes() == CONTENT[NAME]
    assert f"{mirror / NAMES['two']} is not the file of the manifest: it has 7 bytes" in done.stderr
    assert leftovers(project / "data") == []
    (mirror / NAMES["two"]).unlink()
    assert f"{mirror / NAMES['two']} cannot be copied: No such file" in run(project, "--source", mirror).stderr


@pytest.mark.parametrize(
    "source", ["no/such/folder", "ftp://127.0.0.1/", "http://", "file:///etc/", "http://127.0.0.1:port/"]
)
def test_a_source_is_a_folder_or_on_the_web(source):
    with pytest.raises(FetchError, match=re.escape(source)):
        parse_source(source, attempts=1)


def test_an_unusable_source_is_an_unusable_argument(project):
    done = run(project, "--source", "ftp://127.0.0.1/")
    assert done.returncode == 2
    assert done.stderr == "--source ftp://127.0.0.1/: only http and https URLs and folders are sources\n"


def test_a_right_file_is_left_alone(project, server):
    path = project / "data" / NAME
    path.write_bytes(CONTENT[NAME])
    before = path.stat()
    done = run(project, "one", "--source", server.url, "--force")
    assert done.returncode == 0
    assert "already there" in done.stdout
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert server.ranges == {}


def test_a_wrong_file_is_replaced_only_by_force(project, server):
    path = project / "data" / NAME
    path.write_bytes(b"mine")
    done = run(project, "one", "--source", server.url)
    assert done.returncode == 1
    assert f"{path} is there but has 4 bytes instead of 50000; move it away, or give --force" in done.stderr
    assert path.read_bytes() == b"mine"
    assert server.ranges == {}
    assert run(project, "one", "--source", server.url, "--force").returncode == 0
    assert path.read_bytes() == CONTENT[NAME]


def test_a_failed_forced_fetch_leaves_the_old_file(project, server):
    path = project / "data" / NAME
    path.write_bytes(b"mine")
    server.files[NAME] = bytes(len(CONTENT[NAME]))
    with pytest.raises(FetchError, match="is not the file of the manifest"):
        fetch_one(project, server.url, force=True)
    assert path.read_bytes() == b"mine"


def test_a_partial_that_is_a_link_is_not_written_through(project, server, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (project / "data" / f"{NAME}.part").symlink_to(outside)
    fetch_one(project, server.url)
    assert outside.read_bytes() == b"precious"
    assert not (project / "data" / NAME).is_symlink()


def test_two_fetches_into_one_folder_do_not_mix(project, server):
    with filelock.FileLock(project / "data" / ".fetch.lock"):
        done = run(project, "one", "--source", server.url)
    assert done.returncode == 1
    assert "another process is fetching into" in done.stderr
    assert server.ranges == {}


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


def test_results_of_unknown_size_are_continued_and_a_partial_past_their_end_is_dropped(project, server):
    (project / "results-12k" / f"{NAME}.part").write_bytes(CONTENT[NAME][:10])
    (project / "results-12k" / f"{NAMES['two']}.part").write_bytes(bytes(60_000))
    assert run(project, "--source", server.url, folder="results-12k").returncode == 0
    assert server.ranges == {NAME: ["bytes=10-"], NAMES["two"]: ["bytes=60000-", None]}
    for name in NAMES.values():
        assert (project / "results-12k" / name).read_bytes() == CONTENT[name]


def test_the_git_blob_id_is_gits(tmp_path):
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert file_digest(tmp_path / "hello", "git_blob") == "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.mark.parametrize("name", ["../up.jsonl", "/abs.jsonl", "a/b.jsonl", "..", ".hidden", "", "a\nb", 7])
def test_a_manifest_cannot_name_a_file_outside_the_folder(tmp_path, name):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"source": "", "files": {"x": {"name": name, "size_bytes": 1, "sha256": "0" * 64}}}))
    with pytest.raises(FetchError, match="is not a plain file name"):
        load_manifest(path)


@pytest.mark.parametrize("change", [{"sha256": "0" * 63}, {"sha256": 0}, {"size_bytes": "1"}, {"size_bytes": None}])
def test_a_manifest_entry_without_a_usable_check_is_refused(tmp_path, change):
    path = tmp_path / "manifest.json"
    entry = {"name": "a.jsonl", "size_bytes": 1, "sha256": "0" * 64} | change
    path.write_text(json.dumps({"source": "", "files": {"x": entry}}))
    with pytest.raises(FetchError, match="is no usable manifest"):
        load_manifest(path)


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
    assert f"one: missing: {root / 'gone.mp4'} is not there" in done.stdout
    assert "'../out.mp4' leaves the video root" in done.stdout


def test_check_succeeds_when_every_video_is_there(project, tmp_path):
    (project / "data" / NAME).write_text(annotation_line(0, "a.mp4"))
    (tmp_path / "a.mkv").touch()
    assert run(project, "one", "--check", tmp_path).returncode == 0


def test_check_without_annotations_or_folder_names_what_to_do(project, tmp_path):
    done = run(project, "one", "--check", tmp_path)
    assert done.returncode == 2
    assert "python data/fetch.py one brings it" in done.stderr
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
    assert b"100%" in shown
    assert b"%" not in done.stdout
