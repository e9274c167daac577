"""Archives -> videos that appear whole or not at all.

Nothing is unpacked by the path that an archive gives: only members whose name is wanted are taken, and the caller says
where they go. Links, devices and paths that lead out of a folder are refused.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from eva.dataset.hub import DamagedError
from eva.files import WriteError
from eva.text import printable

# As much is read at once. Over a network, each read is a request.
BLOCK_BYTES = 16 << 20
# A tar is padded at its end. It ends too early if more than this is left: tarfile takes a damaged header for the end.
MAX_PADDING_BYTES = 1 << 20
# What zipfile and tarfile raise for damaged, encrypted and unsupported archives.
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
    *(RuntimeError, ValueError, LookupError, OverflowError),
)


@dataclass(frozen=True)
class Member:
    """A file in an archive: its bytes, and the bytes that it takes in the archive."""

    path: str
    size: int
    packed: int
    problem: str | None
    open: Callable[[], IO[bytes] | None]

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


def zip_members(file: IO[bytes]) -> Iterator[Member]:
    """The members of a zip, in the order in which they lie in it. Raises DamagedError."""
    with _damage_explained(), zipfile.ZipFile(file) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            mode = stat.S_IFMT(info.external_attr >> 16)
            plain = not info.is_dir() and mode in (0, stat.S_IFREG)
            opener = partial(archive.open, info)
            yield Member(info.filename, info.file_size, info.compress_size, _problem(info.filename, plain), opener)


def tar_members(file: IO[bytes]) -> Iterator[Member]:
    """The members of a tar, found one after the other: what lies between their headers is not read. Raises
    DamagedError."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with _damage_explained(), tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            problem = _problem(info.name, info.isreg())
            yield Member(info.name, info.size, info.size, problem, partial(archive.extractfile, info))
        if size - archive.offset > MAX_PADDING_BYTES:
            raise DamagedError(f"it is damaged: no more headers from byte {archive.offset} on")


def _problem(path: str, plain: bool) -> str | None:
    if not plain:
        return "is not a plain file"
    if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/") or "\0" in path:
        return "has a path that leads out of its folder"
    return None


@contextmanager
def _damage_explained() -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise DamagedError(f"it is damaged: {printable(str(error))}") from error


def take(member: Member, part: Path) -> None:
    """Write the bytes of `member` to `part`. Raises DamagedError, or WriteError, also where the disk has no room."""
    try:
        if shutil.disk_usage(part.parent).free < member.size:
            raise WriteError(f"cannot write {printable(member.path)} to {part.parent}: no room for {member.size} bytes")
        with part.open("wb") as new, _damage_explained():
            source = member.open()
            if source is None:
                raise DamagedError(f"{printable(member.path)} has no content")
            with source:
                shutil.copyfileobj(source, new, BLOCK_BYTES)
            new.flush()
            os.fsync(new.fileno())
    except OSError as error:
        raise WriteError(f"cannot write {printable(member.path)} to {part.parent}: {error.strerror}") from error


def put(part: Path, targets: Sequence[Path]) -> None:
    """Move a whole file to each of `targets`: links, or copies on a disk without links. Raises OSError."""
    first, *others = targets
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(first)
    for other in others:
        try:
            os.link(first, other)
        except OSError:
            shutil.copyfile(first, part)
            part.replace(other)
