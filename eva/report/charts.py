"""The charts of a report, by matplotlib without pyplot.

One drawing serves a light and a dark page: texts have no colour, so the page gives them its own, and all other colours
can be seen on both. Each run has a marker of its own too, for those who do not see colours, and for print.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eva.report.samples import Estimate, Run, Sample, accuracy, share
from eva.scoring.categories import UNKNOWN, by_category
from eva.scoring.score import mean
from eva.text import printable

ROUNDS = (*map(str, range(10)), "10 or more")
EDGES_S = (60, 180, 600, 1800, 3600)
LENGTHS = ("under 1 min", "1 to 3 min", "3 to 10 min", "10 to 30 min", "30 to 60 min", "60 min and more")
CHANCE = "Chance"
# The rare categories and stop reasons stand together.
MAX_ROWS = 12

# Each has a contrast of 3 and more to a white page and to a dark one.
COLOURS, GREY = ("#2a80c0", "#d2601a", "#2a9464", "#9a6fd0", "#d84a4a", "#857c30"), "#808080"
# One fewer than colours: the pair of a colour and a marker comes again after thirty runs.
MARKERS = ("o", "s", "D", "^", "v")
# 360 units wide. A phone shows it about as large, so a text of 12 units has at least 11 pixels.
WIDTH_IN, LINE_IN = 5.0, 0.19
# The salt makes the same numbers give the same bytes.
_STYLE = {"font.size": 12, "svg.fonttype": "none", "svg.hashsalt": "eva", "text.parse_math": False}

# Of each label, an estimate of each run; None where the run has no such sample.
Rows = Mapping[str, Sequence[Estimate | None]]


@dataclass(frozen=True)
class Chart:
    """A chart as an <svg> element, and its numbers in words for those who do not see it."""

    title: str
    svg: str
    description: str


def charts(runs: Sequence[Run]) -> list[Chart]:
    """Every chart that the runs have numbers for. Runs without samples are left out."""
    runs = [run for run in runs if run.samples]
    if not runs:
        return []
    names = [
        run.name + f" ({run.agent})" * (run.agent not in {"eva", run.name}) + ", so far" * run.partial for run in runs
    ]
    accuracies = {
        "Accuracy by rounds": by_label(runs, lambda one: binned(one.outcome.num_rounds, range(1, 11), ROUNDS), ROUNDS),
        "Accuracy by video length": by_label(runs, lambda one: binned(one.video_duration_s, EDGES_S, LENGTHS), LENGTHS),
    }
    for dataset in dict.fromkeys(run.dataset for run in runs):
        accuracies[f"Accuracy by category, {_label(dataset)}".removesuffix(", ")] = in_categories(runs, dataset)
    # One group alone says what the first chart says.
    accuracies = {"Accuracy": by_source(runs), **{title: rows for title, rows in accuracies.items() if len(rows) > 1}}
    # They stand below each other, so they have one scale. Chance would make it wide.
    shown = [one for rows in accuracies.values() for label, row in rows.items() if label != CHANCE for one in row]
    # matplotlib warns of letters that its own font lacks. The browser has them.
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings(action="ignore"):
        found = [_forest(title, rows, names, _limits(shown)) for title, rows in accuracies.items()]
        found.append(_forest("Stop reasons", by_stop_reason(runs), names, (0, 100), counts=True))
        return found + _tokens(runs, names)


# --- samples -> rows


def by_source(runs: Sequence[Run]) -> Rows:
    """The accuracy of each run, then the published figures and chance."""
    rows: dict[str, list[Estimate | None]] = {"This result": [accuracy(run, run.samples) for run in runs]}
    for number, label, _, estimate in references(runs):
        rows.setdefault(label, [None] * len(runs))[number] = estimate
    return rows


def references(runs: Sequence[Run]) -> list[tuple[int, str, float | None, Estimate]]:
    """The published figures of each dataset and what guessing reaches, with the number of the run that they stand
    beside (the first of EVA, else the first), their label, and their mean tokens."""
    # Of several the last in this order stays.
    ranked = sorted(enumerate(runs), key=lambda one: (one[1].agent == "eva", -one[0]))
    found = []
    for number, run in {run.dataset: (number, run) for number, run in ranked}.values():
        if run.published:
            for one in run.published.figures:
                estimate = Estimate(run.published.rows, one.accuracy, measured=False)
                found.append((number, f"Published ({one.source})", one.average_total_tokens, estimate))
        chances = [sample.outcome.chance for sample in run.samples if sample.outcome.chance is not None]
        if chances:
            found.append((number, CHANCE, None, Estimate(len(chances), fmean(chances), measured=False)))
    return found


def by_label(runs: Sequence[Run], labels_of: Callable[[Sample], Sequence[str]], labels: Sequence[str]) -> Rows:
    """The accuracy in each group, in the order of `labels`; groups without a sample are left out."""
    members: list[dict[str, list[Sample]]] = [{} for _ in runs]
    for run, groups in zip(runs, members, strict=True):
        for sample in run.samples:
            for label in labels_of(sample):
                groups.setdefault(label, []).append(sample)
    pairs = list(zip(runs, members, strict=True))
    rows = {label: [accuracy(run, groups.get(label, ())) for run, groups in pairs] for label in labels}
    return {label: row for label, row in rows.items() if any(row)}


def binned(value: float | None, edges: Sequence[float], labels: Sequence[str]) -> Sequence[str]:
    """A value on an edge belongs to the bin above it."""
    return () if value is None else (labels[bisect_right(edges, value)],)


def in_categories(runs: Sequence[Run], dataset: str) -> Rows:
    """The categories in the order of the questions."""
    runs = [run if run.dataset == dataset else replace(run, samples=()) for run in runs]
    samples = sorted((sample for run in runs for sample in run.samples), key=lambda sample: sample.outcome.index)
    groups = by_category(samples, lambda sample: sample.categories)
    rest = sorted(groups, key=lambda name: -len(groups[name]))[MAX_ROWS:]
    other = f"other ({len(rest)})"

    def labels_of(sample: Sample) -> Sequence[str]:
        return tuple({other if name in rest else name for name in sample.categories or (UNKNOWN,)})

    return by_label(runs, labels_of, [*(name for name in groups if name not in rest), other]) if groups else {}


def by_stop_reason(runs: Sequence[Run]) -> Rows:
    """The share of each stop reason among all samples of a run, the most common first."""

    def ended(run: Run, reasons: set[str]) -> Estimate | None:
        return share(run, run.samples, lambda sample: sample.outcome.stop_reason in reasons)

    counts = Counter(sample.outcome.stop_reason for run in runs for sample in run.samples)
    groups = {name: {name} for name, _ in counts.most_common(MAX_ROWS)}
    if rest := counts.keys() - groups:
        groups[f"other ({len(rest)})"] = rest
    return {label: [ended(run, reasons) for run in runs] for label, reasons in groups.items()}


# --- rows -> pictures


def _forest(
    title: str, rows: Rows, names: Sequence[str], limits: tuple[float, float], *, counts: bool = False
) -> Chart:
    """Shares with their intervals, one below the other, their values and n; with `counts` bars, and what they count."""
    axes, ticks, line = _axes(), {}, 0.0
    words: dict[int, list[str]] = {}
    for label, row in rows.items():
        known = [(number, one) for number, one in enumerate(row) if one is not None]
        wrapped = textwrap.fill(_label(label), 22)
        height = max(len(known), wrapped.count("\n") + 1)
        ticks[line + (height - 1) / 2] = wrapped
        for place, (number, one) in enumerate(known):
            y = line + (height - len(known)) / 2 + place
            ends = (0, one.value) if counts else one.interval or ()
            axes.plot([100 * end for end in ends], [y] * len(ends), **_look(number, marker=""))
            # What lies beyond the axis is an arrow at its end.
            x = min(max(100 * one.value, limits[0]), limits[1])
            arrow = {} if x == 100 * one.value else {"marker": "<" if x > 100 * one.value else ">"}
            axes.plot([x], [y], **_look(number, filled=one.measured, **arrow))
            count = f"{round(one.value * one.count):,} of {one.count:,}"
            text = count if counts else f"{one.value:.1%}, n = {one.count:,}"
            axes.annotate(text, (limits[1], y), (10, 0), textcoords="offset points", va="center")
            words.setdefault(number, []).append(f"{_label(label)} {count if counts else one}")
        line += height + 0.7
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.set(xlim=limits, ylim=(line - 0.7, -0.8))
    intervals = ", and its 95 % interval by video" * any(one and one.interval for row in rows.values() for one in row)
    axes.figure.supxlabel("Samples, %" if counts else f"Accuracy, %{intervals}", fontsize="medium")
    axes.grid(visible=False, axis="y")
    return _chart(title, axes, line, names, words)


def _tokens(runs: Sequence[Run], names: Sequence[str]) -> list[Chart]:
    """Mean tokens against accuracy, with the published figures and, where the agent has them, numbers of frames."""
    shown = [
        (number, mean(one.outcome.total_tokens for one in run.samples), accuracy(run, run.samples))
        for number, run in enumerate(runs)
    ]
    shown += [(number, tokens, one) for number, _, tokens, one in references(runs)]
    points = [(number, tokens, one) for number, tokens, one in shown if tokens is not None and one is not None]
    if not any(one.measured for *_, one in points):
        return []
    axes = _axes()
    words: dict[int, list[str]] = {}
    for number, x, one in points:
        ends = one.interval or ()
        axes.plot([x] * len(ends), [100 * end for end in ends], **_look(number, marker=""))
        axes.plot([x], [100 * one.value], **_look(number, filled=one.measured))
        words.setdefault(number, []).append(f"{'' if one.measured else 'published '}{x:,.0f} tokens, {one}")
        meta = runs[number].meta
        if one.measured and meta and type(meta.settings.get("nframes")) is int:
            text, place = _label(f"{meta.settings['nframes']} frames"), (x, 100 * one.value)
            axes.annotate(text, place, (-6, 4), textcoords="offset points", ha="right")
    most = max(x for _, x, _ in points)
    axes.set(xlim=(0, 1.15 * most or 1), ylim=_limits([one for *_, one in points]), ylabel="Accuracy, %")
    axes.figure.supxlabel("Tokens per sample, mean (hollow: published)", fontsize="medium")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    return [_chart("Tokens and accuracy", axes, 11, names, words)]


def _axes() -> Axes:
    axes = Figure(layout="constrained").add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY)
    axes.grid(color=GREY, alpha=0.3)
    return axes


def _chart(title: str, axes: Axes, lines: float, names: Sequence[str], words: Mapping[int, Sequence[str]]) -> Chart:
    """`lines` is the height of the axes in lines of text. `words` has what is shown of each run, by its number."""
    figure: Any = axes.figure
    axes.locator_params(axis="x", nbins=4)
    if len(words) > 1:
        marks = [axes.plot([], [], **_look(number))[0] for number in sorted(words)]
        # The space: matplotlib leaves out a name that begins with _.
        labels = [f" {_label(names[number])}" for number in sorted(words)]
        figure.legend(marks, labels, loc="outside upper left", borderpad=0, labelspacing=0.2, frameon=False)
    figure.set_size_inches(WIDTH_IN, LINE_IN * (lines + 4 + 1.25 * len(words) * (len(words) > 1)))
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    # The element alone, without a rule of matplotlib's that would be one for the whole page.
    svg = re.sub(r"<defs>\s*<style.*?</defs>", "", text.getvalue().partition("<svg")[2], count=1, flags=re.DOTALL)
    said = [f"{_label(names[number])}: {'; '.join(words[number])}." for number in sorted(words)]
    return Chart(title, f"<svg{svg}", " ".join([f"{title}.", *said]))


def _limits(estimates: Sequence[Estimate | None]) -> tuple[float, float]:
    """An axis that holds these and their intervals, and nothing below 0 or above 100 %. It is at least twenty points
    wide, so that noise does not look like a large difference."""
    ends = [100 * end for one in estimates if one for end in (one.value, *(one.interval or ()))] or [0]
    margin = max(2.0, (20 - (max(ends) - min(ends))) / 2)
    low, high = min(ends) - margin, max(ends) + margin
    return max(0.0, low - max(0.0, high - 100)), min(100.0, high - min(0.0, low))


def _label(text: str) -> str:
    return printable(text, limit=44)


def _look(number: int, *, filled: bool = True, **more: Any) -> dict[str, Any]:
    """Of a run, by its number on the page. Not clipped: a marker at 100 % is as whole as any other."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    return {"color": colour, "marker": marker, "fillstyle": "full" if filled else "none", "clip_on": False, **more}
