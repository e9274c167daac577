"""A video that changes while it is read: an error that names it, and never another file's frames or index."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from videos import Recipe, encode, open_video, read_number, read_picture

import select_frame_fallback as tool
from eva.errors import VideoError
from eva.frames.tool import FrameToolError
from eva.frames.worker_tool import read_reply
from eva.video import decode, decode_pyav
from eva.video.container import Identity, open_container
from eva.video.packets import packets_of

Change = Callable[[Path, Path], None]
X264 = {"g": "10", "bf": "2", "preset": "veryfast"}
CHANGED = r"clip\.mp4 was changed or replaced while it was read"


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


def replace_by_one_that_looks_the_same(path: Path, by: Path) -> None:
    stat = path.stat()
    replace(path, by)
    os.truncate(path, stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


CHANGES = [replace, overwrite, touch, remove, replace_by_one_that_looks_the_same]


def ask(video: Path, root: Path, *words: str) -> dict[str, object]:
    return dict(tool.answer({"arguments": [f"--video-path={video}", f"--save-root={root}", "--nframes=6", *words]}))


def assert_changed(reply: dict[str, object]) -> None:
    assert re.search(CHANGED, str(reply["error"]))
    with pytest.raises(FrameToolError, match=CHANGED):  # which is never the model's fault
        read_reply(reply, 0)


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


@pytest.mark.parametrize("step", ["listed_notes", "make_survey"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_video_replaced_while_its_packets_are_read_gives_no_index(
    video: Path, other: Path, tmp_path: Path, change: Change, *, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    between(monkeypatch, decode_pyav, step, lambda: change(video, other))
    assert_changed(ask(video, tmp_path / "frames"))
    assert kept(tmp_path / "frames") == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_video_replaced_before_its_frames_are_decoded_gives_none(
    video: Path, other: Path, tmp_path: Path, change: Change
) -> None:
    opened = open_video(video)
    change(video, other)
    with pytest.raises(VideoError, match=CHANGED):
        list(opened.frames([0, 30, 55], lambda rgb: rgb))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("backend", ["av", "decord"])
def test_a_video_replaced_while_its_frames_are_decoded_keeps_none_of_them(
    *, video: Path, other: Path, tmp_path: Path, change: Change, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "decord":
        pytest.importorskip("decord", reason="decord has no wheel for this platform")
    made = iter((lambda: None, lambda: change(video, other), *[lambda: None] * 9))
    encode_picture = tool.pictures  # type: ignore[attr-defined]

    def pictures(*arguments: object) -> Iterator[tuple[int, bytes]]:
        for picture in encode_picture(*arguments):  # type: ignore[arg-type]
            yield picture
            next(made)()

    monkeypatch.setattr(tool, "pictures", pictures)
    root = tmp_path / "frames"
    assert_changed(ask(video, root, f"--backend={backend}"))
    assert [path for path in kept(root) if path.name != "index.bin"] == []


def test_what_is_wrong_is_said_and_the_next_call_gives_the_new_videos_frames(
    video: Path, other: Path, tmp_path: Path
) -> None:
    opened = open_video(video)
    overwrite(video, other)
    with pytest.raises(VideoError, match=CHANGED):
        list(opened.frames([3], lambda rgb: rgb))
    reply = ask(video, tmp_path / "frames")["ok"]
    assert isinstance(reply, dict)
    pictures = [read_picture(path) for path in reply["frames"]]
    assert [read_number(picture) for picture in pictures] == reply["indices"]
    assert max(reply["indices"]) == 19


def test_a_link_that_is_switched_to_and_fro_gives_frames_of_the_file_that_was_looked_at(
    video: Path, other: Path, tmp_path: Path
) -> None:
    link, switched = tmp_path / "link.mp4", tmp_path / "switched.mp4"
    link.symlink_to(video)
    identity = Identity.of(link)
    with open_container(link, identity) as container:
        switched.symlink_to(other)
        switched.replace(link)
        assert sum(1 for _ in packets_of(container, container.streams.video[0])) == 60
    with pytest.raises(VideoError, match=r"link\.mp4 was changed"), open_container(link, identity):
        pass
