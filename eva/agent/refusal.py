"""Why a server refused a request (HTTP 400): a picture that it could not read is never the model's failure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from eva.errors import EvaError
from eva.video.choices import FORMATS
from eva.video.picture_files import whole_size

# vLLM 0.32 says the first of a picture that Pillow cannot open or that is cut off (multimodal/media/image.py), with
# Pillow's own words after it; earlier versions gave only those. The last is of a frame root that the server was not
# allowed (multimodal/media/connector.py). A file that it may not open or that is not there is a 500 there; a proxy or
# another server may make a 400 of it.
_UNREADABLE = re.compile(
    r"Failed to load image|cannot identify image file|image file is truncated|broken (?:data stream|PNG file)"
    r"|\[Errno \d+\] (?:No such file or directory|Permission denied|Stale file handle|Input/output error)"
    r"|must be a subpath of `--allowed-local-media-path",
    re.IGNORECASE,
)


class PictureUnreadableError(EvaError):
    """The server could not read a picture that it was sent or shown. Run again, the frames are made anew if broken."""


def picture_trouble(refusal: str, frames: Iterable[Path]) -> str:
    """What is wrong with the pictures of a refused request; the empty text where the request itself is at fault."""
    broken = next(filter(None, map(_file_trouble, frames)), "")
    if broken:
        return f"{broken}; the server says: {refusal}"
    return f"the server cannot read a picture: {refusal}" if _UNREADABLE.search(refusal) else ""


def _file_trouble(frame: Path) -> str:
    try:
        if frame.stat().st_size == 0:
            return f"the frame {frame} is empty"
        if frame.suffix.removeprefix(".") in FORMATS and whole_size(frame) is None:
            return f"the frame {frame} is not whole"
    except OSError as error:
        return f"the frame {frame} cannot be read: {error.strerror}"
    return ""
