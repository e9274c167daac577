"""The frame store in an unlucky world: power cuts, full disks, several runs and several users on one frame root."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disks import ext4, make_ext4, small_disk
from harness import ROOT, Bench, block, call, make_video, only_sentence, row, wait_until
from PIL import Image
from scripted_server import Script, ScriptedServer

import select_frame_fallback as frame_tool
from eva.files import WriteError, replace_text
from eva.frames.eviction import Evictor, stored_files

ANSWER = "<answer>B</answer>"
NOBODY = 65534
LOOK = [block(call(0, 4, 8)), ANSWER]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("videos") / "clip.mp4", frames=50)


def cut(video: Path, root: Path, *words: str) -> dict[str, Any]:
    """What a worker answers."""
    reply = frame_tool.answer({"words": [f"--video-path={video}", f"--save-root={root}", *words]})
    assert "ok" in reply, reply
    return dict(reply["ok"])


def pixels(frames: list[str]) -> list[Any]:
    return [np.asarray(Image.open(frame).convert("RGB")) for frame in frames]


# --- after a power cut


def test_frames_that_a_power_cut_left_empty_are_made_again(clip: Path, tmp_path: Path) -> None:
    """The disk as a power cut finds it: the names are in the journal, the pixels were not yet written."""
    image, after, folder = tmp_path / "disk", tmp_path / "after", tmp_path / "mount"
    make_ext4(image, 2**26)
    with ext4(folder, image):
        owed = cut(clip, folder, "--nframes=10", "--format=bmp")
        pictures = pixels(owed["frames"])
        with (folder / "other").open("wb") as other:  # its fsync writes the journal, and with it all names
            other.write(b"x")
            other.flush()
            os.fsync(other.fileno())
        shutil.copyfile(image, after)
    with ext4(folder, after):
        frames = [Path(frame) for frame in owed["frames"]]
        empty = [frame for frame in frames if frame.exists() and not frame.stat().st_size]
        if not empty:
            pytest.skip("this kernel wrote the frames before the journal")
        again = cut(clip, folder, "--nframes=10", "--format=bmp")
        assert again["decoded"] >= len(set(empty))
        assert again["indices"] == owed["indices"]
        assert all(np.array_equal(one, other) for one, other in zip(pixels(again["frames"]), pictures, strict=True))


# --- a full disk


def fill(root: Path, count: int, size: int, age_s: float = 1000) -> list[Path]:
    folder = root / "store" / "old-video" / "8x8-av"
    folder.mkdir(parents=True, exist_ok=True)
    frames = [folder / f"{number:07d}.bmp" for number in range(count)]
    for number, frame in enumerate(frames):
        frame.write_bytes(b"x" * size)
        os.utime(frame, (time.time() - age_s + number / 1000,) * 2)
    return frames


def fill_up(root: Path) -> None:
    """Old frames, until no more fit."""
    with contextlib.suppress(OSError):
        fill(root, 1000, 12 * 4096)
    use_up(root / "rest")


def use_up(path: Path) -> None:
    """A file that takes what is left of the disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as rest:
        while True:
            rest.write(b"x" * 4096)


@pytest.mark.parametrize("flags", [("--frame-cache-gb", "0.001"), ("--frame-cache-gb", "1"), ()])
def test_a_full_frame_disk_makes_room_for_the_run(
    clip: Path, tmp_path: Path, tokenizer_dir: Path, flags: tuple[str, ...]
) -> None:
    """Under a small cap, under one that is larger than the disk, and under the default one."""
    with small_disk(tmp_path / "small", 3 * 2**20) as root, ScriptedServer(Script({"q": LOOK})) as server:
        fill_up(root)
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        (bench.videos / "clip.mp4").symlink_to(clip)
        bench.write([row("q")])
        run = bench.run(*flags, frame_root=str(root))
        assert run.code == 0, run.said
        assert run.record()["stop_reason"] == "answer_found"


def test_a_full_disk_on_which_no_frame_may_go_ends_the_run_and_says_so(
    clip: Path, tmp_path: Path, tokenizer_dir: Path
) -> None:
    with small_disk(tmp_path / "small", 2**20) as root, ScriptedServer(Script({"q": LOOK})) as server:
        use_up(root / "not_ours")
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        (bench.videos / "clip.mp4").symlink_to(clip)
        bench.write([row("q")])
        run = bench.run(frame_root=str(root))
    assert run.code in (1, 2), run.said
    assert re.search(rf"{root} \(--frame-root\).*No space left on device", run.stderr), run.stderr
    assert "Traceback" not in run.stderr


def test_a_store_that_is_there_gets_no_smaller_cap_the_next_time(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 10 * 10**6) as root:
        caps = []
        for _ in range(2):
            evictor = Evictor(root, None)
            evictor.start()
            caps.append(evictor.cap_bytes)
            evictor.close()
            fill(root, 40, 100_000)
    assert caps[0] == pytest.approx(5 * 10**6, rel=0.02)
    assert caps[1] == pytest.approx(caps[0], rel=0.02)


# --- several runs on one frame root


WRITER = """
import sys, time
from pathlib import Path
from eva.frames.eviction import Evictor
root, name, count, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
evictor = Evictor(root, int(sys.argv[5]), settled_s=0)
evictor.start()
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    path = root / "store" / "video" / f"{name}-{number:04d}.bmp"
    path.write_bytes(b"x" * size)
    evictor.count_written(size)
"""


