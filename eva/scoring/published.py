"""The published figures, and what keeps a result from being comparable with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eva.dataset.catalog import load_catalog
from eva.records.meta import Meta
from eva.scoring.score import Score


@dataclass(frozen=True)
class Figure:
    """One published accuracy as a fraction, and its source; mean tokens where the source has them."""

    accuracy: float
    source: str
    average_total_tokens: float | None = None


@dataclass(frozen=True)
class Published:
    """A dataset: its size, its published figures, the settings of these, the SHA-256 of its annotation file."""

    dataset: str
    rows: int
    figures: tuple[Figure, ...]
    settings: Mapping[str, Any]
    annotations_sha256: str


@dataclass(frozen=True)
class Beside:
    """A published accuracy, over all questions of the dataset, beside that of a result. Nothing is said of the
    difference where the result covers a part of them, or has no accuracy yet."""

    source: str
    accuracy: float
    questions: int
    difference: float | None
    inside_interval: bool | None


def load_published() -> dict[str, Published]:
    """By the dataset's name, from the catalog of the datasets."""
    catalog, found = load_catalog(), {}
    for name, one in catalog.datasets.items():
        figures = tuple(
            Figure(row["accuracy_percent"] / 100, row["source"], row.get("average_total_tokens"))
            for row in one.published
        )
        found[name] = Published(name, one.rows, figures, catalog.published_settings, one.annotations.sha256)
    return found


def put_beside(published: Published | None, indices: Iterable[int], score: Score) -> list[Beside]:
    """The published figures beside the score of records with these indices."""
    if published is None:
        return []
    whole = set(indices) >= set(range(published.rows))
    interval, accuracy = (score.interval_95, score.accuracy) if whole else (None, None)
    return [
        Beside(
            one.source,
            one.accuracy,
            published.rows,
            difference=None if accuracy is None else accuracy - one.accuracy,
            inside_interval=None if interval is None else one.accuracy in interval,
        )
        for one in published.figures
    ]


# Meta files name these where they are not those of the published figures.
UNPUBLISHED = ("agent", "max_tokens", "pixels_per_token", "extra_body")


def settings_caveats(meta: Meta | None, published: Published | None) -> list[str]:
    """What makes the figures of a run differ from those of the published settings and the published questions.

    A meta file without settings counts like a missing meta file.
    """
    if meta is None:
        return []
    lines = ["Mixed: parts of this result were made with different settings"] if meta.mixed else []
    if published is None or not meta.settings:
        return lines
    settings = meta.settings
    different = []
    # A meta file names the temperature only where it is another one.
    now = {"temperature": published.settings["temperature"], **settings}
    for name in ("temperature", "max_turns", "max_visual_tokens"):
        if now.get(name) != published.settings[name]:
            shown = now.get(name, "not known")
            different.append(f"{name} is {shown}, published with {published.settings[name]}")
    different += [f"{name} is {settings[name]}" for name in UNPUBLISHED if name in settings]
    questions = ["Not known whether these are the published questions: the meta file names no annotation file"]
    if "annotations_sha256" in settings:
        questions = published_questions(published, settings["annotations_sha256"], meta.coverage.get("items"))
    return [*(f"Not the published settings: {one}" for one in different), *questions, *lines]


def published_questions(published: Published, annotations_sha256: object, questions: object) -> list[str]:
    """What shows that an annotation file is not that of the published figures. `questions` is how many it has."""
    if annotations_sha256 == published.annotations_sha256:
        return []
    other = type(questions) is int and questions != published.rows
    count = f" and {questions} questions instead of {published.rows}" if other else ""
    return [f"Not the published questions: the annotation file of this run has another SHA-256{count}"]
