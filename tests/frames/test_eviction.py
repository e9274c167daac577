"""What is evicted and what a lock covers, who makes a frame, and what counts as a whole file: without any video."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from disks import small_disk
from harness import ROOT

from eva.frames import store_size
from eva.frames.eviction import MAX_DEFAULT_BYTES, Evictor, _byte_of, default_cap, stored_files
from eva.frames.store import FillCost, FrameFolder, booted_at, video_folder, write_whole
from eva.frames.store_size import SizeFile, locked_size
from eva.video.container import VideoFile
from eva.video.picture import encode, whole_size

EVICTOR = "from eva.frames.eviction import Evictor; "
HOLDER = EVICTOR + "it = Evictor(Path(sys.argv[1]), 1); assert it.hold(1, [*map(Path, sys.argv[2:])])"
SIDE = 8


def fill(root: Path, count: int, *, size: int = 100, age_s: float = 1000) -> list[Path]:
    """Frames of `size` bytes, the first one used longest ago."""
    folder = root / "store" / "video" / "8x8-av"
    folder.mkdir(parents=True, exist_ok=True)
    frames = [folder / f"{number:07d}.png" for number in range(count)]
    for number, frame in enumerate(frames):
        frame.write_bytes(b"x" * size)
        os.utime(frame, (time.time() - age_s + number / 1000,) * 2)
    return frames


def kept(frames: Sequence[Path]) -> int:
    """How many are left; those used longest ago must have gone first."""
    there = [frame.exists() for frame in frames]
    assert there == sorted(there)
    return sum(there)


def size_file(root: Path) -> Path:
    return root / "store" / "size"


def command(code: str, *words: object) -> list[str]:
    return [sys.executable, "-c", f"import sys; from pathlib import Path; {code}", *map(str, words)]


def evict_elsewhere(root: Path) -> None:
    """Another run evicts all that it may."""
    code = EVICTOR + "Evictor(Path(sys.argv[1]), 1, settled_s=0).count_written(10**9)"
    subprocess.run(command(code, root), cwd=ROOT, check=True, timeout=60)


@contextmanager
def another_process(code: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has said "ready" and then waits for its end."""
    full = f"{code}; print('ready', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        command(full, *words), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


# --- how much is evicted


def test_a_store_at_its_cap_stays_and_one_byte_above_it_a_step_more_goes(tmp_path: Path) -> None:
    frames = fill(tmp_path, 100, size=10)
    Evictor(tmp_path, 1000).count_written(0)
    assert kept(frames) == 100
    size_file(tmp_path).unlink()
    Evictor(tmp_path, 999).count_written(0)
    assert kept(frames) == 94, "95 % of the cap are 949 bytes"
    assert int(size_file(tmp_path).read_bytes()) == 940


def test_the_store_is_listed_only_when_the_known_size_is_above_the_cap(tmp_path: Path) -> None:
    frames = fill(tmp_path, 20)
    size_file(tmp_path).write_bytes(b"%020d" % 900)
    evictor = Evictor(tmp_path, 1000)
    evictor.count_written(100)
    assert kept(frames) == 20
    assert int(size_file(tmp_path).read_bytes()) == 1000
    evictor.count_written(1)
    assert kept(frames) == 9
    evictor.count_written(0)
    assert int(size_file(tmp_path).read_bytes()) == 900, "each byte is counted once"


def test_a_store_above_its_cap_is_cut_before_the_first_call(tmp_path: Path) -> None:
    frames = fill(tmp_path, 20)
    Evictor(tmp_path, 1000).start()
    assert kept(frames) == 9


def test_a_store_that_was_just_below_its_cap_does_not_grow_beyond_it(tmp_path: Path) -> None:
    fill(tmp_path, 98, size=10)
    evictor = Evictor(tmp_path, 1000)
    evictor.start()
    frames = fill(tmp_path, 101, size=10)
    evictor.count_written(30)
    assert kept(frames) == 95


