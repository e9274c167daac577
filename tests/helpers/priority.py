"""The AV1 encoder, run by root, makes its process a real-time one. Two such processes on two cores wait for ever."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CAP_SYS_NICE = 1 << 23
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def no_real_time() -> Iterator[None]:
    """This thread, and each thread that it starts, cannot become a real-time one inside the block."""
    if not sys.platform.startswith("linux"):
        yield
        return
    before = _change_effective(lambda effective: effective & ~CAP_SYS_NICE)
    try:
        yield
    finally:
        _change_effective(lambda effective: effective | (before & CAP_SYS_NICE))


def _change_effective(change: Callable[[int], int]) -> int:
    """Change the low half of this thread's effective capabilities; gives what they were."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()
    if libc.capget(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capget")
    before: int = sets[0].effective
    sets[0].effective = change(before)
    if libc.capset(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capset")
    return before
