"""The pictures of a report: what the accuracy depends on, how the samples ended, and where the agent looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from eva.drawing import densities, forest, forest_height_in, label, legend, render, scatter
from eva.evidence import Estimate
from eva.grouping import (
    MAX_CATEGORIES,
    Row,
    accuracy,
    by_category,
    by_evidence,
    by_length,
    by_rounds,
    by_stop_reason,
    by_tokens,
)
from eva.runs import Run, Sample, read_sample

__all__ = ["Chart", "Run", "Sample", "charts", "read_sample"]

PLACES = 20


@dataclass(frozen=True)
class Chart:
    """A picture as an <svg> element, and its numbers in words for those who do not see it."""

    title: str
    svg: str
    description: str


def charts(runs: Sequence[Run]) -> list[Chart]:
    """Every picture that the runs have the numbers for; records without a trajectory have fewer.

    Runs without samples are left out.
    """
    runs = [run for run in runs if run.samples]
    if not runs:
        return []
    found = [
        _forest_chart("rounds", "Accuracy by rounds", by_rounds(runs), runs),
        _forest_chart("tokens", "Accuracy by total tokens", by_tokens(runs), runs),
        _forest_chart("length", "Accuracy by video length", by_length(runs), runs),
        *_category_charts(runs),
        _forest_chart("stops", "Stop reasons", by_stop_reason(runs), runs, unit="Samples, %"),
        _token_chart(runs),
        _places_chart(runs),
        _evidence_chart(runs),
    ]
    return [chart for chart in found if chart is not None]


def _forest_chart(
    key: str, title: str, rows: Sequence[Row], runs: Sequence[Run], *, unit: str = "Accuracy, %", note: str = ""
) -> Chart | None:
    if not rows:
        return None
    names = [run.name for run in runs]
    draw = partial(forest, rows=rows, runs=names, unit=f"{unit}, with 95 % interval clustered by video")
    svg = render(draw, height_in=forest_height_in(rows), key=key, title=title)
    return Chart(title, svg, f"{title}. {_rows_in_words(rows, names)}{note}")


def _category_charts(runs: Sequence[Run]) -> list[Chart | None]:
    """One for each dataset: the categories of two have nothing in common."""
    found = []
    for number, dataset in enumerate(dict.fromkeys(run.dataset for run in runs)):
        own = [run for run in runs if run.dataset == dataset]
        known = {name for run in own for sample in run.samples for name in sample.categories}
        note = f" The {MAX_CATEGORIES} largest of {len(known)} categories." if len(known) > MAX_CATEGORIES else ""
        title = "Accuracy by category" + (f", {label(dataset)}" if dataset else "")
        found.append(_forest_chart(f"category{number}", title, by_category(own), own, note=note))
    return found


def _evidence_chart(runs: Sequence[Run]) -> Chart | None:
    own = [run for run in runs if any(sample.looked_into_reference is not None for sample in run.samples)]
    if not own:
        return None
    return _forest_chart("evidence", "Frames in the annotated time", by_evidence(own), own, unit="Samples, %")


def _token_chart(runs: Sequence[Run]) -> Chart | None:
    """Mean tokens against accuracy."""
    counted = [
        (run, float(np.mean(tokens)), one)
        for run in runs
        if (tokens := [sample.tokens for sample in run.samples if sample.tokens is not None])
        and (one := accuracy(run.samples))
    ]
    if not counted:
        return None
    published = [
        (number, figure.average_total_tokens, figure.accuracy)
        for number, (run, _, _) in enumerate(counted)
        for figure in run.published
        if figure.average_total_tokens is not None
    ]
    names = [run.name for run, _, _ in counted]

    def draw(axes: Axes) -> None:
        scatter(axes, [(tokens, one) for _, tokens, one in counted], published)
        legend(axes, names)

    words = [f"{label(run.name)}: {tokens:,.0f} tokens, {_in_words(one)}." for run, tokens, one in counted]
    words += [
        f"Published for {label(counted[number][0].dataset)}: {tokens:,.0f} tokens, {share:.2%}."
        for number, tokens, share in published
    ]
    title = "Tokens and accuracy"
    svg = render(draw, height_in=3.4 + 0.1 * len(names), key="cost", title=title)
    return Chart(title, svg, " ".join([f"{title}.", *words]))


def _places_chart(runs: Sequence[Run]) -> Chart | None:
    """Where in the video the frames lie, every sample with the same weight however many frames it asked for."""
    looks = [
        (run, density([s.first_look for s in run.samples]), density([s.later_looks for s in run.samples]))
        for run in runs
    ]
    looks = [(run, first, later) for run, first, later in looks if first is not None]
    if not looks:
        return None
    lines = [
        (number, list(places), dashed)
        for number, (_, first, later) in enumerate(looks)
        for places, dashed in ((first, False), (later, True))
        if places is not None
    ]

    def draw(axes: Axes) -> None:
        densities(axes, lines)
        legend(axes, [run.name for run, _, _ in looks])

    words = [
        f"{label(run.name)}: {kind} looks have {_fifths(places)}."
        for run, first, later in looks
        for kind, places in (("first", first), ("later", later))
        if places is not None
    ]
    title = "Where in the video the agent looked"
    svg = render(draw, height_in=3.2 + 0.1 * len(looks), key="places", title=title)
    return Chart(title, svg, " ".join([f"{title}.", *words]))


def density(samples: Sequence[NDArray[np.float32]]) -> NDArray[np.float64] | None:
    """Of frames' places (0 to 1), one array a sample: the mean density over PLACES bins of the video, 1 where frames
    are spread evenly. None where nothing was shown."""
    shares = [np.histogram(places, bins=PLACES, range=(0, 1))[0] / len(places) for places in samples if len(places)]
    return np.mean(shares, axis=0) * PLACES if shares else None


def _fifths(places: NDArray[np.float64]) -> str:
    shares = places.reshape(5, -1).sum(axis=1) / PLACES
    return ", ".join(f"{share:.0%}" for share in shares) + " of their frames in the fifths of the video"


def _rows_in_words(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Every number of a forest, run by run."""
    return " ".join(
        f"{label(name)}: "
        + "; ".join(
            f"{label(row.label)} {_in_words(row.estimates[number])}"
            for row in rows
            if row.estimates[number] is not None
        )
        + "."
        for number, name in enumerate(names)
    )


def _in_words(one: Estimate | None) -> str:
    if one is None:
        return ""
    between = f" ({one.interval.low:.1%} to {one.interval.high:.1%})" if one.interval else ""
    return f"{one.value:.1%}{between} of {one.count:,}"