def test_a_store_whose_size_nobody_knows_is_listed(tmp_path: Path) -> None:
    frames = fill(tmp_path, 20)
    size_file(tmp_path).write_bytes(b"12")
    Evictor(tmp_path, 1000).count_written(0)
    assert kept(frames) == 9


def test_where_samples_hold_most_frames_the_store_is_listed_again_after_a_step(tmp_path: Path) -> None:
    frames = fill(tmp_path, 20)
    evictor = Evictor(tmp_path, 1000)
    evictor.hold(1, frames)
    evictor.count_written(0)
    evictor.release(1)
    evictor.count_written(50)
    assert kept(frames) == 20
    evictor.count_written(1)
    assert kept(frames) == 9
    evictor.count_written(50)
    assert int(size_file(tmp_path).read_bytes()) == 950


@pytest.mark.process
def test_what_is_written_while_another_run_holds_the_size_is_counted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_size, "LOCK_TIMEOUT_S", 0.1)
    fill(tmp_path, 1)
    size_file(tmp_path).write_bytes(b"%020d" % 100)
    evictor = Evictor(tmp_path, 1000)
    hold = "from eva.frames.store_size import locked_size; lock = locked_size(Path(sys.argv[1])); lock.__enter__()"
    with another_process(hold, size_file(tmp_path)):
        evictor.count_written(20)
        evictor.count_written(3)
        assert int(size_file(tmp_path).read_bytes()) == 100
    evictor.count_written(1)
    evictor.count_written(0)
    assert int(size_file(tmp_path).read_bytes()) == 124


def test_on_a_full_disk_a_quarter_goes_once_per_failure_though_the_store_is_below_its_cap(tmp_path: Path) -> None:
    frames = fill(tmp_path, 16, age_s=10)
    evictor = Evictor(tmp_path, 10**9)
    failed_at = time.monotonic()
    evictor.make_room(failed_at)
    assert kept(frames) == 12, "though they were used in the last minute"
    evictor.make_room(failed_at)
    assert kept(frames) == 12
    evictor.make_room(time.monotonic())
    assert kept(frames) == 9


def test_on_a_full_disk_a_frame_of_this_moment_stays(tmp_path: Path) -> None:
    frames = fill(tmp_path, 4, age_s=0)
    Evictor(tmp_path, 1).make_room(time.monotonic())
    assert kept(frames) == 4


def test_on_a_full_disk_a_store_above_its_cap_is_cut_to_its_cap(tmp_path: Path) -> None:
    frames = fill(tmp_path, 20)
    Evictor(tmp_path, 1000).make_room(time.monotonic())
    assert kept(frames) == 9


def test_without_a_cap_half_of_the_room_is_taken_where_stored_frames_count_as_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert default_cap(tmp_path, 10**15) == MAX_DEFAULT_BYTES
    assert default_cap(tmp_path, 10**11) >= 10**11 // 2
    assert default_cap(tmp_path, 0) < 0.75 * shutil.disk_usage(tmp_path).free
    evictor = Evictor(tmp_path, None)
    with caplog.at_level("INFO", "eva"):
        evictor.start()
    assert len(caplog.messages) == 1
    assert evictor.cap_bytes is not None
    assert 0 < evictor.cap_bytes <= MAX_DEFAULT_BYTES
    evictor.start()


def test_frames_of_every_format_and_half_written_ones_count_and_nothing_else_does(tmp_path: Path) -> None:
    folder = fill(tmp_path, 1)[0].parent
    for name in ("1.bmp", "2.ppm", ".3.png.77.partial", "index.bin", ".claims", "notes.txt"):
        (folder / name).write_bytes(b"12345")
    found = {file.path.name: file.size for file in stored_files(tmp_path)}
    assert found == {"0000000.png": 100, "1.bmp": 5, "2.ppm": 5, ".3.png.77.partial": 5}


