"""The published figures, and how a result stands beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva.records.meta import Meta
from eva.scoring.interval import Interval


@dataclass(frozen=True)
class Figure:
    """One published accuracy as a fraction, and where it stands; rounds and tokens where they stand there too."""

    accuracy: float
    source: str
    average_rounds: float | None = None
    average_total_tokens: float | None = None


@dataclass(frozen=True)
class Published:
    """A dataset's size and its published figures."""

    dataset: str
    rows: int
    figures: tuple[Figure, ...]


def load_published(path: Path) -> dict[str, Published]:
    """`results-12k/published.json` by dataset name."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Published(
            dataset=name,
            rows=entry["rows"],
            figures=tuple(map(_figure, entry["published"])),
        )
        for name, entry in content["datasets"].items()
    }


def _figure(row: Mapping[str, Any]) -> Figure:
    accuracy = row["accuracy_percent"] / 100
    return Figure(accuracy, row["source"], row.get("average_rounds"), row.get("average_total_tokens"))


def comparison_lines(
    entry: Published, indices: Iterable[int], accuracy: float | None, interval: Interval | None
) -> list[str]:
    """The result beside each published figure; a part of a dataset is said to be one.

    Without an accuracy, as of an unfinished run, the published figures stand alone.
    """
    lines = [f"Dataset: {entry.dataset}"]
    covered = _covered(entry, indices)
    if covered < entry.rows:
        lines.append(
            f"This result covers only {covered} of {entry.rows} questions; the published figures are over all of them"
        )
    return lines + [_beside(figure, accuracy, interval) for figure in entry.figures]


def comparison_json(
    entry: Published, indices: Iterable[int], accuracy: float | None, interval: Interval | None
) -> dict[str, Any]:
    """The same for programs."""
    return {
        "dataset": entry.dataset,
        "questions": entry.rows,
        "covered": _covered(entry, indices),
        "published": [
            {
                "source": figure.source,
                "accuracy": figure.accuracy,
                "difference": None if accuracy is None else accuracy - figure.accuracy,
                "inside_interval": None if interval is None else figure.accuracy in interval,
            }
            for figure in entry.figures
        ],
    }


def _covered(entry: Published, indices: Iterable[int]) -> int:
    return len(frozenset(indices) & frozenset(range(entry.rows)))


def caveat_lines(meta: Meta, dataset: str, published: Path, manifest: Path) -> list[str]:
    """What keeps a run's figures from being those of the published settings on the published questions.

    `published` is `results-12k/published.json`, `manifest` is `data/manifest.json`. A meta file without settings says
    nothing of them, and is like none.
    """
    mixed = ["Mixed: parts of this result were made with different settings"] if meta.mixed else []
    return [*(_differences(meta, dataset, published, manifest) if meta.settings else []), *mixed]


def _differences(meta: Meta, dataset: str, published: Path, manifest: Path) -> list[str]:
    lines = []
    owed = json.loads(published.read_text(encoding="utf-8"))["settings"]
    for name in ("max_turns", "max_visual_tokens"):
        if meta.settings.get(name) != owed[name]:
            now = meta.settings.get(name, "not known")
            lines.append(f"Not the published settings: {name} is {now}, published with {owed[name]}")
    annotations = json.loads(manifest.read_text(encoding="utf-8"))["files"][dataset]["sha256"]
    if "annotations_sha256" not in meta.settings:
        lines.append("Not known whether these are the published questions: the meta file names no annotation file")
    elif meta.settings["annotations_sha256"] != annotations:
        lines.append("Not the published questions: the annotation file of this run has another SHA-256")
    return lines


def _beside(figure: Figure, accuracy: float | None, interval: Interval | None) -> str:
    if accuracy is None:
        return f"Published ({figure.source}): {figure.accuracy:.2%}"
    points = 100 * (accuracy - figure.accuracy)
    line = f"Published ({figure.source}): {figure.accuracy:.2%}, difference {points:+.2f} points"
    if interval is None:
        return line
    return f"{line}, {'inside' if figure.accuracy in interval else 'outside'} the 95 % interval"
