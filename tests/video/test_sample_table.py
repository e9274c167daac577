"""What `moov` of an MP4 says of its packets is what reading them says."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from corpus import CORPUS, Encoded, full_decode, h264, named
from videos import Recipe, open_av

from eva.errors import VideoError
from eva.video import decode, index
from eva.video.container import Source, open_stream
from eva.video.index import VideoIndex, read_index
from eva.video.sample_table import listed_packets

GOLDEN = Path(__file__).parents[1] / "golden" / "videos"
CLIP = h264("h264-faststart.mov", container_options={"movflags": "faststart"})
Result = VideoIndex | str


@pytest.fixture
def by_packets(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Result]:
    """What reading every packet gives."""

    def read(path: Path) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr(index, "listed_packets", lambda *_: None)
            return index_of(path)

    return read


def index_of(path: Path) -> Result:
    """The index of a video; for a file that has none, why."""
    try:
        with open_stream(path) as video:
            return read_index(video, recount=False, by_time=False)
    except VideoError as error:
        return str(error)


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each reading gave."""
    counts: list[int] = []
    read = Source.read

    def counted(source: Source, size: int) -> bytes:
        data = read(source, size)
        counts.append(len(data))
        return data

    monkeypatch.setattr(Source, "read", counted)
    return counts


# Nothing is listed, packets are cut off by an edit list, or they may be hidden.
NOT_LISTED = ("fragmented", "edit-list")


@named([*CORPUS, h264("h264-negative.mp4", container_options={"movflags": "negative_cts_offsets"})])
def test_the_index_is_the_same_by_the_table_and_by_the_packets(
    encoded: Encoded, recipe: Recipe, by_packets: Callable[[Path], Result]
) -> None:
    path = encoded(recipe)
    with open_stream(path) as video:
        listed = listed_packets(video) is not None
    in_mp4 = recipe.name.endswith((".mp4", ".mov"))
    assert listed == (in_mp4 and not any(word in recipe.name for word in NOT_LISTED))
    assert index_of(path) == by_packets(path)


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_the_index_of_a_measured_video_is_the_same_both_ways(name: str, by_packets: Callable[[Path], Result]) -> None:
    assert index_of(GOLDEN / name) == by_packets(GOLDEN / name)


def test_of_a_listed_video_little_is_read_before_its_first_frame(encoded: Encoded, read_bytes: list[int]) -> None:
    path = encoded(h264("large.mp4", width=640, height=480, options={"qp": "1", "preset": "ultrafast"}))
    index_of(path)
    assert path.stat().st_size > 5_000_000
    assert sum(read_bytes) < 600_000


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


def test_a_spoilt_table_gives_an_index_or_an_error_of_the_video(encoded: Encoded, tmp_path: Path) -> None:
    data, path = encoded(CLIP).read_bytes(), tmp_path / "spoilt.mov"
    for seed in range(60):
        path.write_bytes(spoilt(data, random.Random(seed)))
        index_of(path)


def test_a_video_of_very_many_frames_is_opened_by_one_decoder_at_a_time(
    encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encoded(CLIP)
    owed = full_decode(path)
    monkeypatch.setattr(decode, "MAX_LISTED", 60)
    monkeypatch.setattr(decode, "at_once", None)
    for place, rgb in open_av(path).frames([3, 25, 59], lambda rgb: rgb):
        assert np.array_equal(rgb, owed[place])
