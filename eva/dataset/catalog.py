"""`eva/datasets.json`: all that is known of the six datasets, each in one entry, and where the weights are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CATALOG = Path(__file__).resolve().parent.parent / "datasets.json"


@dataclass(frozen=True)
class RemoteFile:
    """A file on the web, known by its SHA-256 or by the id that Git gives it."""

    name: str
    url: str
    sha256: str = ""
    git_blob: str = ""

    def find_problem(self, content: bytes) -> str | None:
        """What is wrong with `content`, as the end of a sentence; None where it is the content of this file."""
        # Git's object ids are SHA-1. The id names a published file here; it does not guard a secret.
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        digest = hashlib.sha256(content).hexdigest() if self.sha256 else blob.hexdigest()
        if digest == (self.sha256 or self.git_blob):
            return None
        return f"has {len(content)} bytes and the hash {digest} instead of {self.sha256 or self.git_blob}"


@dataclass(frozen=True)
class Source:
    """A repository of the Hub with the videos of a dataset, or with the weights.

    `kind`: "zips" (each file of its own), "tar-parts" and "zip-parts" (pieces of one archive, in the order of their
    names) or "files" (the videos themselves, below `folder`). `files` is the pattern of their names. `videos` is how
    many videos a tar holds, also those that nobody wants. The `folder` of the weights is where they go.
    """

    repo: str
    revision: str
    kind: str
    files: str = "*"
    folder: str = ""
    videos: int = 1


@dataclass(frozen=True)
class KnownDataset:
    """A dataset: its files, its size, the figures that were published, and where its videos are.

    `category` is what tells the category of a question: a key of its annotation, "video length" or "video folder".
    Where the Hub does not have the videos, `commands` fetch them: `{folder}` is their folder, and `{names}` a file,
    called `names_file`, with the stems of their names.
    """

    annotations: RemoteFile
    result: RemoteFile
    rows: int
    videos: int
    published: Sequence[Mapping[str, Any]]
    terms: str
    page: str
    category: str = "category"
    source: Source | None = None
    mirror: Source | None = None
    commands: Sequence[str] = ()
    names_file: str = ""


@dataclass(frozen=True)
class Catalog:
    """The datasets by name, the settings of the published figures, and the repository of the weights."""

    datasets: Mapping[str, KnownDataset]
    published_settings: Mapping[str, Any]
    model: Source


def load_catalog(path: Path = CATALOG) -> Catalog:
    """Read the catalog of this package."""
    content = json.loads(path.read_text(encoding="utf-8"))
    datasets = {name: _dataset(content["source"], dict(entry)) for name, entry in content["datasets"].items()}
    return Catalog(datasets, content["published_settings"], Source(**content["model"]))


@cache
def category_rule(dataset: str) -> str:
    """What tells the category of a question, see KnownDataset. A dataset that is not known has a key `category`."""
    known = load_catalog().datasets.get(dataset)
    return known.category if known else KnownDataset.category


def _dataset(web: str, entry: dict[str, Any]) -> KnownDataset:
    annotations, result = entry.pop("annotations"), entry.pop("result")
    sources: dict[str, Any] = {key: Source(**entry.pop(key)) for key in ("source", "mirror") if key in entry}
    return KnownDataset(
        annotations=RemoteFile(url=f"{web}data/{annotations['name']}", **annotations),
        result=RemoteFile(url=f"{web}results-12k/{result['name']}", **result),
        **sources,
        **entry,
    )
