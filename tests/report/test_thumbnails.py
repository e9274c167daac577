"""Which files the report reads for a frame, and which it never opens."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from eva.report.thumbnails import MAX_FILE_BYTES, WIDTH, FrameRoots, NoFrameError


def save(path: Path, *, size: tuple[int, int] = (640, 360), colour: str = "orange") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    (folder / "store" / "clip").mkdir(parents=True)
    return folder


def reason(root: Path, name: str | Path) -> str:
    with pytest.raises(NoFrameError) as caught:
        FrameRoots.at(root).thumbnail(str(name))
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["bmp", "png", "ppm", "jpg"])
def test_a_frame_inside_the_root_becomes_a_small_jpeg(root: Path, suffix: str) -> None:
    frame = save(root / "store" / "clip" / f"0000001.{suffix}")
    small = Image.open(io.BytesIO(FrameRoots.at(root).thumbnail(str(frame))))
    assert small.format == "JPEG"
    assert small.size == (WIDTH, 108)
    pixel = small.convert("RGB").getpixel((50, 50))
    assert isinstance(pixel, tuple)
    red, green, blue = pixel
    assert red > 240 and 150 < green < 180 and blue < 20


def test_the_root_may_itself_be_a_link_and_frames_may_be_linked_inside_it(root: Path, tmp_path: Path) -> None:
    frame = save(root / "store" / "clip" / "1.png")
    (tmp_path / "link").symlink_to(root)
    (root / "store" / "again.png").symlink_to(frame)
    assert FrameRoots.at(tmp_path / "link").find(str(tmp_path / "link" / "store" / "clip" / "1.png")) == frame
    assert FrameRoots.at(root).find(str(root / "store" / "again.png")) == frame


def test_nothing_outside_the_root_is_read(root: Path, tmp_path: Path) -> None:
    outside = save(tmp_path / "secret.png")
    save(tmp_path / "frames-of-others" / "1.png")
    (root / "link.png").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    names: list[str | Path] = [
        outside,
        f"{root}/../secret.png",
        f"{root}/store/../../secret.png",
        root / "link.png",
        root / "folder" / "secret.png",
        tmp_path / "frames-of-others" / "1.png",
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/environ",
        "secret.png",
        "",
        f"file://{root}/store/1.png",
    ]
    assert {reason(root, name) for name in names} == {"outside --frame-root"}


def test_only_plain_picture_files_are_opened(root: Path) -> None:
    os.mkfifo(root / "pipe.png")  # opening it to read would wait for a writer
    (root / "folder.png").mkdir()
    (root / "frames.json").write_text("{}")
    assert {reason(root, root / name) for name in ("pipe.png", "folder.png", "frames.json")} == {"not a picture file"}


def test_a_large_file_is_not_read(root: Path) -> None:
    with (root / "huge.bmp").open("wb") as file:
        file.write(b"BM")
        file.truncate(10 << 30)
    with (root / "just.bmp").open("wb") as file:
        file.truncate(MAX_FILE_BYTES)
    assert reason(root, root / "huge.bmp") == "too large"
    assert reason(root, root / "just.bmp") == "not a readable picture"


def test_a_small_file_of_many_pixels_is_not_decoded(root: Path) -> None:
    (root / "bomb.png").write_bytes(png_header(60_000, 60_000))
    (root / "large.png").write_bytes(png_header(6_000, 6_000))
    assert reason(root, root / "large.png") == "too large"
    assert reason(root, root / "bomb.png") in ("too large", "not a readable picture")


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
    )


def test_what_only_looks_like_a_picture_gives_none(root: Path) -> None:
    whole = save(root / "whole.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "text.png").write_text("<svg onload=alert(1)>")
    (root / "empty.bmp").write_bytes(b"")
    (root / "gif.png").write_bytes(b"GIF89a" + b"\0" * 50)  # of a format that no frame tool writes
    (root / "script.ppm").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    names = ("cut.png", "text.png", "empty.bmp", "gif.png", "script.ppm")
    assert {reason(root, root / name) for name in names} == {"not a readable picture"}


def test_a_path_that_no_file_can_have_is_not_there(root: Path) -> None:
    names: list[str | Path] = [root / "gone.png", f"{root}/nul\0.png", f"{root}/\ud800.png", f"{root}/{'x' * 5000}.png"]
    assert {reason(root, name) for name in names} == {"no longer there"}


def test_a_link_that_leads_in_a_circle_is_not_there(root: Path) -> None:
    (root / "a.png").symlink_to(root / "b.png")
    (root / "b.png").symlink_to(root / "a.png")
    assert reason(root, root / "a.png") in ("no longer there", "not a picture file")
