"""Frame files of a run -> small pictures for the report.

The path of a frame comes from a result file, and anybody may have written that. So a path is opened only if it leads,
links followed, to a plain file inside a frame root with the suffix of a picture and at most MAX_FILE_BYTES. Pixels
are decoded only if Pillow finds a picture of at most MAX_PIXELS.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from eva.records.meta import Meta

MAX_FILE_BYTES = 64 << 20
MAX_PIXELS = 25_000_000
# The largest width and height of a thumbnail.
WIDTH, HEIGHT = 192, 144
# What this project's tool and probably others write. No other reader of Pillow opens a foreign file.
_FORMATS = ("BMP", "PNG", "PPM", "JPEG", "WEBP")
_SUFFIXES = frozenset({".bmp", ".png", ".ppm", ".jpg", ".jpeg", ".webp"})
# A frame in the store: `<video>/<width>x<height>-<decoder>/<index>.bmp`.
_STORED = re.compile(r"[^/]+/\d+x\d+-\w+/\d{7,}\.(bmp|png|ppm)")
# Pillow's readers raise all of these on broken files.
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error, Image.DecompressionBombError)


class NoFrameError(Exception):
    """A path gives no picture. The message says why, in a few words for the reader of the report."""


@dataclass(frozen=True)
class FrameRoots:
    """The folders of runs' frames, resolved. Nothing outside them is read.

    `stores` are named by meta files, and anybody may have written these. So nothing is read there but what has the name
    that the frame store gives a frame.
    """

    folders: tuple[Path, ...]
    stores: tuple[Path, ...] = ()

    @classmethod
    def at(cls, *folders: Path) -> FrameRoots:
        return cls(tuple(Path(os.path.realpath(folder)) for folder in folders))

    def with_metas(self, metas: Iterable[Meta | None]) -> FrameRoots:
        """Also the frame roots that the runs have noted."""
        noted = [meta.environment.get("frame_root") for meta in metas if meta]
        # A null character or a lone surrogate is in no path.
        paths = [Path(root) for root in noted if isinstance(root, str) and root.isprintable()]
        stores = {Path(os.path.realpath(root)) / "store" for root in paths if root.is_absolute()}
        return replace(self, stores=tuple(sorted({*self.stores, *stores})))

    def _holds(self, path: Path) -> bool:
        if any(path.is_relative_to(folder) for folder in self.folders):
            return True
        inside = [path.relative_to(store).as_posix() for store in self.stores if path.is_relative_to(store)]
        return any(_STORED.fullmatch(name) for name in inside)

    def find(self, name: str) -> Path:
        """The file that a frame's path leads to. Raises NoFrameError."""
        try:
            path = Path(os.path.realpath(name))
            inside = Path(name).is_absolute() and self._holds(path)
            status = path.lstat() if inside else None
        except (OSError, ValueError):
            raise NoFrameError("no longer there") from None
        if status is None:
            raise NoFrameError("outside the frame root")
        if not stat.S_ISREG(status.st_mode) or path.suffix.lower() not in _SUFFIXES:
            raise NoFrameError("not a picture file")
        if status.st_size > MAX_FILE_BYTES:
            raise NoFrameError("too large")
        return path

    def open(self, name: str) -> BinaryIO:
        """The file behind a frame's path, opened. Raises NoFrameError."""
        path = self.find(name)
        try:
            # Since the check somebody may have replaced the file by a link or a pipe.
            number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            raise NoFrameError("no longer there") from None
        file = os.fdopen(number, "rb")
        if not stat.S_ISREG(os.fstat(number).st_mode):
            file.close()
            raise NoFrameError("not a picture file")
        return file

    def thumbnail(self, name: str) -> bytes:
        """The frame as a WebP file of at most WIDTH x HEIGHT. Raises NoFrameError."""
        with self.open(name) as file:
            return shrink(file)

    def whole(self, name: str) -> bytes:
        """The frame in its own size, as a new WebP file without losses. Raises NoFrameError."""
        with self.open(name) as file:
            return _encode(file, None, lossless=True, quality=0, method=0)


def shrink(file: BinaryIO) -> bytes:
    """A small WebP of a picture file. Raises NoFrameError for a file that is not a picture, or is too large."""
    return _encode(file, (WIDTH, HEIGHT), quality=60, method=2)


def _encode(file: BinaryIO, most: tuple[int, int] | None, **webp: int) -> bytes:
    """A picture file as a WebP file of at most `most` pixels in width and height; None: of its own size."""
    try:
        image = Image.open(file, formats=_FORMATS)
        # Before a pixel is decoded.
        if image.width * image.height > MAX_PIXELS:
            raise NoFrameError("too large")
        if most is not None:
            image.thumbnail(most, reducing_gap=2.0)
        made = io.BytesIO()
        image.convert("RGB").save(made, "WEBP", **webp)
    except _BROKEN:
        raise NoFrameError("not a readable picture") from None
    return made.getvalue()
