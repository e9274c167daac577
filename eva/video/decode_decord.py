"""The frames of the reference's own decoder, decord 0.6.0, wrong ones included.

decord is optional: it has wheels for Linux on x86-64 only, and it cannot open AV1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from eva.errors import UndecodableError, VideoError
from eva.video.container import VideoFile, open_file
from eva.video.picture import Rgb
from eva.video.sampling import Timeline

READ_AT_ONCE = 2**20
# decord raises these besides its own DECORDError; an empty video fails an assertion.
DECORD_ERRORS = (RuntimeError, IndexError, AssertionError, UnicodeError)

Made = TypeVar("Made")


class DecordVideo:
    """A video decoded by decord."""

    decoder = "decord"

    def __init__(self, file: VideoFile) -> None:
        self.file = file
        try:
            import decord  # noqa: PLC0415 - optional, and half a second to import
        except ImportError as error:
            raise VideoError("decord is not installed; `pip install decord==0.6.0`, or use --backend av") from error
        decord.logging.set_level(decord.logging.QUIET)
        # It takes an error of the disk for the end of the file, or for damage. So the whole file is read first, which
        # raises ReadError. Then decord reads what the system holds in memory.
        with open_file(file.path) as source:
            while source.read(READ_AT_ONCE):
                pass
        self._errors = (*DECORD_ERRORS, decord._ffi.base.DECORDError)
        try:
            reader = self._reader = decord.VideoReader(str(file.path.absolute()), ctx=decord.cpu(0))
            height, width = reader[0].shape[:2]
            reader.seek(0)
            times_s = reader.get_frame_timestamp(range(len(reader)))[:, 0].tolist()
            self.timeline = Timeline(width, height, reader.get_avg_fps(), tuple(times_s))
        except self._errors as error:
            raise UndecodableError(f"decord cannot open {file.path}: {_first_line(error)}") from error

    def frames(self, indices: Sequence[int], make: Callable[[Rgb], Made]) -> Iterator[tuple[int, Made]]:
        """(index, what `make` makes of its RGB) once for each distinct index; see decode.Video.

        All in one batch, as the reference does: which wrong frames decord gives depends on what it decoded before.
        """
        wanted = sorted(set(indices))
        try:
            batch = self._reader.get_batch(wanted).asnumpy()
        except self._errors as error:
            raise VideoError(f"decord cannot decode the frames of {self.file.path}: {_first_line(error)}") from error
        for index, rgb in zip(wanted, batch, strict=True):
            yield index, make(rgb)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
