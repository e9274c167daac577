"""`data/videos.json`: where the videos of each dataset are on the Hub, in which form, and under which terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Source:
    """A repository with the videos of a dataset.

    `kind`: "zips" (each file of its own), "tar-parts" and "zip-parts" (pieces of one archive, in the order of their
    names) or "files" (the videos themselves, below `folder`). `files` is the pattern of their names. `videos` is how
    many videos the archives hold, if only some of them are wanted.
    """

    repo: str
    revision: str
    kind: str
    files: str
    folder: str = ""
    videos: int | None = None


@dataclass(frozen=True)
class VideoSet:
    """The videos of one dataset. Where the Hub does not have them, `commands` fetch them: `{folder}` is their folder,
    and `{names}` a file with the stems of their names."""

    terms: str
    page: str
    sources: tuple[Source, ...] = ()
    mirrors: tuple[Source, ...] = ()
    commands: tuple[str, ...] = ()
    names_file: str = ""


@dataclass(frozen=True)
class Model:
    """The repository of the weights, and their folder in this project."""

    repo: str
    revision: str
    folder: str


@dataclass(frozen=True)
class Catalog:
    """What the Hub has: the weights, and the videos by the name of the dataset."""

    model: Model
    datasets: Mapping[str, VideoSet]


def load_catalog(path: Path) -> Catalog:
    """Read the catalog of this repository. Raises OSError, ValueError, KeyError or TypeError where it is damaged."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Catalog(Model(**content["model"]), {name: _video_set(**row) for name, row in content["datasets"].items()})


def _video_set(**row: Any) -> VideoSet:
    sources, mirrors = (tuple(Source(**one) for one in row.pop(key, ())) for key in ("sources", "mirrors"))
    return VideoSet(sources=sources, mirrors=mirrors, commands=tuple(row.pop("commands", ())), **row)
