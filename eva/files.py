"""Files that appear whole or not at all, and their hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO

from eva.errors import EvaError, room_hint

# The checkout that this package is in: scripts, `data/` and the published figures are there.
PROJECT = Path(__file__).resolve().parent.parent

PARTIAL_SUFFIX = ".partial"
# Longer than a file goes without a further line while it is written.
LEFT_S = 3600.0


class WriteError(EvaError):
    """A file that cannot be written; the message names it and says why."""


@contextmanager
def replacing(path: Path, flag: str = "") -> Iterator[IO[bytes]]:
    """A new file that replaces `path` when the block ends without an error. Raises WriteError.

    `flag` is the one that chooses the place of the file; the message of a full disk names it. What a killed process
    left of its new file goes first, when it is an hour old.
    """
    try:
        for left in path.parent.glob(f".{escape(path.name)}.*{PARTIAL_SUFFIX}"):
            with suppress(FileNotFoundError):  # another process was faster
                if left.stat().st_mtime < time.time() - LEFT_S:
                    left.unlink()
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL_SUFFIX, delete=False
        ) as new:
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
        hint = room_hint(error, path.parent, flag) if flag else ""
        raise WriteError(f"cannot write {path}: {error.strerror}{hint}") from error


def replace_text(path: Path, text: str, flag: str = "") -> None:
    """Write a small file whole or not at all; see replacing. Raises WriteError."""
    with replacing(path, flag) as new:
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
