"""The charts of a report: what the accuracy depends on, how the samples ended, and where the agent looked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from eva.report.drawing import (
    Limits,
    Mark,
    Point,
    densities,
    ends_of,
    forest,
    forest_height_in,
    label,
    legend,
    legend_height_in,
    limits_of,
    render,
    scatter,
)
from eva.report.grouping import (
    MAX_CATEGORIES,
    Group,
    accuracy,
    beside_published,
    by_category,
    by_evidence,
    by_length,
    by_rounds,
    by_source,
    by_stop_reason,
    by_tokens,
    curves,
)
from eva.report.samples import Run

PLACES = 20
WHOLE: Limits = (0.0, 100.0)

Marked = tuple[Mark, Run]


@dataclass(frozen=True)
class Chart:
    """A chart as an <svg> element, and its numbers in words for those who do not see it."""

    title: str
    svg: str
    description: str


def charts(runs: Sequence[Run]) -> list[Chart]:
    """Every chart that the runs have numbers for: records without a trajectory have fewer.

    Runs without samples are left out.
    """
    by_agent = any(run.agent != "eva" for run in runs)
    marked = [(Mark(number, _name(run, by_agent=by_agent)), run) for number, run in enumerate(runs) if run.samples]
    if not marked:
        return []
    accuracies = [
        _forest("accuracy", "Accuracy", by_source, marked),
        _forest("rounds", "Accuracy by rounds", by_rounds, marked, fewest=2),
        _forest("tokens", "Accuracy by total tokens", by_tokens, marked, fewest=2),
        _forest("length", "Accuracy by video length", by_length, marked, fewest=2),
        *_category_forests(marked),
    ]
    # They stand below each other, so they have one scale.
    limits = limits_of([end for one in accuracies if one for row in one.rows for end in ends_of(row.estimates)])
    stops = _forest("stops", "Stop reasons", by_stop_reason, marked, unit="Samples, %")
    evidence = _forest("evidence", "Frames in the annotated time", by_evidence, _annotated(marked), unit="Samples, %")
    found = [
        *(_forest_chart(one, limits) for one in accuracies),
        _forest_chart(stops, WHOLE),
        _token_chart(marked),
        _places_chart(marked),
        _forest_chart(evidence, WHOLE),
    ]
    return [chart for chart in found if chart is not None]


def _name(run: Run, *, by_agent: bool) -> str:
    name = f"{run.name} ({run.agent})" if by_agent and run.name != run.agent else run.name
    return f"{name}, so far" if run.partial else name


@dataclass(frozen=True)
class _Forest:
    """What a chart of shares will show."""

    key: str
    title: str
    rows: Sequence[Group]
    marks: Sequence[Mark]
    unit: str
    note: str


def _forest(
    key: str,
    title: str,
    group: Callable[[Sequence[Run]], Sequence[Group]],
    marked: Sequence[Marked],
    *,
    unit: str = "Accuracy, %",
    note: str = "",
    fewest: int = 1,
) -> _Forest | None:
    """None with fewer groups than `fewest`: one group alone says what the first chart says."""
    runs, marks = [run for _, run in marked], [mark for mark, _ in marked]
    rows = group(runs)
    if len(rows) < fewest:
        return None
    if not all(run.partial for run in runs):
        unit += ", and its 95 % interval by video"
    return _Forest(key, title, rows, marks, unit, note)


def _forest_chart(one: _Forest | None, limits: Limits) -> Chart | None:
    if one is None:
        return None
    draw = partial(forest, rows=one.rows, runs=one.marks, unit=one.unit, limits=limits)
    svg = render(draw, height_in=forest_height_in(one.rows), key=one.key, title=one.title)
    return Chart(one.title, svg, f"{one.title}. {_rows_in_words(one.rows, one.marks)}{one.note}")


def _category_forests(marked: Sequence[Marked]) -> list[_Forest | None]:
    """One for each dataset: the categories of two have nothing in common."""
    found = []
    for number, dataset in enumerate(dict.fromkeys(run.dataset for _, run in marked)):
        own = [(mark, run) for mark, run in marked if run.dataset == dataset]
        known = {name for _, run in own for sample in run.samples for name in sample.categories}
        note = f" The {MAX_CATEGORIES} largest of {len(known)} categories." if len(known) > MAX_CATEGORIES else ""
        title = "Accuracy by category" + (f", {label(dataset)}" if dataset else "")
        found.append(_forest(f"category{number}", title, by_category, own, note=note))
    return found


def _annotated(marked: Sequence[Marked]) -> list[Marked]:
    """The runs of which it is known whether frames lie in the annotated time."""
    return [
        (mark, run) for mark, run in marked if any(sample.looked_into_reference is not None for sample in run.samples)
    ]


def _token_chart(marked: Sequence[Marked]) -> Chart | None:
    """Mean tokens against accuracy. The published figure is beside the run that it belongs to."""
    runs = [run for _, run in marked]
    beside, joined = beside_published(runs), curves(runs)
    nframes = {number: count for curve in joined for count, number in curve}
    found = [
        _point(mark, run, with_published=number in beside, nframes=nframes.get(number))
        for number, (mark, run) in enumerate(marked)
    ]
    points = [(point, run) for point, run in zip(found, runs, strict=True) if point is not None]
    if not points:
        return None
    lines = [[point for _, number in curve if (point := found[number])] for curve in joined]

    def draw(axes: Axes) -> None:
        scatter(axes, [point for point, _ in points], lines)
        legend(axes, [point.mark for point, _ in points])

    title = "Tokens and accuracy"
    svg = render(draw, height_in=3.0 + legend_height_in(len(points)), key="cost", title=title)
    return Chart(title, svg, " ".join([f"{title}.", *(_point_in_words(point, run) for point, run in points)]))


def _point(mark: Mark, run: Run, *, with_published: bool, nframes: int | None) -> Point | None:
    tokens = [sample.tokens for sample in run.samples if sample.tokens is not None]
    share = accuracy(run, run.samples)
    if not tokens or share is None:
        return None
    published = tuple(
        (figure.average_total_tokens, figure.accuracy)
        for figure in (run.published.figures if run.published and with_published else ())
        if figure.average_total_tokens is not None
    )
    return Point(mark, float(np.mean(tokens)), share, published, nframes)


def _point_in_words(point: Point, run: Run) -> str:
    words = [f"{label(point.mark.name)}: {point.tokens:,.0f} tokens, {point.accuracy}."]
    words += [f"Published for {label(run.dataset)}: {tokens:,.0f} tokens, {it:.2%}." for tokens, it in point.published]
    return " ".join(words)


def _places_chart(marked: Sequence[Marked]) -> Chart | None:
    """Where in the video the frames are. Every sample has the same weight, however many frames it asked for."""
    lines, words = [], []
    for mark, run in marked:
        first = density([sample.first_look for sample in run.samples])
        later = density([sample.later_looks for sample in run.samples])
        for kind, places in (("first", first), ("later", later)):
            if places is not None:
                lines.append((mark, places.tolist(), kind == "later"))
                words.append(f"{label(run.name)}: {kind} looks have {_fifths(places)}.")
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        densities(axes, lines)
        legend(axes, list(dict.fromkeys(mark for mark, _, _ in lines)))

    title = "Where in the video the agent looked"
    svg = render(draw, height_in=3.0 + legend_height_in(len(marked)), key="places", title=title)
    return Chart(title, svg, " ".join([f"{title}.", *words]))


def density(samples: Sequence[NDArray[np.float32]]) -> NDArray[np.float64] | None:
    """The mean density of frames over PLACES bins of the video, 1 where frames are spread evenly.

    `samples` has one array of places (0 to 1) per sample. None where no frame was shown.
    """
    shares = [np.histogram(places, bins=PLACES, range=(0, 1))[0] / len(places) for places in samples if len(places)]
    return np.mean(shares, axis=0) * PLACES if shares else None


def _fifths(places: NDArray[np.float64]) -> str:
    shares = places.reshape(5, -1).sum(axis=1) / PLACES
    return ", ".join(f"{share:.0%}" for share in shares) + " of their frames in the fifths of the video"


def _rows_in_words(rows: Sequence[Group], runs: Sequence[Mark]) -> str:
    """Every number of a forest, run by run."""
    return " ".join(
        f"{label(mark.name)}: "
        + "; ".join(f"{label(row.label)} {row.estimates[number]}" for row in rows if row.estimates[number] is not None)
        + "."
        for number, mark in enumerate(runs)
    )
