"""Where a dataset's videos are on disk, also when they came in another container."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eva.dataset.items import Item, video_path
from eva.errors import VideoError

# In the order of preference where several stand beside each other.
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".flv", ".ts", ".mpg", ".mpeg", ".wmv", ".3gp")


@dataclass(frozen=True)
class Survey:
    """The videos of a dataset, each named once: paths that exist, paths found by stem, reasons for the rest."""

    exact: tuple[Path, ...]
    other_container: tuple[Path, ...]
    missing: tuple[str, ...]

    @property
    def total(self) -> int:
        """How many different videos the dataset names."""
        return len(self.exact) + len(self.other_container) + len(self.missing)


def locate_video(path: Path) -> Path:
    """The file for an annotated video: `path` itself, else its sibling with the same stem and a video suffix.

    A video downloaded today often comes in another container than the one the annotations were made with. Several
    siblings: the first by VIDEO_SUFFIXES. VideoError when there is none, naming the path and what was looked for.
    """
    if not path.name:
        raise VideoError(f"{path} names no video file")
    # The suffix of `lecture 1.5` belongs to the name: only a container's suffix is exchanged for another.
    stem = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
    for name in (path.name, *(stem + suffix for suffix in _suffixes_as_written())):
        candidate = path.with_name(name)
        if _is_file(candidate):
            return candidate
    raise VideoError(f"{path} is not there, nor {stem} with one of {', '.join(VIDEO_SUFFIXES)}")


def survey_videos(items: Sequence[Item], video_root: Path) -> Survey:
    """Looks for every video that `items` name under `video_root`, each once, by name."""
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
        return path.is_file()
    except OSError as error:  # a name too long, a folder that may not be entered
        raise VideoError(f"{path} cannot be looked up: {error.strerror}") from error
