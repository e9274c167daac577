"""Real file systems of a few megabytes, for tests of disks that are full or lose what was written."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest


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
