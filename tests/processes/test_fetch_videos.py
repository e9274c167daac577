"""Videos from a hub on loopback: the real catalog, archives in each of the forms of the Hub."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import filelock
import pytest
from disks import small_disk
from file_server import Handler, break_after, send_head, stall_after
from harness import ROOT, SHARED, called, row, wait_until, write_rows
from hub_server import HubServer
from huggingface_hub import constants

from eva.dataset.catalog import CATALOG, Catalog, load_catalog
from eva.dataset.hub import HubError
from eva.dataset.items import Item, load_items
from eva.dataset.videos import fetch_videos
from eva.files import WriteError

ANNOTATIONS = SHARED / "annotations"
# In a fresh clone, a few names of each kind.
MLVU = "/old/machine/MVLU/MLVU/video"
SOME = {
    "videomme": ["fFjv93ACGo8.mp4", "-O6mJ0VBTc4.mp4", "azZZZbSwLQght.mp4", *(f"more{n}.mp4" for n in range(40))],
    "longvideobench": ["86CxyhFV9MI.mp4", "7019345123456789012.mp4", *(f"long{n}.mp4" for n in range(60))],
    "mlvu": [f"{MLVU}/1_plotQA/a_1.mp4", f"{MLVU}/7_topic_reasoning/a_1.mp4", f"{MLVU}/3_ego/b_2.mp4"],
    "lsdbench": ["71fbc5bf-7e2a-415d-86bc-3a948742e904.mp4", "0dcf7a01-8bbc-484a-b093-ff6d7095cfd4.mp4"],
    "videoholmes": ["fH6bbNJJfqk.mp4", "_x.mp4"],
    "lvbench": ["Cm73ma6Ibcs.mp4", "28CIeC8cZks.mp4", *(f"late{n}.mp4" for n in range(40))],
}


def annotated() -> dict[str, list[str]]:
    """The names of all annotated videos, where the annotation files are at hand."""
    if not ANNOTATIONS.is_dir():
        return SOME
    items = {name: load_items(ANNOTATIONS / one.annotations.name) for name, one in load_catalog().datasets.items()}
    return {name: list(dict.fromkeys(item.videos[0] for item in rows)) for name, rows in items.items()}


def content(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest() * 300


def base_names(paths: Iterable[str]) -> list[str]:
    return sorted({PurePosixPath(path).name for path in paths})


def below_root(path: str) -> str:
    return path.partition("/MVLU/MLVU/")[2] or path


def zip_of(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return file.getvalue()


def tar_of(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, body in members.items():
            info = body if isinstance(body, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(body) if isinstance(body, bytes) else 0
            archive.addfile(info, io.BytesIO(body) if isinstance(body, bytes) else None)
    return file.getvalue()


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    """A member that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def a_zip(names: Iterable[str], folder: str = "") -> bytes:
    return zip_of({f"{folder}{name}": content(name) for name in names})


def zips(names: list[str], pattern: str, count: int, folder: str = "") -> dict[str, bytes]:
    """The names dealt out to at most as many zips, none of them empty."""
    return {pattern.format(n + 1): a_zip(names[n::count], folder) for n in range(min(count, len(names)))}


def a_tar(names: Iterable[str], other: bytes = b"other" * 2000) -> bytes:
    """As LongVideoBench's: a folder, wanted videos, and four times as many others."""
    members: dict[str, bytes | tarfile.TarInfo] = {"videos": special("videos", tarfile.DIRTYPE)}
    for name in names:
        members |= {f"videos/{name}": content(name), **{f"videos/other{n}_{name}": other for n in range(4)}}
    return tar_of(members)


