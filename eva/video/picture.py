"""The picture of a frame: its pixels, and whether its file is whole."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # a run only asks whether files are whole
    import numpy as np
    from numpy.typing import NDArray

Rgb: TypeAlias = "NDArray[np.uint8]"  # height x width x 3

_HEAD_BYTES = 54
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def whole_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of a frame as selection.encode writes it. None where the file is not whole: empty, cut off, or
    something else. The pixels are not checked. Raises OSError."""
    with path.open("rb") as file:
        head, size = file.read(_HEAD_BYTES), os.fstat(file.fileno()).st_size
        file.seek(max(0, size - len(_PNG_END)))
        end = file.read()
    if len(head) < _HEAD_BYTES:
        return None
    if head.startswith(_PNG_SIGNATURE):
        return struct.unpack(">II", head[16:24]) if end == _PNG_END else None
    if not head.startswith(b"BM"):
        return None
    begin, width, height, bits = struct.unpack("<10xI4xii2xH", head[:30])
    row_bytes = (width * bits + 31) // 32 * 4
    return (width, abs(height)) if size == begin + row_bytes * abs(height) else None
