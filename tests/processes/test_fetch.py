"""Annotation and result files from a real server on loopback, and which videos are there."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from pathlib import Path

import pytest
from file_server import FileServer, answer, break_after
from harness import called, row, write_rows
from huggingface_hub import constants

from eva.dataset.catalog import Catalog, KnownDataset, RemoteFile, Source
from eva.dataset.hub import DamagedError, fetch_file

NAMES = {"one": "one_raw.jsonl", "two": "two_raw.jsonl"}
NAME = NAMES["one"]
CONTENT = {name: random.Random(name).randbytes(50_000) for name in NAMES.values()}


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def server():
    with FileServer() as server:
        server.files.update(CONTENT)
        yield server


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def catalog(url: str) -> Catalog:
    datasets = {}
    for key, name in NAMES.items():
        content = CONTENT[name]
        annotations = RemoteFile(name, url + name, sha256=hashlib.sha256(content).hexdigest())
        result = RemoteFile(name, url + name, git_blob=git_blob(content))
        datasets[key] = KnownDataset(annotations, result, 1, 1, (), "", "")
    return Catalog(datasets, {}, Source("a/model", "main", "files"))


def run(project: Path, url: str, *args: object) -> subprocess.CompletedProcess[str]:
    return called("data/fetch.py", *args, catalog=catalog(url), project=project)


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {*NAMES.values()}


def test_files_are_placed_checked_and_named_and_those_that_are_there_are_left_alone(tmp_path, server):
    done = run(tmp_path, server.url)
    assert (done.returncode, done.stderr) == (0, "")
    for name in NAMES.values():
        assert (tmp_path / "data" / name).read_bytes() == CONTENT[name]
        assert f"{tmp_path / 'data' / name}: fetched, checked" in done.stdout
    assert leftovers(tmp_path / "data") == set()
    again = run(tmp_path, server.url)
    assert (again.returncode, again.stdout.count("already there")) == (0, 2)
    assert set(server.requests.values()) == {1}


def test_published_results_are_checked_by_their_git_id(tmp_path, server):
    assert run(tmp_path, server.url, "one", "--results").returncode == 0
    path = tmp_path / "results-12k" / NAME
    assert path.read_bytes() == CONTENT[NAME]
    path.write_bytes(b"hello\n")
    assert "ce013625030ba8dba906f756967f9e9ca394464a instead of" in run(tmp_path, server.url, "one", "--results").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("three",),
        ("--videos", "one"),
        ("--check", "no/such/folder"),
        *(("--source", source) for source in ("no/such/folder", "ftp://127.0.0.1/")),
    ],
)
def test_unusable_arguments_are_refused_before_anything_is_fetched(tmp_path, server, arguments):
    done = run(tmp_path, server.url, *arguments)
    assert (done.returncode, arguments[-1] in done.stderr) == (2, True)
    assert server.requests == {}


def test_a_broken_transfer_and_an_overloaded_server_are_asked_again(tmp_path, server):
    server.plan[NAME] = [break_after(20_000), answer(503)]
    fetch_file(catalog(server.url).datasets["one"].annotations, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT[NAME]
    assert server.requests[NAME] == 3


def test_an_absent_or_wrong_file_is_asked_for_once_and_the_others_are_still_fetched(tmp_path, server):
    del server.files[NAME]
    done = run(tmp_path, server.url)
    assert (done.returncode, f"{server.url}{NAME} cannot be fetched" in done.stderr) == (1, True)
    assert (tmp_path / "data" / NAMES["two"]).exists()
    server.files[NAME] = bytes(len(CONTENT[NAME]))
    with pytest.raises(DamagedError, match="is not the file of"):
        fetch_file(catalog(server.url).datasets["one"].annotations, tmp_path / "data")
    assert server.requests[NAME] == 2
    assert not (tmp_path / "data" / NAME).exists()
    assert leftovers(tmp_path / "data") == set()


def test_another_address_can_be_the_mirror(tmp_path, server):
    assert run(tmp_path, "http://127.0.0.1:9/", "one", "--source", server.url).returncode == 0
    assert (tmp_path / "data" / NAME).read_bytes() == CONTENT[NAME]


def test_a_file_that_is_there_and_wrong_stays_and_is_named(tmp_path, server):
    path = tmp_path / "data" / NAME
    path.parent.mkdir()
    path.write_bytes(b"mine")
    done = run(tmp_path, server.url, "one")
    assert (done.returncode, f"{path} is there but" in done.stderr, path.read_bytes()) == (1, True, b"mine")
    assert server.requests == {}


def test_a_folder_that_cannot_be_written_is_named(tmp_path, server):
    (tmp_path / "file").touch()
    done = run(tmp_path, server.url, "one", "--output", tmp_path / "file" / "below")
    assert (done.returncode, str(tmp_path / "file") in done.stderr) == (1, True)
    assert server.requests == {}


# --- --check


def check(project: Path, root: Path, *videos: str) -> subprocess.CompletedProcess[str]:
    write_rows(project / "data" / NAME, [row("q", video=video, index=n) for n, video in enumerate(videos)])
    return run(project, "http://127.0.0.1:9/", "one", "--check", root)


def test_check_lists_the_videos_that_are_there_found_by_stem_or_missing(tmp_path):
    root = tmp_path / "videos"
    (root / "video" / "1_plotQA").mkdir(parents=True)
    (root / "plain.mp4").touch()
    (root / "video" / "1_plotQA" / "deep.webm").touch()
    deep = "/old/machine/MVLU/MLVU/video/1_plotQA/deep.mp4"
    done = check(tmp_path, root, "plain.mp4", deep, "gone.mp4", "plain.mp4", "../out.mp4")
    assert done.returncode == 1
    assert "one: 4 videos: 1 under their own name, 1 in another container, 2 missing" in done.stdout
    assert f"one: other container: {root / 'video/1_plotQA/deep.webm'}" in done.stdout
    assert f"one: missing: the video {root / 'gone.mp4'} is missing" in done.stdout
    assert "'../out.mp4' leaves the video root" in done.stdout
    assert run(tmp_path, "http://127.0.0.1:9/", "one", "--check", root, "--ids", "0-1").returncode == 0


def test_check_writes_the_names_of_videos_on_one_line_each(tmp_path):
    (tmp_path / "there\x1b[2J.mkv").touch()
    done = check(tmp_path, tmp_path, "there\x1b[2J.mp4", "gone\n\x1b[2J.mp4")
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 3


def test_check_without_annotations_names_what_to_do(tmp_path):
    done = run(tmp_path, "http://127.0.0.1:9/", "one", "--check", tmp_path)
    assert (done.returncode, "python data/fetch.py one fetches it" in done.stdout) == (2, True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / NAME).write_text(json.dumps({"videos": []}))
    assert run(tmp_path, "http://127.0.0.1:9/", "one", "--check", tmp_path).returncode == 2
