"""The published figures, and how a result compares with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eva.dataset.catalog import load_catalog
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


def load_published() -> dict[str, Published]:
    """By the dataset's name, from the catalog of the datasets."""
    catalog = load_catalog()
    return {
        name: Published(name, one.rows, _figures(one.published), catalog.published_settings, one.annotations.sha256)
        for name, one in catalog.datasets.items()
    }


def _figures(rows: Iterable[Mapping[str, Any]]) -> tuple[Figure, ...]:
    return tuple(
        Figure(row["accuracy_percent"] / 100, row["source"], row.get("average_rounds"), row.get("average_total_tokens"))
        for row in rows
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


def summary_rows(
    entry: Published, indices: Iterable[int], accuracy: float | None, interval: Interval | None
) -> list[str]:
    """The same in fewer words, for the first lines of a run's summary."""
    of_all = "" if _covered(entry, indices) >= entry.rows else f", of all {entry.rows} questions"
    return [
        f"{figure.accuracy:.2%} ({figure.source}{of_all}){_comparison(figure, accuracy, interval, short=True)}"
        for figure in entry.figures
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
    different = _differences(meta, published) if published and meta.settings else []
    return [*different, *([MIXED] if meta.mixed else [])]


def _differences(meta: Meta, published: Published) -> list[str]:
    settings = meta.settings
    lines = []
    # A meta file names the temperature only where it is another one.
    now = {"temperature": published.settings["temperature"], **settings}
    for name in ("temperature", "max_turns", "max_visual_tokens"):
        if now.get(name) != published.settings[name]:
            shown = now.get(name, "not known")
            lines.append(f"Not the published settings: {name} is {shown}, published with {published.settings[name]}")
    lines += [f"Not the published settings: {name} is {settings[name]}" for name in UNPUBLISHED if name in settings]
    if "annotations_sha256" not in settings:
        return [*lines, "Not known whether these are the published questions: the meta file names no annotation file"]
    return lines + published_questions(published, settings["annotations_sha256"], meta.coverage.get("items"))


def published_questions(published: Published, annotations_sha256: object, questions: object) -> list[str]:
    """What shows that an annotation file is not that of the published figures. `questions` is how many it has."""
    if annotations_sha256 == published.annotations_sha256:
        return []
    other = type(questions) is int and questions != published.rows
    count = f" and {questions} questions instead of {published.rows}" if other else ""
    return [f"Not the published questions: the annotation file of this run has another SHA-256{count}"]


def _figure_line(figure: Figure, accuracy: float | None, interval: Interval | None) -> str:
    return f"Published ({figure.source}): {figure.accuracy:.2%}{_comparison(figure, accuracy, interval, short=False)}"


def _comparison(figure: Figure, accuracy: float | None, interval: Interval | None, *, short: bool) -> str:
    text = ""
    if accuracy is not None:
        text += f", {'' if short else 'difference '}{100 * (accuracy - figure.accuracy):+.2f} points"
    if interval is not None:
        place = "inside" if figure.accuracy in interval else "outside"
        text += f", {place}{'' if short else ' the 95 % interval'}"
    return text
