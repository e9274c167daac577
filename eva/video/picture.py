"""The file of a frame: its formats, its pixels, and whether it is whole. A run only asks for the last one, and starts
without OpenCV."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rgb: TypeAlias = "NDArray[np.uint8]"  # height x width x 3

# All are lossless. Of a film's frame at 1288x728: PNG takes 71 ms of CPU to write, 47 ms to read and 1.5 MB, BMP 5 ms,
# 8 ms and 2.8 MB.
FORMATS = ("png", "bmp")
_HEAD_BYTES = 54
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def resize(rgb: Rgb, width: int, height: int) -> Rgb:
    """Bicubic by OpenCV, without antialiasing: the published numbers were measured so."""
    import cv2  # noqa: PLC0415

    if rgb.shape[:2] == (height, width):
        return rgb
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def encode(rgb: Rgb, picture_format: str) -> bytes:
    """The bytes of a file in one of FORMATS."""
    import cv2  # noqa: PLC0415

    _, data = cv2.imencode(f".{picture_format}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def whole_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of a frame as `encode` writes it. None where the file is not whole: empty, cut off, or something
    else. The pixels are not checked. Raises OSError."""
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
