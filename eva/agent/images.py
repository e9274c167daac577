"""The address from which a server gets a frame."""

from __future__ import annotations

import base64
import mimetypes
from pathlib import Path


def file_url(frame: Path) -> str:
    """An absolute, quoted file:// address. The server would look for a relative path in its own folder."""
    return frame.absolute().as_uri()


def data_url(frame: Path) -> str:
    """The content of the file as a data: address, for a server that does not share the file system."""
    kind = mimetypes.guess_type(frame.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(frame.read_bytes()).decode('ascii')}"