def writer(root: Path, name: str, count: int, size: int, cap: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), name, *map(str, (count, size, cap))],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_three_runs_on_one_store_keep_to_one_cap_together(tmp_path: Path) -> None:
    """Each may write a step before it knows that the others filled the store."""
    size, cap = 10_000, 1_000_000
    (tmp_path / "store" / "video").mkdir(parents=True)
    writers = [writer(tmp_path, name, 150, size, cap) for name in "abc"]
    for one in writers:
        go(one)
    largest = 0
    while any(one.poll() is None for one in writers):
        largest = max(largest, sum(file.size for file in stored_files(tmp_path)))
    assert [one.wait() for one in writers] == [0, 0, 0]
    assert largest <= cap * 1.15 + len(writers) * size
    assert sum(file.size for file in stored_files(tmp_path)) > cap / 2, "evicting goes a step below the cap, no more"


# --- several users


START = """
import os, sys
from pathlib import Path
from eva.frames.eviction import Evictor
root, user, group, umask = Path(sys.argv[1]), *map(int, sys.argv[2:])
os.setgroups([]), os.setgid(group), os.setuid(user), os.umask(umask)
Evictor(root, 1).start()
"""


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder that every user may write to; those of pytest are this user's alone."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    folder = Path(tempfile.mkdtemp(prefix="eva-test-"))
    folder.chmod(0o1777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def start_as(root: Path, user: int, *, group: int, umask: int) -> subprocess.CompletedProcess[str]:
    words = [str(root), *map(str, (user, group, umask))]
    return subprocess.run([sys.executable, "-c", START, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_second_user_on_a_frame_root_is_refused_at_once_and_told_what_to_do() -> None:
    with shared_folder() as root:
        assert start_as(root, 0, group=0, umask=0o022).returncode == 0
        refused = start_as(root, NOBODY, group=NOBODY, umask=0o022)
    assert f"{root}/store belongs to another user" in refused.stderr


def test_two_users_of_one_group_share_a_frame_root_under_umask_002() -> None:
    with shared_folder() as root:
        os.chown(root, 0, NOBODY)
        root.chmod(0o2775)
        for user in (0, NOBODY, 0):
            started = start_as(root, user, group=NOBODY, umask=0o002)
            assert started.returncode == 0, started.stderr


def test_a_store_that_cannot_be_used_is_refused_before_any_sample(
    clip: Path, tmp_path: Path, tokenizer_dir: Path
) -> None:
    with ScriptedServer(Script({"q": LOOK})) as server:
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        (bench.videos / "clip.mp4").symlink_to(clip)
        bench.write([row("q")])
        bench.frame_root.mkdir(exist_ok=True)
        (bench.frame_root / "store").touch()
        run = bench.run("--frame-cache-gb", "1")
    assert run.code == 2, run.said
    assert str(bench.frame_root) in only_sentence(run.stderr)
    assert not bench.cache.exists() or not bench.cache.read_bytes()


def test_a_store_that_becomes_unusable_ends_the_run(clip: Path, tmp_path: Path, tokenizer_dir: Path) -> None:
    replies: dict[str, list[Any]] = {"first": LOOK, "second": [{"text": LOOK[0], "delay_s": 3}, ANSWER], "third": LOOK}
    with ScriptedServer(Script(replies)) as server:
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        (bench.videos / "clip.mp4").symlink_to(clip)
        bench.write([row(key) for key in replies])
        process = bench.start("--max-concurrent", "1", "--frame-cache-gb", "1")
        wait_until(lambda: bool(server.journal.of("second")))
        shutil.rmtree(bench.frame_root / "store")
        (bench.frame_root / "store").touch()
        run = bench.finish(process)
    assert run.code == 1, run.said
    assert re.search(r"cannot write to \S+ \(--frame-root\): .*; to go on:", run.stderr), run.stderr
    assert set(run.by_index()) == {0}


def test_a_file_that_a_full_disk_does_not_take_is_named_with_its_folder_and_flag(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 2**16) as root:
        room = f"No space left on device: make room on the disk of {root}, or choose another folder with --json"
        with pytest.raises(WriteError, match=re.escape(f"cannot write {root / 'figures.json'}: {room}")):
            replace_text(root / "figures.json", "x" * 2**20, "--json")
        assert list(root.iterdir()) == []


def test_what_a_killed_process_left_of_a_new_file_goes_with_a_later_one(tmp_path: Path) -> None:
    """A file that another process writes at this moment stays, as do files of other names."""
    path = tmp_path / "cache[1].jsonl"
    ages_s = {".cache[1].jsonl.ab12.partial": 7000, ".cache[1].jsonl.cd34.partial": 60, ".cache[1].jsonl.lock": 7000}
    for name, age_s in {**ages_s, ".cache1.jsonl.ef56.partial": 7000}.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    replace_text(path, "new")
    assert path.read_text() == "new"
    assert {left.name for left in tmp_path.iterdir()} == {
        path.name, ".cache[1].jsonl.cd34.partial", ".cache[1].jsonl.lock", ".cache1.jsonl.ef56.partial"
    }  # fmt: skip