def cut(whole: bytes, names: list[str]) -> dict[str, bytes]:
    size = -(-len(whole) // len(names))
    return {name: whole[n * size : (n + 1) * size] for n, name in enumerate(names)}


TAR_PARTS = [f"videos.tar.part.{a}{b}" for a in "ab" for b in "abcdefghijklmnopqrstuvwxyz"][:31]
ZIP_PARTS = [f"all_videos_split.zip.{n:03}" for n in range(1, 15)]
CHUNK = "videos_chunked_{:02}.zip"


def real_forms(names: dict[str, list[str]]) -> dict[str, dict[str, bytes]]:
    """Each repository of the catalog, with tiny videos."""
    flat = {dataset: base_names(paths) for dataset, paths in names.items()}
    plain = {f"MLVU/{below_root(path)}": content(PurePosixPath(path).name) for path in names["mlvu"]}
    lvbench = a_zip(flat["lvbench"], "all_videos/")
    return {
        "lmms-eval/Video-MME": {**zips(flat["videomme"], CHUNK, 20, "data/"), "subtitle.zip": b"none"},
        "longvideobench/LongVideoBench": {**cut(a_tar(flat["longvideobench"]), TAR_PARTS), "subtitles.tar": b"none"},
        "MLVU/MVLU": {**plain, "MLVU/video/1_plotQA/not wanted.mp4": b"none", "MLVU/json/1_plotQA.json": b"{}"},
        "sy1998/MLVU_dev": zips(flat["mlvu"], "video_part_{}.zip", 8),
        "TencentARC/Video-Holmes": {"videos.zip": a_zip([*flat["videoholmes"], "train.mp4"], "videos_cropped/")},
        "lmms-eval/LVBench": zips(flat["lvbench"], "video_chunks/videos_chunk_{:03}.zip", 14),
        "AIWinter/LVBench": cut(lvbench, ZIP_PARTS),
    }


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        address = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        yield server


# The command with a catalog and a folder of our own.
FETCH = """
import sys, pathlib
from eva.commands.fetch import main
from eva.dataset.catalog import load_catalog
project = pathlib.Path(sys.argv.pop(1))
main(sys.argv, load_catalog(project / "datasets.json"), project)
"""


@dataclass
class Project:
    """A folder with annotation files of our own, which the catalog names, and a folder for videos."""

    folder: Path
    hub: HubServer
    videos: Path
    catalog: Catalog = field(default_factory=load_catalog)
    items: dict[str, list[Item]] = field(default_factory=dict)

    def annotate(self, names: dict[str, list[str]]) -> None:
        known = dict(self.catalog.datasets)
        for dataset, paths in names.items():
            rows = [row("Which?", videos=[path], index=n) for n, path in enumerate(paths)]
            path = write_rows(self.folder / "data" / known[dataset].annotations.name, rows)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            known[dataset] = replace(known[dataset], annotations=replace(known[dataset].annotations, sha256=digest))
            self.items[dataset] = load_items(path)
        self.catalog = replace(self.catalog, datasets=known)

    def run(self, *args: object, typed: bytes = b"") -> subprocess.CompletedProcess[str]:
        """The command."""
        return called("data/fetch.py", *args, catalog=self.catalog, project=self.folder, typed=typed, timeout_s=300)

    def fetch(self, dataset: str, *, mirror: bool = False, yes: bool = True) -> None:
        root = self.videos / dataset
        fetch_videos(self.catalog.datasets[dataset], self.items[dataset], root, mirror=mirror, agrees=lambda: yes)

    def start(self, dataset: str) -> subprocess.Popen[bytes]:
        content = json.loads(CATALOG.read_text())
        entry, one = content["datasets"][dataset], self.catalog.datasets[dataset]
        entry["annotations"]["sha256"] = one.annotations.sha256
        (self.folder / "datasets.json").write_text(json.dumps(content))
        command = [sys.executable, "-c", FETCH, str(self.folder), dataset, "--videos", str(self.videos), "--yes"]
        own = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder / "hf"), "HF_HUB_OFFLINE": "0"}
        silent = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stdout=silent, stderr=silent)

    def there(self, dataset: str) -> dict[str, bytes]:
        """What is in the folder of a dataset, without the work folder."""
        root = self.videos / dataset
        files = (path for path in root.rglob("*") if path.is_file() and ".fetch" not in path.parts)
        return {str(path.relative_to(root)): path.read_bytes() for path in files if path.name != ".fetch.lock"}


def whole(paths: Iterable[str]) -> dict[str, bytes]:
    return {below_root(path): content(PurePosixPath(path).name) for path in paths}


@pytest.fixture
def project(tmp_path, hub):
    project = Project(tmp_path / "project", hub, tmp_path / "all videos")
    project.annotate(SOME)
    hub.repos = real_forms(SOME)
    return project


def test_one_command_brings_the_videos_of_all_datasets_and_says_what_must_be_done_by_hand(project, hub):
    names = annotated()
    names["mlvu"] = names["mlvu"][:100]  # the library takes 20 ms for each file
    project.annotate(names)
    hub.repos = real_forms(names)
    done = project.run("--videos", project.videos, "--yes")
    assert done.returncode == 1, done.stderr
    for dataset in set(names) - {"lsdbench"}:
        assert project.there(dataset) == whole(names[dataset]), done.stderr
        assert not (project.videos / dataset / ".fetch").exists()
        assert f"{dataset}: {len(names[dataset])} videos: {len(names[dataset])} under their own name" in done.stdout
    assert f", {len(names['lsdbench'])} missing" in done.stdout
    assert "subtitles.tar" not in {*hub.requests, *hub.parts}
    assert set(hub.requests.values()) == {1}


