"""Archives, also in pieces -> files that appear whole or not at all.

Nothing is unpacked by the path that an archive gives: the caller says where a member goes. Members that are not plain
files, and members whose paths lead out of a folder, have a `problem`.
"""

from __future__ import annotations

import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from eva.errors import EvaError
from eva.files import WriteError
from eva.text import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 1 << 20
# A tar is padded at its end. It ends too early if more than this is left: tarfile takes a damaged header for the end.
MAX_PADDING_BYTES = 1 << 20
# What zipfile and tarfile raise for damaged, encrypted and unsupported archives.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
)


class ArchiveError(EvaError):
    """An archive that cannot be read."""


@dataclass(frozen=True)
class Member:
    """A file in an archive. `offset` is where it begins: what lies before it is not read again."""

    path: str
    size: int
    offset: int
    problem: str | None
    open: Callable[[], IO[bytes] | None]

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


class Pieces(io.RawIOBase):
    """Several files as one, for reading. `fetch` gives a piece by its number when the first byte of it is read."""

    def __init__(self, sizes: Sequence[int], fetch: Callable[[int], Path], position: int = 0) -> None:
        super().__init__()
        self.starts = list(accumulate(sizes, initial=0))
        self._fetch = fetch
        self._position = position
        self._open: tuple[int, io.FileIO] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.starts[-1]}[whence]
        if base + offset < 0:
            raise ValueError(f"there is no position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if self._position >= self.starts[-1]:
            return 0
        number = self.piece_at(self._position)
        file = self._piece(number)
        file.seek(self._position - self.starts[number])
        left = self.starts[number + 1] - self._position
        count = file.readinto(memoryview(buffer).cast("B")[:left])
        self._position += count
        return count

    def piece_at(self, position: int) -> int:
        """The number of the piece that holds the byte at `position`; after the end, the number of pieces."""
        return bisect_right(self.starts, position) - 1

    def _piece(self, number: int) -> io.FileIO:
        if self._open is None or self._open[0] != number:
            self._close_piece()
            self._open = number, io.FileIO(self._fetch(number))
        return self._open[1]

    def _close_piece(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def close(self) -> None:
        self._close_piece()
        super().close()


def zip_members(file: Pieces) -> Iterator[Member]:
    """The members of a zip, in the order in which they lie in it. Raises ArchiveError."""
    with _damage_explained(), zipfile.ZipFile(io.BufferedReader(file, BUFFER_BYTES)) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            mode = stat.S_IFMT(info.external_attr >> 16)
            plain = not info.is_dir() and mode in (0, stat.S_IFREG)
            problem = _path_problem(info.filename) if plain else "is not a plain file"
            opener = partial(archive.open, info)
            yield Member(info.filename, info.file_size, info.header_offset, problem, opener)


def tar_members(file: Pieces) -> Iterator[Member]:
    """The members of a tar from the position of `file` on, read as a stream. Raises ArchiveError.

    Each member must be read before the next one is asked for.
    """
    start = file.tell()
    with _damage_explained(), tarfile.open(fileobj=file, mode="r|", bufsize=BUFFER_BYTES) as archive:
        for info in archive:
            problem = _path_problem(info.name) if info.isreg() else "is not a plain file"
            yield Member(info.name, info.size, start + info.offset, problem, partial(archive.extractfile, info))
        if file.starts[-1] - start - archive.offset > MAX_PADDING_BYTES:
            raise ArchiveError(f"it is damaged: no more headers from byte {start + archive.offset} on")


def _path_problem(path: str) -> str | None:
    if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/") or "\0" in path:
        return "has a path that leads out of its folder"
    return None


@contextmanager
def _damage_explained() -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise ArchiveError(f"it is damaged: {printable(str(error))}") from error


def write_whole(member: Member, target: Path) -> None:
    """Write `member` to `target`, whole or not at all. Raises ArchiveError or WriteError."""
    part = part_of(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as new:
            _copy(member, new)
            os.fsync(new.fileno())
        part.replace(target)
    except OSError as error:
        raise WriteError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def part_of(target: Path) -> Path:
    """Where the bytes of `target` are until it is whole."""
    return target.with_name(f".{target.name}.part")


def _copy(member: Member, new: IO[bytes]) -> None:
    with _damage_explained():
        source = member.open()
        if source is None:
            raise ArchiveError(f"{printable(member.path)} has no content")
        with source:
            shutil.copyfileobj(source, new, BUFFER_BYTES)
    if new.tell() != member.size:
        raise ArchiveError(f"{printable(member.path)} has {new.tell()} bytes instead of {member.size}")
