"""The address from which a server gets a frame."""

from __future__ import annotations

import base64
import mimetypes
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eva.endpoint.completion import BLACK_PNG_BASE64


def file_url(frame: Path) -> str:
    """An absolute, quoted file:// address. The server would look for a relative path in its own folder."""
    return frame.absolute().as_uri()


def data_url(frame: Path) -> str:
    """The content of the file as a data: address, for a server that does not share the file system."""
    kind = mimetypes.guess_type(frame.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(frame.read_bytes()).decode('ascii')}"


@contextmanager
def small_image(folder: Path) -> Iterator[str]:
    """The address of a file in `folder` with an image of one visual token. A server that runs as another user can read
    it. Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".png") as file:
        file.write(base64.b64decode(BLACK_PNG_BASE64))
        file.flush()
        frame = Path(file.name)
        frame.chmod(0o644)
        yield file_url(frame)
