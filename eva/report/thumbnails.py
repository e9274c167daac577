"""Frame files of a run -> small pictures for the report.

The path of a frame comes from a result file, and anybody may have written that. So a path is opened only if it leads,
links followed, to a plain file inside a frame root with the suffix of a picture and at most MAX_FILE_BYTES. Pixels
are decoded only if Pillow finds a picture of at most MAX_PIXELS.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import stat
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from eva.cpus import available_cpus
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
_BATCH = 64
_JPEG = b"\xff\xd8"


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
            raise NoFrameError("outside --frame-root")
        if not stat.S_ISREG(status.st_mode) or path.suffix.lower() not in _SUFFIXES:
            raise NoFrameError("not a picture file")
        if status.st_size > MAX_FILE_BYTES:
            raise NoFrameError("too large")
        return path

    def thumbnail(self, name: str) -> bytes:
        """The frame as a JPEG file of at most WIDTH x HEIGHT. Raises NoFrameError."""
        return _encode(self.find(name), (WIDTH, HEIGHT), format="JPEG", quality=60)

    def whole(self, name: str) -> bytes:
        """The frame in its own size, as a new WebP file without losses. Raises NoFrameError."""
        return _encode(self.find(name), None, format="WEBP", lossless=True, quality=0, method=0)


def _open_plain(path: Path) -> BinaryIO:
    """Raises OSError, also for a link or a pipe that somebody has put in the place of a file."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("not a plain file")
    return file


def _encode(path: Path, most: tuple[int, int] | None, **how: Any) -> bytes:
    """A picture file in at most `most` pixels in width and height; None: in its own size. Raises NoFrameError."""
    try:
        file = _open_plain(path)
    except OSError:
        raise NoFrameError("no longer there") from None
    try:
        with file:
            image = Image.open(file, formats=_FORMATS)
            # Before a pixel is decoded.
            if image.width * image.height > MAX_PIXELS:
                raise NoFrameError("too large")
            if most is not None:
                image.thumbnail(most, reducing_gap=1.0)
            made = io.BytesIO()
            image.convert("RGB").save(made, **how)
    except _BROKEN:
        raise NoFrameError("not a readable picture") from None
    return made.getvalue()


@dataclass
class Thumbnails:
    """The pictures in a page: as many as `cap_bytes` of base64 allow, each once, however many samples show it.

    `places` says of each frame where the page finds it, by its path: the address of its file, and the number of its
    picture if it is in the page, or in place of both why there is none. Thumbnails stay in the folder `known` for the
    next page.
    """

    roots: FrameRoots
    cap_bytes: int
    known: Path
    pictures: list[str] = field(default_factory=list)
    places: dict[str, list[str | int]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    used_bytes: int = 0
    _full: bool = False

    def make(self, names: Sequence[str]) -> Iterator[str]:
        """Find a place for every frame, and give the names as they get it. Those that come first have a picture if any
        can: after the first picture above the cap there is no further one."""
        with ThreadPoolExecutor(available_cpus()) as pool:
            for first in range(0, len(names), _BATCH):
                found: dict[str, Path] = {}
                pictures: dict[str, bytes | str | None] = {}
                for name in names[first : first + _BATCH]:
                    try:
                        path = found[name] = self.roots.find(name)
                        pictures[name] = b"" if self._full else self._read(self._known(path))
                    except NoFrameError as reason:
                        pictures[name] = str(reason)
                unknown = [name for name, picture in pictures.items() if picture is None]
                pictures.update(zip(unknown, pool.map(self._make, [found[name] for name in unknown]), strict=True))
                for name, picture in pictures.items():
                    if not isinstance(picture, bytes):
                        self.refused[str(picture)] += 1
                        self.places[name] = [str(picture)]
                    else:
                        self.places[name] = [found[name].as_uri(), *self._embed(picture)]
                    yield name

    def _embed(self, picture: bytes) -> list[int]:
        """The number of the picture; [] above the cap."""
        encoded = base64.b64encode(picture).decode("ascii")
        self._full = self._full or self.used_bytes + len(encoded) > self.cap_bytes
        if self._full:
            return []
        self.used_bytes += len(encoded)
        self.pictures.append(encoded)
        return [len(self.pictures) - 1]

    def _known(self, path: Path) -> Path:
        """Where the thumbnail of a frame is kept. Raises NoFrameError."""
        try:
            status = path.stat()
        except OSError:
            raise NoFrameError("no longer there") from None
        key = f"{path} {status.st_mtime_ns} {status.st_size} {WIDTH}x{HEIGHT}"
        return self.known / (hashlib.sha256(os.fsencode(key)).hexdigest()[:40] + ".jpg")

    def _read(self, known: Path) -> bytes | None:
        with suppress(OSError), _open_plain(known) as file:
            content = file.read(MAX_FILE_BYTES)
            return content if content.startswith(_JPEG) else None
        return None

    def _make(self, path: Path) -> bytes | str:
        """The thumbnail of a frame, kept for the next page; or why there is none."""
        try:
            made, known = self.roots.thumbnail(str(path)), self._known(path)
        except NoFrameError as reason:
            return str(reason)
        # Where the folder cannot be written, the next page makes it again.
        with suppress(OSError):
            self.known.mkdir(parents=True, exist_ok=True)
            new = known.with_suffix(f".{os.getpid()}")
            new.write_bytes(made)
            new.replace(known)
        return made

    @property
    def line(self) -> str:
        """How many frames the page shows, and from where."""
        line = (
            f"Thumbnails: {len(self.pictures)} of {len(self.places)} frames embedded ({self.used_bytes / 1e6:.1f} MB)"
        )
        if linked := len(self.places) - len(self.pictures) - self.refused.total():
            line += f", {linked} over the cap shown from their files, as long as these are there"
        return line + "".join(f", {count} {reason}" for reason, count in sorted(self.refused.items()))
