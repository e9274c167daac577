"""The frame store: nothing is decoded twice, nothing is half there, and what a running sample refers to stays."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import CORPUS, Encoded, full_decode, h264, named
from harness import FRAME_TOOL, wait_until
from numpy.typing import NDArray
from PIL import Image
from videos import Recipe, encode, open_av, read_number

import select_frame_fallback as tool
from eva.frames.eviction import Evictor, stored_files
from eva.frames.index_file import Indexes
from eva.frames.store import FillCost, FrameFolder, booted_at, video_folder
from eva.video.container import VideoFile
from eva.video.picture import FORMATS
from eva.video.picture import encode as encode_picture

CLIP = h264("clip.mp4")


class WorkerProcess:
    """A worker of the frame tool, asked one thing after the other."""

    def __init__(self) -> None:
        command = [sys.executable, str(FRAME_TOOL), "--worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def send(self, video: Path, root: Path, *words: object) -> None:
        assert self.process.stdin is not None
        arguments = [f"--video-path={video}", f"--save-root={root}", *map(str, words)]
        self.process.stdin.write(json.dumps({"arguments": arguments}).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def ask(self, video: Path, root: Path, *words: object) -> dict[str, Any]:
        self.send(video, root, *words)
        reply = self.receive()
        assert "ok" in reply, reply
        return dict(reply["ok"])


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    one = WorkerProcess()
    yield one
    one.process.kill()
    one.process.communicate()


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


# --- pixels


@pytest.mark.process
@named(CORPUS)
def test_worker_store_and_command_give_the_pixels_of_a_full_decode(
    encoded: Encoded, tmp_path: Path, worker: WorkerProcess, recipe: Recipe
) -> None:
    video = encoded(recipe)
    owed, words = full_decode(video), ["--backend=av", "--nframes=7", "--format=bmp", "--clamp"]
    decoded, revisited = (worker.ask(video, tmp_path, *words) for _ in range(2))
    command = arguments(video, tmp_path, "--backend=av", "--nframes=7", "--clamp")
    folder, selection = tool.save_frames(tool.parse_arguments(command))
    assert decoded["indices"] == revisited["indices"] == selection["indices"]
    assert (decoded["decoded"], revisited["decoded"]) == (len(set(selection["indices"])), 0)
    for place, index in enumerate(selection["indices"]):
        for path in (decoded["frames"][place], revisited["frames"][place], folder / f"frame_{place:04d}.png"):
            assert np.array_equal(read_picture(path), owed[index]), f"frame {index} in {path}"


@pytest.mark.parametrize("picture_format", FORMATS)
def test_every_format_is_lossless(encoded: Encoded, tmp_path: Path, picture_format: str) -> None:
    video = encoded(h264("h264-444-odd.mp4", pix_fmt="yuv444p", width=161, height=121))
    reply = tool.answer({"arguments": arguments(video, tmp_path, "--nframes=2", f"--format={picture_format}")})["ok"]
    assert [Path(path).suffix for path in reply["frames"]] == [f".{picture_format}"] * 2
    owed = full_decode(video)
    for index, path in zip(reply["indices"], reply["frames"], strict=True):
        assert np.array_equal(read_picture(path), owed[index])


def arguments(video: Path, root: Path, *words: str) -> list[str]:
    return [f"--video-path={video}", f"--save-root={root}", *words]


# --- what is one frame, and what another


@pytest.mark.process
def test_another_question_finds_the_frames_it_shares(encoded: Encoded, tmp_path: Path, worker: WorkerProcess) -> None:
    first = worker.ask(encoded(CLIP), tmp_path, "--start=0", "--end=0.5", "--nframes=3")
    second = worker.ask(encoded(CLIP), tmp_path, "--start=0", "--end=1", "--nframes=5")
    shared = set(first["indices"]) & set(second["indices"])
    assert shared
    assert second["decoded"] == len(set(second["indices"]) - shared)


@pytest.mark.process
def test_other_sizes_formats_and_a_file_written_anew_are_other_frames(
    encoded: Encoded, tmp_path: Path, worker: WorkerProcess
) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(encoded(CLIP).read_bytes())
    asked = [("--nframes=2",), ("--nframes=2", "--resize=0.5"), ("--nframes=2", "--format=bmp")]
    paths = {path for words in asked for path in worker.ask(video, tmp_path, *words)["frames"]}
    assert len(paths) == 6
    os.utime(video, ns=(1, 1))
    again = worker.ask(video, tmp_path, "--nframes=2")
    assert again["decoded"] == 2
    assert not paths & set(again["frames"])


@pytest.mark.process
def test_decords_frames_are_kept_call_by_call(encoded: Encoded, tmp_path: Path, worker: WorkerProcess) -> None:
    # Which frames it gives depends on the others of the call, where it gives wrong ones.
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    words = ("--backend=decord", "--start=0", "--end=0.5")
    assert worker.ask(encoded(CLIP), tmp_path, *words, "--nframes=3")["decoded"] == 3
    assert worker.ask(encoded(CLIP), tmp_path, *words, "--nframes=5")["decoded"] == 5
    assert worker.ask(encoded(CLIP), tmp_path, *words, "--nframes=3")["decoded"] == 0


@pytest.mark.process
def test_a_turned_video_keeps_other_frames_and_another_index_where_it_is_chosen_by_time(
    encoded: Encoded, tmp_path: Path, worker: WorkerProcess
) -> None:
    video = encoded(h264("h264-upside-down.mp4", rotation=180))
    asked = [(), ("--backend=torchcodec",)]
    turned, coded = ([worker.ask(video, tmp_path, "--nframes=2", *words) for _ in range(2)] for words in asked)
    assert [reply["decoded"] for reply in (*turned, *coded)] == [2, 0, 2, 0]
    for upright, stored in zip(turned[0]["frames"], coded[1]["frames"], strict=True):
        assert np.array_equal(read_picture(upright), np.rot90(read_picture(stored), 2))
    assert len(index_files(tmp_path)) == len(list(tmp_path.rglob("index-by-time.bin"))) == 1


@pytest.mark.parametrize("name", ["...mp4", "a\nb.mp4", "a/../b.mp4", "\udcff.mp4", "視" * 80 + ".mp4", "a\u2028.mp4"])
def test_whatever_a_video_is_called_its_folder_is_one_part_below_the_store(tmp_path: Path, name: str) -> None:
    folder = video_folder(tmp_path, VideoFile(Path(f"/videos/{name}"), 1, 2))
    assert folder.parent == tmp_path / "store"
    folder.mkdir(parents=True)


# --- several processes


SIDE = 8


def a_picture(number: int, picture_format: str = "png") -> bytes:
    return encode_picture(np.full((SIDE, SIDE, 3), number, np.uint8), picture_format)


def make_numbers(indices: Sequence[int]) -> Iterable[tuple[int, bytes]]:
    return ((index, a_picture(index)) for index in indices)


@pytest.mark.process
def test_two_processes_never_decode_the_same_frame_at_the_same_time(encoded: Encoded, tmp_path: Path) -> None:
    both = [WorkerProcess(), WorkerProcess()]
    for one in both:
        one.send(encoded(CLIP), tmp_path, "--nframes=60", "--resize=4")
    replies = [one.receive()["ok"] for one in both]
    assert sum(reply["decoded"] for reply in replies) == len(set(replies[0]["frames"]))
    assert replies[0]["frames"] == replies[1]["frames"]
    assert [read_number(read_picture(path)) for path in replies[0]["frames"]] == replies[0]["indices"]
    for one in both:
        one.process.kill()
        one.process.communicate()


@pytest.mark.process
def test_a_frame_whose_maker_is_killed_is_made_by_the_one_who_waits_for_it(encoded: Encoded, tmp_path: Path) -> None:
    killed, waiting = WorkerProcess(), WorkerProcess()
    killed.send(encoded(CLIP), tmp_path, "--nframes=60", "--resize=4")
    wait_until(lambda: any(tmp_path.rglob("*.partial")))
    killed.process.send_signal(signal.SIGSTOP)
    waiting.send(encoded(CLIP), tmp_path, "--nframes=60", "--resize=4")
    time.sleep(0.5)
    assert not any(tmp_path.rglob("*.png")), "nobody has made them yet"
    killed.process.kill()
    reply = waiting.receive()["ok"]
    assert reply["decoded"] == len(set(reply["frames"]))
    assert [read_number(read_picture(path)) for path in reply["frames"]] == reply["indices"]
    for one in (killed, waiting):
        one.process.kill()
        one.process.communicate()


def test_frames_of_a_batch_that_fails_are_not_kept(tmp_path: Path) -> None:
    def failing(indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        yield indices[0], b"whole"
        raise RuntimeError("the second one cannot be decoded")

    folder = FrameFolder(tmp_path / "folder", "png", SIDE, SIDE)
    with pytest.raises(RuntimeError):
        folder.fill([1, 2], failing)
    assert [path.name for path in folder.folder.iterdir()] == [".claims"]
    written_bytes = len(a_picture(1)) + len(a_picture(2))
    assert folder.fill([1, 2, 2], make_numbers) == FillCost(decoded=2, written_bytes=written_bytes)
    assert folder.fill([1, 2, 2], make_numbers) == FillCost()


# --- the index


def index_files(root: Path) -> list[Path]:
    return list(root.rglob("index.bin"))


@pytest.mark.parametrize(
    "recipe", [CLIP, h264("h264-open.mp4", options={"x264-params": "open-gop=1"}), h264("h264-varying-rate.mkv")],
    ids=lambda recipe: recipe.name,
)  # fmt: skip
def test_a_kept_index_is_the_one_that_was_read(encoded: Encoded, tmp_path: Path, recipe: Recipe) -> None:
    video = encoded(recipe)
    index = open_av(video).index
    file, indexes = VideoFile.of(video), Indexes(tmp_path)
    indexes.save(file, index, recount=False, by_time=False)
    assert indexes.load(file, recount=False, by_time=False) == index
    assert indexes.load(file, recount=True, by_time=False) is None
    assert indexes.load(file, recount=False, by_time=True) is None


@pytest.mark.process
def test_an_index_of_counted_frames_is_kept_too(encoded: Encoded, tmp_path: Path, worker: WorkerProcess) -> None:
    video = encoded(h264("h264.wmv"))
    assert worker.ask(video, tmp_path, "--nframes=3")["indices"] == [0, 30, 59]
    (counted,) = tmp_path.rglob("counted.bin")
    assert index_files(tmp_path)
    index = Indexes(tmp_path).load(VideoFile.of(video), recount=True, by_time=False)
    assert index is not None
    assert (index.pts, len(index.timeline.times_s)) == (None, 60)
    assert worker.ask(video, tmp_path, "--nframes=3")["decoded"] == 0
    assert counted.exists()


def truncated(data: bytes) -> bytes:
    return data[:-8]


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def of_another_version(data: bytes) -> bytes:
    """The same, and with the checksum that belongs to it."""
    line, _, numbers = data.partition(b"\n")
    header = json.loads(line)
    del header["sha256"]
    header["version"] -= 1
    digest = hashlib.sha256(json.dumps(header).encode() + numbers).hexdigest()
    return json.dumps({**header, "sha256": digest}).encode() + b"\n" + numbers


@pytest.mark.process
@pytest.mark.parametrize(
    "spoil",
    [truncated, flipped, of_another_version, lambda _: b"", lambda _: b"{}\n", lambda _: b"[1]\n\0\0", os.urandom,],
    ids=["truncated", "flipped", "version", "empty", "no keys", "a list", "noise"],
)  # fmt: skip
def test_a_spoilt_index_is_read_anew_and_rewritten(
    encoded: Encoded, tmp_path: Path, worker: WorkerProcess, spoil: Callable[[Any], bytes]
) -> None:
    owed = worker.ask(encoded(CLIP), tmp_path, "--nframes=3")
    (index,) = index_files(tmp_path)
    whole = index.read_bytes()
    index.write_bytes(spoil(999) if spoil is os.urandom else spoil(whole))
    got = worker.ask(encoded(CLIP), tmp_path, "--nframes=3")
    assert (got["indices"], got["times_s"]) == (owed["indices"], owed["times_s"])
    assert index.read_bytes() == whole


@pytest.mark.process
def test_an_index_of_another_video_is_not_believed(encoded: Encoded, tmp_path: Path, worker: WorkerProcess) -> None:
    other = encode(h264("other.mp4", count=20), tmp_path)
    worker.ask(other, tmp_path, "--nframes=1")
    (foreign,) = index_files(tmp_path)
    path = video_folder(tmp_path, VideoFile.of(encoded(CLIP))) / "index.bin"
    path.parent.mkdir()
    path.write_bytes(foreign.read_bytes())
    assert worker.ask(encoded(CLIP), tmp_path, "--nframes=2")["indices"] == [0, 59]


# --- eviction


def fill_store(root: Path, count: int, size: int = 100) -> list[Path]:
    """Frames of `size` bytes, the first one used longest ago."""
    folder = root / "store" / "video" / "8x8-av"
    folder.mkdir(parents=True, exist_ok=True)
    frames = [folder / f"{number:07d}.png" for number in range(count)]
    for age, frame in enumerate(reversed(frames)):
        frame.write_bytes(b"x" * size)
        os.utime(frame, (time.time() - 1000 - age,) * 2)
    return frames


def there(frames: Sequence[Path]) -> list[bool]:
    return [frame.exists() for frame in frames]


def test_below_the_cap_nothing_is_evicted(tmp_path: Path) -> None:
    frames = fill_store(tmp_path, 10)
    Evictor(tmp_path, cap_bytes=1000).count_written(0)
    assert all(there(frames))


def test_above_the_cap_the_least_recently_used_frames_go(tmp_path: Path) -> None:
    frames = fill_store(tmp_path, 10)
    os.utime(frames[0])
    Evictor(tmp_path, cap_bytes=600).count_written(0)
    assert there(frames) == [True] + [False] * 5 + [True] * 4


def test_a_frame_asked_for_again_counts_as_used(tmp_path: Path) -> None:
    frames = fill_store(tmp_path, 10)
    frames[2].write_bytes(a_picture(2))
    os.utime(frames[2], (max(booted_at() + 1, time.time() - 900),) * 2)
    assert FrameFolder(frames[0].parent, "png", SIDE, SIDE).fill([2], make_numbers) == FillCost()
    Evictor(tmp_path, cap_bytes=300).count_written(0)
    assert there(frames) == [False, False, True] + [False] * 6 + [True]


def test_frames_that_a_running_sample_refers_to_are_not_evicted_until_it_is_over(tmp_path: Path) -> None:
    frames = fill_store(tmp_path, 10)
    evictor = Evictor(tmp_path, cap_bytes=200)
    assert evictor.hold(7, frames[:3])
    assert evictor.hold(8, frames[2:4])
    evictor.count_written(0)
    assert there(frames) == [True] * 4 + [False] * 6
    evictor.release(7)
    evictor.count_written(1000)
    assert there(frames)[:4] == [False, False, True, True]


@pytest.mark.process
def test_frames_that_a_sample_of_another_run_refers_to_are_not_evicted(tmp_path: Path) -> None:
    frames = fill_store(tmp_path, 4)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from eva.frames.eviction import Evictor\n"
            "print(Evictor(Path(sys.argv[1]), 1).hold(1, [Path(sys.argv[2])]), flush=True); sys.stdin.read()",
            str(tmp_path),
            str(frames[1]),
        ],
        cwd=FRAME_TOOL.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"True\n"
    evictor = Evictor(tmp_path, cap_bytes=10)
    evictor.count_written(0)
    assert there(frames) == [False, True, False, False]
    holder.kill()
    holder.communicate()
    evictor.count_written(1000)
    assert not frames[1].exists(), "a lease ends with its process"


def test_a_frame_that_was_just_used_stays_though_nobody_holds_it_yet(tmp_path: Path) -> None:
    frames = fill_store(tmp_path, 3)
    os.utime(frames[1])
    Evictor(tmp_path, cap_bytes=1).count_written(0)
    assert there(frames) == [False, True, False]


def test_holding_a_frame_that_is_gone_says_so(tmp_path: Path) -> None:
    assert not Evictor(tmp_path, cap_bytes=1).hold(1, [tmp_path / "store" / "gone.png"])


@pytest.mark.process
def test_indexes_are_not_evicted_and_what_a_killed_process_left_half_written_is(
    encoded: Encoded, tmp_path: Path, worker: WorkerProcess
) -> None:
    frame = Path(worker.ask(encoded(CLIP), tmp_path, "--nframes=1")["frames"][0])
    young, stale = frame.with_name(".1.png.1.partial"), frame.with_name(".2.png.2.partial")
    for partial, age_s in ((young, 600), (stale, 7 * 3600)):
        partial.write_bytes(b"half")
        os.utime(partial, (time.time() - age_s,) * 2)
    Evictor(tmp_path, cap_bytes=1, settled_s=0).count_written(0)
    assert index_files(tmp_path)
    assert [file.path for file in stored_files(tmp_path)] == [young]


def test_a_frame_that_is_held_while_another_thread_evicts_is_not_lost(tmp_path: Path) -> None:
    frames = fill_store(tmp_path, 200)
    evictor = Evictor(tmp_path, cap_bytes=100)
    evicting = threading.Thread(target=evictor.count_written, args=(0,))
    evicting.start()
    held = [frame for number, frame in enumerate(frames) if evictor.hold(number, [frame])]
    evicting.join()
    assert all(there(held))
