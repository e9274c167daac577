"""Where the videos of a dataset are on disk, also in another container than the annotations name."""

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from eva.dataset.items import Item, video_path
from eva.errors import ReadError, VideoError

# The first one wins where a folder has several.
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".flv", ".ts", ".mpg", ".mpeg", ".wmv", ".3gp")

# The system says with these that there is no file at a path.
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# It says with these that this user may not know, or that no file can have the name. Every other error is one of the
# disk or of the machine.
REFUSED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class Survey:
    """The videos of a dataset, each once: annotated paths, files in another container, reasons for the missing."""

    exact: tuple[Path, ...]
    other_container: tuple[Path, ...]
    missing: tuple[str, ...]

    @property
    def there(self) -> tuple[Path, ...]:
        """The files that were found."""
        return self.exact + self.other_container

    @property
    def total(self) -> int:
        """The number of different videos that the dataset names."""
        return len(self.exact) + len(self.other_container) + len(self.missing)


def locate_video(path: Path) -> Path:
    """The file of an annotated video: `path` itself, or the file beside it with the same stem and a video suffix.

    A video that is downloaded today often has another container than the annotations name. Of several such files the
    first in the order of VIDEO_SUFFIXES counts. Raises VideoError if there is none that this user may read; ReadError
    where the disk does not say it.
    """
    if not path.name:
        raise VideoError(f"{path} names no video file")
    # `.5` in `lecture 1.5` is not a suffix: only the suffix of a container is replaced.
    stem = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
    for name in (path.name, *(stem + suffix for suffix in _suffixes_as_written())):
        candidate = path.with_name(name)
        if _is_file(candidate):
            if not os.access(candidate, os.R_OK):
                raise VideoError(f"the video {candidate} may not be read by this user")
            return candidate
    raise VideoError(f"the video {path} is missing, in another container too")


def survey_videos(items: Sequence[Item], video_root: Path) -> Survey:
    """Look for every video that `items` name under `video_root`, in the order of the names."""
    exact: list[Path] = []
    other_container: list[Path] = []
    missing: list[str] = []
    for _, item in sorted({item.videos[0]: item for item in items}.items()):
        try:
            annotated = video_path(item, video_root)
            found = locate_video(annotated)
        except VideoError as error:
            missing.append(str(error))
        else:
            (exact if found == annotated else other_container).append(found)
    return Survey(tuple(exact), tuple(other_container), tuple(missing))


def _suffixes_as_written() -> Iterable[str]:
    for suffix in VIDEO_SUFFIXES:
        yield suffix
        yield suffix.upper()  # as cameras write them


def _is_file(path: Path) -> bool:
    try:
        return S_ISREG(path.stat().st_mode)
    except ValueError:  # a name that no file can have
        return False
    except OSError as error:
        if error.errno in ABSENT:
            return False
        if error.errno in REFUSED:
            raise VideoError(f"{path} cannot be looked up: {error.strerror}") from error
        raise ReadError(f"{path} cannot be looked up: {error.strerror}") from error
