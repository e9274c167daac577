"""Archives in pieces read as one, and damaged ones give an error and no file."""

from __future__ import annotations

import contextlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.dataset.archives import ArchiveError, Pieces, tar_members, write_whole, zip_members
from eva.dataset.hub import HubFile
from eva.dataset.unpacking import Archive, Notes
from eva.errors import EvaError


def pieces_of(folder: Path, *contents: bytes, position: int = 0) -> Pieces:
    for number, content in enumerate(contents):
        (folder / str(number)).write_bytes(content)
    return Pieces([len(content) for content in contents], lambda number: folder / str(number), position)


def take_all(archive: Pieces, members, folder: Path) -> None:
    for member in members(archive):
        write_whole(member, folder / member.name)


@given(
    contents=st.lists(st.binary(max_size=20), min_size=1, max_size=6),
    reads=st.lists(st.tuples(st.integers(0, 130), st.integers(0, 40)), max_size=6),
)
def test_pieces_read_as_the_file_that_was_cut(tmp_path_factory, contents, reads):
    whole = io.BytesIO(b"".join(contents))
    file = io.BufferedReader(pieces_of(tmp_path_factory.mktemp("pieces"), *contents), 8)
    for position, size in reads:
        whole.seek(position)
        file.seek(position)
        assert file.read(size) == whole.read(size)
    assert file.seek(-1, io.SEEK_END) == len(whole.getvalue()) - 1 if whole.getvalue() else True


def a_tar(*sizes: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number, size in enumerate(sizes):
            info = tarfile.TarInfo(f"videos/{number}.mp4")
            info.size = size
            archive.addfile(info, io.BytesIO(bytes([number]) * size))
    return file.getvalue()


def test_a_tar_is_gone_on_with_at_any_member(tmp_path):
    whole = a_tar(700, 1500, 0, 3000)
    cuts = [whole[n : n + 1000] for n in range(0, len(whole), 1000)]
    offsets = [member.offset for member in tar_members(pieces_of(tmp_path, *cuts))]
    for first, offset in enumerate(offsets):
        rest = list(tar_members(pieces_of(tmp_path, *cuts, position=offset)))
        assert [(member.name, member.offset) for member in rest] == [
            (f"{number}.mp4", offsets[number]) for number in range(first, 4)
        ]


def test_a_tar_whose_headers_end_too_early_is_damaged(tmp_path):
    whole = bytearray(a_tar(500, 2 << 20))
    whole[1024:1536] = b"x" * 512
    with pytest.raises(ArchiveError, match="no more headers from byte 1024 on"):
        take_all(pieces_of(tmp_path, bytes(whole)), tar_members, tmp_path)
    with pytest.raises(ArchiveError, match="unexpected end of data"):
        take_all(pieces_of(tmp_path, a_tar(5000)[:2000]), tar_members, tmp_path / "cut")
    assert not list((tmp_path / "cut").iterdir())


def a_zip(content: bytes, name: str = "a.mp4", method: int = zipfile.ZIP_DEFLATED) -> bytearray:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    return bytearray(file.getvalue())


def encrypted(whole: bytearray) -> bytearray:
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        whole[whole.index(signature) + flags] |= 1
    return whole


def smaller_than_it_is(whole: bytearray) -> bytearray:
    """The directory promises 10 bytes of a member that has 5000."""
    start = whole.index(b"PK\1\2") + 24
    whole[start : start + 4] = (10).to_bytes(4, "little")
    return whole


def of_an_unknown_method(whole: bytearray) -> bytearray:
    for signature, method in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        whole[whole.index(signature) + method] = 99
    return whole


@pytest.mark.parametrize("spoil", [encrypted, smaller_than_it_is, of_an_unknown_method, lambda whole: whole[:-30]])
def test_a_zip_that_cannot_be_read_leaves_no_file(tmp_path, spoil):
    archive = pieces_of(tmp_path, bytes(spoil(a_zip(bytes(5000)))))
    with pytest.raises(ArchiveError, match="it is damaged: "):
        take_all(archive, zip_members, tmp_path / "videos")
    assert not list((tmp_path / "videos").glob("*"))


def test_notes_say_from_where_on_an_archive_must_be_read(tmp_path):
    notes = Notes(tmp_path / "notes.json", "a/repo", "1")
    stream = Archive("tar", (HubFile("1", 1000), HubFile("2", 1000)), tar_members)
    assert notes.next_place(stream, {"a": 0}) == 0
    notes.note(stream, {"a": 0, "b": 1500}, 1800)
    notes = Notes.read(notes.path, "a/repo", "1")
    assert notes.next_place(stream, {"c": 0}) == 1800
    assert notes.next_place(stream, {"b": 0, "c": 0}) == 1500
    notes.note(stream, {"a": 0, "b": 1500}, None)
    assert notes.next_place(stream, {"c": 0}) is None
    notes.note(stream, {"a": 0, "b": 1500}, 100)
    assert notes.next_place(stream, {"c": 0}) is None
    assert stream.pieces_from(1500) == (HubFile("2", 1000),)
    assert Notes.read(notes.path, "another/repo", "1").next_place(stream, {"c": 0}) == 0


@pytest.mark.parametrize("text", ["{", "[1]", '{"repo": "a/repo"}', '{"repo": 1, "commit": 2, "archives": 3}'])
def test_damaged_notes_are_named(tmp_path, text):
    (tmp_path / "notes.json").write_text(text)
    with pytest.raises(EvaError, match=r"notes\.json cannot be read .*: delete it"):
        Notes.read(tmp_path / "notes.json", "a/repo", "1")


@given(
    whole=st.sampled_from([bytes(a_zip(bytes(700), method=method)) for method in (0, 8, 14)] + [a_tar(700, 90)]),
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=4),
    end=st.just(0) | st.integers(0, 1 << 20),
)
def test_no_damage_of_an_archive_is_another_error_than_that_of_an_archive(tmp_path_factory, whole, changes, end):
    folder = tmp_path_factory.mktemp("damaged")
    damaged = bytearray(whole)
    for place, byte in changes:
        damaged[place % len(damaged)] = byte
    members = zip_members if whole.startswith(b"PK") else tar_members
    with contextlib.suppress(ArchiveError):
        for member in members(pieces_of(folder, bytes(damaged[: end % len(damaged)] or damaged))):
            if member.problem is None:
                write_whole(replace(member, path="video.mp4"), folder / "video.mp4")
    assert {path.name for path in folder.iterdir()} <= {"0", "video.mp4"}
