"""What is known of a result or cache beside its records: every tool asks here, so that all say the same of a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from eva.records.meta import Meta, read_meta
from eva.scoring.coverage import Coverage, measure
from eva.scoring.published import Published


@dataclass(frozen=True)
class Origin:
    """`meta` is None where there is no meta file, `dataset` '' where nothing tells it; `published` are the dataset's
    published figures where there are any."""

    meta: Meta | None
    dataset: str
    published: Published | None
    coverage: Coverage


def find_origin(path: Path, indices: Collection[int], published: Mapping[str, Published]) -> Origin:
    """`indices` are those of the file's records. Raises EvaError for a broken meta file."""
    meta = read_meta(path)
    dataset = dataset_of(meta, indices, published)
    known = published.get(dataset)
    said = meta.coverage if meta else {}
    return Origin(meta, dataset, known, measure(path, said, indices, rows=known.rows if known else None))


def dataset_of(meta: Meta | None, indices: Collection[int], published: Mapping[str, Published]) -> str:
    """As the meta file says; where it does not, the dataset that has just these indices, else ''.

    The file's name says nothing: it may have been renamed.
    """
    named = named_dataset(meta)
    if named:
        return named
    found = frozenset(indices)
    fits = (name for name, entry in published.items() if len(found) == entry.rows and found == set(range(entry.rows)))
    return next(fits, "")


def named_dataset(meta: Meta | None) -> str:
    """The dataset that a meta file names, '' where it names none: then it says as little as no meta file."""
    named = meta.settings.get("dataset") if meta else None
    return named if isinstance(named, str) else ""
