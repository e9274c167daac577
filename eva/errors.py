"""Errors that carry a sentence for the person who runs the evaluation."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import ClassVar

# The system says with these that a disk is full, or the share of it that this user may have.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# The exit code of a frame tool that has no room or right to write (sysexits' EX_IOERR). The call is not at fault.
EXIT_CANNOT_WRITE = 74
# The exit code of a frame tool that cannot read the video (sysexits' EX_NOINPUT). The call is not at fault, either.
EXIT_CANNOT_READ = 66


class EvaError(Exception):
    """An error that the user can act on: the message says what happened, to what, and what to do.

    `recorded_as` is the name of the exception in the `error` of a record, where the reference wrote another name.
    """

    recorded_as: ClassVar[str | None] = None


class VideoError(EvaError):
    """A video that is missing or unreadable, or that has no pictures. It ends its samples, and never the run."""

    recorded_as = "RuntimeError"


class UndecodableError(VideoError):
    """One decoder cannot decode the file; another one may."""


class ReadError(VideoError):
    """The system does not let a video be read: it is gone, its disk fails, or this machine lacks memory, threads or
    room for one more open file. This does not count against the model."""


class MiscountedError(VideoError):
    """The file decodes to other frames than its packets say: count its frames by decoding, then choose again."""


def room_hint(error: OSError, folder: Path, flag: str) -> str:
    """The end of a message about a file in `folder`: what to do if the disk is full; for other errors it is empty."""
    if error.errno not in DISK_FULL:
        return ""
    return f": make room on the disk of {folder.absolute()}, or choose another folder with {flag}"
