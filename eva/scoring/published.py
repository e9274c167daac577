"""The published figures, and how a result compares with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva.records.meta import Meta
from eva.scoring.interval import Interval

MIXED = "Mixed: parts of this result were made with different settings"


@dataclass(frozen=True)
class Figure:
    """One published accuracy as a fraction, and its source; mean rounds and tokens where the source has them."""

    accuracy: float
    source: str
    average_rounds: float | None = None
    average_total_tokens: float | None = None


@dataclass(frozen=True)
class Published:
    """A dataset: its size, its published figures, the settings of these, the SHA-256 of its annotation file."""

    dataset: str
    rows: int
    figures: tuple[Figure, ...]
    settings: Mapping[str, Any]
    annotations_sha256: str


def load_published(home: Path) -> dict[str, Published]:
    """By the dataset's name, from `results-12k/published.json` and `data/manifest.json` of the project's folder."""
    content = json.loads((home / "results-12k" / "published.json").read_text(encoding="utf-8"))
    files = json.loads((home / "data" / "manifest.json").read_text(encoding="utf-8"))["files"]
    return {
        name: Published(name, entry["rows"], _figures(entry), content["settings"], files[name]["sha256"])
        for name, entry in content["datasets"].items()
    }


def _figures(entry: Mapping[str, Any]) -> tuple[Figure, ...]:
    return tuple(
        Figure(row["accuracy_percent"] / 100, row["source"], row.get("average_rounds"), row.get("average_total_tokens"))
        for row in entry["published"]
    )


def published_lines(
    entry: Published, indices: Iterable[int], accuracy: float | None, interval: Interval | None
) -> list[str]:
    """The result beside each published figure. The lines say where the result covers only a part of the dataset.

    Without an accuracy, as of an unfinished run, the published figures stand alone.
    """
    return [
        f"Dataset: {entry.dataset}",
        *coverage_lines(entry, indices),
        *(_figure_line(figure, accuracy, interval) for figure in entry.figures),
    ]


def coverage_lines(entry: Published, indices: Iterable[int]) -> list[str]:
    covered = _covered(entry, indices)
    if covered >= entry.rows:
        return []
    return [f"This result covers only {covered} of {entry.rows} questions; the published figures are over all of them"]


def published_json(
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


# Meta files name these where they are not those of the published figures.
UNPUBLISHED = ("agent", "max_tokens", "pixels_per_token", "extra_body")


def caveat_lines(meta: Meta, published: Published | None) -> list[str]:
    """What makes the figures of a run differ from those of the published settings and the published questions.

    A meta file without settings counts like a missing meta file.
    """
    different = _differences(meta.settings, published) if published and meta.settings else []
    return [*different, *([MIXED] if meta.mixed else [])]


def _differences(settings: Mapping[str, Any], published: Published) -> list[str]:
    lines = []
    for name in ("max_turns", "max_visual_tokens"):
        if settings.get(name) != published.settings[name]:
            now = settings.get(name, "not known")
            lines.append(f"Not the published settings: {name} is {now}, published with {published.settings[name]}")
    lines += [f"Not the published settings: {name} is {settings[name]}" for name in UNPUBLISHED if name in settings]
    if "annotations_sha256" not in settings:
        lines.append("Not known whether these are the published questions: the meta file names no annotation file")
    elif settings["annotations_sha256"] != published.annotations_sha256:
        lines.append("Not the published questions: the annotation file of this run has another SHA-256")
    return lines


def _figure_line(figure: Figure, accuracy: float | None, interval: Interval | None) -> str:
    line = f"Published ({figure.source}): {figure.accuracy:.2%}"
    if accuracy is not None:
        line += f", difference {100 * (accuracy - figure.accuracy):+.2f} points"
    if interval is not None:
        line += f", {'inside' if figure.accuracy in interval else 'outside'} the 95 % interval"
    return line
