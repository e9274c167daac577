"""What is known of a result or a cache beside its records. Every tool asks here, so all say the same of a file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva.records.meta import Meta
from eva.records.outcome import Outcome
from eva.scoring.coverage import Coverage, measure
from eva.scoring.published import Published
from eva.text import printable


@dataclass(frozen=True)
class Origin:
    """`meta` is None where there is no meta file. `dataset` is '' where nothing tells it. `published` is what is
    published of the dataset, None where nothing is."""

    path: Path
    meta: Meta | None
    dataset: str
    published: Published | None
    coverage: Coverage


def find_origin(path: Path, meta: Meta | None, indices: Collection[int], published: Mapping[str, Published]) -> Origin:
    """`meta` is the meta file of the file at `path`; `indices` are those of its records."""
    dataset = dataset_of(meta, indices, published)
    known = published.get(dataset)
    stated = meta.coverage if meta else {}
    return Origin(path, meta, dataset, known, measure(path, stated, indices, rows=known.rows if known else None))


def dataset_of(meta: Meta | None, indices: Collection[int], published: Mapping[str, Published]) -> str:
    """The dataset that the meta file names; where it names none, the dataset with exactly these indices, else ''.

    The name of the file says nothing: somebody may have renamed it.
    """
    named = named_dataset(meta)
    if named:
        return named
    found = frozenset(indices)
    matches = (name for name, one in published.items() if len(found) == one.rows and found == set(range(one.rows)))
    return next(matches, "")


def named_dataset(meta: Meta | None) -> str:
    """The dataset that a meta file names; '' where it names none, and without a meta file."""
    named = meta.settings.get("dataset") if meta else None
    return named if isinstance(named, str) else ""


def describe_agent(outcomes: Iterable[Outcome], meta: Meta | None) -> str:
    """Who played, with the frames of a baseline: `eva`, `uniform, 8 frames`. A mixed file has several."""
    settings = meta.settings if meta and not meta.mixed else {}
    agents = list(dict.fromkeys(outcome.agent for outcome in outcomes)) or [str(settings.get("agent", "eva"))]
    frames = _frames(settings) if agents == [settings.get("agent")] else ""
    return printable(" and ".join(agents) + frames, limit=60)


def _frames(settings: Mapping[str, Any]) -> str:
    nframes = settings.get("nframes")
    if type(nframes) is int:
        return ", 1 frame" if nframes == 1 else f", {nframes} frames"
    return ", matched tokens" if "match_sha256" in settings else ""
