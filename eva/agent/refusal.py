"""Why a server refused a request (HTTP 400). A picture that the server could not read is never the model's fault."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from eva.errors import EvaError
from eva.video.picture import FORMATS, whole_size

# What a server says about a picture. vLLM 0.32 says the first where Pillow cannot open a picture or finds it cut off
# (multimodal/media/image.py). Pillow's own words follow; earlier versions of vLLM give only those. vLLM says the last
# where the frame root is not one that it was allowed (multimodal/media/connector.py). It answers 500 for a file that is
# absent or that it may not open; a proxy or another server may answer 400.
_UNREADABLE = re.compile(
    r"Failed to load image|cannot identify image file|image file is truncated|broken (?:data stream|PNG file)"
    r"|\[Errno \d+\] (?:No such file or directory|Permission denied|Stale file handle|Input/output error)"
    r"|must be a subpath of `--allowed-local-media-path",
    re.IGNORECASE,
)


class PictureUnreadableError(EvaError):
    """The server could not read a picture. A second run of the sample makes broken frames again."""


def find_picture_problem(refusal: str, frames: Iterable[Path]) -> str:
    """What is wrong with the pictures of a refused request; empty where the request itself is at fault."""
    problem = next(filter(None, map(_find_file_problem, frames)), "")
    if problem:
        return f"{problem}; the server says: {refusal}"
    return f"the server cannot read a picture: {refusal}" if _UNREADABLE.search(refusal) else ""


def _find_file_problem(frame: Path) -> str:
    try:
        if frame.stat().st_size == 0:
            return f"the frame {frame} is empty"
        if frame.suffix.removeprefix(".") in FORMATS and whole_size(frame) is None:
            return f"the frame {frame} is not whole"
    except OSError as error:
        return f"the frame {frame} cannot be read: {error.strerror}"
    return ""