def test_a_half_written_frame_goes_six_hours_later(tmp_path: Path) -> None:
    folder = fill(tmp_path, 1)[0].parent
    young, old = folder / ".1.png.7.partial", folder / ".2.png.7.partial"
    for path, hours in ((young, 5.9), (old, 6.1)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - hours * 3600,) * 2)
    Evictor(tmp_path, 1).count_written(0)
    assert [path.exists() for path in (young, old)] == [True, False]
    assert int(size_file(tmp_path).read_bytes()) == 4


# --- what a lock covers


@pytest.mark.process
def test_a_frame_that_two_samples_hold_stays_for_other_runs_until_both_are_over(tmp_path: Path) -> None:
    frames = fill(tmp_path, 3)
    evictor = Evictor(tmp_path, 1)
    evictor.hold(1, [frames[0], frames[1]])
    evictor.hold(1, [frames[1]])
    evictor.hold(2, [frames[1]])
    evict_elsewhere(tmp_path)
    assert [frame.exists() for frame in frames] == [True, True, False]
    evictor.release(1)
    evict_elsewhere(tmp_path)
    assert [frame.exists() for frame in frames] == [False, True, False]
    evictor.count_written(0)
    assert frames[1].exists()
    evictor.release(2)
    evict_elsewhere(tmp_path)
    assert not frames[1].exists()


@pytest.mark.process
def test_a_sample_that_is_played_again_holds_its_frames_again(tmp_path: Path) -> None:
    frames = fill(tmp_path, 2)
    evictor = Evictor(tmp_path, 1)
    evictor.hold(1, frames[:1])
    evictor.release(1)
    evictor.release(1)
    evictor.hold(1, frames[:1])
    evict_elsewhere(tmp_path)
    assert [frame.exists() for frame in frames] == [True, False]


@pytest.mark.process
def test_a_run_that_closes_its_tool_holds_nothing_any_more(tmp_path: Path) -> None:
    frames = fill(tmp_path, 1)
    evictor = Evictor(tmp_path, 1)
    evictor.hold(1, frames)
    evictor.close()
    evict_elsewhere(tmp_path)
    assert not frames[0].exists()
    frames = fill(tmp_path, 2)
    assert evictor.hold(1, frames[:1]), "it can be used again"
    evict_elsewhere(tmp_path)
    assert [frame.exists() for frame in frames] == [True, False]
    assert not evictor.hold(2, frames), "one of them is gone"


@pytest.mark.process
def test_holding_one_frame_keeps_no_other_one(tmp_path: Path) -> None:
    frames = fill(tmp_path, 20)
    first, *others = sorted(frames, key=_byte_of)
    with another_process(HOLDER, tmp_path, first):
        Evictor(tmp_path, 1).count_written(0)
        assert first.exists()
        assert not any(frame.exists() for frame in others)


@pytest.mark.process
def test_two_runs_hold_the_same_frame_at_the_same_time(tmp_path: Path) -> None:
    frames = fill(tmp_path, 1)
    with another_process(HOLDER, tmp_path, *frames):
        second = subprocess.run(command(HOLDER, tmp_path, *frames), cwd=ROOT, timeout=60, check=False)
    assert second.returncode == 0


@pytest.mark.process
def test_a_frame_that_was_evicted_and_made_again_can_be_held_by_any_run(tmp_path: Path) -> None:
    frames = fill(tmp_path, 20)
    evictor = Evictor(tmp_path, 1)
    evictor.count_written(0)
    assert kept(frames) == 0
    fill(tmp_path, 20)
    holder = subprocess.run(command(HOLDER, tmp_path, *frames), cwd=ROOT, timeout=60, check=False)
    assert holder.returncode == 0


def test_each_frame_has_a_byte_of_its_own_that_a_lock_can_cover() -> None:
    places = {_byte_of(Path(f"/frames/store/video/8x8-av/{number:07d}.bmp")) for number in range(5000)}
    assert len(places) == 5000
    assert 0 <= min(places) < max(places) < 2**63


