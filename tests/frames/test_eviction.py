"""What is evicted and what stays, who makes a frame, and what counts as a whole file: without any video."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from harness import ROOT, wait_until

from eva.frames import eviction
from eva.frames.eviction import Evictor, stored_files
from eva.frames.store import fill, write_whole
from eva.video.picture import encode, whole_size

SIDE = 8
SIZE = (SIDE, SIDE)
BOOTED_AT = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def old_frames(root: Path, count: int, *, size: int = 100, age_s: float = 1000) -> list[Path]:
    """Frames of `size` bytes, the first one used longest ago."""
    folder = root / "store" / "video" / "8x8-av"
    folder.mkdir(parents=True, exist_ok=True)
    frames = [folder / f"{number:07d}.png" for number in range(count)]
    for number, frame in enumerate(frames):
        frame.write_bytes(b"x" * size)
        os.utime(frame, (time.time() - age_s + number / 1000,) * 2)
    return frames


def there(frames: Sequence[Path]) -> list[bool]:
    return [frame.exists() for frame in frames]


def kept(frames: Sequence[Path]) -> int:
    """How many are left; those used longest ago must have gone first."""
    assert there(frames) == sorted(there(frames))
    return sum(there(frames))


# --- how much is evicted


def test_a_store_at_its_cap_stays_and_one_byte_above_it_a_step_more_goes(tmp_path: Path) -> None:
    frames = old_frames(tmp_path, 100, size=10)
    Evictor(tmp_path, 1000).start()
    assert kept(frames) == 100
    Evictor(tmp_path, 999).start()
    assert kept(frames) == 94, "95 % of the cap are 949 bytes"


def test_one_run_keeps_to_its_cap_and_lists_the_store_only_where_it_may_be_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Path] = []

    def note(root: Path) -> list[eviction.StoredFile]:
        listed.append(root)
        return stored_files(root)

    monkeypatch.setattr(eviction, "stored_files", note)
    evictor = Evictor(tmp_path, 10_000)
    evictor.start()
    folder = old_frames(tmp_path, 1)[0].parent
    for number in range(1000):
        frame = folder / f"new-{number:04d}.png"
        frame.write_bytes(b"x" * 100)
        os.utime(frame, (time.time() - 1000 + number / 1000,) * 2)
        evictor.count_written(100)
        assert sum(file.size for file in stored_files(tmp_path)) <= 10_100
    assert len(listed) < 250


def test_on_a_full_disk_a_quarter_goes_once_per_failure_though_the_store_is_below_its_cap(tmp_path: Path) -> None:
    frames = old_frames(tmp_path, 16, age_s=100)
    evictor = Evictor(tmp_path, 10**9)
    failed_at = time.monotonic()
    evictor.make_room(failed_at)
    assert kept(frames) == 12
    evictor.make_room(failed_at)
    assert kept(frames) == 12
    evictor.make_room(time.monotonic())
    assert kept(frames) == 9


@pytest.mark.parametrize(("age_s", "left"), [(0, 8), (4, 8), (10, 6)])
def test_on_a_full_disk_frames_of_the_last_minute_go_where_nothing_else_helps(
    tmp_path: Path, age_s: float, left: int
) -> None:
    old, young = old_frames(tmp_path / "old", 8, age_s=100), old_frames(tmp_path, 8, age_s=age_s)
    Evictor(tmp_path, 10**9).make_room(time.monotonic())
    assert kept(young) == left
    frames = [frame.rename(young[0].parent / f"old-{frame.name}") for frame in old]
    Evictor(tmp_path, 10**9).make_room(time.monotonic())
    assert (kept(young), kept(frames) < 8) == (left, True)


def test_a_time_in_the_future_counts_as_old_but_not_where_clocks_differ_a_little(tmp_path: Path) -> None:
    frames = old_frames(tmp_path, 3, age_s=-5000)
    os.utime(frames[2], (time.time() + 30,) * 2)
    Evictor(tmp_path, 250).start()
    assert there(frames)[2]
    Evictor(tmp_path, 1).start()
    assert there(frames) == [False, False, True]


def test_frames_of_every_format_and_half_written_ones_count_and_nothing_else_does(tmp_path: Path) -> None:
    folder = old_frames(tmp_path, 1)[0].parent
    for name in ("1.bmp", ".3.png.77.partial", "index-1.npz", "notes.txt"):
        (folder / name).write_bytes(b"12345")
    found = {file.path.name: file.size for file in stored_files(tmp_path)}
    assert found == {"0000000.png": 100, "1.bmp": 5, ".3.png.77.partial": 5}


def test_what_a_killed_process_left_half_written_is_removed_by_a_later_run_whatever_the_cap(tmp_path: Path) -> None:
    folder = old_frames(tmp_path, 1)[0].parent
    young, old, index = (folder / f".{name}.7.partial" for name in ("1.png", "2.png", "index.npz"))
    for path, hours in ((young, 0.9), (old, 1.1), (index, 7)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - hours * 3600,) * 2)
    Evictor(tmp_path, 10**9).start()
    assert there([young, old, index]) == [True, False, False]


# --- what running samples need


def test_frames_of_a_running_sample_stay_until_all_samples_that_use_them_are_over(tmp_path: Path) -> None:
    frames = old_frames(tmp_path, 4)
    evictor = Evictor(tmp_path, 1, settled_s=0)
    assert evictor.hold(1, frames[:2])
    assert evictor.hold(1, frames[1:2])
    assert evictor.hold(2, frames[1:3])
    evictor.make_room(time.monotonic())
    assert there(frames) == [True, True, True, False]
    evictor.release(1)
    evictor.make_room(time.monotonic())
    assert there(frames) == [False, True, True, False]
    evictor.close()
    evictor.make_room(time.monotonic())
    assert not any(there(frames))


def test_holding_a_frame_that_is_gone_says_so_also_of_an_earlier_call(tmp_path: Path) -> None:
    frames = old_frames(tmp_path, 2)
    evictor = Evictor(tmp_path, 1)
    assert not evictor.hold(1, [tmp_path / "store" / "gone.png"])
    assert evictor.hold(2, frames[:1])
    frames[0].unlink()
    assert not evictor.hold(2, frames[1:])


HOLDER = """
import sys, time
from pathlib import Path
from eva.frames.eviction import Evictor
evictor = Evictor(Path(sys.argv[1]), 10**9)
evictor.start()
evictor.hold(1, [Path(sys.argv[2])])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.process
def test_a_run_renews_the_frames_of_its_running_samples_until_it_ends(tmp_path: Path) -> None:
    frames = old_frames(tmp_path, 2)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path, frames[1]], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    os.utime(frames[1], (time.time() - 1000,) * 2)
    wait_until(lambda: frames[1].stat().st_mtime > time.time() - 100)
    other = Evictor(tmp_path, 1)
    other.make_room(time.monotonic())
    assert there(frames) == [False, True]
    holder.kill()
    holder.communicate()
    os.utime(frames[1], (time.time() - 61,) * 2)
    other.make_room(time.monotonic())
    assert not frames[1].exists()


