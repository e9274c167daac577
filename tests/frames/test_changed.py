"""A video that changes while it is read, or whose disk fails: an error that names it, and never wrong frames or a wrong
index."""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from corpus import VPX
from disks import FailingDisk, failing
from videos import Recipe, encode, open_video, read_number, read_picture

import select_frame_fallback as tool
from eva.errors import ReadError
from eva.frames import serve
from eva.video import decode

Change = Callable[[Path, Path], None]
X264 = {"g": "10", "bf": "2", "preset": "veryfast"}
LIST_FIRST = {"movflags": "faststart"}
LONG = [
    Recipe("clip.mp4", "libx264", count=240, options=X264, container_options=LIST_FIRST),
    Recipe("clip.mkv", "libx264", count=240, options=X264),
    Recipe("clip.webm", "libvpx-vp9", count=240, options=VPX),
    Recipe("clip.mov", "libvpx-vp9", count=240, options=VPX, container="mp4", container_options=LIST_FIRST),
    Recipe("clip.ts", "libx264", count=240, options=X264),
    Recipe("clip.avi", "mpeg4", count=240, options={"g": "20"}),
    Recipe("clip.flv", "libx264", count=240, options=X264),
]
CHANGED = r"clip\.mp4 (was changed|cannot be read: No such file)"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Frames 0 to 59."""
    return encode(Recipe("clip.mp4", "libx264", options=X264), tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another video under another name: twenty frames, of which no rate is the same."""
    return encode(Recipe("other.mp4", "libx264", count=20, options=X264), tmp_path)


def replace(path: Path, by: Path) -> None:
    copy = path.with_name("copy.mp4")
    shutil.copyfile(by, copy)
    copy.replace(path)


def overwrite(path: Path, by: Path) -> None:
    path.write_bytes(by.read_bytes())


def touch(path: Path, by: Path) -> None:  # written anew, with the same bytes
    os.utime(path, ns=(1, 1))


def remove(path: Path, by: Path) -> None:
    path.unlink()


CHANGES = [replace, overwrite, touch, remove]


def ask(video: Path, root: Path, *words: str) -> dict[str, Any]:
    return dict(tool.answer({"words": [f"--video-path={video}", f"--save-root={root}", "--nframes=6", *words]}))


def assert_changed(reply: dict[str, Any]) -> None:
    assert_unreadable(reply, CHANGED)


def assert_unreadable(reply: dict[str, Any], reason: str) -> None:
    assert reply["kind"] == "unreadable", "which is never the model's fault"
    assert re.search(reason, reply["error"])


def assert_right(reply: dict[str, Any], *, last: int) -> None:
    assert [read_number(read_picture(path)) for path in reply["ok"]["frames"]] == reply["ok"]["indices"]
    assert max(reply["ok"]["indices"]) == last


def kept(root: Path) -> list[Path]:
    """All frames and indexes below a frame root."""
    return [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]


def between(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, change: Callable[[], None]) -> None:
    """Let `change` happen once, right before a step of the decoder's own."""
    step = getattr(module, name)

    def changed_first(*arguments: object, **more: object) -> object:
        monkeypatch.setattr(module, name, step)
        change()
        return step(*arguments, **more)

    monkeypatch.setattr(module, name, changed_first)


@pytest.mark.parametrize("change", CHANGES)
def test_a_video_replaced_after_it_was_looked_at_gives_no_index(
    video: Path, other: Path, tmp_path: Path, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    between(monkeypatch, decode, "read_index", lambda: change(video, other))
    assert_changed(ask(video, tmp_path / "frames"))
    assert kept(tmp_path / "frames") == []


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("backend", ["av", "decord"])
def test_a_video_replaced_while_its_frames_are_decoded_keeps_none_of_them(
    *, video: Path, other: Path, tmp_path: Path, change: Change, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "decord":
        pytest.importorskip("decord", reason="decord has no wheel for this platform")
    made = iter((lambda: None, lambda: change(video, other), *[lambda: None] * 9))
    encode_picture = serve.pictures  # type: ignore[attr-defined]

    def pictures(*arguments: object) -> Iterator[tuple[int, bytes]]:
        for picture in encode_picture(*arguments):  # type: ignore[arg-type]
            yield picture
            next(made)()

    monkeypatch.setattr(serve, "pictures", pictures)
    root = tmp_path / "frames"
    assert_changed(ask(video, root, f"--backend={backend}"))
    assert [path for path in kept(root) if path.suffix != ".npz"] == []


def test_after_a_change_the_next_call_gives_the_new_videos_frames(video: Path, other: Path, tmp_path: Path) -> None:
    ask(video, tmp_path / "frames")
    overwrite(video, other)
    assert_right(ask(video, tmp_path / "frames"), last=19)


# --- a disk that fails


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FailingDisk]:
    with failing(tmp_path / "disk", tmp_path / "image") as failing_disk:
        yield failing_disk


EIO = r"clip\.\w+ cannot be read: Input/output error"


@pytest.mark.process
@pytest.mark.parametrize("recipe", LONG, ids=lambda recipe: recipe.name)
def test_a_read_error_is_neither_the_end_of_a_video_nor_damage(
    disk: FailingDisk, recipe: Recipe, tmp_path: Path
) -> None:
    """Neither where its index is to be read, nor where that is known."""
    video, root = encode(recipe, disk.folder), tmp_path / "frames"
    disk.fail(video, video.stat().st_size // 2)
    assert_unreadable(ask(video, root), EIO)
    assert [path for path in kept(root) if path.suffix != ".npz"] == []
    disk.heal()
    assert_right(ask(video, root, "--end=0.001", "--clamp", "--nframes=1"), last=0)
    before = kept(root)
    disk.fail(video, video.stat().st_size // 2)
    assert_unreadable(ask(video, root), EIO)
    assert kept(root) == before
    disk.heal()
    assert_right(ask(video, root), last=239)


@pytest.mark.process
@pytest.mark.parametrize("recipe", [LONG[1], LONG[-1]], ids=lambda recipe: recipe.name)
def test_a_read_error_is_seen_though_decord_says_nothing_of_it(
    disk: FailingDisk, recipe: Recipe, tmp_path: Path
) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    video, root = encode(recipe, disk.folder), tmp_path / "frames"
    disk.fail(video, video.stat().st_size // 2)
    assert_unreadable(ask(video, root, "--backend=decord"), EIO)
    assert kept(root) == []


@pytest.mark.process
def test_a_header_that_cannot_be_read_is_not_a_broken_video(disk: FailingDisk, tmp_path: Path) -> None:
    video = encode(LONG[1], disk.folder)
    disk.fail(video, 0)
    reply = tool.answer({"probe": str(video)})
    assert (reply["kind"], bool(re.search(EIO, reply["error"]))) == ("unreadable", True)
    disk.heal()
    assert "ok" in tool.answer({"probe": str(video)})


def test_a_video_that_was_cut_off_is_read_to_its_end_and_its_index_is_kept(video: Path, tmp_path: Path) -> None:
    cut, root = tmp_path / "cut.ts", tmp_path / "frames"
    data = encode(Recipe("whole.ts", "libx264", count=60, options=X264), tmp_path).read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    assert "ok" in ask(cut, root)
    assert len([path for path in kept(root) if path.suffix == ".npz"]) == 1


def test_a_process_that_may_open_no_more_files_has_no_broken_video(video: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with video.open() as next_file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_file.fileno(), before[1]))
    try:
        reply = tool.answer({"probe": str(video)})
        with pytest.raises(ReadError, match="Too many open files"):
            open_video(video)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (reply["kind"], "Too many open files" in reply["error"]) == ("unreadable", True)
