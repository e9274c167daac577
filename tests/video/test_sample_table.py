"""What the table of an MP4 says of its packets is what reading them says."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from corpus import CORPUS, Encoded, full_decode, h264, named
from videos import Recipe, encode, open_av

from eva.errors import VideoError
from eva.video import decode_pyav, gaps
from eva.video.container import Identity
from eva.video.decode_pyav import Clock, read_index
from eva.video.gaps import WINDOW_BYTES, H264Numbers
from eva.video.packets import VideoIndex, packets_of
from eva.video.sample_table import listed_notes

GOLDEN = Path(__file__).parents[1] / "golden" / "videos"
CLIP = h264("h264-faststart.mov", container_options={"movflags": "faststart"})
# Nothing is listed, packets are cut off by an edit list, and a length of one frame.
NOT_LISTED = ("fragmented", "edit-list", "one-frame")
LISTED = [
    recipe
    for recipe in CORPUS
    if recipe.codec == "libx264"
    and recipe.name.endswith((".mp4", ".mov"))
    and not any(word in recipe.name for word in NOT_LISTED)
]
Result = VideoIndex | str


@pytest.fixture
def by_packets(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Result]:
    """What reading every packet gives."""

    def read(path: Path) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr(decode_pyav, "listed_notes", lambda *_: None)
            return index_of(path)

    return read


def index_of(path: Path) -> Result:
    """The index of a video; for a file that has none, why."""
    try:
        return read_index(path, Identity.of(path), recount=False, by_time=False)
    except VideoError as error:
        return str(error)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each video that was read whether its table was believed."""
    believed: list[bool] = []

    def noted(*arguments: Any) -> object:
        found = listed_notes(*arguments)
        believed.append(found is not None)
        return found

    monkeypatch.setattr(decode_pyav, "listed_notes", noted)
    return believed


@named(CORPUS)
def test_the_index_is_the_same_by_the_table_and_by_the_packets(
    encoded: Encoded, recipe: Recipe, by_packets: Callable[[Path], Result], listed: list[bool]
) -> None:
    path = encoded(recipe)
    assert index_of(path) == by_packets(path)
    assert listed == [recipe in LISTED]


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_the_index_of_a_measured_video_is_the_same_both_ways(name: str, by_packets: Callable[[Path], Result]) -> None:
    assert index_of(GOLDEN / name) == by_packets(GOLDEN / name)


