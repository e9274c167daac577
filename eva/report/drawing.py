"""Numbers -> SVG for a page with a dark mode that can be printed, by matplotlib without pyplot.

Texts and axes are `currentColor`. The colours of the runs are CSS variables (`--run-1` ...) with defaults that can be
seen on white and on black. Each run has a marker of its own too, for those who do not see colours, and for print.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eva.report.grouping import Group
from eva.scoring.evidence import Estimate
from eva.text import printable

COLOURS = ("#1f77b4", "#d95f02", "#2a9d5c", "#9467bd", "#d62728", "#7f7f7f")
MARKERS = ("o", "s", "D", "^", "v", "P")
# A colour that nothing else has. In the finished SVG currentColor replaces it.
INK = "#010203"
WIDTH_IN = 7.2
LABEL_LIMIT = 48

# matplotlib's settings belong to the whole process: one chart at a time.
_LOCK = threading.Lock()
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Mark:
    """How a run looks in every chart of a page, by its number in the order of the page."""

    number: int
    name: str

    @property
    def colour(self) -> str:
        return COLOURS[self.number % len(COLOURS)]

    @property
    def marker(self) -> str:
        # After six runs a colour is used again, with another marker.
        return MARKERS[(self.number + self.number // len(COLOURS)) % len(MARKERS)]


@dataclass(frozen=True)
class Point:
    """The cost and the accuracy of a run; `published` are (mean tokens, accuracy as a fraction) of its dataset."""

    mark: Mark
    tokens: float
    accuracy: Estimate
    published: tuple[tuple[float, float], ...] = ()


def render(draw: Callable[[Axes], None], *, height_in: float, key: str, title: str) -> str:
    """An <svg> element for a page. The same numbers give the same bytes.

    `key` makes the element ids of several charts on one page differ; `title` is the accessible name.
    """
    settings = {"svg.fonttype": "none", "svg.hashsalt": key}
    with _LOCK, mpl.rc_context(), warnings.catch_warnings():
        # So a matplotlibrc of the user changes nothing.
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        # The browser has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message=r"(?s).*Glyph")
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        draw(axes)
        _ink(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=_NO_METADATA)
    return _for_a_page(text.getvalue(), key=key, title=title)


def forest_height_in(rows: Sequence[Group]) -> float:
    runs = len(rows[0].estimates)
    return 0.9 + len(rows) * max(0.3, 0.17 * runs + 0.12) + _legend_height_in(runs)


def forest(axes: Axes, rows: Sequence[Group], runs: Sequence[Mark], *, unit: str) -> None:
    """Shares with their intervals, one below the other, and the number of samples of each."""
    step = 0.8 / len(runs)
    for place, row in enumerate(rows):
        for order, (mark, one) in enumerate(zip(runs, row.estimates, strict=True)):
            if one is not None:
                _estimate(axes, one, place + (order - (len(runs) - 1) / 2) * step, mark)
    axes.set_yticks(range(len(rows)), [label(row.label) for row in rows], parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(*_limits([one for row in rows for one in row.estimates if one]))
    axes.set_xlabel(unit)
    axes.grid(axis="x", alpha=0.25, color=INK, linewidth=0.6)
    legend(axes, runs)


def _estimate(axes: Axes, one: Estimate, y: float, mark: Mark) -> None:
    if one.interval is not None:
        ends = [100 * one.interval.low, 100 * one.interval.high]
        axes.plot(ends, [y, y], color=mark.colour, linewidth=1.4)
    axes.plot([100 * one.value], [y], color=mark.colour, marker=mark.marker, markersize=5)
    axes.annotate(
        f"n = {one.count:,}",
        (1.01, y),
        xycoords=axes.get_yaxis_transform(),
        va="center",
        fontsize=7.5,
        color=INK,
    )


def _limits(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """In per cent. At least twenty points wide, so that noise does not look like a large difference."""
    ends = [one.value for one in estimates]
    ends += [end for one in estimates if one.interval for end in (one.interval.low, one.interval.high)]
    low, high = 100 * min(ends), 100 * max(ends)
    margin = max(2.0, (20 - (high - low)) / 2)
    return max(-2.0, low - margin), min(102.0, high + margin)


def scatter(axes: Axes, points: Sequence[Point]) -> None:
    """Mean tokens against accuracy. Published figures are hollow; a line leads to the run of their dataset."""
    for point in points:
        mark, share = point.mark, 100 * point.accuracy.value
        if point.accuracy.interval is not None:
            ends = [100 * point.accuracy.interval.low, 100 * point.accuracy.interval.high]
            axes.plot([point.tokens, point.tokens], ends, color=mark.colour, linewidth=1.4)
        axes.plot([point.tokens], [share], color=mark.colour, marker=mark.marker, markersize=7)
        for tokens, accuracy in point.published:
            axes.plot([point.tokens, tokens], [share, 100 * accuracy], color=mark.colour, linewidth=0.7, ls=":")
            hollow = 100 * accuracy
            axes.plot([tokens], [hollow], color=mark.colour, marker=mark.marker, markersize=8, fillstyle="none")
    axes.margins(x=0.1, y=0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel("Tokens per sample, mean (hollow: published)")
    axes.set_ylabel("Accuracy, %")
    axes.grid(alpha=0.25, color=INK, linewidth=0.6)


def densities(axes: Axes, lines: Sequence[tuple[Mark, Sequence[float], bool]]) -> None:
    """Lines over the video from its start to its end, as (run, one value per bin, whether dashed)."""
    for mark, values, dashed in lines:
        edges = [100 * k / len(values) for k in range(len(values) + 1)]
        style = "--" if dashed else "-"
        axes.stairs(list(values), edges, baseline=None, color=mark.colour, linewidth=1.5, linestyle=style)
    axes.axhline(1, color=INK, linewidth=0.6, alpha=0.5)
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Place in the video, % of its length (solid: first look, dashed: later looks)")
    axes.set_ylabel("Frames, 1 = spread evenly")


def legend(axes: Axes, runs: Sequence[Mark]) -> None:
    """Below the axes, for two runs and more. The texts are set last: matplotlib drops a label that starts with _."""
    if len(runs) < 2:
        return
    marks = [Line2D([], [], color=mark.colour, marker=mark.marker, linewidth=1.4, markersize=5) for mark in runs]
    box = axes.figure.legend(
        marks, [str(n) for n in range(len(runs))], loc="outside lower center", ncols=2, frameon=False, fontsize=8.5
    )
    for text, mark in zip(box.get_texts(), runs, strict=True):
        text.set_parse_math(False)
        text.set_text(label(mark.name))
        text.set_color(INK)


def _legend_height_in(runs: int) -> float:
    return 0.2 * ((runs + 1) // 2) if runs > 1 else 0.0


def label(text: str) -> str:
    return printable(text, limit=LABEL_LIMIT)


def _ink(axes: Axes) -> None:
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_edgecolor(INK)
    axes.tick_params(colors=INK, labelsize=8.5)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
        text.set_fontsize(9)


def _for_a_page(svg: str, *, key: str, title: str) -> str:
    """The <svg> element with the page's font and colours, with unique ids, and without style rules for the whole page.

    Only tags change. Texts have no angle brackets, and no attribute has text from a result file.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>", "", svg, count=1)
    svg = re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], key), svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1).strip()


def _tag(tag: str, key: str) -> str:
    tag = re.sub(r'\bid="', f'id="{key}-', tag)
    tag = re.sub(r'href="#', f'href="#{key}-', tag)
    tag = tag.replace("url(#", f"url(#{key}-").replace(INK, "currentColor")
    tag = re.sub(r"\bfont: ([\d.]+px) [^;\"]*", r"font-size: \1", tag)
    for number, value in enumerate(COLOURS, start=1):
        tag = tag.replace(value, f"var(--run-{number}, {value})")
    return tag
