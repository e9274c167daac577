"""Damaged archives give an error of their own."""

from __future__ import annotations

import contextlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.dataset.hub import DamagedError
from eva.dataset.videos import take, tar_members, zip_members


def take_all(archive: bytes, folder: Path) -> None:
    members = zip_members if archive.startswith(b"PK") else tar_members
    for member in members(io.BytesIO(archive)):
        take(member, folder / "part", folder / "video.mp4")


def a_tar(*sizes: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number, size in enumerate(sizes):
            info = tarfile.TarInfo(f"videos/{number}.mp4")
            info.size = size
            archive.addfile(info, io.BytesIO(bytes([number]) * size))
    return file.getvalue()


def a_zip(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.mp4", content)
    return file.getvalue()


def changed(whole: bytes, places: dict[bytes, int], value: bytes) -> bytes:
    """With `value` so many bytes behind each of the signatures."""
    content = bytearray(whole)
    for signature, place in places.items():
        start = content.index(signature) + place
        content[start : start + len(value)] = value
    return bytes(content)


LOCAL, DIRECTORY = b"PK\3\4", b"PK\1\2"
ZIP = a_zip(bytes(5000))
DAMAGED = {
    "encrypted": changed(ZIP, {LOCAL: 6, DIRECTORY: 8}, b"\1"),
    "smaller than it is": changed(ZIP, {DIRECTORY: 24}, (10).to_bytes(4, "little")),
    "unknown method": changed(ZIP, {LOCAL: 8, DIRECTORY: 10}, b"\x63"),
    "cut zip": ZIP[:-30],
    "cut tar": a_tar(5000)[:2000],
    "no archive": b"PK",
}


@pytest.mark.parametrize("archive", DAMAGED.values(), ids=DAMAGED)
def test_an_archive_that_cannot_be_read_is_an_error(tmp_path, archive):
    with pytest.raises(DamagedError, match="it is damaged: "):
        take_all(archive, tmp_path)


@given(
    whole=st.sampled_from([a_zip(bytes(700), method) for method in (0, 8, 14)] + [a_tar(700, 90)]),
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=4),
    end=st.just(0) | st.integers(0, 1 << 20),
)
def test_no_damage_of_an_archive_is_another_error_than_that_of_an_archive(tmp_path_factory, whole, changes, end):
    folder = tmp_path_factory.mktemp("damaged")
    damaged = bytearray(whole)
    for place, byte in changes:
        damaged[place % len(damaged)] = byte
    with contextlib.suppress(DamagedError):
        take_all(bytes(damaged[: end % len(damaged)] or damaged), folder)


def test_an_archive_without_a_video_is_whole():
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    assert list(zip_members(empty)) == []