WHILE_HOLDING: dict[str, Callable[[Evictor, Path], object]] = {
    "hold": lambda evictor, frame: evictor.hold(2, [frame]),
    "release": lambda evictor, frame: evictor.release(1),
    "evict": lambda evictor, frame: evictor.count_written(0),
    "close": lambda evictor, frame: evictor.close(),
}
WHILE_EVICTING: dict[str, Callable[[Evictor, Path], object]] = {
    "start": lambda evictor, frame: evictor.start(),
    "count": lambda evictor, frame: evictor.count_written(0),
    "make room": lambda evictor, frame: evictor.make_room(time.monotonic()),
}


@pytest.mark.parametrize("what", WHILE_HOLDING)
def test_no_two_threads_change_what_is_held_at_the_same_time(tmp_path: Path, what: str) -> None:
    frames = fill(tmp_path, 2)
    evictor = Evictor(tmp_path, 1)
    evictor.hold(1, frames[:1])
    assert_waits(evictor._holding, lambda: WHILE_HOLDING[what](evictor, frames[1]))


@pytest.mark.parametrize("what", WHILE_EVICTING)
def test_no_two_threads_evict_at_the_same_time(tmp_path: Path, what: str) -> None:
    frames = fill(tmp_path, 2)
    evictor = Evictor(tmp_path, 1)
    assert_waits(evictor._evicting, lambda: WHILE_EVICTING[what](evictor, frames[1]))


