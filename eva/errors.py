"""Errors that carry a sentence for the person who runs the evaluation."""

from __future__ import annotations

import errno
from typing import ClassVar

# By which the system says that a disk is full, or what this user may have of it.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# The exit code of a frame tool that has no room or right to write (sysexits' EX_IOERR). The call is not at fault.
EXIT_CANNOT_WRITE = 74


class EvaError(Exception):
    """Something the user can act on: the message says what happened, to what, and what to do.

    `recorded_as` is the exception's name in a record's `error`, where the reference wrote another than ours.
    """

    recorded_as: ClassVar[str | None] = None


class VideoError(EvaError):
    """A video that is missing, unreadable, or holds nothing to show. One sample's trouble, never the run's."""

    recorded_as = "RuntimeError"


class UndecodableError(VideoError):
    """One decoder makes nothing of the file; another one may."""


class ChangedError(VideoError):
    """The file was changed or replaced while it was read: nobody's answer may be judged by that."""


class MiscountedError(VideoError):
    """The file decodes to other frames than its packets promised: count its frames by decoding, then choose anew."""
