"""The frame store: nothing is decoded twice, nothing is half there, and what a running sample refers to stays."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import CORPUS, Encoded, full_decode, h264, named
from harness import FRAME_TOOL
from numpy.typing import NDArray
from PIL import Image
from videos import Recipe, open_av, read_number

import select_frame_fallback as tool
from eva.frames.store import Indexes
from eva.video.container import VideoFile
from eva.video.picture import FORMATS

CLIP = h264("clip.mp4")


class WorkerProcess:
    """A worker of the frame tool, asked one thing after the other."""

    def __init__(self) -> None:
        command = [sys.executable, str(FRAME_TOOL), "--worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def send(self, video: Path, root: Path, *words: object) -> None:
        assert self.process.stdin is not None
        arguments = [f"--video-path={video}", f"--save-root={root}", *map(str, words)]
        self.process.stdin.write(json.dumps({"words": arguments}).encode() + b"\n")
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
    reply = tool.answer({"words": arguments(video, tmp_path, "--nframes=2", f"--format={picture_format}")})["ok"]
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
    assert len(index_files(tmp_path)) == len(list(tmp_path.rglob("index-by-time-*.npz"))) == 1


# --- several processes


@pytest.mark.process
def test_processes_that_make_the_same_frames_at_the_same_time_give_the_same_pictures(
    encoded: Encoded, tmp_path: Path
) -> None:
    both = [WorkerProcess(), WorkerProcess()]
    for one in both:
        one.send(encoded(CLIP), tmp_path, "--nframes=60", "--resize=4")
    replies = [one.receive()["ok"] for one in both]
    assert replies[0]["frames"] == replies[1]["frames"]
    assert [read_number(read_picture(path)) for path in replies[0]["frames"]] == replies[0]["indices"]
    assert not any(tmp_path.rglob("*.partial"))
    for one in both:
        one.process.kill()
        one.process.communicate()


# --- the index


def index_files(root: Path) -> list[Path]:
    return list(root.rglob("index-[0-9]*.npz"))


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
    (counted,) = tmp_path.rglob("counted-*.npz")
    assert index_files(tmp_path)
    index = Indexes(tmp_path).load(VideoFile.of(video), recount=True, by_time=False)
    assert index is not None
    assert (index.pts, len(index.timeline.times_s)) == (None, 60)
    assert worker.ask(video, tmp_path, "--nframes=3")["decoded"] == 0
    assert counted.exists()


def truncated(data: bytes) -> bytes:
    return data[:-8]


def flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def savez(**arrays: Any) -> bytes:
    new = io.BytesIO()
    np.savez(new, **arrays)
    return new.getvalue()


@pytest.mark.process
@pytest.mark.parametrize(
    "spoil",
    [truncated, flipped, lambda _: b"", lambda _: savez(), os.urandom],
    ids=["truncated", "flipped", "empty", "no keys", "noise"],
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