def assert_waits(lock: threading.Lock, work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    with lock:
        thread.start()
        thread.join(timeout=0.3)
        assert thread.is_alive()
    thread.join(timeout=60)
    assert not thread.is_alive()


# --- who makes a frame


def picture(number: int, *, side: int = SIDE) -> bytes:
    return encode(np.full((side, side, 3), number, np.uint8), "png")


def make(indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    return ((index, picture(index)) for index in indices)


MAKER = (
    "from eva.frames.store import FrameFolder; "
    "folder = FrameFolder(Path(sys.argv[1]), 'png', 8, 8); folder.folder.mkdir(parents=True, exist_ok=True); "
    "claim = folder._claim([int(word) for word in sys.argv[2:]]); claim.__enter__()"
)


def test_each_missing_frame_is_made_once_in_ascending_order(tmp_path: Path) -> None:
    asked: list[list[int]] = []

    def note(indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        asked.append(list(indices))
        return make(indices)

    folder = FrameFolder(tmp_path / "frames", "png", SIDE, SIDE)
    cost = folder.fill([5, 1, 5, 3], note)
    assert asked == [[1, 3, 5]]
    assert cost == FillCost(3, sum(folder.path(index).stat().st_size for index in (1, 3, 5)))
    assert folder.fill([1, 2, 5], note) == FillCost(1, len(picture(2)))
    assert asked == [[1, 3, 5], [2]]
    assert {path.name for path in folder.folder.iterdir()} == {".claims", *(f"000000{n}.png" for n in (1, 2, 3, 5))}


@pytest.mark.process
def test_frames_that_another_process_makes_are_waited_for_last_and_made_where_it_fails(tmp_path: Path) -> None:
    folder = FrameFolder(tmp_path / "frames", "png", SIDE, SIDE)
    asked: list[list[int]] = []
    with another_process(MAKER, folder.folder, 3, 5) as other:

        def note(indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
            asked.append(list(indices))
            other.kill()
            return make(indices)

        cost = folder.fill([2, 3, 4, 5], note)
    assert asked[0] == [2, 4], "at once, though 3 and 5 are claimed"
    assert sorted(index for batch in asked[1:] for index in batch) == [3, 5]
    assert cost == FillCost(4, sum(folder.path(index).stat().st_size for index in (2, 3, 4, 5)))
    assert all(whole_size(folder.path(index)) == (SIDE, SIDE) for index in (2, 3, 4, 5))


@pytest.mark.process
def test_where_others_claimed_all_frames_the_first_is_waited_for_and_not_made_twice(tmp_path: Path) -> None:
    folder = FrameFolder(tmp_path / "frames", "png", SIDE, SIDE)
    asked: list[list[int]] = []

    def note(indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        asked.append(list(indices))
        return make(indices)

    with another_process(MAKER, folder.folder, 7) as first, another_process(MAKER, folder.folder, 8):
        costs: list[FillCost] = []
        thread = threading.Thread(target=lambda: costs.append(folder.fill([7, 8, 9], note)))
        write_whole([(folder.path(9), picture(9))])
        thread.start()
        thread.join(timeout=0.3)
        assert thread.is_alive(), "it waits for 7"
        write_whole([(folder.path(7), picture(7)), (folder.path(8), picture(8))])
        first.kill()
        first.wait()
        thread.join(timeout=0.3)
        assert thread.is_alive(), "it waits for 8, which is still claimed"
    thread.join(timeout=60)
    assert costs == [FillCost()]
    assert asked == []


@pytest.mark.process
def test_a_frame_is_not_made_while_its_claim_lives_though_a_later_one_ended(tmp_path: Path) -> None:
    folder = FrameFolder(tmp_path / "frames", "png", SIDE, SIDE)
    costs: list[FillCost] = []
    with another_process(MAKER, folder.folder, 7):
        with another_process(MAKER, folder.folder, 8):
            thread = threading.Thread(target=lambda: costs.append(folder.fill([7, 8], make)))
            thread.start()
            thread.join(timeout=0.3)
        thread.join(timeout=0.3)
        assert not folder.path(7).exists()
    thread.join(timeout=60)
    assert [cost.decoded for cost in costs] == [2]


def test_a_frame_of_another_size_or_from_before_the_last_boot_is_made_again(tmp_path: Path) -> None:
    folder = FrameFolder(tmp_path / "frames", "png", SIDE, SIDE)
    folder.fill([1, 2, 3], make)
    folder.path(1).write_bytes(picture(1, side=SIDE + 1))
    os.utime(folder.path(2), (booted_at() - 10,) * 2)
    assert folder.fill([1, 2, 3], make).decoded == 2
    assert whole_size(folder.path(1)) == (SIDE, SIDE)


def test_a_frame_that_is_used_again_is_as_young_as_a_new_one(tmp_path: Path) -> None:
    folder = FrameFolder(tmp_path / "frames", "png", SIDE, SIDE)
    folder.fill([1], make)
    used_at = max(booted_at() + 1, time.time() - 100)
    os.utime(folder.path(1), (used_at,) * 2)
    folder.fill([1], make)
    assert folder.path(1).stat().st_mtime > used_at


def test_files_appear_together_and_only_when_all_are_written(tmp_path: Path) -> None:
    def files(*, broken: bool) -> Iterator[tuple[Path, bytes]]:
        yield tmp_path / "one", b"1"
        assert [path.name.endswith(".partial") for path in tmp_path.iterdir()] == [True]
        if broken:
            raise RuntimeError("the second one cannot be made")
        yield tmp_path / "two", b"22"

    with pytest.raises(RuntimeError):
        write_whole(files(broken=True))
    assert list(tmp_path.iterdir()) == []
    assert write_whole(files(broken=False)) == FillCost(2, 3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"one": b"1", "two": b"22"}


def test_a_video_written_anew_or_at_another_place_has_another_folder(tmp_path: Path) -> None:
    video = VideoFile(Path("/videos/a.mp4"), 10, 20)
    others = [replace(video, path=Path("/more/a.mp4")), replace(video, size=11), replace(video, mtime_ns=21)]
    assert len({video_folder(tmp_path, file) for file in (video, *others)}) == 4
    assert video_folder(tmp_path, video).name.startswith("a-")


# --- the size of the store


@pytest.mark.parametrize("text", [b"", b"7", b"1" * 19, b"x" * 20, b"-" + b"1" * 19])
def test_a_size_that_was_not_written_whole_is_not_known(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "size").write_bytes(text)
    with locked_size(tmp_path / "size") as size:
        assert size is not None
        assert size.read() is None


@pytest.mark.parametrize(("written", "read"), [(0, 0), (7, 7), (10**15, 10**15), (-5, 0)])
def test_a_size_that_was_written_is_known(tmp_path: Path, written: int, read: int) -> None:
    (tmp_path / "size").write_bytes(b"9" * 20)
    with locked_size(tmp_path / "size") as size:
        assert size is not None
        size.write(written)
        assert size.read() == read


@pytest.mark.process
def test_on_a_full_disk_the_size_is_not_known(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 2**16) as root:
        file = os.open(root / "size", os.O_RDWR | os.O_CREAT)
        with pytest.raises(OSError, match="No space left"):
            (root / "rest").write_bytes(bytes(2**17))
        SizeFile(file).write(5)
        assert SizeFile(file).read() is None
        os.close(file)


def test_a_size_that_cannot_be_written_for_another_reason_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "size").write_bytes(b"9" * 20)
    file = os.open(tmp_path / "size", os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        SizeFile(file).write(5)
    os.close(file)


@pytest.mark.process
def test_one_run_waits_while_another_one_holds_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_size, "LOCK_TIMEOUT_S", 120)
    hold = "from eva.frames.store_size import locked_size; lock = locked_size(Path(sys.argv[1])); lock.__enter__()"
    got: list[bool] = []

    def take() -> None:
        with locked_size(tmp_path / "size") as size:
            got.append(size is not None)

    thread = threading.Thread(target=take)
    with another_process(hold, tmp_path / "size"):
        thread.start()
        thread.join(timeout=0.3)
        assert got == []
    thread.join(timeout=100)
    assert got == [True]


# --- what is a whole file


@pytest.mark.parametrize(("width", "height"), [(5, 3), (8, 8), (1, 1)])
def test_a_bmp_is_whole_from_the_top_and_from_the_bottom(tmp_path: Path, width: int, height: int) -> None:
    data = encode(np.zeros((height, width, 3), np.uint8), "bmp")
    path = tmp_path / "frame.bmp"
    for signed in (height, -height):
        path.write_bytes(data[:22] + struct.pack("<i", signed) + data[26:])
        assert whole_size(path) == (width, height)
        path.write_bytes(path.read_bytes() + b"\0")
        assert whole_size(path) is None, "a byte too long"
        path.write_bytes(data[:-1])
        assert whole_size(path) is None, "a byte too short"
        path.write_bytes(b"XY" + data[2:])
        assert whole_size(path) is None, "not a BMP"


def test_a_png_without_its_end_and_an_end_without_its_png_are_not_whole(tmp_path: Path) -> None:
    path, data = tmp_path / "frame.png", picture(1)
    for broken in (data + b"\0", b"\0" + data, b"GIF89a" + data, data[:60], b"BM"):
        path.write_bytes(broken)
        assert whole_size(path) is None


def test_two_runs_of_one_process_leave_what_the_other_one_holds(tmp_path: Path) -> None:
    frames = fill(tmp_path, 4)
    first, second, third = (Evictor(tmp_path, 1, settled_s=0) for _ in range(3))
    assert first.hold(0, frames[:2])
    second.count_written(10**9)
    assert [frame.exists() for frame in frames] == [True, True, False, False]
    second.close()  # a lock of the process would end with the first file that it closes
    third.count_written(10**9)
    assert [frame.exists() for frame in frames] == [True, True, False, False]
    first.close()
    third.count_written(10**9)
    assert not any(frame.exists() for frame in frames)
