"""Files that appear whole or not at all, and their hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from eva.errors import EvaError


class WriteError(EvaError):
    """A file that cannot be written; the message names it and says why."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that replaces `path` when the block ends without an error. Raises WriteError."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
            try:
                yield new
                new.flush()
                os.fsync(new.fileno())
                Path(new.name).chmod(_mode(path))
                Path(new.name).replace(path)
            except BaseException:
                Path(new.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}") from error


def replace_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all. Raises WriteError."""
    with replacing(path) as new:
        new.write(text.encode("utf-8", errors="backslashreplace"))


def _mode(path: Path) -> int:
    if path.exists():
        return path.stat().st_mode & 0o777
    return 0o644


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