def test_a_frame_that_is_used_after_the_store_was_listed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = old_frames(tmp_path, 2)

    def list_then_use(root: Path) -> list[eviction.StoredFile]:
        found = stored_files(root)
        os.utime(frames[1])
        return found

    monkeypatch.setattr(eviction, "stored_files", list_then_use)
    Evictor(tmp_path, 1).start()
    assert there(frames) == [False, True]


def test_a_frame_that_is_held_while_another_thread_evicts_is_not_lost(tmp_path: Path) -> None:
    frames = old_frames(tmp_path, 400)
    evictor = Evictor(tmp_path, cap_bytes=100)
    evicting = threading.Thread(target=evictor.count_written, args=(0,))
    evicting.start()
    held = [frame for number, frame in enumerate(reversed(frames)) if evictor.hold(number, [frame])]
    evicting.join()
    assert all(there(held))


# --- who makes a frame


def picture(number: int, *, side: int = SIDE) -> bytes:
    return encode(np.full((side, side, 3), number, np.uint8), "png")


def make(indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    return ((index, picture(index)) for index in indices)


def paths(root: Path, *indices: int) -> dict[int, Path]:
    return {index: root / "frames" / f"{index}.png" for index in indices}


def test_each_missing_frame_is_made_once_in_ascending_order(tmp_path: Path) -> None:
    asked: list[list[int]] = []

    def note(indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        asked.append(list(indices))
        return make(indices)

    frames = paths(tmp_path, 5, 1, 3)
    assert fill(frames, SIZE, note) == (3, sum(path.stat().st_size for path in frames.values()))
    assert fill(paths(tmp_path, 1, 2, 5), SIZE, note) == (1, len(picture(2)))
    assert fill(paths(tmp_path, 1, 2, 5), SIZE, note) == (0, 0)
    assert asked == [[1, 3, 5], [2]]
    assert {path.name for path in frames[1].parent.iterdir()} == {f"{n}.png" for n in (1, 2, 3, 5)}


def spoil_none(path: Path) -> None:
    path.write_bytes(b"")


def spoil_size(path: Path) -> None:
    path.write_bytes(picture(1, side=SIDE + 1))


def age_beyond_boot(path: Path) -> None:
    os.utime(path, (BOOTED_AT - 10,) * 2)


@pytest.mark.parametrize("spoil", [spoil_none, spoil_size, age_beyond_boot])
def test_a_frame_that_cannot_be_believed_is_made_again(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    frames = paths(tmp_path, 1, 2, 3)
    fill(frames, SIZE, make)
    spoil(frames[1])
    assert fill(frames, SIZE, make)[0] == 1
    assert whole_size(frames[1]) == SIZE


def test_a_frame_that_is_used_again_is_as_young_as_a_new_one(tmp_path: Path) -> None:
    frames = paths(tmp_path, 1)
    fill(frames, SIZE, make)
    used_at = max(BOOTED_AT + 1, time.time() - 100)
    os.utime(frames[1], (used_at,) * 2)
    fill(frames, SIZE, make)
    assert frames[1].stat().st_mtime > used_at


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
    assert write_whole(files(broken=False)) == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"one": b"1", "two": b"22"}


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
