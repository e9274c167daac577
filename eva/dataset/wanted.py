"""The videos that an annotation file names, by the names that they have in archives."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eva.dataset.archives import part_of
from eva.dataset.items import Item, video_path
from eva.dataset.locate import locate_video
from eva.errors import VideoError
from eva.files import WriteError


@dataclass(frozen=True)
class Wanted:
    """The paths of the videos below `root`, by base name. Some of MLVU's are in two folders, and are one video."""

    root: Path
    paths: Mapping[str, tuple[Path, ...]]

    @classmethod
    def of(cls, items: Iterable[Item], root: Path) -> Wanted:
        """Raises VideoError for a video path that leaves `root`."""
        paths: dict[str, tuple[Path, ...]] = {}
        for path in dict.fromkeys(video_path(item, root) for item in items):
            paths[path.name] = (*paths.get(path.name, ()), path)
        return cls(root, paths)

    def missing(self) -> dict[str, list[Path]]:
        """The paths without a file, also without one in another container."""
        absent = {name: [path for path in paths if find(path) is None] for name, paths in self.paths.items()}
        return {name: paths for name, paths in absent.items() if paths}

    def remove_parts(self) -> None:
        """Delete what a killed process left of videos."""
        for paths in self.paths.values():
            for path in paths:
                part_of(path).unlink(missing_ok=True)

    def link_twins(self) -> None:
        """Put a video that is in one of its folders into its others. Raises WriteError."""
        for name, absent in self.missing().items():
            there = [found for path in self.paths[name] if (found := find(path))]
            for path in absent if there else ():
                link(there[0], path.with_name(there[0].name))


def find(path: Path) -> Path | None:
    """The file of an annotated video, None where there is none."""
    try:
        return locate_video(path)
    except VideoError:
        return None


def link(original: Path, path: Path) -> None:
    """The same file at `path`, or a copy on a disk without links. Raises WriteError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(original, path)
        except OSError:
            part = part_of(path)
            shutil.copyfile(original, part)
            part.replace(path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}") from error