@pytest.mark.parametrize("dataset", ["mlvu", "lvbench"])
def test_a_mirror_gives_the_same_videos(project, hub, dataset):
    names = annotated()[dataset]
    project.annotate({dataset: names})
    hub.repos = real_forms(SOME | {dataset: names})
    project.fetch(dataset, mirror=True)
    assert project.there(dataset) == whole(names)


@pytest.mark.parametrize(("typed", "agreed"), [(b"y\n", True), (b"YES", True), (b"n\n", False), (b"", False)])
def test_before_the_first_byte_a_person_is_told_the_terms_and_the_sizes_and_only_a_yes_agrees(
    project, hub, typed, agreed
):
    done = project.run("videoholmes", "--videos", project.videos, typed=typed)
    assert "Terms: Academic purposes only" in done.stdout
    assert "TencentARC/Video-Holmes at c0c0c0c0: 0.0 MB to fetch; about 0.0 MB of disk needed" in done.stdout
    assert ("called off" in done.stderr, bool(hub.requests)) == (not agreed, agreed)


@pytest.mark.parametrize(("status", "code"), [(401, "GatedRepo"), (403, "GatedRepo"), (401, ""), (403, "")])
def test_a_gated_dataset_says_where_to_accept_the_terms_and_how_to_log_in(project, hub, status, code):
    hub.refused["longvideobench/LongVideoBench"] = (status, code)
    page = "https://huggingface.co/datasets/longvideobench/LongVideoBench"
    with pytest.raises(HubError, match=f"at {page}\n.*hf auth login"):
        project.fetch("longvideobench")


def test_one_dataset_that_cannot_be_had_does_not_stop_the_others(project, hub):
    del hub.repos["lmms-eval/Video-MME"]
    (project.folder / "data" / project.catalog.datasets["lvbench"].annotations.name).write_text("mine")
    done = project.run("videomme", "lvbench", "videoholmes", "--videos", project.videos, "--yes")
    assert done.returncode == 1
    assert "is there but" in done.stderr
    assert not (project.videos / "lvbench").exists()
    assert "videomme: 43 videos: 0 under their own name, 0 in another container, 43 missing" in done.stdout
    assert "lmms-eval/Video-MME cannot be fetched" in done.stderr
    assert project.there("videoholmes") == whole(SOME["videoholmes"])


def test_broken_transfers_are_gone_on_with(project, hub):
    hub.plan = defaultdict(list, {name: [break_after(100)] for name in ("videos.zip", "parts of videos.zip")})
    project.fetch("videoholmes")
    hub.plan[f"parts of {TAR_PARTS[0]}"] = [break_after(100)]
    project.fetch("longvideobench")
    for dataset in ("videoholmes", "longvideobench"):
        assert project.there(dataset) == whole(SOME[dataset])


# --- parts


def test_a_few_questions_bring_their_videos_and_little_else(project, hub):
    for dataset, source, pattern in (("videomme", (), "videos_chunked"), ("lvbench", ("--mirror",), "all_videos")):
        hub.parts.clear()
        done = project.run(dataset, "--videos", project.videos, "--yes", "--ids", "3,5", *source)
        assert done.returncode == 0, done.stderr
        assert project.there(dataset) == whole([SOME[dataset][3], SOME[dataset][5]])
        assert hub.requests == {}
        sizes = {name: len(body) for files in hub.repos.values() for name, body in files.items() if pattern in name}
        assert sum(hub.parts.values()) < sum(sizes.values())
    assert f"{dataset}: 2 videos: 2 under their own name" in done.stdout
    assert project.run("videomme", "--videos", project.videos, "--yes", "--sample", 1).returncode == 0
    assert len(project.there("videomme")) == 3