def stamped_anew(source: Path, target: Path, lost: set[int]) -> Path:
    """A copy without some packets whose times are as even as if none were missing: the frames are all in file order."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = read.streams.video[0]
        copied = write.add_stream_from_template(stream, opaque=True)
        kept = [packet for place, packet in enumerate(packets_of(read, stream)) if place not in lost]
        for place, packet in enumerate(kept):
            packet.pts = packet.dts = place * 512
            packet.duration, packet.stream = 512, copied
            write.mux(packet)
    return target


@pytest.mark.parametrize("lost", [set(), {31}, {20, 41}], ids=str)
def test_a_lost_packet_is_noticed_though_the_times_do_not_show_it(
    encoded: Encoded, tmp_path: Path, lost: set[int], listed: list[bool]
) -> None:
    source = encoded(h264("h264-no-b-frames.mp4", options={"g": "200", "bf": "0", "preset": "veryfast"}))
    path = stamped_anew(source, tmp_path / "anew.mp4", lost)
    video, owed = open_av(path), full_decode(path)
    assert (video.gap, listed) == (bool(lost), [not lost])
    assert all(np.array_equal(rgb, owed[index]) for index, rgb in video.frames(range(len(owed)), lambda rgb: rgb))


def spoilt(data: bytes, chance: random.Random) -> bytes:
    """A file whose list of packets has one to three wrong bytes or numbers."""
    changed = bytearray(data)
    table = chance.choice([b"stts", b"ctts", b"stss", b"stsz", b"stsc", b"stco", b"elst", b"avcC", b"mdat"])
    begin = data.index(table)
    end = begin + struct.unpack(">I", data[begin - 4 : begin])[0] - 8
    for _ in range(chance.choice([1, 1, 3])):
        if chance.random() < 0.5:
            changed[chance.randrange(begin, end)] = chance.randrange(256)
        else:
            at = begin + 4 * chance.randrange((end - begin) // 4)
            changed[at : at + 4] = struct.pack(
                ">I", chance.choice([0, 1, 2, 511, 513, 1 << 28, 1 << 31, (1 << 32) - 1])
            )
    return bytes(changed)


def test_a_spoilt_table_gives_what_the_packets_give(
    encoded: Encoded, tmp_path: Path, by_packets: Callable[[Path], Result], listed: list[bool]
) -> None:
    data, path = encoded(CLIP).read_bytes(), tmp_path / "spoilt.mov"
    for seed in range(150):
        path.write_bytes(spoilt(data, random.Random(seed)))
        assert index_of(path) == by_packets(path), seed
    assert 20 < sum(listed) < 120


def test_where_another_track_is_cut_off_the_video_is_whole(
    tmp_path: Path, by_packets: Callable[[Path], Result]
) -> None:
    path = tmp_path / "two.mp4"
    encode(CLIP, tmp_path)
    with av.open(str(tmp_path / CLIP.name)) as read, av.open(str(path), "w") as write:
        origin = read.streams.video[0]
        copies = [write.add_stream_from_template(origin, opaque=True) for _ in range(2)]
        for packet in packets_of(read, origin):
            for copied in copies:
                again = av.Packet(bytes(packet))
                again.pts, again.dts, again.time_base, again.duration = (
                    packet.pts, packet.dts, packet.time_base, packet.duration
                )  # fmt: skip
                again.is_keyframe, again.stream = packet.is_keyframe, copied
                write.mux(again)
    data = bytearray(path.read_bytes())
    last = data.rindex(b"stco")
    data[last + 12 : last + 16] = struct.pack(">I", 2**31)
    path.write_bytes(data)
    assert open_av(path).timeline.count == 60
    assert open_av(path).index == by_packets(path)
    assert len(list(open_av(path).frames(range(60), lambda rgb: rgb))) == 60


def test_a_video_of_very_many_frames_is_opened_by_one_decoder_at_a_time(
    encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encoded(CLIP)
    owed = full_decode(path)
    monkeypatch.setattr(decode_pyav, "MAX_LISTED", 60)
    monkeypatch.setattr(decode_pyav, "in_turns", None)
    for index, rgb in open_av(path).frames([3, 25, 59], lambda rgb: rgb):
        assert np.array_equal(rgb, owed[index])


# --- numbers, one by one and all at once


def slices(chance: random.Random, numbers: H264Numbers) -> Iterator[bytes]:
    """First slices as an encoder writes them, and some with escapes, long numbers, and ends that come too early."""
    for _ in range(3000):
        kind = bytes([chance.choice([0x65, 0x41, 0x41, 0x01, 0x21])])
        if chance.random() < 0.7:
            number = chance.randrange(1 << numbers.frame_num_bits)
            bits = f"1{chance.choice(['00111', '00110', '1'])}1{number:0{numbers.frame_num_bits}b}".ljust(200, "1")
            yield kind + int(bits, 2).to_bytes(25, "big")
        else:
            count = chance.choice([3, 9, 12, 40])
            yield kind + bytes(chance.choice([0, 0, 0, 1, 3, 0x80, chance.randrange(256)]) for _ in range(count))


@pytest.mark.parametrize(("frame_num_bits", "plane_bits"), [(4, 0), (9, 2), (16, 0)])
def test_the_number_of_a_slice_is_the_same_read_alone_and_with_others(frame_num_bits: int, plane_bits: int) -> None:
    numbers = H264Numbers(frame_num_bits, plane_bits)
    units = list(slices(random.Random(0), numbers))
    heads = b"".join(unit[:WINDOW_BYTES].ljust(WINDOW_BYTES, b"\0") for unit in units)
    together, known = numbers._read_all(
        np.frombuffer(heads, np.uint8).reshape(-1, WINDOW_BYTES), np.array([len(unit) for unit in units])
    )
    assert 0.6 < known.mean() < 1
    assert [together[place] for place in np.flatnonzero(known)] == [
        numbers._read(units[place]) for place in np.flatnonzero(known)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_a_gap_is_found_whether_slices_are_noted_alone_or_with_others(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, units, number = random.Random(seed), [], 0
    for _ in range(300):
        kind = chance.choice([0x65, 0x41, 0x41, 0x41, 0x01])
        number = 0 if kind == 0x65 else (number + (kind > 1)) % 16
        units.append(bytes([kind]) + int(f"111{number:04b}".ljust(80, "1"), 2).to_bytes(10, "big"))
    lost = [unit for place, unit in enumerate(units) if place != 150 + seed]
    referred_to = units[150 + seed][0] == 0x41 and units[151 + seed][0] != 0x65
    for at_once in (1, 7, 4096):
        monkeypatch.setattr(gaps, "NOTED_AT_ONCE", at_once)
        found = []
        for kept in (units, lost):
            numbers = H264Numbers(4, 0)
            for unit in kept:
                numbers.note(unit)
            found.append(numbers.gap)
        assert found == [False, referred_to]


@pytest.mark.parametrize("highest", [10**6, 2**52, 2**60])
def test_a_time_is_the_same_alone_and_with_others(highest: int) -> None:
    clock = Clock(Fraction(1001, 30000), start_pts=41, average_fps=None, sure=True, by_time=False, delay_s=None)
    pts = sorted(random.Random(highest).sample(range(highest), 1000))
    assert list(clock.all_seconds(np.array(pts, np.int64))) == [clock.seconds(time) for time in pts]
