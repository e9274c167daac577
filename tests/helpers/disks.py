"""Real file systems of a few megabytes, for tests of disks that are full or lose what was written."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

BLOCK = 4096


def _command(*words: str) -> None:
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"{words[0]} does not work here: {result.stderr.strip()}")


@contextlib.contextmanager
def mounted(folder: Path, what: str, options: Sequence[str]) -> Iterator[Path]:
    """`what` at `folder`; skips the test where this user may not mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder.mkdir(exist_ok=True)
    _command("mount", *options, what, str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes."""
    with mounted(folder, "tmpfs", ["-t", "tmpfs", "-o", f"size={size}"]):
        yield folder


def make_ext4(image: Path, size: int) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    _command("mkfs.ext4", "-q", "-F", str(image))


@contextlib.contextmanager
def ext4(folder: Path, image: Path) -> Iterator[Path]:
    """The disk in the file `image`."""
    with mounted(folder, str(image), ["-o", "loop"]):
        yield folder


@contextlib.contextmanager
def failing(folder: Path, image: Path) -> Iterator[FailingDisk]:
    """A disk of 16 MB, which can fail."""
    make_ext4(image, 2**24)
    with mounted(folder, str(image), ["-o", "loop,noatime"]):
        yield FailingDisk(folder, image)


class FailingDisk:
    """A disk in a file. Where that file ends early, the system's reads end with EIO."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image, self._lost, self._at = image, b"", 0

    def fail(self, file: Path, at: int) -> None:
        """Let `file` be unreadable from about the byte `at` on."""
        at -= at % BLOCK
        with file.open("rb") as opened:
            opened.seek(at)
            block = opened.read(BLOCK)
            os.sync()
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        whole = self._image.read_bytes()
        self._at = whole.index(block)
        self._lost = whole[self._at :]
        os.truncate(self._image, self._at)

    def heal(self) -> None:
        """Let everything be readable again."""
        with self._image.open("r+b") as image:
            image.seek(self._at)
            image.write(self._lost)