def test_the_token_of_a_user_goes_to_the_hub_and_not_to_the_host_of_the_bytes(project, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    project.fetch("longvideobench")
    assert ("Bearer hf_secret", False) in hub.tokens
    assert {token for token, is_for_bytes in hub.tokens if is_for_bytes} == {None}


def test_of_a_tar_only_headers_and_wanted_videos_are_read(project, hub):
    body = a_tar(SOME["longvideobench"], bytes(300_000))
    hub.repos["longvideobench/LongVideoBench"] = cut(body, TAR_PARTS)
    project.fetch("longvideobench")
    assert project.there("longvideobench") == whole(SOME["longvideobench"])
    assert sum(hub.parts.values()) < len(body) / 2


@pytest.mark.parametrize("dataset", ["videomme", "longvideobench"])
def test_a_deleted_video_brings_no_other(project, hub, dataset):
    project.fetch(dataset)
    requests = Counter(hub.requests)
    path = project.videos / dataset / base_names(SOME[dataset])[30]
    others = {other: other.stat().st_ino for other in path.parent.glob("*.mp4") if other != path}
    path.unlink()
    project.fetch(dataset)
    assert project.there(dataset) == whole(SOME[dataset])
    assert {other: other.stat().st_ino for other in others} == others
    assert sum((hub.requests - requests).values()) <= 1
    hub.asked.clear()
    project.fetch(dataset, yes=False)
    assert hub.asked == []


def test_a_hub_that_sends_more_or_less_than_the_part_is_an_error(project, hub):
    def send(handler: Handler, wrong: bytes) -> None:
        send_head(handler, wrong)
        handler.wfile.write(wrong)

    for wrong in (a_zip(SOME["videoholmes"]), b"short"):
        hub.plan["parts of videos.zip"] = [lambda handler, _, wrong=wrong: send(handler, wrong)]
        with pytest.raises(HubError, match="cannot be fetched in parts"):
            project.fetch("videoholmes")


# --- killed


KILLED_AT = [
    ("videomme", CHUNK.format(4), [CHUNK.format(n) for n in (1, 2, 3)]),
    ("mlvu", "MLVU/video/3_ego/b_2.mp4", []),
]


@pytest.mark.parametrize(("dataset", "file", "finished"), KILLED_AT)
def test_a_killed_fetch_goes_on_where_it_was(project, hub, dataset, file, finished):
    hub.plan[file] = [stall_after(10)]
    with project.start(dataset) as process:
        wait_until(lambda: hub.requests[file] > 0)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    project.fetch(dataset)
    assert project.there(dataset) == whole(SOME[dataset])
    assert {name: hub.requests[name] for name in finished} == dict.fromkeys(finished, 1)


def test_a_fetch_that_is_killed_while_it_unpacks_leaves_no_half_video(project, hub):
    names = [f"v{n}.mp4" for n in range(400)]
    project.annotate({"videoholmes": names})
    hub.repos["TencentARC/Video-Holmes"] = {"videos.zip": a_zip(names)}
    with project.start("videoholmes") as process:
        wait_until((project.videos / "videoholmes" / "v20.mp4").exists)
        process.kill()
    assert all(body == content(name) for name, body in project.there("videoholmes").items())
    project.fetch("videoholmes")
    assert project.there("videoholmes") == whole(names)
    assert hub.requests["videos.zip"] == 1


def test_videos_that_are_there_in_another_container_are_not_fetched(project, hub):
    root = project.videos / "videoholmes"
    root.mkdir(parents=True)
    for name in SOME["videoholmes"]:
        (root / name).with_suffix(".webm").write_bytes(b"mine")
    project.fetch("videoholmes")
    assert hub.asked == []


def test_two_fetches_into_one_folder_do_not_mix(project, hub):
    root = project.videos / "videoholmes"
    root.mkdir(parents=True)
    with filelock.FileLock(root / ".fetch.lock"):
        done = project.run("videoholmes", "--videos", project.videos, "--yes")
    assert "another process" in done.stderr
    assert hub.asked == []


# --- disks


def test_a_disk_that_is_too_small_is_named_before_the_first_byte(project, hub, tmp_path):
    bomb = zip_of({"fH6bbNJJfqk.mp4": bytes(40_000_000)}, zipfile.ZIP_DEFLATED)
    hub.repos["TencentARC/Video-Holmes"] = {"videos.zip": bomb}
    small = r"about 40\.0 MB of disk needed, 1\.0 MB free"
    with small_disk(tmp_path / "disk", 1_000_000) as project.videos, pytest.raises(HubError, match=small):
        project.fetch("videoholmes")
    assert hub.requests == {}


def test_a_disk_that_fills_up_leaves_whole_videos_and_more_room_lets_it_go_on(project, hub, tmp_path):
    project.annotate({"longvideobench": ["a.mp4", "b.mp4"]})
    body = tar_of({"a.mp4": bytes(400_000), "b.mp4": bytes(4_000_000)})
    hub.repos["longvideobench/LongVideoBench"] = cut(body, TAR_PARTS[:3])
    with small_disk(tmp_path / "disk", 1_000_000) as project.videos:
        with pytest.raises(WriteError, match=r"b\.mp4: No space"):
            project.fetch("longvideobench")
        assert project.there("longvideobench") == {"a.mp4": bytes(400_000)}
        subprocess.run(["mount", "-o", "remount,size=8000000", project.videos], check=True)
        project.fetch("longvideobench")
        assert len(project.there("longvideobench")["b.mp4"]) == 4_000_000


# --- hostile archives


def test_of_an_archive_only_plain_files_are_taken_and_no_path_is_used(project, hub, tmp_path):
    link = zipfile.ZipInfo("link.mp4")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = {"x/../../../up.mp4": b"up", f"{tmp_path}/absolute.mp4": b"absolute", "..\\back.mp4": b"back"}
    file = io.BytesIO(zip_of({**out, "videos/good.mp4": b"good"}))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    kinds = {"sym": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE, "disk": tarfile.BLKTYPE}
    specials = {f"videos/{kind}.mp4": special(f"videos/{kind}.mp4", number) for kind, number in kinds.items()}
    tar = tar_of({**specials, "../up.mp4": b"up", f"{tmp_path}/absolute.mp4": b"absolute", "videos/good.mp4": b"good"})
    names = [f"{name}.mp4" for name in ("link", "up", "absolute", "back", *kinds, "good")]
    project.annotate({"videoholmes": names, "longvideobench": names})
    hub.repos["TencentARC/Video-Holmes"] = {"videos.zip": file.getvalue()}
    hub.repos["longvideobench/LongVideoBench"] = cut(tar, TAR_PARTS[:3])
    for dataset in ("videoholmes", "longvideobench"):
        project.fetch(dataset)
        assert project.there(dataset) == {f"{name}.mp4": name.encode() for name in ("up", "absolute", "good")}
    assert not any((tmp_path / name).exists() for name in names)


def test_a_damaged_archive_is_fetched_again_and_does_not_stop_the_others(project, hub, capsys):
    good = hub.repos["lmms-eval/Video-MME"]
    body = bytearray(good[CHUNK.format(2)])
    body[len(body) // 4] ^= 255
    bad = {CHUNK.format(2): bytes(body), CHUNK.format(3): b"<html>not a zip</html>"}
    hub.repos["lmms-eval/Video-MME"] = {**good, **bad}
    hub.hashes[CHUNK.format(4)] = "0" * 64
    with pytest.raises(HubError, match="2 files were damaged"):
        project.fetch("videomme")
    assert all(body == content(name) for name, body in project.there("videomme").items())
    assert f"{CHUNK.format(4)} of lmms-eval/Video-MME has not the SHA-256" in capsys.readouterr().err
    hub.repos["lmms-eval/Video-MME"] = good
    hub.hashes.clear()
    project.fetch("videomme")
    assert project.there("videomme") == whole(SOME["videomme"])
    assert hub.requests[CHUNK.format(1)] == 1


def test_a_hub_that_lists_files_outside_of_its_repository_is_not_asked_for_them(project, hub, tmp_path):
    hub.repos["lmms-eval/Video-MME"]["videos_chunked_/../../../99.zip"] = a_zip(["evil.mp4"])
    project.fetch("videomme")
    assert not any("99.zip" in path for path in hub.requests)


# --- the other parts


def test_the_printed_commands_for_ego4d_can_be_pasted(project, hub):
    done = project.run("lsdbench", "--videos", project.videos)
    assert done.returncode == 1
    root = project.videos / "lsdbench"
    assert (root / "lsdbench_uids.txt").read_text().split() == [Path(n).stem for n in base_names(SOME["lsdbench"])]
    ego4d, move, check = (line.strip() for line in done.stdout.splitlines() if line.startswith("  "))
    assert ego4d.startswith(f"ego4d --output_directory '{root}' --datasets full_scale --video_uid_file '{root}/lsd")
    assert check == f"python data/fetch.py lsdbench --check '{root}'"
    (root / "v2" / "full_scale").mkdir(parents=True)
    for name in SOME["lsdbench"]:
        (root / "v2" / "full_scale" / name).write_bytes(b"video")
    subprocess.run(["bash", "-c", move], check=True)
    project.fetch("lsdbench")
    assert hub.asked == []


def test_the_weights_come_to_where_a_run_looks_for_them(project, hub):
    hub.repos["WRHC/EfficientVideoAgent"] = {"config.json": b"{}", "model.safetensors": bytes(1000)}
    done = project.run("--model")
    assert done.returncode == 0, done.stderr
    assert (project.folder / "models" / "EVA" / "model.safetensors").read_bytes() == bytes(1000)
    assert (project.folder / "models" / "EVA" / "config.json").read_bytes() == b"{}"
